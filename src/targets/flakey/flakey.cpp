#include "targets/flakey/flakey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/pool.hpp"
#include "core/target_args.hpp"
#include "targets/flakey/settings.hpp"

namespace udm {
namespace {

// The bits of a request's flags that both Linux and we have, with Linux's values.
constexpr std::uint32_t kFlagWrite = 1;
constexpr std::uint32_t kFlagFua = std::uint32_t{1} << 17;
// A write that is to be corrupted is copied first: the memory is its owner's. In copies of at most:
constexpr Sectors kCopied{2048};

//   while down    read                                  write, write_zeroes, discard, flush
//   no feature    EIO                                   EIO
//   drop_writes   goes on                               ends well, goes nowhere
//   error_writes  goes on                               EIO
//   corrupt r     goes on, a byte replaced in the end   goes on
//   corrupt w     goes on                               goes on, a byte of writes replaced in a copy
class Flakey final : public Target {
  public:
    Flakey(Env& env, const Extent& extent, std::unique_ptr<OpenDevice> device, Sector start, const FlakeySettings& settings)
        : env_{env}, disk_{device->disk()}, shift_{start.v - extent.first.v}, device_{std::move(device)}, start_{start},
          length_{extent.length}, settings_{settings} {}

    Sectors fits(const Io& io) noexcept override {
        if (!corrupts_writes() || io.op != Op::write) return io.extent.length;
        return std::min(io.extent.length, kCopied);
    }
    Mapped map(Io& io) noexcept override {
        io.extent.first.v += shift_;    // means nothing for a flush
        // What lies there is not what is read: no place, then.
        if (io.answer.place && settings_.corrupt && !settings_.corrupt->writes) return ended(io, IoStatus::ok);
        if (!is_down() || io.op == Op::extent_status) return Mapped::to(disk_);
        if (!settings_.has_features()) return ended(io, IoStatus::io_error);
        if (io.is_write() || io.op == Op::flush) {
            if (settings_.drop_writes) return ended(io, IoStatus::ok);
            if (settings_.error_writes) return ended(io, IoStatus::io_error);
            if (io.op == Op::write && corrupts_writes() && is_chosen(io)) corrupt_write(io);
        } else if (settings_.corrupt && !settings_.corrupt->writes && is_chosen(io)) {
            io.push(*this);
        }
        return Mapped::to(disk_);
    }
    void on_complete(Io& io, Frame& frame) noexcept override {
        if (io.op == Op::write) {
            auto& copy = *reinterpret_cast<Copy*>(frame.a);
            io.buffers = copy.original;
            env_.reactor.buffers().give(static_cast<std::byte*>(copy.segment.iov_base), copy.segment.iov_len);
            copies_.give(copy);
        } else if (io.status == IoStatus::ok) {
            *io.buffers.advanced(settings_.corrupt->nth - 1).data() = std::byte{settings_.corrupt->value};
        }
        io.complete(io.status);
    }

    Job<Result<void>> load() override {
        since_ = env_.reactor.now();
        co_return Result<void>{};
    }
    TargetTraits traits() const override { return {.takes_whole = !corrupts_writes()}; }
    std::vector<TargetDevice> devices() const override { return {{device_.get(), start_, length_}}; }
    std::string table() const override {
        return fmt::format("{} {} {}", device_words(*device_), start_.v, settings_.words());
    }

  private:
    struct Copy {
        Buffers original;
        iovec segment;
    };
    bool corrupts_writes() const noexcept { return settings_.corrupt && settings_.corrupt->writes; }
    bool is_down() const noexcept {
        const std::uint64_t elapsed_s = (env_.reactor.now() - since_) / kSecond;
        return elapsed_s % settings_.period_s() >= settings_.up_s;
    }
    bool is_chosen(const Io& io) const noexcept {
        const std::uint32_t flags = (io.is_write() ? kFlagWrite : 0) | (io.flags.fua ? kFlagFua : 0);
        return settings_.corrupt->nth <= to_bytes(io.extent.length) && (flags & settings_.corrupt->flags) == settings_.corrupt->flags;
    }
    Mapped ended(Io& io, IoStatus status) noexcept {
        env_.reactor.complete_later(io, status);
        return Mapped::taken();
    }
    void corrupt_write(Io& io) noexcept {
        const auto bytes = static_cast<std::size_t>(to_bytes(io.extent.length));
        std::byte* memory = env_.reactor.buffers().take(bytes);
        io.buffers.copy_to(memory, bytes);
        memory[settings_.corrupt->nth - 1] = std::byte{settings_.corrupt->value};
        Copy& copy = copies_.take(Copy{io.buffers, {memory, bytes}});
        io.push(*this, reinterpret_cast<std::uintptr_t>(&copy));
        io.buffers = Buffers{&copy.segment, 1};
    }

    Env& env_;
    Disk& disk_;
    std::uint64_t shift_;    // from the device's sectors to the disk's, modulo 2^64
    std::unique_ptr<OpenDevice> device_;
    Sector start_;
    Sectors length_;
    FlakeySettings settings_;
    Nanoseconds since_ = 0;
    Pool<Copy> copies_{8};
};

class FlakeyType final : public TargetType {
  public:
    std::string_view name() const override { return "flakey"; }
    std::array<unsigned, 3> version() const override { return {1, 5, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        if (args.words.size() < 4) {
            return fail(Errc::bad_argument,
                        fmt::format("Invalid argument count: {}, flakey takes DEVICE OFFSET UP DOWN [COUNT FEATURE...]",
                                    args.words.size()));
        }
        TRY(const Sector start, parse_offset(args.words[1]));
        TRY(const FlakeySettings settings, FlakeySettings::parse(args.words.subspan(2)));
        TRY(auto device, open_device(args, args.words[0], open_mode(args)));
        return std::make_unique<Flakey>(args.env, args.extent(), std::move(device), start, settings);
    }
};

}  // namespace

std::unique_ptr<TargetType> flakey_type() { return std::make_unique<FlakeyType>(); }

}  // namespace udm
