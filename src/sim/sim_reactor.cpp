#include "sim/sim_reactor.hpp"

namespace udm {
namespace {
constexpr std::uint64_t kTooManySteps = 50'000'000;    // something goes in a circle
constexpr Nanoseconds kMessageLatency = 2'000;
}  // namespace

SimReactor::SimReactor() : own_{std::make_unique<Timeline>()}, timeline_{*own_} {
    timeline_.add(*this);
    enter();
}

SimReactor::SimReactor(Timeline& timeline) : timeline_{timeline} {
    timeline_.add(*this);
    if (!timeline_.outside_) enter();
}

SimReactor::~SimReactor() {
    cut();
    timeline_.remove(*this);
    if (is_current()) clear_current();
}

void SimReactor::enter() noexcept {
    timeline_.outside_ = this;
    set_current();
}

void SimReactor::cut() noexcept {
    abandon();
    remote_.abandon();
    timeline_.cancel(arrival_);
}

void SimReactor::post_remote(Task& task) noexcept {
    remote_.push_back(task);
    if (!arrival_.scheduled()) timeline_.schedule(arrival_, now() + kMessageLatency);
}

void SimReactor::Arrival::happen() noexcept {
    while (Task* task = reactor_.remote_.pop_front_or_null()) reactor_.post(*task);
}

void SimReactor::run_until_idle() noexcept {
    const std::uint64_t first = timeline_.steps();
    while (timeline_.step()) ASSERT(timeline_.steps() - first < kTooManySteps);
}

void SimReactor::run_for(Nanoseconds time) noexcept {
    const Nanoseconds limit = now() + time;
    while (timeline_.step_until(limit)) {
    }
}

IoStatus SimReactor::io(Disk& disk, Op op, Extent extent, void* memory, IoFlags flags, ExtentAnswer* answer) noexcept {
    SimRequest request{*this, disk, op, extent, memory, flags};
    const bool ended = run_until([&request] { return request.done(); });
    ASSERT(ended);
    if (answer) *answer = request.answer();
    return request.status();
}

SimRequest::SimRequest(Reactor& reactor, Disk& disk, Op op, Extent extent, void* memory, IoFlags flags) noexcept
    : reactor_{reactor} {
    Io& io = reactor.take_io();
    io.op = op;
    io.extent = extent;
    io.flags = flags;
    if (memory) io.set_memory(memory, to_bytes(extent.length));
    io.push(*this);
    disk.submit(io);
}

void SimRequest::on_complete(Io& io, Frame&) noexcept {
    ASSERT(!done_);
    done_ = true;
    status_ = io.status;
    answer_ = io.answer;
    ended_ = reactor_.now();
    reactor_.give_io(io);
}

}  // namespace udm
