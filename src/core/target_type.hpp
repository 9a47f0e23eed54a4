// Types of targets: a name, a version, and how a table line becomes a Target. And the list of them.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/target.hpp"
#include "port/disk.hpp"

namespace udm {

enum class TableMode : std::uint8_t { read_write, read_only };

// One parsed line, and what a constructor may use.
struct TargetArgs {
    Env& env;                             // of the home reactor; not to be used inside make()
    Sector begin;                         // within the device
    Sectors length;
    TableMode mode;
    std::span<const std::string> words;   // after the type
    DeviceOpener& opener;
    DeviceEvents& events;                 // of the device the table is for
    LostStores* lost_stores;              // null: nothing is remembered
    std::string_view device_name;         // for log lines

    Extent extent() const { return {begin, length}; }
};

// A number that holds for all targets of a type, read on every use (decision 16).
struct Parameter {
    std::string_view name;    // of all types' parameters, one
    std::uint64_t value;      // as it is now
    std::uint64_t standard;   // if nobody says anything
    std::uint64_t least, most;
    std::string_view about;   // a line
    bool shared = false;      // the daemon's: each reactor has its part of it
};

class TargetType {
  public:
    virtual ~TargetType() = default;
    virtual std::string_view name() const = 0;                     // "snapshot-origin"
    virtual std::array<unsigned, 3> version() const = 0;           // of Linux 6.1 (decision 13)
    // Checks the words, opens the devices. Control plane: may block; touches nothing that belongs to the reactor.
    // The error's message is the kernel's text for it and then ours: "Invalid argument count: linear takes DEVICE
    // and OFFSET". Core puts the type in front.
    virtual Result<std::unique_ptr<Target>> make(const TargetArgs& args) = 0;

    // Home reactor.
    virtual std::vector<Parameter> parameters() const { return {}; }
    // One of parameters(), within its bounds.
    virtual void set_parameter(std::string_view name, std::uint64_t value) noexcept {
        static_cast<void>(name);
        static_cast<void>(value);
    }
};

// The targets of one home reactor. Types that share state among targets (origin and its snapshots) keep it in the
// type object, so each reactor has a list of its own. Filled by targets/all.hpp; no registration by constructors.
class TargetTypes {
  public:
    void add(std::unique_ptr<TargetType> type) { types_.push_back(std::move(type)); }
    TargetType* find(std::string_view name) const noexcept;
    const std::vector<std::unique_ptr<TargetType>>& all() const noexcept { return types_; }
    // Home reactor.
    std::vector<Parameter> parameters() const;
    void set_parameter(std::string_view name, std::uint64_t value) const noexcept {
        for (const auto& type : types_) type->set_parameter(name, value);
    }

  private:
    std::vector<std::unique_ptr<TargetType>> types_;
};

// "0 8192 linear /dev/sda 0", as text.
struct TableLine {
    Sector begin;
    Sectors length;
    std::string type;
    std::string params;    // as given, not yet split
};

// The words of a line's type for the kernel's target name limit.
inline constexpr std::size_t kTypeNameMax = 15;

}  // namespace udm
