// Places where the simulated world may make life harder. In production nothing fires and every care is taken.
#pragma once

namespace udm {

class Chaos {
  public:
    virtual ~Chaos() = default;
    // True: take the rare branch here (wait a turn, take a small batch, split early). `site` is a literal.
    virtual bool fires(const char* site) noexcept {
        static_cast<void>(site);
        return false;
    }
    // False only in a test that shows that the world notices when this care is not taken.
    virtual bool keeps(const char* care) noexcept {
        static_cast<void>(care);
        return true;
    }
};

}  // namespace udm
