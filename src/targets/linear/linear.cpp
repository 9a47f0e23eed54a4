#include "targets/linear/linear.hpp"

#include <fmt/format.h>

#include <utility>

#include "core/target_args.hpp"

namespace udm {
namespace {

class Linear final : public Target {
  public:
    Linear(std::unique_ptr<OpenDevice> device, Sector start, const Extent& extent)
        : disk_{device->disk()}, shift_{start.v - extent.first.v}, device_{std::move(device)}, start_{start}, length_{extent.length} {}

    Mapped map(Io& io) noexcept override {
        io.extent.first.v += shift_;    // means nothing for a flush
        return Mapped::to(disk_);
    }
    TargetTraits traits() const override { return {.takes_whole = true}; }
    std::vector<TargetDevice> devices() const override { return {{device_.get(), start_, length_}}; }
    std::string table() const override { return fmt::format("{} {}", device_words(*device_), start_.v); }

  private:
    Disk& disk_;
    std::uint64_t shift_;    // from the device's sectors to the disk's, modulo 2^64
    std::unique_ptr<OpenDevice> device_;
    Sector start_;
    Sectors length_;
};

class LinearType final : public TargetType {
  public:
    std::string_view name() const override { return "linear"; }
    std::array<unsigned, 3> version() const override { return {1, 4, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        if (args.words.size() != 2) {
            return fail(Errc::bad_argument,
                        fmt::format("Invalid argument count: {}, linear takes DEVICE and OFFSET", args.words.size()));
        }
        TRY(const Sector start, parse_offset(args.words[1]));
        TRY(auto device, open_device(args, args.words[0], open_mode(args)));
        return std::make_unique<Linear>(std::move(device), start, args.extent());
    }
};

}  // namespace

std::unique_ptr<TargetType> linear_type() { return std::make_unique<LinearType>(); }

}  // namespace udm
