// Reports in columns: which fields, sorted how, selected how, printed aligned or separated. Knows nothing of
// devices.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace udm::udmsetup {

enum class FieldType : std::uint8_t { text, number, list };

struct Field {
    std::string_view id;       // "device_count"; "" ends nothing: all are named
    std::string_view heading;  // "#Devs"
    std::size_t width;         // at least so wide
    FieldType type;
    std::string_view group;  // "deps": deps_all stands for the group's fields
    std::string_view help;
};

// One value. Lists are printed joined by commas and can be selected by their items.
struct Cell {
    std::string text;
    std::uint64_t number = 0;
    std::vector<std::string> items;

    static Cell of(std::string text) { return {std::move(text), 0, {}}; }
    static Cell of(std::uint64_t number) { return {std::to_string(number), number, {}}; }
    static Cell of(std::vector<std::string> items);
};

// Something in the command line that a report cannot use: lines for standard error, and what help goes before
// them.
struct BadReport {
    std::string message;
    bool fields_help = false;
    bool selection_help = false;
    bool failed = true;  // false: help was what was asked for
};

// Field names are compared without regard to case and underscores. Throws BadReport with fields_help.
std::optional<std::size_t> find_field(std::span<const Field> fields, std::string_view name);

struct ReportOptions {
    bool headings = true;
    bool prefixes = false;  // DM_NAME='…'
    bool quotes = true;     // … without the quotes
    bool rows = false;      // a line a field
    std::optional<std::string> separator;
};

class Selection;

// Values are asked for as they are needed: a row is a function from the field's index to its value.
using Row = std::function<Cell(std::size_t field)>;

class Report {
  public:
    // `columns`: comma-separated fields; with '+' in front they are added to `default_columns`. `sort`:
    // likewise, '-' in front of a field for descending; may be empty. Throws BadReport.
    Report(std::span<const Field> fields, std::string_view columns, std::string_view default_columns,
           std::string_view sort, ReportOptions options);

    // `selection` may be null. With the field `selected` among the columns every row is printed, else only
    // those selected.
    void add(const Row& row, const Selection* selection);
    // Prints what was added, or nothing without rows, and forgets it.
    void print(std::FILE* out);

  private:
    struct Line {
        std::vector<Cell> cells;  // of columns_
        std::vector<Cell> keys;   // of sort_
    };
    struct SortKey {
        std::size_t field;
        bool descending;
    };
    std::string value(std::size_t column, const Cell& cell) const;
    void print_aligned(std::FILE* out) const;
    void print_separated(std::FILE* out) const;
    void print_rows(std::FILE* out) const;
    std::string separator() const;

    std::span<const Field> fields_;
    std::vector<std::size_t> columns_;
    std::vector<SortKey> sort_;
    ReportOptions options_;
    bool shows_selected_ = false;
    std::vector<Line> lines_;
};

// The list of fields for `help -c`, and with types for `-S help`.
std::string fields_help(std::span<const Field> fields, bool with_types);

}  // namespace udm::udmsetup
