// The story "linear": two devices whose sectors lie on three disks, one piece by piece and one in stripes, with tables that
// change while clients write but always lead to the same sectors: one line or many, striped or spelled out in linear
// pieces, straight to the disk or through another mapped device, with a delay or without.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sim/administrator.hpp"
#include "sim/machine.hpp"
#include "sim/request_steps.hpp"
#include "sim/stories.hpp"

namespace udm {
namespace {

constexpr unsigned kDisks = 3, kVolumes = 2;
constexpr std::uint64_t kContentAtFirst = std::uint64_t{1} << 30;

enum LinearKind : std::uint32_t {
    kSwap = steps::kFirstOfStory,    // a: volume, b: seed of the table's form; volume 2 is the device below
    kCycle,                          // a: volume, b: 1 noflush, c: microseconds to stay suspended
};

struct Setup {
    std::uint64_t sectors = 0;        // of each volume
    std::uint64_t pieces = 0;         // of the first volume
    std::uint64_t stripes = 0, chunk = 0;    // of the second
    std::uint64_t first_form = 0;
    std::uint64_t stable_disks = 0, lazy_discard = 0, orderly_end = 0;
    std::vector<std::uint64_t> pack() const {
        return {sectors, pieces, stripes, chunk, first_form, stable_disks, lazy_discard, orderly_end};
    }
    static Setup unpack(const std::vector<std::uint64_t>& w) { return {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]}; }
};

// Where a sector lies. The first volume has the lower half of each disk, the second the upper.
struct Place {
    std::uint64_t disk, sector;
    std::uint64_t run;    // so many follow one another there
};
Place place_of(const Setup& setup, unsigned volume, std::uint64_t sector) {
    if (volume == 0) {
        const std::uint64_t length = (setup.sectors + setup.pieces - 1) / setup.pieces;
        const std::uint64_t piece = sector / length;
        return {piece % kDisks, sector, std::min((piece + 1) * length, setup.sectors) - sector};
    }
    const std::uint64_t chunk = sector / setup.chunk, within = sector % setup.chunk;
    return {chunk % setup.stripes, setup.sectors + chunk / setup.stripes * setup.chunk + within, setup.chunk - within};
}

// A table of one of the many forms it may have.
std::string draw_table(const Setup& setup, unsigned volume, std::uint64_t form) {
    Prng random{form};
    if (volume == kVolumes) {    // the device below, over all of the first disk
        const std::uint64_t size = 2 * setup.sectors, cut = random.below(size);
        if (cut == 0) return fmt::format("0 {} linear sim:disk0 0", size);
        return fmt::format("0 {} linear sim:disk0 0\n{} {} linear sim:disk0 {}", cut, cut, size - cut, cut);
    }
    if (volume == 1 && random.chance(1, 2)) {
        std::string line = fmt::format("0 {} striped {} {}", setup.sectors, setup.stripes, setup.chunk);
        for (std::uint64_t i = 0; i < setup.stripes; ++i) {
            line += fmt::format(" {}disk{} {}", i == 0 && random.chance(1, 2) ? "udm:over-" : "sim:", i, setup.sectors);
        }
        return line;
    }
    std::string text;
    for (std::uint64_t at = 0; at < setup.sectors;) {
        const Place place = place_of(setup, volume, at);
        const std::uint64_t length = random.chance(1, 2) ? place.run : random.between(1, place.run);
        const char* way = place.disk == 0 && random.chance(1, 3) ? "udm:over-" : "sim:";
        if (random.chance(1, 8)) {
            text += fmt::format("{} {} delay {}disk{} {} {}\n", at, length, way, place.disk, place.sector, random.below(3));
        } else {
            text += fmt::format("{} {} linear {}disk{} {}\n", at, length, way, place.disk, place.sector);
        }
        at += length;
    }
    return text;
}

class LinearRun {
  public:
    LinearRun(World& world, const History& history, Outcome& outcome)
        : world_{world}, history_{history}, outcome_{outcome}, setup_{Setup::unpack(history.setup)}, clients_{world, outcome} {}
    void run();

