#include "apps/udm/stores.hpp"

#include <fmt/format.h>

namespace udm::app {

std::uint64_t percent_full(std::uint64_t used, std::uint64_t total) {
    return total == 0 ? 0 : static_cast<std::uint64_t>(static_cast<unsigned __int128>(used) * 100 / total);
}

std::string held_words(const Json& info) {
    const Json why = info.value("held_because", Json{});
    if (!why.is_string()) return {};
    const std::string advice = info.value("held_advice", "");
    return why.get<std::string>() + (advice.empty() ? "" : "; " + advice);
}

namespace {

std::string words_for(const Json& one, const std::string& name) {
    const Json cow = one.value("cow", Json{});
    const bool volume = one.value("redirect", false);
    const std::string store = cow.is_string() ? cow.get<std::string>() : "on the COW device", why = one.value("trouble", "");
    if (one.value("state", "") == "overflow") {
        return fmt::format("{0} overflows: there is no room in its store {1} or below it, and writes that need more fail; nothing else is lost. "
                           "Free space, make the store larger, or `udm set {0} auto_extend=1G`", name, store);
    }
    const std::string lost = fmt::format("{} is invalid{}: ", name, why.empty() ? "" : ", " + why);
    if (!volume) return fmt::format("{0}it is lost for good and answers with errors. `udm snapshot drop {1}`, and take another", lost, name);
    return fmt::format("{0}its store {1} cannot be relied on, and it answers with errors. {2} is whole, as of {3}", lost, store, one.value("snapshot", ""),
                       one.value("taken", ""));
}

}  // namespace

std::map<std::string, TroubledStore> troubled_stores(Context& context, Json params) {
    std::map<std::string, TroubledStore> found;
    for (const Json& one : context.list("snapshot.list", "snapshot", std::move(params))) {
        const std::string state = one.value("state", "");
        if (state != "overflow" && state != "invalid") continue;
        const Json who = one.value(one.value("redirect", false) ? "origin" : "snapshot", Json{});
        if (!who.is_string()) continue;
        const std::string name = who.get<std::string>();
        found.try_emplace(name, TroubledStore{state, words_for(one, name)});
    }
    return found;
}

}  // namespace udm::app
