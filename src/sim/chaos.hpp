// Chaos that comes from a seed. Of all sites a quarter is switched on in a run, and one that is on fires at every
// fourth visit: so runs differ in kind and not only in timing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.hpp"
#include "port/chaos.hpp"

namespace udm {

class SimChaos final : public Chaos {
  public:
    // `without`: cares that are not taken.
    SimChaos(std::uint64_t seed, std::vector<std::string> without);

    bool fires(const char* site) noexcept override;
    bool keeps(const char* care) noexcept override;

    // Off: no site fires any more.
    void calm() noexcept { calm_ = true; }
    // How often it was asked to leave out a care that is in `without`.
    std::uint64_t left_out() const noexcept { return left_out_; }

  private:
    struct Site {
        const char* name;    // the literal, as an address to find it again; its text decides
        bool on;
    };
    std::uint64_t seed_;
    Prng random_;
    std::vector<Site> sites_;
    std::vector<std::string> without_;
    std::uint64_t left_out_ = 0;
    bool calm_ = false;
};

}  // namespace udm