  private:
    class MappedVolume final : public Volume {
      public:
        MappedVolume(LinearRun& run, std::string name, ShadowDisk shadow) : Volume{std::move(name), std::move(shadow)}, run_{run} {}
        std::uint64_t causes() const override {
            std::uint64_t faulted = 0;
            for (const SimDisk* disk : run_.disks_) faulted += disk->counters().faulted;
            return faulted;
        }
        bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const override {
            // An error of the flush that goes with a suspend is owed to the next flush from above.
            return (op == Op::flush && causes() != errors_at_boot) || Volume::excuses(op, status, causes_at_begin);
        }
        std::uint64_t errors_at_boot = 0;

      private:
        LinearRun& run_;
    };

    void prepare();
    void step(const Step& step);
    void power_cut(const Step& step);
    void start_boot();
    void finish_boot();
    void the_end();
    Job<void> boot();
    Job<void> swap(std::uint64_t which, std::uint64_t form);
    Job<void> cycle(std::uint64_t which, bool noflush, Nanoseconds stay);
    Job<void> remove_all();
    void was_suspended(std::uint64_t which, std::uint64_t errors_before);
    void stuck(const char* what) {
        clients_.violate(what);
        gave_up_ = true;
    }

    World& world_;
    const History& history_;
    Outcome& outcome_;
    Setup setup_;
    Clients clients_;
    Administrator admin_{world_};
    std::array<SimDisk*, kDisks> disks_{};
    std::array<std::unique_ptr<MappedVolume>, kVolumes> volumes_;
    std::array<Machine::Mapped*, kVolumes + 1> mapped_{};    // the last is the one below
    std::array<std::uint64_t, kVolumes + 1> forms_{};        // of their tables, kept by the state
    bool booted_ = false, gave_up_ = false;
};

void LinearRun::prepare() {
    for (unsigned i = 0; i < kDisks; ++i) {
        SimDisk::Options options;
        options.name = "disk" + std::to_string(i);
        options.limits.size = {2 * setup_.sectors};
        options.limits.discard = true;
        options.limits.volatile_cache = (setup_.stable_disks >> i & 1) == 0;
        options.lazy_discard = setup_.lazy_discard != 0;
        options.latency_max = 6 * options.latency_min;
        disks_[i] = &world_.add_disk(options);
    }
    std::array<std::byte, kSectorSize> sector{};
    for (unsigned v = 0; v < kVolumes; ++v) {
        for (std::uint64_t s = 0; s < setup_.sectors; ++s) {
            const Place place = place_of(setup_, v, s);
            ShadowDisk::fill({{s}, {1}}, kContentAtFirst + v, sector.data());
            disks_[place.disk]->write_now({{place.sector}, {1}}, sector.data());
        }
        ShadowDisk shadow{Sectors{setup_.sectors}};
        shadow.set_all(kContentAtFirst + v);
        volumes_[v] = std::make_unique<MappedVolume>(*this, v == 0 ? "pieces" : "stripes", std::move(shadow));
    }
    for (std::size_t i = 0; i < forms_.size(); ++i) forms_[i] = setup_.first_form + i;
}

void LinearRun::run() {
    prepare();
    start_boot();
    finish_boot();
    for (const Step& one : history_.steps) {
        if (gave_up_ || outcome_.failed()) break;
        clients_.let(one.pause);
        step(one);
    }
    if (!gave_up_ && !outcome_.failed()) the_end();
}

void LinearRun::step(const Step& step) {
    if (steps::is_request(step)) {
        steps::submit(clients_, *volumes_[step.a], step);
        return;
    }
    switch (step.kind) {
        case steps::kFault:
        case steps::kHeal:
            world_.note(step.kind, [&] { return steps::describe(step); });
            if (step.kind == steps::kFault) steps::apply_fault(*disks_[step.a], step);
            else steps::heal(*disks_[step.a]);
            return;
        case steps::kCut: power_cut(step); return;
        default: break;
    }
    if (!admin_.wait()) return;
    if (step.kind == kSwap) admin_.start(swap(step.a, step.b));
    if (step.kind == kCycle) admin_.start(cycle(step.a, step.b == 1, step.c * 1000));
}

void LinearRun::start_boot() {
    booted_ = false;
    world_.power_on();
    admin_.start(boot());
}

void LinearRun::finish_boot() {
    if (!clients_.until([this] { return booted_; })) return stuck("the machine does not come up");
    for (auto& volume : volumes_) {
        if (!clients_.compare(*volume)) return stuck("reads do not end");
    }
}

void LinearRun::power_cut(const Step& step) {
    world_.cut_power();
    admin_.busy = false;
    mapped_ = {};
    clients_.power_cut({volumes_[0].get(), volumes_[1].get()});
    for (SimDisk* disk : disks_) steps::heal_for_boot(*disk, step.a == 1);
    start_boot();
    finish_boot();
}

void LinearRun::was_suspended(std::uint64_t which, std::uint64_t errors_before) {
    if (which == kVolumes || volumes_[which]->causes() != errors_before) return;
    ShadowDisk& shadow = volumes_[which]->shadow();
    shadow.end_flush(shadow.begin_flush(), IoStatus::ok);
}

Job<void> LinearRun::boot() {
    Machine& machine = world_.machine();
    for (const unsigned i : {kVolumes, 0U, 1U}) {
        mapped_[i] = &machine.create(i == kVolumes ? "over-disk0" : i == 0 ? "pieces" : "stripes");
        const std::string table = draw_table(setup_, i, forms_[i]);
        auto swapping = machine.swap(*mapped_[i], table, TableMode::read_write);
        const auto swapped = co_await swapping;
        if (!swapped) clients_.violate("a table cannot be loaded: " + swapped.error().message);
    }
    for (unsigned i = 0; i < kVolumes; ++i) {
        volumes_[i]->attach(*mapped_[i]->device, machine.reactor());
        volumes_[i]->errors_at_boot = volumes_[i]->causes();
    }
    admin_.busy = false;
    booted_ = true;
}

Job<void> LinearRun::swap(std::uint64_t which, std::uint64_t form) {
    Machine::Mapped& mapped = *mapped_[which];
    const std::string table = draw_table(setup_, static_cast<unsigned>(which), form);
    auto loading = world_.machine().load(mapped, table, TableMode::read_write);
    const auto loaded = co_await loading;
    if (!loaded) clients_.violate("a table cannot be loaded: " + loaded.error().message);
    const std::uint64_t before = volumes_[0]->causes();
    auto suspending = mapped.device->suspend({});
    const auto suspended = co_await suspending;
    if (!suspended) clients_.violate("a device cannot be suspended: " + suspended.error().message);
    was_suspended(which, before);
    auto resuming = mapped.device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate("a device cannot be resumed: " + resumed.error().message);
    forms_[which] = form;
    world_.note(0x5a4b, [&] { return mapped.name + " has a new table:\n" + table; });
    ++outcome_.swaps;
    admin_.busy = false;
}

Job<void> LinearRun::cycle(std::uint64_t which, bool noflush, Nanoseconds stay) {
    Device& device = *mapped_[which]->device;
    const std::uint64_t before = volumes_[0]->causes();
    auto suspending = device.suspend({.noflush = noflush});
    const auto suspended = co_await suspending;
    if (!suspended) clients_.violate("a device cannot be suspended: " + suspended.error().message);
    if (!noflush) was_suspended(which, before);
    if (stay != 0) {
        Reactor& reactor = world_.machine().reactor();
        Sleep nap{reactor, reactor.now() + stay};
        co_await nap;
    }
    auto resuming = device.resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate("a device cannot be resumed: " + resumed.error().message);
    ++outcome_.swaps;
    admin_.busy = false;
}

Job<void> LinearRun::remove_all() {
    for (unsigned i = 0; i <= kVolumes; ++i) {
        auto removing = world_.machine().remove(*mapped_[i]);
        co_await removing;
    }
    admin_.busy = false;
}

void LinearRun::the_end() {
    for (SimDisk* disk : disks_) steps::heal(*disk);
    world_.chaos().calm();
    if (!clients_.until([this] { return !admin_.busy; })) return stuck("the administrator's work does not end");
    if (!clients_.settle()) return stuck("requests do not end");
    for (auto& volume : volumes_) {
        clients_.submit(*volume, Op::write, {{0}, {1}});
        if (!clients_.compare(*volume)) return stuck("reads do not end");
    }
    power_cut({});
    if (gave_up_ || outcome_.failed() || setup_.orderly_end == 0) return;
    admin_.start(remove_all());
    if (!clients_.until([this] { return !admin_.busy; })) return stuck("removing everything does not end");
    clients_.check_nothing_left();
}

class LinearStory final : public Story {
  public:
    std::string_view name() const override { return "linear"; }
    std::string_view about() const override { return "linear, striped and delay in stacks, under cuts, errors and table swaps"; }
    History generate(Prng& random) const override;
    void run(World& world, const History& history, Outcome& outcome) const override {
        LinearRun{world, history, outcome}.run();
    }
    std::string describe(const History& history) const override;
    std::string describe(const Step& step) const override;
};

History LinearStory::generate(Prng& random) const {
    Setup setup;
    setup.stripes = random.between(1, kDisks);
    setup.chunk = std::uint64_t{1} << random.below(5);
    if (random.chance(1, 3)) setup.chunk = random.between(1, 12);
    const std::uint64_t row = setup.stripes * setup.chunk;
    setup.sectors = row * random.between(1, std::max<std::uint64_t>(1, 256 / row));
    setup.pieces = random.between(1, std::min<std::uint64_t>(6, setup.sectors));
    while ((setup.pieces - 1) * ((setup.sectors + setup.pieces - 1) / setup.pieces) >= setup.sectors) --setup.pieces;
    setup.first_form = random.next();
    if (random.chance(1, 8)) setup.stable_disks = random.below(1 << kDisks);
    setup.lazy_discard = random.chance(1, 2);
    setup.orderly_end = random.chance(1, 3);

    History history;
    history.setup = setup.pack();
    steps::Shape shape{.sectors = setup.sectors, .chunks = {8, setup.chunk}, .longest = 48, .volumes = {1, 1}};
    shape.draw_mood(random);
    const std::uint64_t requests = random.between(100, 140);
    const std::uint64_t cut_at = random.between(10, requests - 1);
    for (std::uint64_t i = 0; i < requests; ++i) {
        if (i == cut_at || random.chance(1, 150)) {
            history.steps.push_back({.kind = steps::kCut, .pause = steps::draw_pause(random), .a = random.chance(1, 4)});
        }
        if (random.chance(1, 60)) history.steps.push_back(steps::draw_fault(random, random.below(kDisks), 2 * setup.sectors));
        if (random.chance(1, 25)) history.steps.push_back({.kind = steps::kHeal, .a = random.below(kDisks)});
        if (random.chance(1, 15)) {
            history.steps.push_back({.kind = kSwap, .pause = steps::draw_pause(random), .a = random.below(kVolumes + 1), .b = random.next()});
        }
        if (random.chance(1, 20)) {
            history.steps.push_back({.kind = kCycle, .pause = steps::draw_pause(random), .a = random.below(kVolumes + 1),
                                     .b = random.chance(1, 2), .c = random.chance(1, 2) ? random.below(2000) : 0});
        }
        history.steps.push_back(steps::draw_request(random, shape));
    }
    return history;
}

std::string LinearStory::describe(const History& history) const {
    const Setup setup = Setup::unpack(history.setup);
    return fmt::format("two volumes of {} sectors on {} disks: {} pieces; {} stripes with chunks of {}", setup.sectors, kDisks,
                       setup.pieces, setup.stripes, setup.chunk);
}

std::string LinearStory::describe(const Step& step) const {
    const std::string after = fmt::format("after {} events: ", step.pause);
    if (step.kind == kSwap) return after + fmt::format("swap the table of volume {} for form {}", step.a, step.b);
    if (step.kind == kCycle) return after + fmt::format("suspend volume {}{} for {} us", step.a, step.b ? " without flush" : "", step.c);
    return steps::describe(step);
}

}  // namespace

std::unique_ptr<Story> linear_story() { return std::make_unique<LinearStory>(); }

}  // namespace udm
