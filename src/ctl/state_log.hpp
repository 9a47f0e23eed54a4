// The file of the state directory: a log of checked records (decision 12).
//
//   DIR/lock        held while a daemon uses the directory
//   DIR/state.log   lines "CRC LENGTH TEXT\n": CRC-32C of "LENGTH TEXT" in 8 hex digits, LENGTH of TEXT in
//   bytes
//
// The first record says what the file is. Each append is one write and one fdatasync before the next begins,
// so only the last record can be torn by a crash, and a torn one shows: bytes are missing at its end, or
// whole sectors of it are zeroes. It was never acknowledged, and is dropped. Anything else that doesn't check
// is damage: the file is kept aside as state.log.damaged-TIME, and nothing is taken from it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "ctl/fd.hpp"

namespace udm::ctl {

class StateLog {
  public:
    struct Opened {
        std::vector<std::string> records;  // without the first
        std::string damaged;               // where the file was put aside and why; empty: all was well
        std::uint64_t torn_bytes = 0;      // of an unfinished last record, dropped
    };

    // Makes the directory (0700) if need be and locks it: busy when another daemon has it. A file of a newer
    // version is an error and stays as it is.
    Result<Opened> open(const std::string& directory);
    bool is_open() const noexcept { return static_cast<bool>(file_); }
    // Durable when it returns. After an error the file is as before; if that cannot be had either, every
    // later append fails until rewrite() works.
    Result<void> append(std::string_view text);
    // A new file with just these records takes the place of the old one, or the old one stays.
    Result<void> rewrite(const std::vector<std::string>& records);

    std::uint64_t size() const noexcept { return end_; }
    std::uint64_t bytes_written() const noexcept { return written_; }  // since open, for tests and status
    const std::string& directory() const noexcept { return directory_; }

  private:
    Result<void> lock();
    Result<void> put_aside(const std::string& why, Opened& opened);
    Result<void> sync_directory() const;
    std::string path(std::string_view name) const;

    std::string directory_;
    Fd lock_;
    Fd file_;
    std::uint64_t end_ = 0;
    std::uint64_t written_ = 0;
    bool broken_ = false;
};

// A record as it stands in the file; parse_record() is its reverse, for tests and checks.
std::string format_record(std::string_view text);

}  // namespace udm::ctl
