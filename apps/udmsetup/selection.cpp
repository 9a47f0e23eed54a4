#include "apps/udmsetup/selection.hpp"

#include <fmt/format.h>
#include <regex.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <vector>

#include "apps/udmsetup/names.hpp"
#include "base/parse.hpp"

namespace udm::udmsetup {
namespace {

enum class Operator { equal, unequal, like, unlike, at_least, above, at_most, below };

struct Regex {
    explicit Regex(const std::string& text) {
        error = ::regcomp(&compiled, text.c_str(), REG_EXTENDED | REG_NOSUB);
    }
    ~Regex() {
        if (error == 0) ::regfree(&compiled);
    }
    Regex(const Regex&) = delete;
    Regex& operator=(const Regex&) = delete;
    bool found_in(const std::string& text) const {
        return ::regexec(&compiled, text.c_str(), 0, nullptr, 0) == 0;
    }
    regex_t compiled{};
    int error = 0;
};

struct ItemList {
    std::vector<std::string> items;
    bool whole = false;  // [ ]: nothing else may be there
    bool any = false;    // one of them is enough
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool list_equal(const ItemList& wanted, const std::vector<std::string>& have) {
    const auto has = [&](const std::string& item) {
        return std::find(have.begin(), have.end(), item) != have.end();
    };
    if (wanted.any) return std::any_of(wanted.items.begin(), wanted.items.end(), has);
    if (!std::all_of(wanted.items.begin(), wanted.items.end(), has)) return false;
    return !wanted.whole || std::all_of(have.begin(), have.end(), [&](const std::string& item) {
        return std::find(wanted.items.begin(), wanted.items.end(), item) != wanted.items.end();
    });
}

}  // namespace

struct Selection::Node {
    enum class Kind { compare, negate, both, either } kind;
    std::unique_ptr<Node> left, right;

    std::size_t field = 0;
    FieldType type = FieldType::text;
    Operator op = Operator::equal;
    std::string text;
    std::uint64_t number = 0;
    std::optional<ItemList> list;
    std::unique_ptr<Regex> regex;
    bool is_selected = false;  // the field `selected`: true of every row

    bool matches(const Row& row) const {
        switch (kind) {
            case Kind::negate:
                return !left->matches(row);
            case Kind::both:
                return left->matches(row) && right->matches(row);
            case Kind::either:
                return left->matches(row) || right->matches(row);
            case Kind::compare:
                break;
        }
        const Cell cell = is_selected ? Cell::of(std::uint64_t{1}) : row(field);
        switch (op) {
            case Operator::equal:
                return equals(cell);
            case Operator::unequal:
                return !equals(cell);
            case Operator::like:
                return like(cell);
            case Operator::unlike:
                return !like(cell);
            case Operator::at_least:
                return cell.number >= number;
            case Operator::above:
                return cell.number > number;
            case Operator::at_most:
                return cell.number <= number;
            case Operator::below:
                return cell.number < number;
        }
        return false;
    }

  private:
    bool equals(const Cell& cell) const {
        if (type == FieldType::number) return cell.number == number;
        return list ? list_equal(*list, cell.items) : cell.text == text;
    }
    bool like(const Cell& cell) const {
        if (type != FieldType::list || cell.items.empty()) return regex->found_in(cell.text);
        return std::any_of(cell.items.begin(), cell.items.end(),
                           [&](const std::string& item) { return regex->found_in(item); });
    }
};

namespace {

using Node = Selection::Node;

class SelectionParser {
  public:
    SelectionParser(std::span<const Field> fields, std::string_view text) : fields_{fields}, text_{text} {}

    std::unique_ptr<Node> parse() {
        std::unique_ptr<Node> root = either();
        skip_space();
        if (at_ < text_.size()) syntax_error("Expecting logical operator", at_);
        return root;
    }

  private:
    std::unique_ptr<Node> either() {
        std::unique_ptr<Node> left = both();
        while (take_word("||") || take_word("#")) left = join(Node::Kind::either, std::move(left), both());
        return left;
    }
    std::unique_ptr<Node> both() {
        std::unique_ptr<Node> left = one();
        while (take_word("&&") || take_word(",")) left = join(Node::Kind::both, std::move(left), one());
        return left;
    }
    std::unique_ptr<Node> one() {
        skip_space();
        if (take("!")) {
            const std::size_t here = at_;
            if (!take_word("(")) throw_plain("Syntax error: left parenthesis expected at '{}'", here);
            std::unique_ptr<Node> node = node_of(Node::Kind::negate);
            node->left = rest_of_parenthesis();
            return node;
        }
        if (take("(")) return rest_of_parenthesis();
        return comparison();
    }
    std::unique_ptr<Node> rest_of_parenthesis() {
        std::unique_ptr<Node> inner = either();
        skip_space();
        if (!take(")")) {
            if (at_ < text_.size()) syntax_error("Expecting logical operator", at_);
            throw_plain("Syntax error: right parenthesis expected at '{}'", at_);
        }
        return inner;
    }

