// A device that is to become a copy of a volume: its new leg, or where it moves to. What is in it is overwritten, so it must have
// no other user: no table and no export of this daemon, no table of a device that is held, and nobody else who has locked it. What a mapped
// device stands on may have others (the volume itself, too) only in other places.
#pragma once

#include <memory>
#include <string>

#include "ctl/devices.hpp"

namespace udm::ctl {

class NewLeg {
  public:
    struct Volume {
        std::string name;
        Sectors size{};
        std::uint32_t logical_block = kSectorSize;    // what its clients keep to
        unsigned home = 0;
    };
    // `words`: an absolute path, an NBD URI, or a device of this daemon that nobody uses. A path where nothing is becomes a sparse
    // file of the volume's size, which is there after a power cut, too. Open until this goes, since some servers end with
    // their last connection: load the table meanwhile. Throws Failure, which names the device and says what would be right.
    NewLeg(Devices& devices, const std::string& words, const Volume& volume);
    NewLeg(const NewLeg&) = delete;
    NewLeg& operator=(const NewLeg&) = delete;
    ~NewLeg();    // without keep() a file that was made goes, too

    const std::string& words() const noexcept { return words_; }
    bool made() const noexcept { return made_; }
    void keep() noexcept { kept_ = true; }

  private:
    void check_nobody_uses_it(const Volume& volume) const;
    void check_disks_below(const Volume& volume) const;
    void check_limits(const Limits& limits, bool remote, const Volume& volume) const;
    void close() noexcept;

    Devices& devices_;
    const std::string words_;
    RecordPtr mapped_;    // it is one of ours
    std::unique_ptr<OpenDevice> open_;
    unsigned home_ = 0;
    bool made_ = false, kept_ = false;
};

}  // namespace udm::ctl
