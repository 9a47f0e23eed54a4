// What may be set for NBD servers, read on every use; any thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace udm {

struct NbdSettings {
    std::atomic<std::uint32_t> timeout_s{60};           // that requests wait for a server that is away; 0: without end
    std::atomic<std::uint32_t> connections{4};          // to a server that allows several
    std::atomic<std::uint32_t> connect_timeout_s{10};   // of one attempt to connect
};

}  // namespace udm
