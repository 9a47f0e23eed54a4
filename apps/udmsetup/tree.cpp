#include "apps/udmsetup/tree.hpp"

#include <fmt/format.h>

namespace udm::udmsetup {
namespace {

struct Glyphs {
    std::string_view down;         // "| " of an ancestor with more children to come
    std::string_view more, last;   // "|-", "`-"
    std::string_view only, first;  // compact: "---", "-+-"
};
constexpr Glyphs kAscii{"|", "|-", "`-", "---", "-+-"};
constexpr Glyphs kUtf{"│", "├─", "└─", "───", "─┬─"};
// Line drawing of VT100 terminals: the character set is switched to and back.
constexpr Glyphs kVt100{"\x1b(0\x0fx\x1b(B", "\x1b(0\x0ftq\x1b(B", "\x1b(0\x0fmq\x1b(B",
                        "\x1b(0\x0fqqq\x1b(B", "\x1b(0\x0fqwq\x1b(B"};

// Text and the columns it takes, which bytes do not say.
struct Text {
    std::string bytes;
    std::size_t columns = 0;

    Text& add(std::string_view more, std::size_t width) {
        bytes += more;
        columns += width;
        return *this;
    }
    Text& pad_to(std::size_t width) {
        while (columns < width) add(" ", 1);
        return *this;
    }
};

std::size_t columns_of(std::string_view text) {
    std::size_t columns = 0;
    for (char c : text) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return columns;
}

class Printer {
  public:
    Printer(std::FILE* out, const std::vector<TreeNode>& nodes, const TreeStyle& style)
        : out_{out}, nodes_{nodes}, style_{style} {
        glyphs_ = style.lines == TreeLines::utf ? kUtf : style.lines == TreeLines::vt100 ? kVt100 : kAscii;
    }

    // `line` is what goes before the label, `prefix` before the lines of its children.
    void print(std::size_t index, Text line, const Text& prefix) {
        const TreeNode& node = nodes_[index];
        if (style_.compact) {
            line.add(node.label, columns_of(node.label));
            compact_children(node, line, prefix);
            return;
        }
        end_line(line, node.label);
        for (std::size_t i = 0; i < node.children.size(); ++i) {
            const bool last = i + 1 == node.children.size();
            Text child_line = prefix, child_prefix = prefix;
            child_line.add(" ", 1).add(last ? glyphs_.last : glyphs_.more, 2);
            child_prefix.add(" ", 1).add(last ? " " : glyphs_.down, 1).add(" ", 1);
            print(node.children[i], child_line, child_prefix);
        }
    }

  private:
    void compact_children(const TreeNode& node, const Text& line, const Text& prefix) {
        if (node.children.empty()) {
            end_line(line, {});
            return;
        }
        Text below = prefix;
        below.pad_to(line.columns + 1);
        for (std::size_t i = 0; i < node.children.size(); ++i) {
            const bool last = i + 1 == node.children.size();
            Text child_line = i == 0 ? line : below, child_prefix = below;
            if (i == 0) {
                child_line.add(last ? glyphs_.only : glyphs_.first, 3);
            } else {
                child_line.add(last ? glyphs_.last : glyphs_.more, 2);
            }
            child_prefix.add(last ? " " : glyphs_.down, 1).add(" ", 1);
            print(node.children[i], child_line, child_prefix);
        }
    }

    // The label is cut off where the line is too long.
    void end_line(const Text& line, std::string_view label) {
        const std::size_t width = line.columns + columns_of(label);
        const std::size_t room = style_.is_terminal ? style_.width : style_.width + 1;
        if (style_.width == 0 || width <= room) {
            fmt::print(out_, "{}{}\n", line.bytes, label);
            return;
        }
        const std::size_t kept = room > 2 ? room - (style_.is_terminal ? 3 : 2) : 0;
        std::string cut = line.bytes;
        if (label.empty() && columns_of(line.bytes) == line.columns) {  // compact: the label is in the line
            std::size_t bytes = 0, columns = 0;
            while (bytes < cut.size() && columns < kept) {
                ++bytes;
                while (bytes < cut.size() && (static_cast<unsigned char>(cut[bytes]) & 0xc0) == 0x80) ++bytes;
                ++columns;
            }
            cut.resize(bytes);
        } else {
            std::size_t columns = line.columns, bytes = 0;
            while (bytes < label.size() && columns < kept) {
                ++bytes;
                while (bytes < label.size() && (static_cast<unsigned char>(label[bytes]) & 0xc0) == 0x80)
                    ++bytes;
                ++columns;
            }
            cut += label.substr(0, bytes);
        }
        fmt::print(out_, "{}...\n", cut);
    }

    std::FILE* out_;
    const std::vector<TreeNode>& nodes_;
    const TreeStyle& style_;
    Glyphs glyphs_;
};

}  // namespace

void print_tree(std::FILE* out, const std::vector<TreeNode>& nodes, const std::vector<std::size_t>& roots,
                const TreeStyle& style) {
    Printer printer{out, nodes, style};
    for (std::size_t root : roots) printer.print(root, {}, {});
}

}  // namespace udm::udmsetup
