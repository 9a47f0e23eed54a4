// Opens the devices of table lines for one table: mapped devices of ours by all their names, everything else
// through the engine; and keeps the registry's account of who uses what (decision 15).
#pragma once

#include <map>
#include <string>

#include "ctl/host.hpp"
#include "ctl/registry.hpp"

namespace udm::ctl {

class LostStoreList;

class TableOpener final : public DeviceOpener {
  public:
    // For a table of `record`, whose home is `home`. `known` says which of our devices words meant before, if
    // they did; `notify_unused` is told when a device whose removal was deferred is let go (any thread).
    // `bases`: which words of the table are bases of the snapshot family, and of what.
    struct Base {
        bool snapshot = false;  // of a snapshot
        bool origin = false;    // of what writes it: snapshot-origin, snapshot-merge
    };
    using Bases = std::map<std::string, Base, std::less<>>;
    struct Config {
        Registry& registry;
        Host& host;
        RecordPtr record;
        unsigned home;
        std::map<std::string, std::uint32_t> known;
        Bases bases;
        std::map<std::string, Sectors, std::less<>> away;  // words that need not be there, and the size wanted of them
        LostStoreList* lost_stores;  // may be null
        std::function<void(RecordPtr)> notify_unused;
        std::function<Device&(const RecordPtr&, unsigned home)> ensure_device;
    };
    explicit TableOpener(Config config) : config_{std::move(config)} {}

    Result<std::unique_ptr<OpenDevice>> open(std::string_view words, OpenMode mode) override;
    // Which of our devices the words that were opened meant.
    const std::map<std::string, std::uint32_t>& minors() const noexcept { return minors_; }

  private:
    Result<std::unique_ptr<OpenDevice>> open_any(std::string_view words, OpenMode mode);
    Result<std::unique_ptr<OpenDevice>> open_mapped(const RecordPtr& lower, std::string_view words,
                                                    OpenMode mode);
    Registry::Use use_of(std::string_view words, OpenMode mode) const;
    Result<void> check_family(std::string_view words, const DiskId& id, const Registry::Use& use) const;
    Config config_;
    std::map<std::string, std::uint32_t> minors_;
};

// The device of ours that the words stand for: udm:NAME, /dev/mapper/NAME, MAJ:MIN. Null if they mean
// something else; `required` says whether they can only mean one of ours (udm:NAME).
RecordPtr find_mapped(const Registry& registry, std::string_view words, bool* required = nullptr);

}  // namespace udm::ctl
