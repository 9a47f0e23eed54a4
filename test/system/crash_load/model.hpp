// What may be read from a volume and its snapshots, given what was sent, acknowledged and flushed, over
// crashes of the server.
//
// Per sector: a floor (the newest content that cannot be lost any more) and the writes sent after it, in
// order; no two writes of one sector are ever in flight together. A read in the same life of the server sees
// the last acknowledged write. After a crash any of floor and later writes may be there; the first read that
// finds out settles it for good, since what a new server read from its disks it must read again: a killed
// process loses nothing that its disks have.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "test/system/crash_load/content.hpp"

namespace crash {

struct Violation {
    std::string what;
};

class Volume {
  public:
    Volume(std::string name, std::uint64_t sectors) : name_{std::move(name)}, floor_(sectors, 0) {}

    const std::string& name() const noexcept { return name_; }
    std::uint64_t sectors() const noexcept { return floor_.size(); }

  private:
    friend class Model;
    struct Version {
        Seq seq;
        std::uint64_t acknowledged =
            0;  // which of the volume's acknowledgements it was, from 1; 0: none a flush can cover
        std::uint32_t epoch = 0;  // the server's life in which it was acknowledged; 0: never
        std::uint32_t sent_in = 0;  // the life in which it was sent
        bool durable = false;       // acknowledged with FUA
    };
    using Versions = std::vector<Version>;

    std::string name_;
    std::vector<Seq> floor_;
    std::unordered_map<std::uint64_t, Versions> later_;
    std::uint64_t acknowledgements_ = 0;
    std::uint64_t durable_up_to_ = 0;  // acknowledgements covered by a completed flush
};

class Model {
  public:
    Volume& add_volume(const std::string& name, std::uint64_t sectors);
    Volume* find(const std::string& name);

    // A write is on its way; sectors first .. first+count-1 have none in flight.
    void sent(Volume& volume, Seq seq, std::uint64_t first, std::uint32_t count);
    void acknowledged(Volume& volume, Seq seq, std::uint64_t first, std::uint32_t count, bool fua);
    // What a flush sent now will cover, and that it has completed.
    std::uint64_t flush_mark(const Volume& volume) const noexcept { return volume.acknowledgements_; }
    void flushed(Volume& volume, std::uint64_t mark) noexcept;
    // The server is gone, and with it the knowledge which of the writes since the last flush are there.
    void lost();

    // A snapshot's instant lies between take_begins and take_ends; there may be crashes in between.
    void take_begins(const std::string& snapshot, Volume& origin);
    Volume& take_ends(const std::string& snapshot);
    void take_failed(const std::string& snapshot);
    // A volume goes back to what a snapshot of it shows, at an instant between revert_begins and revert_ends; there may be
    // crashes in between. The snapshot has no clients from revert_begins on, and is gone after revert_ends. At
    // both ends nothing of the snapshot, and at revert_ends nothing of the volume, is in flight.
    void revert_begins(const std::string& snapshot, Volume& volume);
    void revert_ends(const std::string& snapshot);
    void revert_failed(const std::string& snapshot);
    void drop(const std::string& name);

    // Compares what was read; throws Violation. No write to these sectors may be in flight. True where it was
    // the answer to an open question, for the journal: then `settled` is called with sector and write.
    template <class Settled>
    void check(Volume& volume, std::uint64_t first, std::span<const unsigned char> data, Settled&& settled);
    void settle(Volume& volume, std::uint64_t sector, Seq seq);  // as the journal says

    const std::map<std::string, std::unique_ptr<Volume>>& volumes() const noexcept { return volumes_; }

  private:
    struct Take {
        Volume* origin;
        std::unique_ptr<Volume> volume;
    };
    // What is written meanwhile may be there afterwards, or be gone with all that was there before.
    struct Revert {
        Volume* volume;
        const Volume* shown;  // the snapshot's
        std::unordered_map<std::uint64_t, std::vector<Seq>> meanwhile;
    };
    enum class Found { expected, settled };
    Found check_sector(Volume& volume, std::uint64_t sector, const unsigned char* data, Seq& found);
    void prune(Volume& volume, std::uint64_t sector);
    Revert* reverting(const Volume& volume);
    std::vector<Seq> seen_after(const Revert& revert, std::uint64_t sector) const;
    // The versions any of which may be there now, the floor aside; `with_floor`: the floor may be, too.
    std::span<const Volume::Version> open_versions(const Volume::Versions& versions, bool& with_floor) const;

    std::map<std::string, std::unique_ptr<Volume>> volumes_;
    std::map<std::string, Take> takes_;
    std::map<std::string, Revert> reverts_;  // by the snapshot's name
    std::uint32_t epoch_ = 1;
};

template <class Settled>
void Model::check(Volume& volume, std::uint64_t first, std::span<const unsigned char> data,
                  Settled&& settled) {
    for (std::size_t i = 0; i * kSectorSize < data.size(); ++i) {
        Seq found = 0;
        if (check_sector(volume, first + i, &data[i * kSectorSize], found) == Found::settled)
            settled(first + i, found);
    }
}

}  // namespace crash
