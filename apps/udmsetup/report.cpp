#include "apps/udmsetup/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "apps/udmsetup/selection.hpp"

namespace udm::udmsetup {
namespace {

std::string comparable(std::string_view name) {
    std::string text;
    for (char c : name) {
        if (c != '_') text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return text;
}

std::vector<std::string_view> split_at_commas(std::string_view text) {
    std::vector<std::string_view> parts;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find(',', at), text.size());
        parts.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return parts;
}

// What `help` and `?` are: not fields, a wish.
bool wants_help(std::string_view name) { return name == "help" || name == "?"; }

// Display columns of UTF-8 text.
std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string padded(std::string_view text, std::size_t width, bool right) {
    const std::size_t have = width_of(text);
    const std::string space(width > have ? width - have : 0, ' ');
    return right ? space + std::string{text} : std::string{text} + space;
}

}  // namespace

Cell Cell::of(std::vector<std::string> items) {
    Cell cell;
    cell.items = std::move(items);
    cell.text = fmt::format("{}", fmt::join(cell.items, ","));
    return cell;
}

std::optional<std::size_t> find_field(std::span<const Field> fields, std::string_view name) {
    const std::string wanted = comparable(name);
    for (std::size_t i = 0; i < fields.size(); ++i) {
        if (comparable(fields[i].id) == wanted) return i;
    }
    return std::nullopt;
}

Report::Report(std::span<const Field> fields, std::string_view columns, std::string_view default_columns,
               std::string_view sort, ReportOptions options)
    : fields_{fields}, options_{std::move(options)} {
    const auto add_columns = [&](std::string_view names) {
        for (std::string_view name : split_at_commas(names)) {
            if (wants_help(name)) throw BadReport{"", true, false, false};
            if (const auto field = find_field(fields, name)) {
                columns_.push_back(*field);
                continue;
            }
            const std::string wanted = comparable(name);
            bool known = wanted == "all";
            for (std::size_t i = 0; i < fields.size(); ++i) {
                if (fields[i].group == "special") continue;
                if (wanted != "all" && wanted != comparable(fields[i].group) + "all") continue;
                columns_.push_back(i);
                known = true;
            }
            if (!known) throw BadReport{fmt::format("Unrecognised field: {}", name), true};
        }
    };
    if (columns.starts_with('+')) {
        add_columns(default_columns);
        add_columns(columns.substr(1));
    } else {
        add_columns(columns);
    }
    shows_selected_ = std::any_of(columns_.begin(), columns_.end(),
                                  [&](std::size_t i) { return fields[i].id == "selected"; });

    if (sort.empty()) return;
    for (std::string_view name : split_at_commas(sort)) {
        if (wants_help(name)) throw BadReport{"", true, false, false};
        const bool descending = name.starts_with('-');
        if (descending || name.starts_with('+')) name.remove_prefix(1);
        const auto field = find_field(fields, name);
        if (!field) throw BadReport{fmt::format("dm_report: Unrecognised field: {}", name), true};
        sort_.push_back({*field, descending});
    }
}

void Report::add(const Row& row, const Selection* selection) {
    const bool selected = selection == nullptr || selection->matches(row);
    if (!selected && !shows_selected_) return;
    Line line;
    for (std::size_t field : columns_) {
        line.cells.push_back(fields_[field].id == "selected" ? Cell::of(std::uint64_t{selected})
                                                             : row(field));
    }
    for (const SortKey& key : sort_) {
        line.keys.push_back(fields_[key.field].id == "selected" ? Cell::of(std::uint64_t{selected})
                                                                : row(key.field));
    }
    lines_.push_back(std::move(line));
}

std::string Report::value(std::size_t column, const Cell& cell) const {
    if (!options_.prefixes) return cell.text;
    std::string id{fields_[columns_[column]].id};
    for (char& c : id) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const char* quote = options_.quotes ? "'" : "";
    return fmt::format("DM_{}={}{}{}", id, quote, cell.text, quote);
}

std::string Report::separator() const {
    if (options_.separator) return *options_.separator;
    return options_.headings ? " " : ":";
}

void Report::print(std::FILE* out) {
    std::stable_sort(lines_.begin(), lines_.end(), [&](const Line& a, const Line& b) {
        for (std::size_t i = 0; i < sort_.size(); ++i) {
            const Cell &x = a.keys[i], &y = b.keys[i];
            const bool number = fields_[sort_[i].field].type == FieldType::number;
            const int order =
                number ? (x.number < y.number ? -1 : x.number > y.number) : x.text.compare(y.text);
            if (order != 0) return sort_[i].descending ? order > 0 : order < 0;
        }
        return false;
    });
    if (!lines_.empty()) {
        if (options_.rows) {
            print_rows(out);
        } else if (options_.headings && !options_.prefixes && !options_.separator) {
            print_aligned(out);
        } else {
            print_separated(out);
        }
    }
    lines_.clear();
}

void Report::print_aligned(std::FILE* out) const {
    std::vector<std::size_t> widths;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        const Field& field = fields_[columns_[i]];
        std::size_t width = std::max(field.width, field.heading.size());
        for (const Line& line : lines_) width = std::max(width, width_of(line.cells[i].text));
        widths.push_back(width);
    }
    std::string text;
    const auto end_line = [&] {
        fmt::print(out, "{}\n", text);
        text.clear();
    };
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        if (i > 0) text += ' ';
        text += padded(fields_[columns_[i]].heading, widths[i], false);
    }
    end_line();
    for (const Line& line : lines_) {
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (i > 0) text += ' ';
            text += padded(line.cells[i].text, widths[i], fields_[columns_[i]].type == FieldType::number);
        }
        end_line();
    }
}

void Report::print_separated(std::FILE* out) const {
    const std::string between = separator();
    const auto print_line = [&](auto&& text_of) {
        std::string text;
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (i > 0) text += between;
            text += text_of(i);
        }
        fmt::print(out, "{}\n", text);
    };
    if (options_.headings) {
        print_line([&](std::size_t i) { return std::string{fields_[columns_[i]].heading}; });
    }
    for (const Line& line : lines_) {
        print_line([&](std::size_t i) { return value(i, line.cells[i]); });
    }
}

void Report::print_rows(std::FILE* out) const {
    const std::string between = separator();
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::string text;
        if (options_.headings) text += fields_[columns_[i]].heading;
        for (std::size_t n = 0; n < lines_.size(); ++n) {
            if (n > 0 || options_.headings) text += between;
            text += value(i, lines_[n].cells[i]);
        }
        fmt::print(out, "{}\n", text);
    }
}

std::string fields_help(std::span<const Field> fields, bool with_types) {
    std::string text =
        "Fields for -o, -O and -S. GROUP_all stands for the fields of a group, all for all of them.\n";
    std::string_view group;
    for (const Field& field : fields) {
        if (field.group != group) {
            group = field.group;
            text +=
                fmt::format("\n{}{}\n", group, group == "special" ? "" : " (" + std::string{group} + "_all)");
        }
        text += fmt::format("  {:<18} {}", field.id, field.help);
        if (with_types) {
            text += field.type == FieldType::number ? " [number]"
                    : field.type == FieldType::list ? " [list]"
                                                    : " [string]";
        }
        text += '\n';
    }
    return text;
}

}  // namespace udm::udmsetup
