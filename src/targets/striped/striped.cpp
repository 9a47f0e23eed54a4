#include "targets/striped/striped.hpp"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "base/parse.hpp"
#include "core/target_args.hpp"
#include "targets/striped/layout.hpp"

namespace udm {
namespace {

// Copies of flushes and discards are numbered with 16 bits.
constexpr std::uint32_t kStripesMax = 65535;
// Events of one stripe; its failures are counted on.
constexpr std::uint64_t kEventsMax = 15;

struct Stripe {
    std::unique_ptr<OpenDevice> device;
    Sector start;
    std::uint64_t errors = 0;
};

// A discard goes to each stripe once, whatever its length; everything else is cut at chunks.
class Striped final : public Target {
  public:
    Striped(Env& env, DeviceEvents& events, const Extent& extent, StripedLayout layout, std::vector<Stripe> stripes)
        : env_{env}, events_{events}, begin_{extent.first}, layout_{layout}, stripes_{std::move(stripes)},
          width_{extent.length.v / layout.stripes()} {
        for (std::uint32_t i = 0; i < layout_.stripes(); ++i) {
            bool known = false;
            for (std::uint32_t first : flushed_) {
                const DiskId& id = stripes_[first].device->id();
                known = known || (id.kind != DiskId::Kind::none && id == stripes_[i].device->id());
            }
            if (!known) flushed_.push_back(i);
        }
    }

    // Linux loads such a table, and every request that meets the end of a chunk fails.
    Job<Result<void>> load() override {
        for (const Stripe& stripe : stripes_) {
            const std::uint32_t block = stripe.device->disk().limits().logical_block;
            if (stripes_.size() == 1 || to_bytes(Sectors{layout_.chunk()}) % block == 0) continue;
            co_return fail(Errc::bad_argument,
                           fmt::format("Invalid chunk size: {} sectors are no multiple of the logical block of {}, {} bytes; a "
                                       "multiple of {} would do", layout_.chunk(), stripe.device->words(), block, block / kSectorSize));
        }
        co_return Result<void>{};
    }

    Sectors fits(const Io& io) noexcept override {
        if (io.op == Op::discard) return io.extent.length;
        const Sectors run = layout_.run(io.extent.first - begin_);
        return run < io.extent.length ? run : io.extent.length;
    }
    Mapped map(Io& io) noexcept override {
        if (io.op == Op::flush) return to_stripe(io, flushed_[io.copy]);
        const Sectors at = io.extent.first - begin_;
        if (io.op == Op::discard) {
            const std::uint32_t stripe = io.copy;
            const Sectors first = layout_.on(stripe, at);
            const Sectors length = layout_.on(stripe, at + io.extent.length) - first;
            if (!length) {
                env_.reactor.complete_later(io, IoStatus::ok);
                return Mapped::taken();
            }
            io.extent = {stripes_[stripe].start + first, length};
            return to_stripe(io, stripe);
        }
        const StripedLayout::Place place = layout_.place(at);
        io.extent.first = stripes_[place.stripe].start + place.offset;
        return to_stripe(io, place.stripe);
    }
    void on_complete(Io& io, Frame& frame) noexcept override {
        if (io.status != IoStatus::ok && io.status != IoStatus::unsupported && io.status != IoStatus::requeue) {
            note_error(static_cast<std::uint32_t>(frame.a), io.status);
        }
        io.complete(io.status);
    }

