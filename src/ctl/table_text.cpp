#include "ctl/table_text.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/failure.hpp"
#include "ctl/rpc.hpp"

namespace udm::ctl {
namespace {

constexpr std::string_view kBlank = " \t\r\n\v\f";

// Takes the next word off `text`.
std::string_view next_word(std::string_view& text) {
    const std::size_t from = text.find_first_not_of(kBlank);
    if (from == std::string_view::npos) {
        text = {};
        return {};
    }
    const std::size_t to = std::min(text.find_first_of(kBlank, from), text.size());
    const std::string_view word = text.substr(from, to - from);
    text.remove_prefix(to);
    return word;
}

TableLine line_of_text(std::string_view text, std::size_t number) {
    const auto complain = [&](std::string_view why) -> Failure {
        return {Errc::bad_argument, fmt::format("Invalid format on line {} of table: {}", number, why)};
    };
    const auto begin = parse_u64(next_word(text));
    if (!begin) throw complain("it begins with the start sector, a number");
    const auto length = parse_u64(next_word(text));
    if (!length) throw complain("the second word is the length in sectors, a number");
    const std::string_view type = next_word(text);
    if (type.empty()) throw complain("the third word is the target's type");
    const std::size_t from = std::min(text.find_first_not_of(kBlank), text.size());
    const std::size_t to = text.find_last_not_of(kBlank);
    text = from == text.size() ? std::string_view{} : text.substr(from, to - from + 1);
    return {Sector{*begin}, Sectors{*length}, std::string{type}, std::string{text}};
}

}  // namespace

std::vector<TableLine> lines_of_text(std::string_view text) {
    std::vector<TableLine> lines;
    std::size_t number = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        ++number;
        const std::size_t first = line.find_first_not_of(kBlank);
        if (first == std::string_view::npos || line[first] == '#') continue;
        lines.push_back(line_of_text(line, number));
    }
    return lines;
}

std::vector<TableLine> lines_of_json(const Json& table) {
    if (table.is_string()) return lines_of_text(table.get_ref<const std::string&>());
    const RpcError wrong{
        rpc_code::kBadParams,
        "table is text, or a list of {\"start\":sectors,\"length\":sectors,\"type\":word,\"params\":text}"};
    if (!table.is_array()) throw wrong;
    std::vector<TableLine> lines;
    for (const Json& line : table) {
        if (!line.is_object()) throw wrong;
        const auto start = line.find("start"), length = line.find("length"), type = line.find("type"),
                   params = line.find("params");
        if (start == line.end() || !start->is_number_unsigned() || length == line.end() ||
            !length->is_number_unsigned() || type == line.end() || !type->is_string() ||
            (params != line.end() && !params->is_string())) {
            throw wrong;
        }
        lines.push_back({Sector{start->get<std::uint64_t>()}, Sectors{length->get<std::uint64_t>()},
                         type->get<std::string>(),
                         params == line.end() ? std::string{} : params->get<std::string>()});
    }
    return lines;
}

Json json_of_lines(const std::vector<TableLine>& lines) {
    Json table = Json::array();
    for (const TableLine& line : lines) {
        table.push_back({{"start", line.begin.v},
                         {"length", line.length.v},
                         {"type", line.type},
                         {"params", line.params}});
    }
    return table;
}

std::string text_of_lines(const std::vector<TableLine>& lines) {
    std::string text;
    for (const TableLine& line : lines) {
        text += fmt::format("{}{} {} {} {}", text.empty() ? "" : "\n", line.begin.v, line.length.v, line.type,
                            line.params);
    }
    return text;
}

std::vector<std::string> words_of(const TableLine& line) {
    auto words = split_words(line.params);
    return words ? std::move(*words) : std::vector<std::string>{};
}

bool has_metadata_only(std::string_view status) {
    const std::size_t slash = status.find('/'), space = status.find(' ');
    return slash != std::string_view::npos && space != std::string_view::npos && status.substr(0, slash) == status.substr(space + 1);
}

namespace {
void check_text(const std::string& what, const std::string& text, std::size_t bytes_max) {
    if (text.size() > bytes_max) {
        throw Failure{Errc::bad_argument, fmt::format("the {} has {} bytes; at most {} are allowed", what,
                                                      text.size(), bytes_max)};
    }
    for (const char c : text) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
            throw Failure{Errc::bad_argument, fmt::format("the {} has a control character in it", what)};
        }
    }
}
}  // namespace

void check_name(const std::string& name) {
    if (name.empty()) throw Failure{Errc::bad_argument, "the name is empty"};
    check_text("name", name, 127);
    if (name.find('/') != std::string::npos)
        throw Failure{Errc::bad_argument, fmt::format("Name \"{}\" invalid. It contains \"/\".", name)};
    if (name == "control" || name == "." || name == "..") {
        throw Failure{Errc::bad_argument,
                      fmt::format("Name \"{}\" invalid: it is taken by the system", name)};
    }
}

void check_uuid(const std::string& uuid) { check_text("uuid", uuid, 128); }

bool parse_devno(std::string_view words, std::uint32_t& major, std::uint32_t& minor) {
    const std::size_t colon = words.find(':');
    if (colon == std::string_view::npos) return false;
    const auto first = parse_u32(words.substr(0, colon));
    const auto second = parse_u32(words.substr(colon + 1));
    if (!first || !second) return false;
    major = *first;
    minor = *second;
    return true;
}

}  // namespace udm::ctl
