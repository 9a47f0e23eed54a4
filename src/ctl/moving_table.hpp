// What a move has noted with its device, read and undone (moving.hpp).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "ctl/devices.hpp"

namespace udm::ctl {

// Whether the live table is the mirror that the move has loaded. The registry's mutex is held.
bool is_move_table(const Record& record, const Json& noted);
// The note goes, and what was set for the move. The registry's mutex is held.
void end_note(Record& record, const Json& noted);
// What the state is to say when that is done, and the inactive table counts: before it is done, so that a crash finds either.
State::Change change_at_end(const Devices& devices, Record& record, const Json& noted);
// Which of our devices its words mean.
std::map<std::string, std::uint32_t> minors_of(const Devices& devices, const Record& record);
std::string name_of_volume(const Devices& devices, const Record& carrier, const Json& noted);
// Of the details of a move's mirrors: whether its old place has failed, so that the new one alone has what was written since.
bool has_failed(const Json& mirrors);
// ... and whether TO has all there is: it lacks nothing, or it is what counts, since FROM failed.
bool is_all_there(const Json& mirrors);
// Of a device that is not up: whether the logs say that nobody but FROM is the source. False if one cannot be read, which `lost` names then.
bool logs_trust_from(const Json& noted, std::string& lost);
// Unless a table names it; whether it was removed.
bool remove_if_free(const Devices& devices, const std::string& path) noexcept;
void remove_logs(const Devices& devices, const Json& noted) noexcept;
// After a swap away from the mirror that was begun and cannot be: the mirror goes on, if it is there still, and the state says so; else the
// move is over.
// `operation` of the record is held.
void go_on_with_mirror(Devices& devices, const RecordPtr& record, const Json& noted) noexcept;

}  // namespace udm::ctl
