#include "core/comparison.hpp"

namespace udm {

// `one` is asked twice, with `other` in between: if it says the same both times, that held when `other` was asked. Once
// would not do: a chunk may leave the origin between the questions, or come back to it in a merge.
void Comparison::ask(Io& io) noexcept {
    Asking& asking = askings_.take(Asking{.io = &io});
    ask_disk(asking, io.extent.length);
}

void Comparison::ask_disk(Asking& asking, Sectors length) noexcept {
    Io& child = reactor_.take_io();
    child.op = Op::extent_status;
    child.extent = {asking.io->extent.first, length};
    child.answer.place = &asking.said().place;
    child.push(*this, reinterpret_cast<std::uintptr_t>(&asking));
    (asking.step == Step::other ? other_ : one_).submit(child);
}

void Comparison::on_complete(Io& child, Frame& frame) noexcept {
    Asking& asking = *reinterpret_cast<Asking*>(frame.a);
    Said& said = asking.said();
    const IoStatus status = child.status;
    said.length = child.answer.length;
    said.zero = child.answer.zero;
    reactor_.give_io(child);
    if (status == IoStatus::invalid && asking.step == Step::other) {
        // Larger blocks, or it ends here: nothing of it is the same.
        return answer(asking, asking.one.length, true);
    }
    if (status != IoStatus::ok) return failed(asking, status);
    // The other one's parts may end inside a block: such a block is only the same if all of it is, which nobody says.
    if (said.length < block()) return answer(asking, block(), true);
    said.length.v -= said.length.v % block().v;
    switch (asking.step) {
        case Step::one:
            asking.step = Step::other;
            return ask_disk(asking, said.length);
        case Step::other:
            if (!same(asking.one, said)) return answer(asking, said.length, true);
            asking.step = Step::one_again;
            return ask_disk(asking, said.length);
        case Step::one_again:
            return answer(asking, said.length, !same(asking.one, said));
    }
    UNREACHABLE();
}

bool Comparison::same(const Said& a, const Said& b) noexcept {
    const bool known = a.place.disk.kind != DiskId::Kind::none;
    if (known || b.place.disk.kind != DiskId::Kind::none) {
        return a.place.disk == b.place.disk && a.place.sector == b.place.sector;
    }
    return a.zero && b.zero;
}

void Comparison::failed(Asking& asking, IoStatus status) noexcept {
    Io& io = *asking.io;
    if (io.answer.place) io.answer.place->obstacle = asking.said().place.obstacle;
    io.answer.flags = asking.step == Step::other ? 1 : 0;
    askings_.give(asking);
    io.complete(status);
}

void Comparison::answer(Asking& asking, Sectors length, bool changed) noexcept {
    Io& io = *asking.io;
    askings_.give(asking);
    io.answer.length = length;
    io.answer.flags = changed ? kChanged : 0;
    io.complete(IoStatus::ok);
}

}  // namespace udm
