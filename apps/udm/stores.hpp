// Words about snapshots' stores and about devices that cannot be used, the same in every command.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "apps/udm/context.hpp"

namespace udm::app {

// How many percent of `total` are used, rounded down as thresholds count them: 100 is full. 0 of nothing.
std::uint64_t percent_full(std::uint64_t used, std::uint64_t total);

// Why a device that came back without its table is held, and what to do about it; from its `device.info`. Empty if it is not.
std::string held_words(const Json& info);

struct TroubledStore {
    std::string state;    // "invalid" or "overflow"
    std::string words;    // a line: what that means, why, and what to do
};
// By the name of who lives in the store: the snapshot, or the redirected volume. `params` as for snapshot.list.
std::map<std::string, TroubledStore> troubled_stores(Context& context, Json params = Json::object());

}  // namespace udm::app
