// Memory of coroutine frames, kept by the thread that gave it back: a commit loop makes and ends a few small jobs a
// turn, and these must not cost a malloc each. A frame may end on another thread than it began on.
#pragma once

#include <cstddef>

namespace udm {

void* take_frame(std::size_t bytes);
void give_frame(void* frame, std::size_t bytes) noexcept;

}  // namespace udm
