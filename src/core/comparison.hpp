// Where may two disks differ? Answered without reading them: data that lie in the same place (port/disk.hpp) are the
// same, all else may differ. So it lists whole units of whatever copies (a snapshot's chunks), may list what is equal,
// and never misses a difference.
//
// What is said of an extent held at some moment between question and answer. Of two things that nobody writes, two
// snapshots say, it holds for ever.
#pragma once

#include "base/pool.hpp"
#include "port/disk.hpp"
#include "port/extent_question.hpp"
#include "port/reactor.hpp"

namespace udm {

// All on the home reactor of both disks, which outlive this.
class Comparison final : public ExtentQuestion, private Layer {
  public:
    static constexpr std::uint32_t kChanged = 1;    // in io.answer.flags: the data may differ

    Comparison(Reactor& reactor, Disk& one, Disk& other) noexcept : reactor_{reactor}, one_{one}, other_{other} {}

    // The extent lies within `one`. Ends with the status of the disk that has no answer; then answer.flags is 0 if that
    // was `one`, else 1, and answer.place, if given, has the obstacle.
    void ask(Io& io) noexcept override;

  private:
    enum class Step : std::uint8_t { one, other, one_again };
    // What one disk said of the extent's first sectors.
    struct Said {
        Place place{};
        Sectors length{};
        bool zero = false;
    };
    struct Asking {
        Io* io;
        Step step = Step::one;
        Said one{}, other{}, again{};
        Said& said() noexcept { return step == Step::one ? one : step == Step::other ? other : again; }
    };
    void ask_disk(Asking& asking, Sectors length) noexcept;
    void on_complete(Io& child, Frame& frame) noexcept override;
    void failed(Asking& asking, IoStatus status) noexcept;
    void answer(Asking& asking, Sectors length, bool changed) noexcept;
    static bool same(const Said& a, const Said& b) noexcept;
    Sectors block() const noexcept { return whole_sectors(one_.limits().logical_block); }

    Reactor& reactor_;
    Disk& one_;
    Disk& other_;
    Pool<Asking> askings_{4};
};

}  // namespace udm
