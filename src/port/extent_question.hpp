// Facts about the extents of a disk that a client may ask for by name, besides what is allocated (which the
// disk itself answers, with Op::extent_status): the blocks that changed since some point, for example. How an
// export gets at them without knowing any target.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "port/io.hpp"

namespace udm {

// One question, open for one asker. Destroyed on its home reactor, when nothing is under way.
class ExtentQuestion {
  public:
    virtual ~ExtentQuestion() = default;
    // As Disk::submit for Op::extent_status; answers io.answer.length and io.answer.flags, whose meaning is
    // the question's own.
    virtual void ask(Io& io) noexcept = 0;
};

// The questions that can be asked of one disk. Home reactor of the disk.
class ExtentQuestions {
  public:
    virtual ~ExtentQuestions() = default;
    // For lists: those there are now, as NAMESPACE:LEAF ("udm:changed/monday"); the namespace isn't "base". Where there are
    // very many, a few hundred of them: has() knows the others, too.
    virtual std::vector<std::string> names() const = 0;
    virtual bool has(std::string_view name) const = 0;
    // Null: there is no such question (any more).
    virtual std::unique_ptr<ExtentQuestion> open(std::string_view name) = 0;
};

}  // namespace udm