    std::unique_ptr<Node> comparison() {
        const std::size_t start = at_;
        while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                      text_[at_] == '_' || text_[at_] == '-' || text_[at_] == '?')) {
            ++at_;
        }
        const std::string name{text_.substr(start, at_ - start)};
        if (name.empty()) syntax_error("Expecting field name", start);
        const auto field = find_field(fields_, name);
        if (!field) syntax_error(fmt::format("Unrecognised selection field: {}", name), start, true);
        if (fields_[*field].group == "special" && fields_[*field].id != "selected") {
            syntax_error(fmt::format("Selection field is uncomparable: {}.", name), start, true);
        }
        std::unique_ptr<Node> node = node_of(Node::Kind::compare);
        node->field = *field;
        node->type = fields_[*field].type;
        node->is_selected = fields_[*field].id == "selected";
        const std::size_t before_operator = at_;
        skip_space();
        node->op = comparison_operator(before_operator, start, node->type);
        skip_space();
        name_ = name;
        start_ = start;
        if (node->op == Operator::like || node->op == Operator::unlike) {
            regex_value(*node);
        } else if (node->type == FieldType::number) {
            number_value(*node);
        } else {
            text_value(*node);
        }
        return node;
    }

    Operator comparison_operator(std::size_t before, std::size_t start, FieldType type) {
        static constexpr std::pair<std::string_view, Operator> kOperators[] = {
            {"=~", Operator::like},    {"!~", Operator::unlike},  {">=", Operator::at_least},
            {"<=", Operator::at_most}, {"!=", Operator::unequal}, {">", Operator::above},
            {"<", Operator::below},    {"=", Operator::equal},
        };
        for (const auto& [word, op] : kOperators) {
            if (!take(word)) continue;
            if (op >= Operator::at_least && type != FieldType::number) {
                syntax_error(
                    fmt::format("Operator can be used only with number, size, time or percent fields: {}",
                                text_.substr(start)),
                    start, false, true);
            }
            return op;
        }
        for (std::string_view word : {"since", "after", "until", "before"}) {
            if (text_.substr(at_).starts_with(word)) {
                syntax_error(
                    fmt::format("Operator can be used only with time fields: {}", text_.substr(start)), start,
                    false, true);
            }
        }
        syntax_error(fmt::format("Unrecognised comparison operator: {}", text_.substr(before)), start, false,
                     true);
    }

    void number_value(Node& node) {
        const std::size_t start = at_;
        while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
        const std::string_view digits = text_.substr(start, at_ - start);
        if (digits.empty()) value_error("Failed to parse numeric value for selection field {}.");
        if (at_ < text_.size() && text_[at_] == '.') {  // a fraction is taken and left out
            ++at_;
            while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
        }
        if (at_ < text_.size() &&
            std::string_view{"bBsSkKmMgGtTpPeE"}.find(text_[at_]) != std::string_view::npos) {
            value_error("Found size unit specifier but numeric value expected for selection field {}.");
        }
        if (at_ < text_.size() && text_[at_] == '%') {
            value_error("Found percent value but numeric value expected for selection field {}.");
        }
        const auto number = parse_u64(digits);
        if (!number) {
            throw BadReport{
                fmt::format("Field selection value {} out of supported range for field {}.", digits, name_)};
        }
        node.number = *number;
    }

    void text_value(Node& node) {
        if (node.type == FieldType::list && at_ < text_.size() && (text_[at_] == '[' || text_[at_] == '{')) {
            list_value(node);
            return;
        }
        if (const auto quoted = quoted_value("'\"", "Failed to parse string value for selection field {}.")) {
            node.text = *quoted;
        } else {
            node.text = bare_value("");
        }
    }

    void list_value(Node& node) {
        ItemList list;
        list.whole = text_[at_] == '[';
        const char close = list.whole ? ']' : '}';
        ++at_;
        bool all = false;
        for (;;) {
            skip_space();
            if (at_ < text_.size() && text_[at_] == close && list.items.empty()) break;
            if (const auto quoted =
                    quoted_value("'\"", "Failed to parse string value for selection field {}.")) {
                list.items.push_back(*quoted);
            } else {
                list.items.emplace_back(bare_value(std::string_view{&close, 1}));
            }
            skip_space();
            if (take("&&") || take(",")) {
                all = true;
            } else if (take("||") || take("#")) {
                list.any = true;
            } else {
                break;
            }
        }
        skip_space();
        if (!take(std::string_view{&close, 1}))
            value_error("Failed to parse list of string values for selection field {}.");
        if (all && list.any)
            value_error("Items of a list are joined all by , or all by #: selection field {}.");
        node.list = std::move(list);
    }

