// Words and JSON about a store, for the commands of `udm cow`.
#pragma once

#include <string>

#include "apps/udm/context.hpp"
#include "apps/udm/cow_file.hpp"
#include "inspect/snapshot_repair.hpp"

namespace udm::app {

// The value, or a Refusal with exit code kUnreadable.
template <class T>
T looked(Result<T>&& result) {
    if (!result) throw Refusal{result.error().message, {}, kUnreadable};
    return std::move(*result);
}

// --chunk and --origin, as given; empty: not. WrongWords when they are nothing of the kind.
inspect::CheckOptions cow_options(const std::string& chunk, const std::string& origin);
// "a valid store with chunks of 4.0 KiB", "blank: no store yet", …
std::string cow_words(const inspect::Report& report);
Json cow_json(const std::string& path, const inspect::Report& report);
Json finding_json(const inspect::Finding& finding, const inspect::Report& report, const std::string& words);
// What to do about the faults, given what repair would say with the same words; ends with a newline.
std::string advice(const inspect::Report& report, const Result<inspect::RepairPlan>& plan);
// "3-5, 9, 12 and 20 more"
std::string chunk_list(const std::vector<std::uint64_t>& chunks, std::size_t most);

}  // namespace udm::app
