// The persistent store while its snapshot is merged: the list is read from its end, and cleared from there.
//
// What is cleared is the end of the list, so whatever a power cut leaves of a clearing, the list ends at its first empty
// entry, and all entries that are gone belong to chunks that the origin has already. Later areas go first, then the pieces
// of the area in which the list will end; one flush ends it. Source: docs/formats/snapshot.md.
#include <algorithm>
#include <cstring>

#include "targets/snapshot/persistent_store.hpp"
#include "services/pooled_buffer.hpp"

namespace udm::snapshot {
namespace {
constexpr std::size_t kTransfer = 128 * 1024;
}

Job<IoStatus> PersistentStore::read_listed(std::uint64_t first, std::uint64_t end, std::vector<Listed>* entries) {
    entries->clear();
    const std::uint64_t per_piece = geometry_.exceptions_per_piece();
    while (first < end) {
        const std::uint64_t from = first - first % per_piece;
        const std::uint64_t last = std::min(end, area_end(first));
        const std::uint64_t most = at_most(kTransfer) / sizeof(DiskException);
        const std::uint64_t n = std::min((last - from + per_piece - 1) / per_piece * per_piece, most);
        PooledBuffer buffer{env_.reactor.buffers(), n * sizeof(DiskException)};
        IoWait read{env_.reactor, *cow_, Op::read, {geometry_.piece(from).first, whole_sectors(buffer.size())}, buffer.data()};
        if (const IoStatus status = co_await read; status != IoStatus::ok) co_return status;
        for (const std::uint64_t stop = std::min(last, from + n); first < stop; ++first) {
            DiskException entry;
            std::memcpy(&entry, buffer.data() + (first - from) * sizeof entry, sizeof entry);
            entries->push_back({{entry.old_chunk}, {entry.new_chunk}});
        }
    }
    co_return IoStatus::ok;
}

// `kept`: the entries before `first` of its piece. A reader that goes on adding entries behind the list's new end must find
// nothing there, so in that area the other pieces are empty durably before the one in which the list will end.
Job<IoStatus> PersistentStore::write_cleared(std::uint64_t first, const std::vector<Listed>* kept) {
    const std::uint64_t per_area = geometry_.exceptions_per_area(), per_piece = geometry_.exceptions_per_piece();
    const std::uint64_t next_piece = first - first % per_piece + per_piece;
    // What a crash has left behind the list's end goes, too.
    const bool leftovers = rest_of_area_unknown_ && published_ % per_area != 0;
    for (std::uint64_t end = leftovers ? area_end(published_) : published_; end > next_piece;) {
        const std::uint64_t area_first = (end - 1) / per_area * per_area;
        const std::uint64_t from = std::max(next_piece, area_first);
        const Sector at = geometry_.piece(from).first;
        auto zeroing = write_zeroes({at, geometry_.piece(end - 1).end() - at});
        if (const IoStatus status = co_await zeroing; status != IoStatus::ok) co_return status;
        if (from == next_piece && from != area_first) {
            auto flushing = flush();
            if (const IoStatus status = co_await flushing; status != IoStatus::ok) co_return status;
        }
        end = from;
    }
    PooledBuffer buffer{env_.reactor.buffers(), static_cast<std::size_t>(geometry_.piece_bytes())};
    std::memset(buffer.data(), 0, buffer.size());
    std::byte* to = buffer.data();
    for (const Listed& entry : *kept) {
        const DiskException on_disk{{entry.old_chunk.v}, {entry.new_chunk.v}};
        std::memcpy(to, &on_disk, sizeof on_disk);
        to += sizeof on_disk;
    }
    IoWait write{env_.reactor, *cow_, Op::write, {geometry_.piece(first).first, whole_sectors(buffer.size())}, buffer.data()};
    co_return co_await write;
}

// A flush may have started a commit with nothing to write.
Job<IoStatus> PersistentStore::clear_listed(std::uint64_t first, const std::vector<Listed>* cleared) {
    clearing_ = true;
    while (committing_) {
        auto wait = turn_.wait();
        co_await wait;
    }
    auto clearing = clear_in_turn(first, cleared);
    const IoStatus status = co_await clearing;
    clearing_ = false;
    work_.notify_all();
    co_return status;
}

Job<IoStatus> PersistentStore::clear_in_turn(std::uint64_t first, const std::vector<Listed>* cleared) {
    ASSERT(durable_ == published_ && first < published_ && cleared->size() == published_ - first);
    const std::uint64_t per_piece = geometry_.exceptions_per_piece();
    const std::uint64_t piece_first = first - first % per_piece;
    std::vector<Listed> kept;
    auto reading = read_listed(piece_first, first, &kept);
    if (const IoStatus status = co_await reading; status != IoStatus::ok) co_return status;
    auto writing = write_cleared(first, &kept);
    IoStatus status = co_await writing;
    if (status == IoStatus::ok && env_.chaos.keeps("merge.clear_durably")) {
        auto flushing = flush();
        status = co_await flushing;
    }
    tail_.clear();
    tail_first_ = piece_first;
    for (const Listed& entry : kept) tail_.push_back({{entry.old_chunk.v}, {entry.new_chunk.v}});
    if (status != IoStatus::ok) {    // to be written again
        for (const Listed& entry : *cleared) tail_.push_back({{entry.old_chunk.v}, {entry.new_chunk.v}});
        written_ = durable_ = first;
        rest_of_area_unknown_ = true;
        co_return status;
    }
    rest_of_area_unknown_ = false;
    published_ = written_ = durable_ = reserved_ = wanted_ = tried_ = first;
    // As the kernel counts it while it merges; recount() says what is free.
    const std::uint64_t per_area = geometry_.exceptions_per_area();
    next_free_ = geometry_.area(first / per_area) + Chunks{first % per_area + 1};
    co_return IoStatus::ok;
}

void PersistentStore::forgive() noexcept {
    failed_ = false;
    wanted_ = durable_;
}

void PersistentStore::recount(const ExceptionTable& table) {
    ExceptionTable used;
    Chunk highest{1};
    table.for_each([&](const ExceptionTable::Run& run) {
        used.insert({run.new_first, run.old_first, run.count});
        highest = std::max(highest, run.new_first + (run.count - Chunks{1}));
    });
    next_free_ = highest + Chunks{1};
    if (geometry_.is_metadata(next_free_)) next_free_ += Chunks{1};
    reserved_ = published_;
    find_holes(used, highest);
}

// --- stores without a list ------------------------------------------------------------------------------------------

Job<IoStatus> Store::read_listed(std::uint64_t, std::uint64_t, std::vector<Listed>*) { co_return IoStatus::unsupported; }
Job<IoStatus> Store::clear_listed(std::uint64_t, const std::vector<Listed>*) { co_return IoStatus::unsupported; }
Job<void> Store::give_space_back() { co_return; }

}  // namespace udm::snapshot
