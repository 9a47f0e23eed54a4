#include "sim/mirror_setup.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/mirror_log_bytes.hpp"

namespace udm {
namespace {

// All numbers, in the order in which they are kept.
template <class S>
auto members(S& s) {
    return std::array{&s.sectors,      &s.front,      &s.legs,      &s.region,     &s.disk_log,     &s.word,
                      &s.word_stays,   &s.begin,      &s.clean_bits, &s.handle_errors, &s.keep_log, &s.survivor,
                      &s.stable_disks, &s.fast_disks, &s.no_zeroes, &s.no_discard, &s.lazy_discard, &s.block,
                      &s.max_transfer, &s.orderly_end, &s.flush_at_end};
}

}  // namespace

std::uint64_t MirrorSetup::log_sectors() const noexcept {
    const std::uint64_t sectors_needed = (MirrorLogBytes::bytes_for(regions()) + kSectorSize - 1) / kSectorSize;
    const std::uint64_t unit = std::max<std::uint64_t>(block, 1);
    return (sectors_needed + unit - 1) / unit * unit;
}

std::vector<std::uint64_t> MirrorSetup::pack() const {
    std::vector<std::uint64_t> words;
    for (const std::uint64_t* member : members(*this)) words.push_back(*member);
    words.insert(words.end(), offsets.begin(), offsets.end());
    words.insert(words.end(), {log_rest, leg_retry, hold_timeout, spares});
    return words;
}

MirrorSetup MirrorSetup::unpack(const std::vector<std::uint64_t>& words) {
    std::size_t at = 0;
    const auto next = [&] { return at < words.size() ? words[at++] : 0; };
    MirrorSetup setup;
    for (std::uint64_t* member : members(setup)) *member = next();
    for (std::uint64_t& offset : setup.offsets) offset = next();
    for (std::uint64_t* member : {&setup.log_rest, &setup.leg_retry, &setup.hold_timeout, &setup.spares}) *member = next();
    return setup;
}

MirrorSetup MirrorSetup::draw(Prng& random) {
    MirrorSetup setup;
    const std::uint64_t many = random.below(16);
    setup.legs = many < 9 ? 2 : many < 15 ? 3 : random.between(4, kMirrorLegsMax);
    const std::uint64_t disks = std::uint64_t{1} << (setup.legs + 1);
    if (random.chance(1, 12)) setup.block = 8;
    const std::uint64_t unit = std::max<std::uint64_t>(setup.block, 1);
    setup.region = std::uint64_t{1} << random.between(random.chance(1, 8) ? 1 : 3, 5);
    setup.region = std::max(setup.region, setup.block);
    // The last region may be a part of one.
    setup.sectors = setup.region * random.between(3, 12);
    if (random.chance(1, 2)) setup.sectors += unit * random.below(setup.region / unit);
    // Now and then the log has more than one sector of bits.
    if (random.chance(1, 64)) {
        setup.region = std::max<std::uint64_t>(2, setup.block);
        setup.sectors = setup.region * random.between(4090, 4200);
        setup.legs = 2;
    }
    if (random.chance(1, 8)) setup.front = unit * random.between(1, 12);
    setup.disk_log = random.chance(5, 6);
    setup.begin = random.below(3);
    if (setup.begin == static_cast<std::uint64_t>(Begin::recorded) && !setup.disk_log) setup.begin = 0;
    if (setup.sectors > 4000) setup.begin = static_cast<std::uint64_t>(setup.disk_log ? Begin::recorded : Begin::equal);
    setup.clean_bits = random.chance(1, 2) ? ~std::uint64_t{0} : random.next() | random.next();
    if (random.chance(1, 4)) setup.word = static_cast<std::uint64_t>(Word::sync);
    if (setup.begin == static_cast<std::uint64_t>(Begin::equal) && !random.chance(1, 4)) setup.word = static_cast<std::uint64_t>(Word::nosync);
    if (setup.sectors > 4000) setup.word = static_cast<std::uint64_t>(setup.disk_log ? Word::none : Word::nosync);
    setup.word_stays = random.chance(1, 3);
    const std::uint64_t features = random.below(8);
    setup.handle_errors = features != 0;
    setup.keep_log = features > 2;
    if (random.chance(2, 3)) setup.survivor = random.between(1, setup.legs);
    if (random.chance(1, 8)) setup.stable_disks = random.below(disks);
    if (random.chance(1, 2)) setup.fast_disks = random.below(disks);
    if (random.chance(1, 8)) setup.no_zeroes = random.below(disks);
    if (random.chance(1, 8)) setup.no_discard = random.below(disks);
    setup.lazy_discard = random.chance(1, 4);
    if (random.chance(1, 8)) setup.max_transfer = 8 * random.between(1, 4);
    setup.orderly_end = random.chance(1, 3);
    setup.flush_at_end = random.chance(1, 2);
    if (random.chance(2, 3)) setup.log_rest = random.between(1, 40);
    if (random.chance(1, 2)) setup.leg_retry = random.between(1, 100);
    if (random.chance(1, 4)) setup.hold_timeout = random.between(1, 400);
    for (std::uint64_t& offset : setup.offsets) offset = random.chance(1, 2) ? 0 : unit * random.between(1, 20);
    if (random.chance(1, 2)) setup.spares = std::min<std::uint64_t>(random.between(1, 3), kMirrorLegsMax - setup.legs);
    return setup;
}

std::string MirrorSetup::describe() const {
    static constexpr const char* kWords[] = {"", " sync", " nosync"};
    static constexpr const char* kBegins[] = {"a log of zeroes", "legs that are equal", "a log"};
    std::string text = fmt::format("{} legs of {} sectors, {} regions of {}, {} log{}{}, from {}", legs, sectors, regions(),
                                   region, disk_log ? "disk" : "core", kWords[word], word_stays ? " (always)" : "", kBegins[begin]);
    if (begin == static_cast<std::uint64_t>(Begin::recorded)) text += fmt::format(" with bits {:#x}", clean_bits);
    if (handle_errors) text += ", handle_errors";
    if (keep_log) text += ", keep_log";
    if (front) text += fmt::format("; {} sectors before it", front);
    if (survivor) text += fmt::format("; nothing happens to leg {}", survivor - 1);
    if (spares) text += fmt::format("; {} spares", spares);
    text += describe_disks();
    if (log_rest) text += fmt::format("; regions rest for {} ms", log_rest);
    if (leg_retry) text += fmt::format("; legs are tried after {} ms", leg_retry);
    if (hold_timeout) text += fmt::format("; holds for {} ms", hold_timeout);
    return text;
}

std::string steps::words_of(ScrubWord word) {
    static constexpr const char* kWords[] = {"scrub_start check", "scrub_start repair", "scrub_stop", "scrub_pause", "scrub_resume",
                                             "set scrub_rate 256K", "set scrub_rate default"};
    return kWords[static_cast<std::uint64_t>(word)];
}

std::string steps::words_of(MirrorWord word, std::uint64_t number) {
    switch (word) {
        case MirrorWord::leg_return: return fmt::format("leg_return {}", number);
        case MirrorWord::pause: return "resync_pause";
        case MirrorWord::go_on: return "resync_resume";
        case MirrorWord::retry: return "resync_retry";
        case MirrorWord::rate: return number == 0 ? "set resync_rate default" : fmt::format("set resync_rate {}", number);
        case MirrorWord::share: return number == 0 ? "set resync_share default" : fmt::format("set resync_share {}", number);
        case MirrorWord::count: break;
    }
    UNREACHABLE();
}

}  // namespace udm
