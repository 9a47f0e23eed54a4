// Draws a forest in text: a line a node, or one line for each way down ("compact").
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace udm::udmsetup {

struct TreeNode {
    std::string label;
    std::vector<std::size_t> children;  // indices of nodes; no node is below itself
};

enum class TreeLines { ascii, utf, vt100 };

struct TreeStyle {
    TreeLines lines = TreeLines::ascii;
    bool compact = false;
    std::size_t width = 0;     // of the terminal, in columns; 0: nothing is cut off
    bool is_terminal = false;  // else the last dots of a cut line go two beyond the width, as with dmsetup
};

void print_tree(std::FILE* out, const std::vector<TreeNode>& nodes, const std::vector<std::size_t>& roots,
                const TreeStyle& style);

}  // namespace udm::udmsetup
