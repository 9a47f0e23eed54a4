#include "sim/chaos.hpp"

#include <algorithm>
#include <utility>

#include "sim/trace.hpp"

namespace udm {

SimChaos::SimChaos(std::uint64_t seed, std::vector<std::string> without)
    : seed_{seed}, random_{seed ^ 0xc4a05}, without_{std::move(without)} {}

bool SimChaos::fires(const char* site) noexcept {
    if (calm_) return false;
    auto known = std::find_if(sites_.begin(), sites_.end(), [site](const Site& s) { return s.name == site; });
    if (known == sites_.end()) {
        Trace hash;
        hash.add(seed_);
        hash.add(std::string_view{site});
        sites_.push_back({site, Prng{hash.hash()}.chance(1, 4)});
        known = sites_.end() - 1;
    }
    return known->on && random_.chance(1, 4);
}

bool SimChaos::keeps(const char* care) noexcept {
    if (without_.empty() || std::find(without_.begin(), without_.end(), care) == without_.end()) return true;
    ++left_out_;
    return false;
}

}  // namespace udm
