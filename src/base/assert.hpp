// Assertions that stay on in every build. They check our own reasoning, never input: what comes from a
// disk, a socket or a user is validated and becomes an error.
#pragma once

namespace udm {

// Prints the place and the condition, calls the hook if there is one, and aborts.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line) noexcept;

// Called before the abort, to print what replays the failure (a seed) or what happened before it.
using AssertHook = void (*)() noexcept;
void set_assert_hook(AssertHook hook) noexcept;

}  // namespace udm

#define ASSERT(condition) \
    (__builtin_expect(static_cast<bool>(condition), 1) ? static_cast<void>(0) \
                                                       : ::udm::assertion_failed(#condition, __FILE__, __LINE__))
#define UNREACHABLE() ::udm::assertion_failed("unreachable", __FILE__, __LINE__)
