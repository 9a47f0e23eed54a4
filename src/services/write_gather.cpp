#include "services/write_gather.hpp"

#include <algorithm>

namespace udm {

WriteGather::~WriteGather() {
    ASSERT((waiting_.empty() && !linked() && batches_.out() == 0) || Abandoning::now());
}

void WriteGather::add(Write& write) noexcept {
    waiting_.push_back(write);
    if (!linked()) reactor_.post(*this);
}

void WriteGather::run() noexcept {
    const Sectors most = disk_->limits().max_transfer;
    const std::uint64_t bytes_max = most ? std::min(kBytesMax, to_bytes(most)) : kBytesMax;
    while (!waiting_.empty()) {
        Batch& batch = batches_.take();
        std::uint32_t pieces = 0;
        Extent extent = waiting_.front().extent;
        extent.length = {};
        while (!waiting_.empty()) {
            Write& next = waiting_.front();
            if (next.extent.first != extent.end()) break;
            const std::uint64_t bytes = to_bytes(next.extent.length);
            if (pieces != 0 && to_bytes(extent.length) + bytes > bytes_max) break;
            const std::uint32_t added = next.buffers.to_iovecs(batch.pieces.data() + pieces, kPiecesMax - pieces, bytes);
            if (added == 0 && pieces != 0) break;
            waiting_.pop_front();
            batch.writes.push_back(next);
            extent.length += next.extent.length;
            if (added == 0) break;    // one write of more pieces than a batch has: goes as it is
            pieces += added;
        }
        Io& io = reactor_.take_io();
        io.op = Op::write;
        io.extent = extent;
        io.buffers = pieces != 0 ? Buffers{batch.pieces.data(), pieces} : batch.writes.front().buffers;
        io.push(*this, reinterpret_cast<std::uintptr_t>(&batch));
        disk_->submit(io);
    }
}

void WriteGather::on_complete(Io& io, Frame& frame) noexcept {
    Batch& batch = *reinterpret_cast<Batch*>(frame.a);
    const IoStatus status = io.status;
    reactor_.give_io(io);
    while (Write* write = batch.writes.pop_front_or_null()) write->written(status);
    batches_.give(batch);
}

}  // namespace udm
