#include "targets/mirror/legs.hpp"

#include <algorithm>

namespace udm::mirror {

bool Legs::any_error() const noexcept {
    return std::any_of(legs_.begin(), legs_.end(), [](const Leg& leg) { return leg.errors != 0; });
}

void Legs::set_away(unsigned leg, bool away) noexcept {
    ASSERT(!away || leg != source_);
    legs_[leg].away = away;
    alive_ = away ? without(alive_, leg_bit(leg)) : static_cast<LegMask>(alive_ | leg_bit(leg));
}

bool Legs::note_error(unsigned leg, LegError error) noexcept {
    const auto bit = static_cast<std::uint8_t>(1U << static_cast<unsigned>(error));
    Leg& l = legs_[leg];
    l.errors |= bit;
    const bool first = (l.told & bit) == 0;
    l.told |= bit;
    return first;
}

void Legs::clear_error(unsigned leg, LegError error) noexcept {
    legs_[leg].errors &= static_cast<std::uint8_t>(~(1U << static_cast<unsigned>(error)));
}

void Legs::clear_errors() noexcept {
    for (Leg& leg : legs_) {
        if (!leg.away) leg.errors = leg.told = 0;
    }
}

std::string Legs::health() const {
    static constexpr char kLetters[] = {'R', 'S', 'D', 'F'};
    std::string letters;
    for (const Leg& leg : legs_) letters += leg.errors == 0 ? 'A' : kLetters[std::bit_width(leg.errors) - 1];
    return letters;
}

unsigned Legs::choose(LegMask from, Sector first) noexcept {
    ASSERT(from != 0);
    LegMask good = 0;
    for_each_leg(from, [&](unsigned leg) {
        if (legs_[leg].errors == 0) good |= leg_bit(leg);
    });
    if (good == 0) good = from;
    if ((good & (good - 1)) == 0) return lowest(good);

    const bool anyway = ++turn_ % kTryAnyway == 0;
    if (anyway) {
        LegMask slow = 0;
        for_each_leg(good, [&](unsigned leg) {
            if (legs_[leg].weight > 1) slow |= leg_bit(leg);
        });
        if (slow != 0) return lowest(slow);
    }
    unsigned best = lowest(good);
    unsigned best_cost = ~0U, continued = kLegsMax;
    // Legs that have as much to do take turns, so that none is asked only when the first is busy.
    const unsigned shift = turn_ % count();
    for (unsigned i = 0; i < count(); ++i) {
        const unsigned leg = (i + shift) % count();
        if ((good & leg_bit(leg)) == 0) continue;
        const unsigned cost = (legs_[leg].reads + 1) * legs_[leg].weight;
        if (cost < best_cost) {
            best = leg;
            best_cost = cost;
        }
        if (legs_[leg].next_read == first && first.v != 0) continued = leg;
    }
    if (continued != kLegsMax && (legs_[continued].reads + 1) * legs_[continued].weight <= best_cost + kRunAhead) return continued;
    return best;
}

std::optional<unsigned> Legs::note_latency(unsigned leg, Nanoseconds took) noexcept {
    Nanoseconds& latency = legs_[leg].latency;
    latency = latency == 0 ? took : (latency * 7 + took) / 8;
    Nanoseconds fastest = ~Nanoseconds{0};
    for (const Leg& l : legs_) {
        if (!l.away && l.latency != 0) fastest = std::min(fastest, l.latency);
    }
    fastest = std::max<Nanoseconds>(fastest, 1);
    std::optional<unsigned> turned_slow;
    for (unsigned i = 0; i < count(); ++i) {
        Leg& l = legs_[i];
        l.weight = l.latency == 0 ? 1 : static_cast<unsigned>(std::clamp<Nanoseconds>(l.latency / fastest, 1, 64));
        if (l.weight >= kSlowWeight && l.latency >= kSlowLatency) {
            if (!l.slow) turned_slow = i;
            l.slow = true;
        } else if (l.weight <= kSlowWeight / 2) {
            l.slow = false;
        }
    }
    return turned_slow;
}

}  // namespace udm::mirror
