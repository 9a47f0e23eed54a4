// The language of -S: FIELD OPERATOR VALUE, joined by && (or ,), || (or #), !( ) and ( ).
//
//   =  !=               equal: text, numbers; lists as printed, or by items: [a,b] has just these, {a,b} has
//   all of them,
//                       [a#b] and {a#b}: at least one
//   =~ !~               an extended regular expression found in it, bare or quoted by ' ' " " ( ) { } [ ]; of
//   lists, in any item
//   >= > <= <           numbers
//
// && binds tighter than ||. Field names are taken without regard to case and underscores.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "apps/udmsetup/report.hpp"

namespace udm::udmsetup {

class Selection {
  public:
    // Throws BadReport; `help` and `?` alone ask for help that way.
    Selection(std::span<const Field> fields, std::string_view text);
    ~Selection();

    bool matches(const Row& row) const;

    struct Node;

  private:
    std::unique_ptr<Node> root_;  // null: everything matches
};

// What `-S help` prints after the fields.
std::string_view selection_help();

}  // namespace udm::udmsetup
