#include "ctl/record_disk.hpp"

#include <algorithm>

namespace udm::ctl {

std::optional<unsigned> RecordDisk::home() const noexcept {
    const std::lock_guard lock{registry_.mutex};
    if (record_->gone || !record_->device) return std::nullopt;
    return record_->home;
}

void RecordDisk::submit(Io& io) noexcept {
    ASSERT(io.op == Op::extent_status);
    hops_.take(*this, io).start();
}

void RecordDisk::Hop::start() noexcept {
    const auto home = disk_.home();
    if (!home) {
        status_ = IoStatus::removed;
        returning_ = true;
        disk_.here_.post(*this);
        return;
    }
    home_ = *home;
    there_ = &disk_.host_.env(home_).reactor;
    if (there_ == &disk_.here_) {
        go();
    } else {
        there_->post_remote(*this);
    }
}

void RecordDisk::Hop::run() noexcept {
    if (returning_) {
        finish();
    } else {
        go();
    }
}

// There. Only this thread destroys the device.
void RecordDisk::Hop::go() noexcept {
    Device* device = disk_.home() == home_ ? disk_.record_->owned.get() : nullptr;
    if (!device || !device->live()) return come_back(IoStatus::removed);
    const Sectors size = device->limits().size;
    Extent extent = io_.extent;
    if (extent.first.v >= size.v) return come_back(IoStatus::invalid);
    extent.length = std::min(extent.length, Sectors{size.v - extent.first.v});
    Io& child = there_->take_io();
    child.op = io_.op;
    child.extent = extent;
    child.answer = io_.answer;
    child.push(*this);
    device->submit(child);
}

void RecordDisk::Hop::on_complete(Io& child, Frame&) noexcept {
    answer_ = child.answer;
    const IoStatus status = child.status;
    there_->give_io(child);
    come_back(status);
}

// To the one who asked; never inside his submit().
void RecordDisk::Hop::come_back(IoStatus status) noexcept {
    status_ = status;
    returning_ = true;
    if (there_ == &disk_.here_) {
        there_->post(*this);
    } else {
        disk_.here_.post_remote(*this);
    }
}

void RecordDisk::Hop::finish() noexcept {
    Io& io = io_;
    io.answer = answer_;
    const IoStatus status = status_;
    disk_.hops_.give(*this);
    io.complete(status);
}

}  // namespace udm::ctl
