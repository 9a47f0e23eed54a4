// What the load sent, what was acknowledged and what flushes covered, in a file of its own, a line a fact.
// With it a run that was itself interrupted can be judged, and a violation explained.
//
//   v NAME SECTORS                a volume
//   w NAME SEQ FIRST COUNT        a write is sent
//   a NAME SEQ FIRST COUNT F      it is acknowledged; F is 1 with FUA
//   f NAME MARK                   a flush has completed that covers the first MARK acknowledgements
//   s NAME SECTOR SEQ             a read after a crash has found this write there
//   b SNAP ORIGIN, e SNAP, n SNAP a take begins, ends, failed
//   r SNAP VOLUME, R SNAP, q SNAP going back to a snapshot begins, ends, did not come to be
//   d NAME                        a snapshot is dropped
//   x                             the server is gone
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "test/system/crash_load/model.hpp"

namespace crash {

// The model, with every fact written down before it counts.
class Journal {
  public:
    Journal(const std::string& path, Model& model);  // appends; throws std::system_error
    void volume(const std::string& name, std::uint64_t sectors);
    void sent(Volume& v, Seq seq, std::uint64_t first, std::uint32_t count);
    void acknowledged(Volume& v, Seq seq, std::uint64_t first, std::uint32_t count, bool fua);
    void flushed(Volume& v, std::uint64_t mark);
    void lost();
    void take_begins(const std::string& snapshot, Volume& origin);
    Volume& take_ends(const std::string& snapshot);
    void take_failed(const std::string& snapshot);
    void revert_begins(const std::string& snapshot, Volume& volume);
    void revert_ends(const std::string& snapshot);
    void revert_failed(const std::string& snapshot);
    void drop(const std::string& name);
    void check(Volume& v, std::uint64_t first, std::span<const unsigned char> data);

    // Hands lines to the kernel. Before a request that depends on them is sent, so that the death of this
    // process loses nothing.
    void write_out();

  private:
    struct Close {
        void operator()(std::FILE* f) const noexcept { std::fclose(f); }
    };
    std::unique_ptr<std::FILE, Close> file_;
    Model& model_;
};

// Plays a journal into an empty model; returns the highest write number. Throws std::runtime_error naming the
// line.
Seq replay(const std::string& path, Model& model);

}  // namespace crash
