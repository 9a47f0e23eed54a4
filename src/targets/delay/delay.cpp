#include "targets/delay/delay.hpp"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>

#include "base/parse.hpp"
#include "core/target_args.hpp"

namespace udm {
namespace {

// One kind of requests: where they go, and how late. Those that wait carry a frame: `a` is their time, `b` the disk.
struct Path {
    OpenDevice* device = nullptr;
    Sector start{};
    std::uint32_t delay_ms = 0;
    std::uint64_t shift = 0;    // from the device's sectors to the disk's, modulo 2^64
    List<Io> waiting{};         // by time, since all of them wait equally long
    std::uint64_t waiting_count = 0;
};

struct PathWords {
    std::unique_ptr<OpenDevice> device;
    Sector start;
    std::uint32_t delay_ms;
};

class Delay final : public Target, private Timer {
  public:
    Delay(Env& env, const Extent& extent, std::vector<PathWords> given) : env_{env}, extent_{extent}, given_{std::move(given)} {
        // Where fewer are given, writes go as reads, and flushes as writes.
        for (std::size_t i = 0; i < paths_.size(); ++i) {
            const PathWords& from = given_[i < given_.size() ? i : given_.size() - 1];
            paths_[i].device = from.device.get();
            paths_[i].start = from.start;
            paths_[i].delay_ms = from.delay_ms;
            paths_[i].shift = from.start.v - extent.first.v;
        }
        // A flush is of no use where no write goes: with a device of its own it goes to the writes' as well.
        flushes_twice_ = path(kFlush).device != path(kWrite).device && path(kFlush).device->id() != path(kWrite).device->id();
    }
    ~Delay() override { env_.reactor.cancel(*this); }

    Mapped map(Io& io) noexcept override {
        Path& taken = path(kind_of(io));
        io.extent.first.v += taken.shift;    // means nothing for a flush
        Disk& disk = (io.copy == 0 ? taken : path(kWrite)).device->disk();
        if (taken.delay_ms == 0 || !delays_ || io.op == Op::extent_status) return Mapped::to(disk);
        const Nanoseconds due = env_.reactor.now() + taken.delay_ms * kMillisecond;
        io.push(*this, due, reinterpret_cast<std::uintptr_t>(&disk));
        taken.waiting.push_back(io);
        ++taken.waiting_count;
        if (!armed() || due < armed_for_) arm(due);
        return Mapped::taken();
    }

    // Nobody waits for a suspend longer than need be.
    Job<void> presuspend(SuspendFlags) override {
        delays_ = false;
        env_.reactor.cancel(*this);
        for (Path& each : paths_) send_until(each, ~Nanoseconds{0});
        co_return;
    }
    void resume() noexcept override { delays_ = true; }

    TargetTraits traits() const override { return {.flush_copies = flushes_twice_ ? 2U : 1U, .takes_whole = true}; }
    std::vector<TargetDevice> devices() const override {
        std::vector<TargetDevice> devices;
        for (const PathWords& each : given_) devices.push_back({each.device.get(), each.start, extent_.length});
        return devices;
    }
    std::string status() const override {
        return fmt::format("{} {} {}", paths_[kRead].waiting_count, paths_[kWrite].waiting_count, paths_[kFlush].waiting_count);
    }
    std::string table() const override {
        std::string line;
        for (const PathWords& each : given_) {
            line += fmt::format("{}{} {} {}", line.empty() ? "" : " ", device_words(*each.device), each.start.v, each.delay_ms);
        }
        return line;
    }

  private:
    enum Kind : std::size_t { kRead, kWrite, kFlush };
    static Kind kind_of(const Io& io) noexcept {
        if (io.op == Op::flush) return kFlush;
        return io.is_write() ? kWrite : kRead;
    }
    Path& path(Kind kind) noexcept { return paths_[kind]; }
    const Path& path(Kind kind) const noexcept { return paths_[kind]; }

    void arm(Nanoseconds due) noexcept {
        armed_for_ = due;
        env_.reactor.arm(*this, due);
    }
    void expired() noexcept override {
        const Nanoseconds now = env_.reactor.now();
        std::optional<Nanoseconds> next;
        for (Path& each : paths_) {
            send_until(each, now);
            if (each.waiting.empty()) continue;
            const Nanoseconds due = each.waiting.front().top().a;
            if (!next || due < *next) next = due;
        }
        if (next) arm(*next);
    }
    static void send_until(Path& from, Nanoseconds now) noexcept {
        while (!from.waiting.empty() && from.waiting.front().top().a <= now) {
            Io& io = from.waiting.pop_front();
            --from.waiting_count;
            reinterpret_cast<Disk*>(io.top().b)->submit(io);
        }
    }

    Env& env_;
    Extent extent_;
    std::vector<PathWords> given_;
    std::array<Path, 3> paths_{};
    bool flushes_twice_ = false;
    bool delays_ = true;
    Nanoseconds armed_for_ = 0;
};

class DelayType final : public TargetType {
  public:
    std::string_view name() const override { return "delay"; }
    std::array<unsigned, 3> version() const override { return {1, 3, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        const auto words = args.words;
        if (words.size() != 3 && words.size() != 6 && words.size() != 9) {
            return fail(Errc::bad_argument,
                        fmt::format("Requires exactly 3, 6 or 9 arguments: DEVICE OFFSET MS for all, reads and writes, or "
                                    "reads, writes and flushes; these are {}",
                                    words.size()));
        }
        std::vector<PathWords> given;
        for (std::size_t i = 0; i < words.size(); i += 3) {
            TRY(const Sector start, parse_offset(words[i + 1]));
            const auto delay_ms = parse_u32(words[i + 2]);
            if (!delay_ms) {
                return fail(Errc::bad_argument, fmt::format("Invalid delay: '{}' is no number of milliseconds", words[i + 2]));
            }
            TRY(auto device, open_device(args, words[i], i == 0 && words.size() > 3 ? OpenMode::read : open_mode(args)));
            given.push_back({std::move(device), start, *delay_ms});
        }
        return std::make_unique<Delay>(args.env, args.extent(), std::move(given));
    }
};

}  // namespace

std::unique_ptr<TargetType> delay_type() { return std::make_unique<DelayType>(); }

}  // namespace udm
