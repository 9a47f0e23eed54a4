// A target that does what a test says and remembers what it was asked: "probe NAME [DEVICE OFFSET]". Its ways are
// looked up by NAME in the type, and may be changed at any time.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/split.hpp"
#include "core/target_args.hpp"
#include "sim/sim_reactor.hpp"

namespace udm {

struct Probe {
    struct Call {
        Op op;
        Extent extent;
        unsigned copy;
        IoFlags flags;
    };
    TargetTraits traits;
    Sectors chunk{};                    // requests are cut at multiples of it, from the target's start
    bool holds = false;                 // requests stay here until release()
    bool requeues_held = false;         // presuspend with noflush ends those held with `requeue`
    IoStatus ends_with{IoStatus::ok};   // without a device
    Result<void> load_result, preresume_result;
    std::string answer = "answer";

    std::vector<Call> calls;
    std::vector<std::string> steps;     // "load", "preresume", "resume", "presuspend noflush", ...
    List<Io> held;
    std::size_t held_most = 0;
    std::size_t held_count = 0;
    Reactor* reactor = nullptr;
    std::vector<std::string>* shared_steps = nullptr;

    void step(std::string what) {
        if (shared_steps) shared_steps->push_back(what);
        steps.push_back(std::move(what));
    }
    // Ends the requests held, or the first `n` of them.
    void release(IoStatus status = IoStatus::ok, std::size_t n = ~std::size_t{0}) {
        for (; n != 0 && !held.empty(); --n) {
            --held_count;
            reactor->complete_later(held.pop_front(), status);
        }
    }
};

class ProbeTarget final : public Target {
  public:
    ProbeTarget(Env& env, Probe& probe, const TargetArgs& args, std::unique_ptr<OpenDevice> device, Sector start)
        : env_{env}, probe_{probe}, extent_{args.extent()}, device_{std::move(device)}, start_{start},
          words_(args.words.begin(), args.words.end()) {
        probe_.reactor = &env.reactor;
    }
    ~ProbeTarget() override { probe_.step("gone"); }
    Sectors fits(const Io& io) noexcept override {
        return probe_.chunk ? until_boundary(io.extent.first, extent_.first, probe_.chunk) : io.extent.length;
    }
    Mapped map(Io& io) noexcept override {
        probe_.calls.push_back({io.op, io.extent, io.copy, io.flags});
        if (probe_.holds) {
            probe_.held.push_back(io);
            probe_.held_most = std::max(probe_.held_most, ++probe_.held_count);
            return Mapped::taken();
        }
        if (device_ && probe_.ends_with == IoStatus::ok) {
            io.extent.first.v += start_.v - extent_.first.v;
            return Mapped::to(device_->disk());
        }
        env_.reactor.complete_later(io, probe_.ends_with);
        return Mapped::taken();
    }
    Job<Result<void>> load() override {
        probe_.step("load");
        co_return probe_.load_result;
    }
    Job<Result<void>> preresume() override {
        probe_.step("preresume");
        co_return probe_.preresume_result;
    }
    void resume() noexcept override { probe_.step("resume"); }
    Job<void> presuspend(SuspendFlags flags) override {
        probe_.step(flags.noflush ? "presuspend noflush" : "presuspend");
        if (flags.noflush && probe_.requeues_held) probe_.release(IoStatus::requeue);
        co_return;
    }
    Job<void> postsuspend(SuspendFlags flags) override {
        probe_.step(flags.noflush ? "postsuspend noflush" : "postsuspend");
        co_return;
    }
    TargetTraits traits() const override { return probe_.traits; }
    std::vector<TargetDevice> devices() const override {
        if (!device_) return {};
        return {{device_.get(), start_, extent_.length}};
    }
    std::string table() const override { return words_[0]; }
    Job<Result<std::string>> message(const std::vector<std::string>* words) override {
        probe_.step("message " + words->front());
        co_return probe_.answer;
    }

  private:
    Env& env_;
    Probe& probe_;
    Extent extent_;
    std::unique_ptr<OpenDevice> device_;
    Sector start_;
    std::vector<std::string> words_;
};

class ProbeType final : public TargetType {
  public:
    std::map<std::string, Probe> probes;
    Probe& operator[](const std::string& name) { return probes[name]; }
    std::string_view name() const override { return "probe"; }
    std::array<unsigned, 3> version() const override { return {1, 0, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        std::unique_ptr<OpenDevice> device;
        Sector start{};
        if (args.words.size() == 3) {
            TRY(device, open_device(args, args.words[1], open_mode(args)));
            TRY(start, parse_offset(args.words[2]));
        }
        return std::make_unique<ProbeTarget>(args.env, probes[args.words[0]], args, std::move(device), start);
    }
};

// Adds the type to a list; the list owns it.
inline ProbeType& add_probe_type(TargetTypes& types) {
    auto type = std::make_unique<ProbeType>();
    ProbeType& made = *type;
    types.add(std::move(type));
    return made;
}

}  // namespace udm
