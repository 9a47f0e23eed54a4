// A regular file or a block device. Requests go to the loop as operations; what lies in memory is served in
// place.
#pragma once

#include <string>

#include "engine/file_probe.hpp"
#include "engine/loop.hpp"

namespace udm {

class FileRequest;

class FileDisk final : public Disk {
  public:
    // The descriptor stays the caller's, open until release(). Any thread; used on the loop's only.
    FileDisk(Loop& loop, const OpenedFile& file, std::string name);
    ~FileDisk() override;  // nothing is under way; release() was called

    void submit(Io& io) noexcept override;
    const Limits& limits() const noexcept override { return limits_; }
    void refresh() noexcept override;

    // From here on the descriptor is not used any more.
    void release() noexcept;
    int descriptor() const noexcept { return file_.fd; }

  private:
    friend class FileRequest;

    bool serve_in_place(Io& io) noexcept;
    bool transfer_in_place(Io& io) noexcept;
    bool find_status_in_place(Io& io) noexcept;
    bool fits(const Extent& extent) const noexcept;
    void report_shrunk() noexcept;

    Loop& loop_;
    File file_;
    Limits limits_;
    const bool block_device_;
    const bool memory_;
    const bool direct_;
    bool attached_ = false;
    // Learnt from the first answer.
    bool no_punch_ = false;
    bool no_zero_range_ = false;
    bool no_discard_ = false;
    bool shrunk_ = false;
    std::uint32_t under_way_ = 0;
    const std::string name_;
};

// The answer about `extent` of a file: where data and holes lie. May block unless the file is in memory.
int find_extent_status(int fd, const Extent& extent, ExtentAnswer& answer) noexcept;

// The table to a request's status, of a positive errno.
IoStatus file_status(int error) noexcept;

}  // namespace udm
