#include "ctl/content.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

using std::string_view_literals::operator""sv;

constexpr Sectors kLookedAt{136};    // 68 KiB: btrfs begins at 64

struct Signature {
    std::size_t at;
    std::string_view bytes;
    const char* name;
};
// The more telling ones first: a file system may begin behind a boot sector.
constexpr Signature kSignatures[] = {
    {1080, "\x53\xEF"sv, "an ext2, ext3 or ext4 file system"},
    {0, "XFSB"sv, "an XFS file system"},
    {65600, "_BHRfS_M"sv, "a btrfs file system"},
    {3, "NTFS    "sv, "an NTFS file system"},
    {82, "FAT32   "sv, "a FAT file system"},
    {54, "FAT1"sv, "a FAT file system"},
    {0, "hsqs"sv, "a squashfs image"},
    {32769, "CD001"sv, "an ISO 9660 image"},
    {4086, "SWAPSPACE2"sv, "swap space"},
    {0, "LUKS\xBA\xBE"sv, "a LUKS volume"},
    {536, "LVM2 001"sv, "an LVM physical volume"},
    {0, "QFI\xFB"sv, "a qcow2 image"},
    {0, "KDMV"sv, "a VMDK image"},
    {0, "SnAp"sv, "the store of a snapshot"},
    {0, "rRiM"sv, "the log of a mirror"},
    {4096, "\xFC\x4E\x2B\xA9"sv, "a member of an MD array"},
    {512, "EFI PART"sv, "a GPT partition table"},
    {510, "\x55\xAA"sv, "a partition table or a boot sector"},
};

Job<Result<void>> read_start(Disk* disk, Reactor* reactor, Sector offset, std::vector<std::byte>* to) {
    const Limits& limits = disk->limits();
    const std::uint64_t block = limits.logical_block / kSectorSize;
    if (limits.size.v <= offset.v) co_return Result<void>{};
    const Sectors length{std::min(kLookedAt.v, limits.size.v - offset.v) / block * block};
    const std::size_t bytes = to_bytes(length);
    std::byte* const buffer = reactor->buffers().take(bytes);
    IoWait read{*reactor, *disk, Op::read, {offset, length}, buffer};
    const IoStatus status = co_await read;
    to->assign(buffer, buffer + bytes);
    reactor->buffers().give(buffer, bytes);
    if (status != IoStatus::ok) co_return fail(Errc::io, to_string(status));
    co_return Result<void>{};
}

}  // namespace

std::string content_name(std::span<const std::byte> start) {
    for (const Signature& one : kSignatures) {
        if (start.size() < one.at + one.bytes.size()) continue;
        if (std::memcmp(start.data() + one.at, one.bytes.data(), one.bytes.size()) == 0) return one.name;
    }
    const bool blank = std::all_of(start.begin(), start.end(), [](std::byte byte) { return byte == std::byte{0}; });
    return blank ? "" : "data";
}

std::string content_of(Devices& devices, const std::string& words, Sector offset, unsigned home) {
    std::vector<std::byte> start;
    Result<void> read;
    if (const RecordPtr mapped = find_mapped(devices.registry(), words)) {
        Device& device = devices.ensure_device(mapped, home);
        {
            const std::lock_guard lock{devices.registry().mutex};
            home = mapped->home;
        }
        Reactor& reactor = devices.host().env(home).reactor;
        read = call_on(reactor, [&] { return read_start(&device, &reactor, offset, &start); });
    } else {
        auto open = must(devices.host().opener(home).open(words, OpenMode::read));
        Reactor& reactor = devices.host().env(home).reactor;
        read = call_on(reactor, [&] { return read_start(&open->disk(), &reactor, offset, &start); });
        run_on(reactor, [&] { open.reset(); });
    }
    if (!read) throw Failure{Errc::io, words + " cannot be read: " + read.error().message};
    return content_name(start);
}

}  // namespace udm::ctl
