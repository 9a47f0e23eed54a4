// A store's file or block device, for `udm cow`: read in pieces whatever uses it, written to only when nobody does.
#pragma once

#include <string>

#include "apps/udm/context.hpp"
#include "inspect/snapshot_store.hpp"

namespace udm::app {

inline constexpr int kUnreadable = 3;    // exit code: nothing could be said about the file

class CowFile final : public inspect::Target {
  public:
    enum class Mode { look, change };
    // look: takes no lock. change: under the lock that udmd takes; Refusal when another has it. Refusal (kUnreadable) when
    // it cannot be opened.
    CowFile(const std::string& path, Mode mode);
    ~CowFile() override;
    CowFile(const CowFile&) = delete;
    CowFile& operator=(const CowFile&) = delete;

    std::uint64_t size() const override { return size_; }
    Result<void> read(std::uint64_t offset, std::span<std::byte> into) override;
    Result<void> write(std::uint64_t offset, std::span<const std::byte> from) override;
    Result<void> sync() override;
    Result<void> grow(std::uint64_t size) override;

    const std::string& path() const { return path_; }
    bool is_block_device() const { return block_device_; }
    // Another process has it locked for writing: what is read may be changing. Of files only: nobody can tell of a device.
    bool in_use() const;
    std::uint64_t allocated() const;    // bytes on disk; of a device, all
    // A new file with the same content, synced with its folder. Holes stay holes. Refusal when it cannot be made; then
    // nothing is left of it.
    void copy_to(const std::string& copy) const;

  private:
    void lock();
    std::string path_;
    int fd_ = -1;
    std::uint64_t size_ = 0;
    bool block_device_ = false;
};

}  // namespace udm::app
