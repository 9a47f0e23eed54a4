#include "services/dirty_log/dirty_log.hpp"

namespace udm::dirty_log {

Job<Result<bool>> DirtyLog::ask_in_sync(Region region) { co_return in_sync(region) == Answer::yes; }

Job<Result<bool>> DirtyLog::ask_is_remote_recovering(Region region) { co_return is_remote_recovering(region) == Answer::yes; }

Job<Result<void>> DirtyLog::doubt(const LegRecord*) { co_return Result<void>{}; }

std::optional<Region> DirtyLog::next_dirty_in_sync(Region from) const noexcept {
    std::optional<Region> dirty = next_dirty(from);
    while (dirty && in_sync(*dirty) != Answer::yes) dirty = next_dirty(*dirty + Regions{1});
    return dirty;
}

}  // namespace udm::dirty_log
