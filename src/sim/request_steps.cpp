#include "sim/request_steps.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace udm::steps {
namespace {
constexpr Nanoseconds kFast = 20'000, kSlowMin = 2'000'000, kSlowMax = 30'000'000;

const char* to_string(Trouble trouble) {
    switch (trouble) {
        case Trouble::write_once: return "a write fails";
        case Trouble::read_once: return "a read fails";
        case Trouble::any_once: return "a request fails";
        case Trouble::writes: return "writes fail";
        case Trouble::everything: return "everything fails";
        case Trouble::from_sector: return "fails from a sector on";
        case Trouble::range: return "fails in a range";
        case Trouble::stall_writes: return "writes stall";
        case Trouble::stall_reads: return "reads stall";
        case Trouble::stall_all: return "stalls";
        case Trouble::gone: return "is gone";
        case Trouble::slow: return "becomes slow";
        case Trouble::count: break;
    }
    return "?";
}
}  // namespace

void Shape::draw_mood(Prng& random) {
    for (std::uint64_t& weight : ops) {
        if (random.chance(1, 4)) weight = weight * 4 + 1;
        if (random.chance(1, 4)) weight /= 4;
    }
    ops[kWrite] += 1;
    for (std::uint64_t& weight : volumes) {
        if (random.chance(1, 4)) weight *= 8;
    }
    if (random.chance(1, 4)) fua_percent = random.chance(1, 2) ? 0 : 60;
    if (random.chance(1, 4)) hot_percent = random.chance(1, 2) ? 0 : 80;
    haste = random.below(3);
}

std::uint32_t draw_pause(Prng& random, std::uint64_t haste) {
    const std::uint64_t kind = random.below(20);
    std::uint64_t pause = 0;
    if (kind < 9) pause = random.below(3);
    else if (kind < 15) pause = random.between(3, 15);
    else if (kind < 19) pause = random.between(15, 60);
    else pause = random.between(60, 400);
    if (haste == 0) pause = pause * 2 + 4;
    if (haste == 2) pause /= 4;
    return static_cast<std::uint32_t>(pause);
}

namespace {
std::uint64_t draw_weighted(Prng& random, std::span<const std::uint64_t> weights) {
    std::uint64_t sum = 0;
    for (const std::uint64_t weight : weights) sum += weight;
    std::uint64_t at = random.below(sum);
    for (std::uint64_t i = 0;; ++i) {
        if (at < weights[i]) return i;
        at -= weights[i];
    }
}
}  // namespace

Step draw_request(Prng& random, const Shape& shape) {
    Step step;
    step.pause = draw_pause(random, shape.haste);
    step.kind = static_cast<std::uint32_t>(draw_weighted(random, shape.ops));
    step.a = draw_weighted(random, shape.volumes);
    step.d = random.chance(shape.fua_percent, 100) ? 1 : 0;
    if (step.kind == kFlush) return step;

    const std::uint64_t chunk = shape.chunks.empty() ? 8 : shape.chunks[random.below(shape.chunks.size())];
    const std::uint64_t chunks = (shape.sectors - shape.first + chunk - 1) / chunk;
    const bool hot = random.chance(shape.hot_percent, 100);
    const std::uint64_t at = shape.first / chunk * chunk + random.below(hot ? std::min<std::uint64_t>(chunks, 3) : chunks) * chunk;
    const std::uint64_t way = random.below(10);
    if (way < 3) {    // whole chunks
        step.b = at;
        step.c = chunk * random.between(1, 3);
    } else if (way < 9) {    // a piece, that may reach into the next
        step.b = at + random.below(chunk);
        step.c = random.between(1, 8);
    } else {
        step.b = random.between(shape.first, shape.sectors - 1);
        step.c = random.between(1, shape.longest);
    }
    step.b = std::min(step.b, shape.sectors - 1) / shape.block * shape.block;
    step.c = (std::min(step.c, shape.longest) + shape.block - 1) / shape.block * shape.block;
    step.c = std::min(step.c, shape.sectors - step.b);
    return step;
}

