#include "base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace udm {
namespace {
thread_local AssertHook hook_of_thread = nullptr;
}

void set_assert_hook(AssertHook hook) noexcept { hook_of_thread = hook; }

void assertion_failed(const char* condition, const char* file, int line) noexcept {
    std::fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
    if (AssertHook hook = hook_of_thread) {
        hook_of_thread = nullptr;
        hook();
    }
    std::abort();
}

}  // namespace udm
