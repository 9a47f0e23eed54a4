#include "sim/snapshot_setup.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace udm {

std::vector<std::uint64_t> SnapshotSetup::pack() const {
    std::vector<std::uint64_t> words{sectors, stable_disks, fast_disks, lazy_discard, orderly_end, flush_at_end};
    for (const Slot& slot : slots) words.insert(words.end(), {slot.chunk, slot.cow_sectors, slot.roomy, slot.discard_zeroes_cow});
    words.insert(words.end(), {stacked, block, max_transfer, no_zeroes, no_discard, premade, copy_memory, cow_threshold,
                              copy_throttle, auto_extend});
    return words;
}

SnapshotSetup SnapshotSetup::unpack(const std::vector<std::uint64_t>& words) {
    std::size_t at = 0;
    const auto next = [&] { return at < words.size() ? words[at++] : 0; };
    SnapshotSetup setup;
    for (std::uint64_t* member : {&setup.sectors, &setup.stable_disks, &setup.fast_disks, &setup.lazy_discard, &setup.orderly_end,
                                  &setup.flush_at_end}) {
        *member = next();
    }
    for (Slot& slot : setup.slots) {
        for (std::uint64_t* member : {&slot.chunk, &slot.cow_sectors, &slot.roomy, &slot.discard_zeroes_cow}) *member = next();
    }
    for (std::uint64_t* member : {&setup.stacked, &setup.block, &setup.max_transfer, &setup.no_zeroes, &setup.no_discard,
                                  &setup.premade, &setup.copy_memory, &setup.cow_threshold, &setup.copy_throttle, &setup.auto_extend}) {
        *member = next();
    }
    return setup;
}

SnapshotSetup SnapshotSetup::draw(Prng& random) {
    constexpr std::uint64_t kDisks = kSlots + 1;
    SnapshotSetup setup;
    setup.sectors = random.chance(1, 4) ? random.between(40, 400) : 8 * random.between(8, 48);
    // Now and then the first slot has a store that is near the end of an area, or of a 4 KiB piece of one.
    const bool premade = random.chance(1, 6);
    std::uint64_t premade_chunk = 0;
    if (premade) {
        premade_chunk = random.chance(1, 8) ? 8 * random.between(1, 2) : std::uint64_t{1} << random.below(3);
        const std::uint64_t entries = std::min<std::uint64_t>(premade_chunk * 32, 256) * random.between(1, premade_chunk < 4 ? 3 : 1);
        setup.premade = entries - random.below(std::min<std::uint64_t>(entries, 24));
        setup.sectors = (entries + random.between(20, 60)) * premade_chunk;
    }
    if (random.chance(1, 16)) setup.block = 8;
    if (premade) setup.block = 0;
    if (setup.block) setup.sectors = setup.sectors / 8 * 8;
    if (random.chance(1, 8)) setup.stable_disks = random.below(1 << kDisks);
    if (random.chance(1, 2)) setup.fast_disks = random.below(1 << kDisks);
    if (random.chance(1, 8)) setup.no_zeroes = random.below(1 << kDisks);
    if (random.chance(1, 8)) setup.no_discard = random.below(1 << kDisks);
    if (random.chance(1, 8)) setup.max_transfer = 8 * random.between(1, 4);
    if (random.chance(1, 5)) {
        setup.copy_memory = random.between(1, 4);
        if (random.chance(1, 2)) setup.cow_threshold = random.between(1, 3);
        if (random.chance(1, 4)) setup.copy_throttle = random.between(5, 60);
    }
    if (random.chance(1, 3)) setup.auto_extend = random.below(1 << kSlots);
    setup.stacked = random.chance(1, 4);
    setup.lazy_discard = random.chance(1, 2);
    setup.orderly_end = random.chance(1, 3);
    setup.flush_at_end = random.chance(1, 2);
    for (Slot& slot : setup.slots) {
        const std::uint64_t size = random.below(16);
        slot.chunk = size < 8 ? 8 : size < 11 ? 16 : size < 12 ? 32 : size < 13 ? 128 : std::uint64_t{1} << random.below(3);
        const bool first = &slot == setup.slots.data();
        if (premade && first) slot.chunk = premade_chunk;
        slot.chunk = std::max(slot.chunk, setup.block);
        const std::uint64_t chunks = (setup.sectors + slot.chunk - 1) / slot.chunk;
        const std::uint64_t per_area = slot.chunk * 32;
        const auto with_areas = [per_area](std::uint64_t n) { return 3 + n + n / per_area; };
        switch (premade && first ? 7 : random.below(8)) {
            case 0: slot.cow_sectors = slot.chunk * (3 + random.below(4)); break;
            case 1: slot.cow_sectors = slot.chunk * (3 + random.between(1, chunks)); break;
            case 2: slot.cow_sectors = slot.chunk * with_areas(chunks); break;
            default:
                slot.cow_sectors = slot.chunk * with_areas(3 * chunks + 40);
                slot.roomy = 1;
        }
        // A store needs 4 KiB to read its header.
        slot.cow_sectors = std::max<std::uint64_t>(slot.cow_sectors, 8 + 2 * slot.chunk);
        slot.discard_zeroes_cow = random.chance(1, 2);
    }
    return setup;
}

std::string SnapshotSetup::describe() const {
    std::string text = fmt::format("an origin of {} sectors{}", sectors, stacked ? " on a mapped device" : "");
    for (std::size_t i = 0; i < kSlots; ++i) {
        text += fmt::format("; snap{}: chunks of {}, COW device of {}{}{}", i, slots[i].chunk, slots[i].cow_sectors,
                            slots[i].roomy ? " (roomy)" : "", slots[i].discard_zeroes_cow ? ", discards" : "");
    }
    text += describe_disks();
    if (premade) text += fmt::format("; snap0 is there with {} exceptions", premade);
    if (auto_extend) text += fmt::format("; COW devices extended {:#x}", auto_extend);
    if (copy_memory) text += fmt::format("; {} KiB for copies", 4 * copy_memory);
    if (cow_threshold) text += fmt::format("; {} copies a store", cow_threshold - 1);
    if (copy_throttle) text += fmt::format("; copies in {} % of the time", copy_throttle);
    return text;
}

}  // namespace udm