Step draw_fault(Prng& random, std::uint64_t disk, std::uint64_t sectors) {
    Step step;
    step.kind = kFault;
    step.pause = draw_pause(random);
    step.a = disk;
    step.b = random.below(static_cast<std::uint64_t>(Trouble::count));
    step.c = random.below(20);
    step.d = random.between(1, 2);
    if (step.b == static_cast<std::uint64_t>(Trouble::from_sector) || step.b == static_cast<std::uint64_t>(Trouble::range)) {
        step.c = random.below(sectors);
        step.d = random.between(1, 32);
    }
    return step;
}

bool is_request(const Step& step) noexcept { return step.kind <= kExtentStatus; }

void submit(Clients& clients, Volume& volume, const Step& step) {
    static constexpr Op kOps[] = {Op::read, Op::write, Op::flush, Op::discard, Op::write_zeroes, Op::extent_status};
    const Op op = kOps[step.kind];
    const std::uint64_t size = volume.shadow().size().v;
    if (op == Op::flush) {
        clients.submit(volume, op, {});
        return;
    }
    if (op == Op::discard && !volume.disk()->limits().discard) return;
    if (step.b >= size) return;
    const Extent extent{{step.b}, {std::min(step.c, size - step.b)}};
    const bool may_be_fua = op == Op::write || op == Op::write_zeroes;
    clients.submit(volume, op, extent, {.fua = may_be_fua && step.d == 1});
}

void apply_fault(SimDisk& disk, const Step& step, IoStatus of_writes) {
    const auto once = [&](unsigned ops, IoStatus status = IoStatus::io_error) {
        disk.add_fault({.ops = ops, .skip = step.c, .times = step.d, .status = status});
    };
    switch (static_cast<Trouble>(step.b)) {
        case Trouble::write_once: once(DiskFault::kWrites, of_writes); break;
        case Trouble::read_once: once(DiskFault::kReads); break;
        case Trouble::any_once: once(DiskFault::kAll); break;
        case Trouble::writes: disk.fail_always(DiskFault::kWrites, of_writes); break;
        case Trouble::everything: disk.fail_always(); break;
        case Trouble::from_sector: disk.fail_from({step.c}); break;
        case Trouble::range: disk.fail_range({{step.c}, {step.d}}); break;
        case Trouble::stall_writes: disk.stall(DiskFault::kWrites); break;
        case Trouble::stall_reads: disk.stall(DiskFault::kReads); break;
        case Trouble::stall_all: disk.stall(); break;
        case Trouble::gone: disk.go_away(); break;
        case Trouble::slow: disk.set_latency(kSlowMin, kSlowMax); break;
        case Trouble::count: UNREACHABLE();
    }
}

void heal(SimDisk& disk) {
    disk.release();
    disk.clear_faults();
    disk.come_back();
    disk.set_latency(kFast, 20 * kFast);
}

void heal_for_boot(SimDisk& disk, bool keep_faults) {
    disk.release();
    disk.come_back();
    if (!keep_faults) heal(disk);
}

std::string describe(const Step& step) {
    static constexpr const char* kNames[] = {"read", "write", "flush", "discard", "write_zeroes", "extent_status"};
    std::string text = fmt::format("after {} events: ", step.pause);
    if (is_request(step)) {
        text += fmt::format("{} on volume {}", kNames[step.kind], step.a);
        if (step.kind != kFlush) text += fmt::format(" {}+{}", step.b, step.c);
        if (step.d == 1) text += " fua";
        return text;
    }
    switch (step.kind) {
        case kFault: return text + fmt::format("disk {} {} ({}, {})", step.a, to_string(static_cast<Trouble>(step.b)), step.c, step.d);
        case kHeal: return text + fmt::format("disk {} is healed", step.a);
        case kCut:
            text += "power cut";
            if (step.a) text += ", errors stay";
            if (step.b) text += fmt::format(", and again after {} events", step.b);
            return text;
        default: return text + "?";
    }
}

}  // namespace udm::steps
