// What a target is to the core: how it maps requests, and its life. One target object stands for one line of one
// table. Parsing a line and making the object is in core/target_type.hpp.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/region_map.hpp"
#include "port/disk.hpp"
#include "port/job.hpp"
#include "port/reactor.hpp"

namespace udm {

// What map() says: "to this disk" (core submits the request there, remapped as map() left it) or "taken" (the
// target owns it now and ends it once with complete(), later, never inside map()).
class [[nodiscard]] Mapped {
  public:
    static Mapped to(Disk& disk) noexcept { return Mapped{&disk}; }
    static Mapped taken() noexcept { return Mapped{nullptr}; }
    Disk* disk() const noexcept { return disk_; }

  private:
    explicit Mapped(Disk* disk) noexcept : disk_{disk} {}
    Disk* disk_;
};

// What core must know of a target to route requests to it. Data, computed once after load().
struct TargetTraits {
    unsigned flush_copies = 1;      // an empty flush is sent so many times, numbered in Io::copy; 0: not at all
    unsigned discard_copies = 1;    // 0: discards are refused with `unsupported`
    bool zeroes_natively = true;    // false: core turns write_zeroes into writes of zeroes
    bool takes_whole = false;       // true: fits() always answers the whole request, so core doesn't ask
};

struct SuspendFlags {
    bool noflush = false;    // requests that end with `requeue` go back onto the deferred list; nothing is flushed
};

// One device a target uses, for deps and stacking.
struct TargetDevice {
    OpenDevice* device;
    Sector start;
    Sectors length;    // the part used; checked against the device's size and logical block at load
};

// Something a target says of itself beyond Linux's words (decision 13), for `udm show` and JSON. The name says the unit:
// "merge_left_bytes", "merge_bytes_per_second"; without one it is a number or a yes (1).
struct TargetDetail {
    std::string_view name;
    std::uint64_t value;
};

// All members run on the home reactor unless it says otherwise.
class Target : public Layer {
  public:
    virtual ~Target() = default;

    // --- data plane: never blocks, never allocates --------------------------------------------------------------
    // How many sectors of io.extent, from its first on, the target takes as one request (at least 1, at most all):
    // for stripes, and where one part of a request goes elsewhere than the next. Core cuts the request there. The
    // extent lies within the target, in the device's sectors. Not asked for flushes.
    virtual Sectors fits(const Io& io) noexcept { return io.extent.length; }
    // Remaps the request or takes it. Extents are in the device's sectors; subtract begin where the target counts
    // from its own start (decision 14). May push one frame, to see the completion.
    virtual Mapped map(Io& io) noexcept = 0;
    void on_complete(Io& io, Frame&) noexcept override { io.complete(io.status); }
    // As Disk::expect(); the sector lies in the target, in the device's sectors.
    virtual void expect(Sector at) const noexcept { static_cast<void>(at); }

    // --- life, in this order ------------------------------------------------------------------------------------
    // Reads metadata: the part of dm's constructor that does I/O. Its error's text is the constructor's.
    virtual Job<Result<void>> load();
    // Right before the table goes live; the old one is quiet. An error leaves the device suspended (with the new
    // table live and the old one gone, as dm does).
    virtual Job<Result<void>> preresume();
    virtual void resume() noexcept {}
    // Before requests are held back, with requests under way.
    virtual Job<void> presuspend(SuspendFlags flags);
    // Nothing is under way any more: commit what must be.
    virtual Job<void> postsuspend(SuspendFlags flags);

    // The last call, with nothing under way from the device: lets go what others share (a store's device), and waits for
    // what was started here for them (copies for an origin's writes). When it completes, what the target used is free.
    virtual Job<void> close();

    // --- questions ----------------------------------------------------------------------------------------------
    virtual TargetTraits traits() const { return {}; }
    virtual std::vector<TargetDevice> devices() const { return {}; }
    // What the stacked limits of devices() do not say by themselves.
    virtual void adjust_limits(Limits& limits) const { static_cast<void>(limits); }
    virtual std::string status() const { return {}; }    // dmsetup's INFO, after "start length type "
    virtual std::string table() const = 0;               // the arguments, as dmsetup prints them
    virtual std::vector<TargetDetail> details() const { return {}; }
    // Of a target with regions, as a picture of so many cells (at least 1; fewer where there are fewer regions). After load().
    virtual std::optional<RegionMap> region_map(std::size_t cells) const {
        static_cast<void>(cells);
        return std::nullopt;
    }
    // Why it no longer does what it is there for, for people: "the COW device is full". Empty: it does.
    virtual std::string trouble() const { return {}; }
    // Keys of "set KEY VALUE" that it takes; "check KEY VALUE" then says whether that would be refused, and changes nothing.
    virtual std::vector<std::string_view> settings() const { return {}; }
    // Asked now and then: has somebody cut off what is below, behind our back? What is found is raised as an event.
    virtual void look_at_devices() noexcept {}
    // Answers with text (possibly none), or fails. Also before the table goes live: settings come so (decision 23). Words are as split from the line; at least one.
    virtual Job<Result<std::string>> message(const std::vector<std::string>* words);
};

// Things that happen to a device, for the event number, `wait`, and notifications.
enum class EventKind : std::uint8_t {
    table,
    target,
    progress,    // of a target, and all is well: told to subscribers as `target`, logged as no warning
};
class DeviceEvents {
  public:
    // Adds one to the device's event number and tells whoever waits. `what` is a word or two for people and
    // scripts: "snapshot invalid: COW is full". Home reactor.
    virtual void raise(EventKind kind, std::string_view what) noexcept = 0;

  protected:
    ~DeviceEvents() = default;
};

}  // namespace udm
