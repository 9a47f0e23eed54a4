#include "targets/error/error.hpp"

namespace udm {
namespace {

class ErrorTarget final : public Target {
  public:
    explicit ErrorTarget(Env& env) : env_{env} {}

    Mapped map(Io& io) noexcept override {
        env_.reactor.complete_later(io, IoStatus::io_error);
        return Mapped::taken();
    }
    TargetTraits traits() const override { return {.takes_whole = true}; }
    // Discards come here and fail as all does; that is no reason to say that the device can't.
    void adjust_limits(Limits& limits) const override { limits.discard = true; }
    std::string table() const override { return {}; }

  private:
    Env& env_;
};

class ErrorType final : public TargetType {
  public:
    std::string_view name() const override { return "error"; }
    std::array<unsigned, 3> version() const override { return {1, 5, 0}; }
    // Words after the type are ignored, as Linux does.
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override { return std::make_unique<ErrorTarget>(args.env); }
};

}  // namespace

std::unique_ptr<TargetType> error_type() { return std::make_unique<ErrorType>(); }

}  // namespace udm
