// Tables as text and as JSON, and the shape of names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/target_type.hpp"
#include "ctl/json.hpp"

namespace udm::ctl {

inline constexpr std::uint32_t kMajor = 253;  // of our mapped devices
inline constexpr std::uint32_t kMinorMax = (1u << 20) - 1;

// "0 8 zero\n8 8 linear /dev/sda 0": a line a target; empty lines and those that begin with # are left out.
// Throws Failure (bad_argument) naming the line.
std::vector<TableLine> lines_of_text(std::string_view text);
// Either such text or a list of {"start","length","type","params"}. Throws RpcError when it is neither.
std::vector<TableLine> lines_of_json(const Json& table);
Json json_of_lines(const std::vector<TableLine>& lines);
// One line a target, without a newline at the end.
std::string text_of_lines(const std::vector<TableLine>& lines);
// The words of the parameters; none when they cannot be split.
std::vector<std::string> words_of(const TableLine& line);
// Of a snapshot's or merge's status, ALLOCATED/TOTAL METADATA: it has no exceptions, as LVM tells.
bool has_metadata_only(std::string_view status);

// Throw Failure (bad_argument) with the reason: empty, too long (127 and 128 bytes), '/', control characters,
// and the names `control`, `.` and `..` (substrate.md 5.1).
void check_name(const std::string& name);
void check_uuid(const std::string& uuid);

// "253:5" as a minor number, if it is one of ours.
bool parse_devno(std::string_view words, std::uint32_t& major, std::uint32_t& minor);

}  // namespace udm::ctl
