#include "sim/clients.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/machine.hpp"
#include "sim/sim_reactor.hpp"

namespace udm {

Clients::~Clients() = default;

void Clients::violate(const std::string& text) {
    world_.note(0xbad, [&text] { return "VIOLATION: " + text; });
    outcome_.violate(text);
}

std::string Clients::describe(const Request& request) const {
    std::string text = request.volume_->name() + ": " + to_string(request.op_);
    if (request.op_ != Op::flush) {
        text += " " + std::to_string(request.extent_.first.v) + "+" + std::to_string(request.extent_.length.v);
    }
    return text + " (request " + std::to_string(request.id_) + ")";
}

Clients::Request& Clients::take() {
    if (free_.empty()) {
        requests_.push_back(std::make_unique<Request>(*this));
        free_.push_back(requests_.back().get());
    }
    Request& request = *free_.back();
    free_.pop_back();
    request.slot_ = active_.size();
    active_.push_back(&request);
    ++in_flight_;
    return request;
}

void Clients::give(Request& request) {
    active_[request.slot_] = active_.back();
    active_[request.slot_]->slot_ = request.slot_;
    active_.pop_back();
    free_.push_back(&request);
    --in_flight_;
    --request.volume_->in_flight_;
}

void Clients::prepare_memory(Request& request, Io& io, IoFlags) {
    const std::size_t bytes = static_cast<std::size_t>(to_bytes(request.extent_.length));
    if (request.memory_.size() < bytes) request.memory_.resize(bytes);
    std::byte* data = request.memory_.data();
    if (request.op_ == Op::write) ShadowDisk::fill(request.extent_, request.id_, data);
    // One piece, or three of which one does not end at a sector's end.
    if (bytes < 3 * kSectorSize || request.id_ % 4 != 0) {
        io.set_memory(data, bytes);
        return;
    }
    const std::size_t first = kSectorSize + 64, second = kSectorSize - 64;
    request.segments_[0] = {data, first};
    request.segments_[1] = {data + first, second};
    request.segments_[2] = {data + first + second, bytes - first - second};
    io.buffers = Buffers{request.segments_, 3};
}

void Clients::submit(Volume& volume, Op op, Extent extent, IoFlags flags) {
    ASSERT(volume.attached());
    Request& request = take();
    ++volume.in_flight_;
    request.volume_ = &volume;
    request.op_ = op;
    request.extent_ = extent;
    request.id_ = next_id_++;
    request.causes_ = volume.causes();
    if (!comparing_) ++outcome_.requests;
    world_.note(request.id_ << 8 | static_cast<std::uint64_t>(op), [&] {
        return "client " + describe(request) + (flags.fua ? " fua" : "");
    });

    volume.reactor_->enter();
    Io& io = volume.reactor_->take_io();
    io.op = op;
    io.extent = extent;
    io.flags = flags;
    switch (op) {
        case Op::read:
            request.ticket_ = volume.shadow_.begin_read(extent);
            prepare_memory(request, io, flags);
            break;
        case Op::write:
            request.ticket_ = volume.shadow_.begin_write(extent, request.id_, flags.fua);
            prepare_memory(request, io, flags);
            break;
        case Op::write_zeroes:
            request.ticket_ = volume.shadow_.begin_write(extent, 0, flags.fua);
            break;
        case Op::discard:
            request.ticket_ = volume.shadow_.begin_discard(extent);
            break;
        case Op::flush:
            request.ticket_ = volume.shadow_.begin_flush();
            break;
        case Op::extent_status:
            request.ticket_ = volume.shadow_.begin_read(extent);
            break;
    }
    volume.submitted(op, extent, op == Op::write ? request.id_ : 0);
    io.push(request);
    volume.disk_->submit(io);
}

void Clients::ended(Request& request, Io& io) {
    Volume& volume = *request.volume_;
    const IoStatus status = io.status;
    const ExtentAnswer answer = io.answer;
    volume.reactor_->give_io(io);
    world_.note(request.id_ << 16 | static_cast<std::uint64_t>(status), [&] {
        return "client " + describe(request) + " ended: " + to_string(status);
    });
    switch (request.op_) {
        case Op::read: {
            ShadowDisk::Violation violation;
            if (!volume.shadow_.end_read(request.ticket_, status, request.memory_.data(), violation)) {
                violate(describe(request) + ": sector " + std::to_string(violation.sector.v) + " holds " + violation.found +
                        ", and may hold " + violation.expected);
            }
            break;
        }
        case Op::write:
        case Op::write_zeroes:
        case Op::discard:
            volume.shadow_.end_write(request.ticket_, status);
            break;
        case Op::flush:
            volume.shadow_.end_flush(request.ticket_, status);
            break;
        case Op::extent_status:
            if (status == IoStatus::ok) {
                check_answer(request, answer);
            } else {
                ShadowDisk::Violation none;
                volume.shadow_.end_read(request.ticket_, status, nullptr, none);
            }
            break;
    }
    if (status == IoStatus::ok) ++ended_well_;
    if (status == IoStatus::requeue) {
        violate(describe(request) + ": ended with requeue, which is no answer for a client");
    } else if (status != IoStatus::ok && !volume.excuses(request.op_, status, request.causes_)) {
        violate(describe(request) + ": ended with " + to_string(status) + " without a cause");
    }
    give(request);
}

void Clients::check_answer(Request& request, const ExtentAnswer& answer) {
    Volume& volume = *request.volume_;
    ShadowDisk::Violation violation;
    if (!answer.length || answer.length > request.extent_.length) {
        violate(describe(request) + ": answers about " + std::to_string(answer.length.v) + " sectors");
    }
    if (answer.length && answer.zero) {
        const std::vector<std::byte> zeroes(static_cast<std::size_t>(to_bytes(answer.length)));
        if (!volume.shadow_.end_read(request.ticket_, IoStatus::ok, zeroes.data(), violation, answer.length)) {
            violate(describe(request) + ": said to be zeroes, but sector " + std::to_string(violation.sector.v) +
                    " may hold " + violation.expected);
        }
        return;
    }
    volume.shadow_.end_read(request.ticket_, IoStatus::io_error, nullptr, violation);
}

void Clients::power_cut(const std::vector<Volume*>& volumes) {
    while (!active_.empty()) give(*active_.back());
    for (Volume* volume : volumes) {
        volume->shadow_.cut();
        volume->detach();
    }
}

void Clients::forget(Volume& volume) {
    for (std::size_t i = active_.size(); i-- > 0;) {
        if (active_[i]->volume_ == &volume) give(*active_[i]);
    }
    volume.detach();
}

bool Clients::let(std::uint64_t count) {
    for (; count != 0; --count) {
        if (!world_.timeline().step()) return false;
    }
    return true;
}

bool Clients::settle(std::size_t depth) {
    return until([this, depth] { return in_flight_ <= depth; });
}

bool Clients::compare(Volume& volume) {
    constexpr std::uint64_t kPiece = 64;
    const std::uint64_t size = volume.shadow_.size().v;
    comparing_ = true;
    for (std::uint64_t at = 0; at < size; at += kPiece) {
        submit(volume, Op::read, {{at}, {std::min(kPiece, size - at)}});
    }
    comparing_ = false;
    return until([&volume] { return volume.in_flight_ == 0; });
}

void Clients::check_nothing_left() {
    static_cast<void>(until([] { return false; }));
    SimReactor& reactor = world_.machine().reactor();
    if (reactor.ios_out() != 0) violate(fmt::format("{} requests are left when all is removed", reactor.ios_out()));
    if (reactor.buffers().bytes_out() != 0) {
        violate(fmt::format("{} bytes of buffers are left when all is removed", reactor.buffers().bytes_out()));
    }
}

void Clients::check_disks() {
    for (const auto& disk : world_.disks()) {
        if (disk->counters().invalid == 0) continue;
        violate(fmt::format("{} was sent {} requests that it cannot take", disk->name(), disk->counters().invalid));
    }
}

}  // namespace udm