    TargetTraits traits() const override {
        return {.flush_copies = static_cast<unsigned>(flushed_.size()),
                .discard_copies = layout_.stripes(),
                .takes_whole = layout_.stripes() == 1};
    }
    std::vector<TargetDevice> devices() const override {
        std::vector<TargetDevice> devices;
        for (const Stripe& stripe : stripes_) devices.push_back({stripe.device.get(), stripe.start, width_});
        return devices;
    }
    void adjust_limits(Limits& limits) const override {
        const std::uint64_t row = to_bytes(Sectors{std::uint64_t{layout_.chunk()} * layout_.stripes()});
        if (row <= std::numeric_limits<std::uint32_t>::max()) limits.optimal_io = static_cast<std::uint32_t>(row);
    }
    std::string status() const override {
        std::string line = fmt::format("{}", layout_.stripes());
        std::string letters;
        for (const Stripe& stripe : stripes_) {
            line += fmt::format(" {}", device_words(*stripe.device));
            letters += stripe.errors == 0 ? 'A' : 'D';
        }
        return line + " 1 " + letters;
    }
    std::string table() const override {
        std::string line = fmt::format("{} {}", layout_.stripes(), layout_.chunk());
        for (const Stripe& stripe : stripes_) line += fmt::format(" {} {}", device_words(*stripe.device), stripe.start.v);
        return line;
    }

  private:
    Mapped to_stripe(Io& io, std::uint32_t stripe) noexcept {
        io.push(*this, stripe);
        return Mapped::to(stripes_[stripe].device->disk());
    }
    void note_error(std::uint32_t index, IoStatus status) noexcept {
        Stripe& stripe = stripes_[index];
        if (++stripe.errors > kEventsMax) return;
        events_.raise(EventKind::target, fmt::format("stripe {} ({}): {}", index, stripe.device->words(), to_string(status)));
    }

    Env& env_;
    DeviceEvents& events_;
    Sector begin_;
    StripedLayout layout_;
    std::vector<Stripe> stripes_;
    std::vector<std::uint32_t> flushed_;    // the first stripe on each device
    Sectors width_;
};

class StripedType final : public TargetType {
  public:
    std::string_view name() const override { return "striped"; }
    std::array<unsigned, 3> version() const override { return {1, 6, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        const auto words = args.words;
        if (words.size() < 2) {
            return fail(Errc::bad_argument, "Not enough arguments: striped takes STRIPES CHUNK (DEVICE OFFSET)...");
        }
        const auto stripes = parse_u32(words[0]);
        if (!stripes || *stripes == 0 || *stripes > kStripesMax) {
            return fail(Errc::bad_argument, fmt::format("Invalid stripe count: '{}' is none of 1 .. {}", words[0], kStripesMax));
        }
        const auto chunk = parse_u32(words[1]);
        if (!chunk || *chunk == 0) {
            return fail(Errc::bad_argument, fmt::format("Invalid chunk_size: '{}' is no number of sectors above 0", words[1]));
        }
        if (args.length.v % *stripes != 0) {
            return fail(Errc::bad_argument, fmt::format("Target length not divisible by number of stripes: {} sectors, {} stripes",
                                                        args.length.v, *stripes));
        }
        const Sectors width{args.length.v / *stripes};
        if (width.v % *chunk != 0) {
            return fail(Errc::bad_argument, fmt::format("Target length not divisible by chunk size: {} sectors a stripe, chunks of {}",
                                                        width.v, *chunk));
        }
        if (words.size() != 2 + 2 * std::size_t{*stripes}) {
            return fail(Errc::bad_argument, fmt::format("Not enough destinations specified: {} words for {} stripes, {} were to come",
                                                        words.size() - 2, *stripes, 2 * std::size_t{*stripes}));
        }
        std::vector<Stripe> made;
        for (std::uint32_t i = 0; i < *stripes; ++i) {
            TRY(const Sector start, parse_offset(words[3 + 2 * i], "Couldn't parse stripe destination"));
            TRY(auto device, open_device(args, words[2 + 2 * i], open_mode(args), "Couldn't parse stripe destination"));
            made.push_back({std::move(device), start});
        }
        return std::make_unique<Striped>(args.env, args.events, args.extent(), StripedLayout{*stripes, *chunk}, std::move(made));
    }
};

}  // namespace

std::unique_ptr<TargetType> striped_type() { return std::make_unique<StripedType>(); }

}  // namespace udm
