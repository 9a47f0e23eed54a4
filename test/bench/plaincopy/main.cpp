// plaincopy: copies blocks from places in one file to places in another with io_uring, and nothing else: what a merge is measured
// against. Places come from standard input, 16 bytes each: where to (u64), where from (u64), in blocks, little-endian. Prints the
// seconds it took, an fdatasync at the end included.
#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace {

struct Place {
    std::uint64_t to, from;
};

struct Slot {
    Place place{};
    void* buffer = nullptr;
    bool writing = false;
};

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "plaincopy: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

std::vector<Place> read_places() {
    std::vector<Place> places;
    Place place;
    while (std::fread(&place, sizeof place, 1, stdin) == 1) places.push_back(place);
    return places;
}

int open_file(const char* path, int flags, bool direct) {
    const int fd = ::open(path, flags | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (fd < 0) fail(path);
    return fd;
}

void copy_all(const std::vector<Place>& places, int from, int to, unsigned block, unsigned depth) {
    io_uring ring;
    if (const int rc = io_uring_queue_init(depth * 2, &ring, 0); rc != 0) {
        errno = -rc;
        fail("io_uring");
    }
    std::vector<Slot> slots(depth);
    std::size_t next = 0;
    unsigned busy = 0;
    const auto submit = [&](Slot& slot) {
        io_uring_sqe* sqe = io_uring_get_sqe(&ring);
        if (slot.writing) {
            io_uring_prep_write(sqe, to, slot.buffer, block, slot.place.to * block);
        } else {
            io_uring_prep_read(sqe, from, slot.buffer, block, slot.place.from * block);
        }
        io_uring_sqe_set_data(sqe, &slot);
    };
    const auto begin = [&](Slot& slot) {
        if (next == places.size()) return;
        slot.place = places[next++];
        slot.writing = false;
        ++busy;
        submit(slot);
    };
    for (Slot& slot : slots) {
        slot.buffer = std::aligned_alloc(4096, block < 4096 ? 4096 : block);
        begin(slot);
    }
    while (busy != 0) {
        if (io_uring_submit_and_wait(&ring, 1) < 0) fail("io_uring");
        unsigned head, seen = 0;
        io_uring_cqe* cqe;
        io_uring_for_each_cqe(&ring, head, cqe) {
            ++seen;
            if (cqe->res != static_cast<int>(block)) {
                errno = cqe->res < 0 ? -cqe->res : EIO;
                fail("a transfer");
            }
            Slot& slot = *static_cast<Slot*>(io_uring_cqe_get_data(cqe));
            if (!slot.writing) {
                slot.writing = true;
                submit(slot);
                continue;
            }
            --busy;
            begin(slot);
        }
        io_uring_cq_advance(&ring, seen);
    }
    for (Slot& slot : slots) std::free(slot.buffer);
    io_uring_queue_exit(&ring);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: plaincopy FROM TO BLOCK DEPTH direct|cached <places\n");
        return 2;
    }
    const bool direct = std::strcmp(argv[5], "direct") == 0;
    const auto places = read_places();
    const int from = open_file(argv[1], O_RDONLY, direct), to = open_file(argv[2], O_WRONLY, direct);
    const auto start = std::chrono::steady_clock::now();
    copy_all(places, from, to, static_cast<unsigned>(std::atoi(argv[3])), static_cast<unsigned>(std::atoi(argv[4])));
    if (::fdatasync(to) != 0) fail(argv[2]);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%.6f\n", took.count());
    return 0;
}
