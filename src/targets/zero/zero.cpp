#include "targets/zero/zero.hpp"

#include <fmt/format.h>

namespace udm {
namespace {

class Zero final : public Target {
  public:
    explicit Zero(Env& env) : env_{env} {}

    Mapped map(Io& io) noexcept override {
        if (io.op == Op::read) {
            io.buffers.fill_zero(to_bytes(io.extent.length));
        } else if (io.op == Op::extent_status) {
            io.answer = {.length = io.extent.length, .hole = true, .zero = true};
        }
        env_.reactor.complete_later(io, IoStatus::ok);
        return Mapped::taken();
    }
    TargetTraits traits() const override { return {.flush_copies = 0, .takes_whole = true}; }
    void adjust_limits(Limits& limits) const override {
        limits.discard = true;
        limits.fast_zeroes = true;
    }
    std::string table() const override { return {}; }

  private:
    Env& env_;
};

class ZeroType final : public TargetType {
  public:
    std::string_view name() const override { return "zero"; }
    std::array<unsigned, 3> version() const override { return {1, 1, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        if (!args.words.empty()) {
            return fail(Errc::bad_argument, fmt::format("No arguments required: '{}' is one too many", args.words[0]));
        }
        return std::make_unique<Zero>(args.env);
    }
};

}  // namespace

std::unique_ptr<TargetType> zero_type() { return std::make_unique<ZeroType>(); }

}  // namespace udm
