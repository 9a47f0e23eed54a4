#include "core/target.hpp"

#include "core/target_type.hpp"

namespace udm {

Job<Result<void>> Target::load() { co_return Result<void>{}; }

Job<Result<void>> Target::preresume() { co_return Result<void>{}; }

Job<void> Target::presuspend(SuspendFlags) { co_return; }

Job<void> Target::postsuspend(SuspendFlags) { co_return; }

Job<void> Target::close() { co_return; }

Job<Result<std::string>> Target::message(const std::vector<std::string>*) {
    co_return fail(Errc::bad_argument, "Target type does not support messages");
}

TargetType* TargetTypes::find(std::string_view name) const noexcept {
    for (const auto& type : types_) {
        if (type->name() == name) return type.get();
    }
    return nullptr;
}

std::vector<Parameter> TargetTypes::parameters() const {
    std::vector<Parameter> all;
    for (const auto& type : types_) {
        for (const Parameter& one : type->parameters()) all.push_back(one);
    }
    return all;
}

}  // namespace udm