    void regex_value(Node& node) {
        if (node.type == FieldType::number) {
            throw BadReport{
                fmt::format("dm_report: incompatible comparison type for selection field {}", name_)};
        }
        std::string pattern;
        if (const auto quoted =
                quoted_value("'\"({[", "Failed to parse regex value for selection field {}.")) {
            pattern = *quoted;
        } else {
            pattern = bare_value("");
        }
        if (pattern.empty()) value_error("Regular expression expected for selection field {}");
        node.regex = std::make_unique<Regex>(pattern);
        if (node.regex->error != 0) {
            char why[128];
            ::regerror(node.regex->error, &node.regex->compiled, why, sizeof why);
            throw BadReport{
                fmt::format("Couldn't parse regex '{}': {}\ndm_report: failed to create regex matcher for "
                            "selection field {}",
                            pattern, why, name_)};
        }
    }

    // Between quotes, if one of `opening` is here. ( { [ are closed by their partners.
    std::optional<std::string> quoted_value(std::string_view opening, const char* failure) {
        if (at_ == text_.size() || opening.find(text_[at_]) == std::string_view::npos) return std::nullopt;
        static constexpr std::string_view kOpen = "({[", kClose = ")}]";
        const auto pair = kOpen.find(text_[at_]);
        const char close = pair == std::string_view::npos ? text_[at_] : kClose[pair];
        const std::size_t end = text_.find(close, at_ + 1);
        if (end == std::string_view::npos) {
            syntax_error("Missing end quote.\n" + fmt::format(fmt::runtime(failure), name_), start_);
        }
        std::string value{text_.substr(at_ + 1, end - at_ - 1)};
        at_ = end + 1;
        return value;
    }

    // Up to white space, an operator that joins, a closing parenthesis or one of `ends`.
    std::string bare_value(std::string_view ends) {
        const std::size_t start = at_;
        while (at_ < text_.size()) {
            const std::string_view rest = text_.substr(at_);
            if (is_space(rest[0]) || rest[0] == ',' || rest[0] == '#' || rest[0] == ')' ||
                rest.starts_with("&&") || rest.starts_with("||") ||
                ends.find(rest[0]) != std::string_view::npos) {
                break;
            }
            ++at_;
        }
        return std::string{text_.substr(start, at_ - start)};
    }

    bool take(std::string_view word) {
        if (!text_.substr(at_).starts_with(word)) return false;
        at_ += word.size();
        return true;
    }
    bool take_word(std::string_view word) {
        const std::size_t before = at_;
        skip_space();
        if (take(word)) return true;
        at_ = before;
        return false;
    }
    void skip_space() {
        while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    }

    static std::unique_ptr<Node> node_of(Node::Kind kind) {
        auto node = std::make_unique<Node>();
        node->kind = kind;
        return node;
    }
    static std::unique_ptr<Node> join(Node::Kind kind, std::unique_ptr<Node> left,
                                      std::unique_ptr<Node> right) {
        std::unique_ptr<Node> node = node_of(kind);
        node->left = std::move(left);
        node->right = std::move(right);
        return node;
    }

    [[noreturn]] void throw_plain(const char* format, std::size_t at) const {
        throw BadReport{fmt::format(fmt::runtime(format), text_.substr(at))};
    }
    [[noreturn]] void value_error(const char* format) const {
        syntax_error(fmt::format(fmt::runtime(format), name_), start_);
    }
    [[noreturn]] void syntax_error(const std::string& what, std::size_t at, bool fields = false,
                                   bool operators = false) const {
        throw BadReport{
            fmt::format("{}\nSelection syntax error at '{}'.\nUse 'help' for selection to get more help.",
                        what, text_.substr(at)),
            fields, operators};
    }

    std::span<const Field> fields_;
    std::string_view text_;
    std::size_t at_ = 0;
    std::string name_;       // of the field whose value is parsed, as written
    std::size_t start_ = 0;  // where its comparison starts
};

}  // namespace

Selection::Selection(std::span<const Field> fields, std::string_view text) {
    if (text.empty()) return;
    if (text == "help" || text == "?") throw BadReport{"", true, true, false};
    root_ = SelectionParser{fields, text}.parse();
}
Selection::~Selection() = default;

bool Selection::matches(const Row& row) const { return root_ == nullptr || root_->matches(row); }

std::string_view selection_help() {
    return "\n"
           "Selection: FIELD OPERATOR VALUE\n"
           "  =  !=        equal, not equal: text, numbers, lists\n"
           "  =~ !~        a regular expression matches, does not match: text, lists\n"
           "  >= > <= <    numbers\n"
           "  Text is bare or quoted by ' or \"; a regular expression also by ( ), { } or [ ].\n"
           "  Lists: [a,b] has exactly these items, {a,b} has all of them, with # in place of the comma one "
           "of them.\n"
           "Several: && or , for both, || or # for either, !( ) for not, ( ) for order; && goes before ||.\n";
}

}  // namespace udm::udmsetup
