// How a scrub puts right what is wrong on some legs.
#include <algorithm>
#include <cstring>

#include "targets/mirror/scrub.hpp"

namespace udm::mirror {

Job<bool> Scrub::repair(Piece* piece, const Place* place) {
    const RegionRun run = regions_of(place->extent);
    const bool logged = (place->wrong & leg_bit(set_.legs.source())) == 0;
    bool marked = true;
    for (Region region = run.first; region < run.end(); region += Regions{1}) {
        set_.regions.enter(region);
        if (logged && set_.env.chaos.keeps("mirror.scrub_marks_region")) marked = set_.log->mark(region) && marked;
    }
    if (!marked) {
        dirty_log::FlushWait wait{*set_.log};
        marked = co_await wait == IoStatus::ok;
    }
    bool repaired = false;
    if (marked) {
        Claim claim{writes_, place->extent};
        const bool claims = set_.env.chaos.keeps("mirror.scrub_claims_repair");
        if (claims) co_await claim;
        auto rewriting = rewrite_claimed(piece, place, logged);
        repaired = co_await rewriting;
        if (claims) claim.release();
    }
    for (Region region = run.first; region < run.end(); region += Regions{1}) set_.regions.leave(*set_.regions.find(region));
    if (repaired && !logged) {
        auto flushing = failures_.flush_legs();
        repaired = co_await flushing == IoStatus::ok;
    }
    co_return repaired;
}

// A write may have come since, and all or some of it may be right now.
bool Scrub::judged_the_same(const Piece& piece, const Place& place) const {
    std::vector<Place> now;
    find_places(judged(piece, place.extent, place.unreadable()), block_, now);
    return std::all_of(now.begin(), now.end(), [&](const Place& each) { return each.believed == place.believed && each.wrong == place.wrong; });
}

Job<bool> Scrub::rewrite_claimed(Piece* piece, const Place* place, bool logged) {
    const LegMask source = leg_bit(set_.legs.source());
    if (!comparable(place->extent, piece->legs) || logged != ((place->wrong & source) == 0)) co_return false;
    LegIo read{set_, place->read, Op::read, place->extent, piece->data};
    const LegResult was_read = co_await read;
    if (was_read.failed != 0 || !comparable(place->extent, piece->legs) || !judged_the_same(*piece, *place)) co_return false;
    const RegionRun run = regions_of(place->extent);
    if (const LegMask away = set_.legs.away()) {    // they miss it, as they do any write
        if (!logged) co_return false;
        for (Region region = run.first; region < run.end(); region += Regions{1}) set_.map.lose(region, away);
    }
    const std::byte* const right = piece->data[place->believed];
    LegIo write{set_, place->wrong, Op::write, place->extent, piece->data[place->believed]};
    const LegResult written = co_await write;
    if (written.failed != 0) {    // nobody knows what it has there now
        for (Region region = run.first; region < run.end(); region += Regions{1}) set_.map.lose(region, without(written.failed, source));
        failures_.copy_failed(written.failed, written.status);
        co_return false;
    }
    LegIo back{set_, place->wrong, Op::read, place->extent, piece->data};
    const LegResult read_back = co_await back;
    bool equal = read_back.failed == 0;
    for_each_leg(place->wrong, [&](unsigned leg) { equal = equal && std::memcmp(right, piece->data[leg], to_bytes(place->extent.length)) == 0; });
    if (equal) for_each_leg(place->unreadable(), [&](unsigned leg) { set_.legs.clear_error(leg, LegError::read); });
    co_return equal;
}

}  // namespace udm::mirror
