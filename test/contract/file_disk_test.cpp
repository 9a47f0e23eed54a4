// What is special to files and block devices: they shrink, grow, vanish, fill up, and are opened by several
// names.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/contract/engine_fixture.hpp"

namespace udm::test {
namespace {

class FileDisk : public EngineTest, public ::testing::WithParamInterface<Variant> {
  protected:
    void SetUp() override { start(GetParam()); }
    std::string message_of(const std::string& words, OpenMode mode, Errc code) {
        auto device = engine().opener(0).open(words, mode);
        EXPECT_FALSE(device) << words;
        if (device) return "";
        EXPECT_EQ(device.error().code, code) << device.error().message;
        return device.error().message;
    }
};

INSTANTIATE_TEST_SUITE_P(All, FileDisk,
                         ::testing::Values(Variant::uring, Variant::plain_ring, Variant::threads),
                         [](const auto& which) { return name_of(which.param); });

// On a disk, and in memory with a request served in place and one that is not.
TEST_P(FileDisk, FailsReadsBeyondAnEndThatCameNearerAndSaysSoOnce) {
    for (const char* parent : {"/var/tmp", "/dev/shm"}) {
        const TempFolder folder{parent};
        const std::string path = make_file(folder / "image", 4u << 20);
        auto device = open(path);
        const std::size_t before = log_lines().size();
        std::filesystem::resize_file(path, (1u << 20) + 512);
        for (const std::size_t bytes : {4096u, 512u << 10}) {
            std::vector<char> data(bytes);
            EXPECT_EQ(read(device->disk(), 4096, data), IoStatus::io_error) << path << " " << bytes;
            EXPECT_EQ(read(device->disk(), 2048, data), IoStatus::io_error)
                << path << " across the end, " << bytes;
            EXPECT_EQ(read(device->disk(), 0, data), IoStatus::ok) << path << " " << bytes;
        }
        ASSERT_EQ(log_lines().size(), before + 1);
        EXPECT_NE(log_lines().back().find(path), std::string::npos);
        EXPECT_NE(log_lines().back().find("1049088"), std::string::npos) << log_lines().back();

        // A write makes the file longer again, and what was never there reads as zeroes.
        auto data = pattern(4096, 1);
        EXPECT_EQ(write(device->disk(), 8184, data), IoStatus::ok);
        std::vector<char> back(4096, 'x');
        EXPECT_EQ(read(device->disk(), 4096, back), IoStatus::ok);
        EXPECT_EQ(back, std::vector<char>(4096));
        close(device);
    }
}

TEST_P(FileDisk, FindsANewSizeWhenAsked) {
    const TempFolder folder{"/var/tmp"};
    const std::string path = make_file(folder / "image", 1u << 20);
    auto device = open(path);
    std::filesystem::resize_file(path, 2u << 20);
    EXPECT_EQ(device->disk().limits().size, Sectors{2048});
    on(reactor(), [&] { device->disk().refresh(); });
    EXPECT_EQ(device->disk().limits().size, Sectors{4096});
    auto data = pattern(4096, 1);
    EXPECT_EQ(write(device->disk(), 4088, data), IoStatus::ok);
    close(device);
}

TEST_P(FileDisk, ServesAFileThatHasLostItsName) {
    for (const char* parent : {"/var/tmp", "/dev/shm"}) {
        const TempFolder folder{parent};
        const std::string path = make_file(folder / "image", 1u << 20);
        auto device = open(path);
        ASSERT_TRUE(std::filesystem::remove(path));
        auto data = pattern(8192, 2);
        std::vector<char> back(8192);
        EXPECT_EQ(write(device->disk(), 0, data), IoStatus::ok);
        EXPECT_EQ(read(device->disk(), 0, back), IoStatus::ok);
        EXPECT_EQ(data, back);
        close(device);
    }
}

TEST_P(FileDisk, RefusesToWriteWhatIsOpenForReading) {
    for (const char* parent : {"/var/tmp", "/dev/shm"}) {
        const TempFolder folder{parent};
        const std::string path = make_file(folder / "image", 1u << 20);
        auto device = open(path, OpenMode::read);
        EXPECT_TRUE(device->disk().limits().read_only);
        std::vector<char> data(4096);
        EXPECT_EQ(read(device->disk(), 0, data), IoStatus::ok);
        EXPECT_EQ(write(device->disk(), 0, data), IoStatus::read_only);
        EXPECT_EQ(simple(device->disk(), Op::discard, 0, 8), IoStatus::read_only);
        EXPECT_EQ(simple(device->disk(), Op::write_zeroes, 0, 8), IoStatus::read_only);
        EXPECT_EQ(simple(device->disk(), Op::flush, 0, 0), IoStatus::ok);
        close(device);
    }
}

TEST_P(FileDisk, LeavesOutTheLastBytesThatAreNoSectorAndSaysSo) {
    for (const char* parent : {"/var/tmp", "/dev/shm"}) {
        const TempFolder folder{parent};
        const std::string path = make_file(folder / "image", 10 * 512 + 100);
        const std::size_t before = log_lines().size();
        auto device = open(path);
        EXPECT_EQ(device->disk().limits().size, Sectors{10});
        ASSERT_EQ(log_lines().size(), before + 1);
        EXPECT_NE(log_lines().back().find("100 bytes"), std::string::npos) << log_lines().back();
        std::vector<char> data(5120);
        EXPECT_EQ(read(device->disk(), 0, data), IoStatus::ok);
        EXPECT_EQ(write(device->disk(), 0, data), IoStatus::ok);
        EXPECT_EQ(std::filesystem::file_size(path), 10u * 512 + 100);
        close(device);
    }
}

class Mounted {
  public:
    Mounted(std::string target, const char* options) : target_{std::move(target)} {
        std::filesystem::create_directory(target_);
        ok_ = ::mount("none", target_.c_str(), "tmpfs", 0, options) == 0;
    }
    Mounted(const Mounted&) = delete;
    Mounted& operator=(const Mounted&) = delete;
    ~Mounted() {
        if (ok_) ::umount2(target_.c_str(), MNT_DETACH);
    }
    explicit operator bool() const { return ok_; }

  private:
    std::string target_;
    bool ok_;
};

TEST_P(FileDisk, SaysWhenThereIsNoSpaceLeft) {
    const TempFolder folder;
    const Mounted mounted{folder / "small", "size=1m"};
    if (!mounted) GTEST_SKIP() << "may not mount";
    auto device = open(make_file(folder / "small/image", 8u << 20));
    std::vector<char> little(4096), much(512u << 10), all(2u << 20);
    EXPECT_EQ(write(device->disk(), 0, much), IoStatus::ok);
    EXPECT_EQ(write(device->disk(), 4096, all), IoStatus::no_space);
    IoStatus last{IoStatus::ok};
    for (std::uint64_t at = 8192; last == IoStatus::ok && at < 16384; at += 8)
        last = write(device->disk(), at, little);
    EXPECT_EQ(last, IoStatus::no_space);
    EXPECT_EQ(read(device->disk(), 0, much), IoStatus::ok);
    // A discard makes room.
    EXPECT_EQ(simple(device->disk(), Op::discard, 0, 1024), IoStatus::ok);
    EXPECT_EQ(write(device->disk(), 12000, little), IoStatus::ok);
    close(device);
}

TEST_P(FileDisk, SaysNoSpaceWhereAFileMayNotGrow) {
    const TempFolder folder{"/var/tmp"};
    const std::string path = make_file(folder / "image", 1u << 20);
    auto device = open(path);
    std::filesystem::resize_file(path, 4096);
    rlimit old{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
    const rlimit small{64u << 10, old.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    std::vector<char> data(4096);
    const IoStatus beyond = write(device->disk(), 1024, data);
    const IoStatus within = write(device->disk(), 64, data);
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
    EXPECT_EQ(beyond, IoStatus::no_space);
    EXPECT_EQ(within, IoStatus::ok);
    close(device);
}

TEST_P(FileDisk, KnowsAFileByWhateverNameItIsGiven) {
    const TempFolder folder;
    const std::string path = make_file(folder / "image", 1u << 20);
    std::filesystem::create_symlink(path, folder / "link");
    std::filesystem::create_hard_link(path, folder / "hard");
    make_file(folder / "other", 1u << 20);
    const auto id = engine().identify(path);
    ASSERT_TRUE(id);
    EXPECT_EQ(*engine().identify(folder / "link"), *id);
    EXPECT_EQ(*engine().identify(folder / "hard"), *id);
    EXPECT_NE(*engine().identify(folder / "other"), *id);
    auto one = open(path);
    auto two = open(folder / "link");
    auto other = open(folder / "other");
    EXPECT_EQ(one->id(), *id);
    EXPECT_EQ(two->id(), *id);
    EXPECT_EQ(one->minor(), two->minor());
    EXPECT_NE(one->minor(), other->minor());
    close(one);
    close(two);
    close(other);
}

TEST_P(FileDisk, RefusesWhatIsNoDeviceNamingIt) {
    const TempFolder folder;
    EXPECT_EQ(message_of(folder / "none", OpenMode::read, Errc::no_device),
              folder / "none" + ": No such file or directory");
    EXPECT_EQ(message_of(folder / "", OpenMode::read, Errc::no_device),
              folder / "" + ": neither a file nor a block device");
    EXPECT_EQ(message_of("/dev/null", OpenMode::write, Errc::no_device),
              "/dev/null: neither a file nor a block device");
    EXPECT_NE(message_of("image", OpenMode::write, Errc::no_device).find("image: no such device"),
              std::string::npos);
    EXPECT_NE(message_of("", OpenMode::write, Errc::no_device).find("no such device"), std::string::npos);
    EXPECT_EQ(message_of("4094:77", OpenMode::write, Errc::no_device),
              "4094:77: there is no block device of this number");
    EXPECT_EQ(engine().identify(folder / "none").error().code, Errc::no_device);
    EXPECT_EQ(engine().identify("4094:77").error().code, Errc::no_device);
}

TEST_P(FileDisk, GivesMemoryToItselfOrByName) {
    auto mine = open("ram:1M");
    auto yours = open("ram:1M");
    EXPECT_NE(mine->id(), yours->id());
    auto data = pattern(4096, 1);
    std::vector<char> back(4096, 'x');
    ASSERT_EQ(write(mine->disk(), 0, data), IoStatus::ok);
    ASSERT_EQ(read(yours->disk(), 0, back), IoStatus::ok);
    EXPECT_EQ(back, std::vector<char>(4096));

    auto one = open("ram:shared:1M");
    auto two = open("ram:shared:1024K");
    EXPECT_EQ(one->id(), two->id());
    EXPECT_EQ(*engine().identify("ram:shared:1M"), one->id());
    ASSERT_EQ(write(one->disk(), 8, data), IoStatus::ok);
    ASSERT_EQ(read(two->disk(), 8, back), IoStatus::ok);
    EXPECT_EQ(back, data);
    EXPECT_EQ(message_of("ram:shared:2M", OpenMode::write, Errc::bad_argument),
              "ram:shared:2097152: memory of this name is in use with 1048576 bytes, not 2097152");
    close(one);
    close(two);
    auto fresh = open("ram:shared:2M");  // nothing referred to it
    ASSERT_EQ(read(fresh->disk(), 8, back), IoStatus::ok);
    EXPECT_EQ(back, std::vector<char>(4096));
    close(fresh);
    close(mine);
    close(yours);
    for (const char* words : {"ram:", "ram:x", "ram:0", "ram:1000", "ram::1M", "ram:a:", "ram:a:-1"}) {
        const std::string message = message_of(words, OpenMode::write, Errc::bad_argument);
        EXPECT_EQ(message.find(words), 0u) << message;
        EXPECT_EQ(engine().identify(words).error().code, Errc::bad_argument);
    }
}

// A loop device over a file, where we may have one.
class LoopDevice {
  public:
    explicit LoopDevice(const std::string& path, unsigned block_size = 512) {
        const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        const int number = control < 0 ? -1 : ::ioctl(control, LOOP_CTL_GET_FREE);
        if (control >= 0) ::close(control);
        if (number < 0) return;
        path_ = "/dev/loop" + std::to_string(number);
        fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
        const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        loop_config config{};
        config.fd = static_cast<__u32>(file);
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
        config.block_size = block_size;
        ok_ = fd_ >= 0 && file >= 0 && ::ioctl(fd_, LOOP_CONFIGURE, &config) == 0;
        if (file >= 0) ::close(file);
    }
    LoopDevice(const LoopDevice&) = delete;
    LoopDevice& operator=(const LoopDevice&) = delete;
    ~LoopDevice() {
        if (fd_ >= 0) ::close(fd_);
    }
    explicit operator bool() const { return ok_; }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    int fd_ = -1;
    bool ok_ = false;
};

TEST_P(FileDisk, ServesABlockDeviceByNameAndByNumber) {
    const TempFolder folder{"/var/tmp"};
    const LoopDevice loop{make_file(folder / "image", 8u << 20)};
    if (!loop) GTEST_SKIP() << "no loop devices here";
    auto device = open(loop.path());
    ASSERT_TRUE(device);
    EXPECT_EQ(device->id().kind, DiskId::Kind::block);
    EXPECT_EQ(device->disk().limits().size, Sectors{16384});
    const std::string number = std::to_string(device->major()) + ":" + std::to_string(device->minor());
    EXPECT_EQ(*engine().identify(number), device->id());
    auto again = open(number);  // one daemon may use one device several times
    ASSERT_TRUE(again);
    EXPECT_EQ(again->id(), device->id());
    EXPECT_EQ(again->words(), number);

    auto data = pattern(1u << 20, 4);
    std::vector<char> back(data.size());
    EXPECT_EQ(write(device->disk(), 8, data, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(read(again->disk(), 8, back), IoStatus::ok);
    EXPECT_EQ(data, back);
    EXPECT_EQ(simple(device->disk(), Op::flush, 0, 0), IoStatus::ok);
    for (const bool no_hole : {false, true}) {
        EXPECT_EQ(write(device->disk(), 8, data), IoStatus::ok);
        EXPECT_EQ(simple(device->disk(), Op::write_zeroes, 8, 16, {.no_hole = no_hole}), IoStatus::ok);
        EXPECT_EQ(read(device->disk(), 8, back), IoStatus::ok);
        auto wanted = data;
        std::memset(wanted.data(), 0, 16 * 512);
        EXPECT_EQ(back, wanted);
    }
    if (device->disk().limits().discard) {
        EXPECT_EQ(simple(device->disk(), Op::discard, 0, 8192), IoStatus::ok);
    }
    const Request asked = run(device->disk(), {Op::extent_status, {Sector{0}, Sectors{100}}});
    EXPECT_EQ(asked.status, IoStatus::ok);
    EXPECT_EQ(asked.answer.length, Sectors{100});
    EXPECT_FALSE(asked.answer.hole);
    close(again);
    close(device);
}

TEST_P(FileDisk, RefusesWhatIsNoWholeBlockOfTheDevice) {
    const TempFolder folder{"/var/tmp"};
    const LoopDevice loop{make_file(folder / "image", 8u << 20), 4096};
    if (!loop) GTEST_SKIP() << "no loop devices here";
    auto device = open(loop.path());
    ASSERT_TRUE(device);
    EXPECT_EQ(device->disk().limits().logical_block, 4096u);
    std::vector<char> block = pattern(4096, 1), sector(512), back(4096);
    EXPECT_EQ(write(device->disk(), 8, block), IoStatus::ok);
    EXPECT_EQ(read(device->disk(), 8, back), IoStatus::ok);
    EXPECT_EQ(back, block);
    EXPECT_EQ(write(device->disk(), 8, sector), IoStatus::invalid);
    EXPECT_EQ(read(device->disk(), 4, back), IoStatus::invalid);
    EXPECT_EQ(simple(device->disk(), Op::write_zeroes, 8, 7), IoStatus::invalid);
    EXPECT_EQ(simple(device->disk(), Op::discard, 9, 8), IoStatus::invalid);
    // Pieces of a block may be of any length.
    auto one = block, two = block;
    EXPECT_EQ(run(device->disk(), {Op::write,
                                   {Sector{16}, Sectors{16}},
                                   {{one.data(), 1000}, {two.data(), 4096}, {one.data(), 3096}}})
                  .status,
              IoStatus::ok);
    std::vector<char> all(8192);
    EXPECT_EQ(read(device->disk(), 16, all), IoStatus::ok);
    EXPECT_EQ(std::memcmp(all.data() + 1000, block.data(), 4096), 0);
    EXPECT_EQ(std::memcmp(all.data() + 5096, block.data(), 3096), 0);
    close(device);
}

TEST_P(FileDisk, ShowsThatABlockDeviceIsTaken) {
    const TempFolder folder{"/var/tmp"};
    const LoopDevice loop{make_file(folder / "image", 8u << 20)};
    if (!loop) GTEST_SKIP() << "no loop devices here";
    const int fd = ::open(loop.path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(message_of(loop.path(), OpenMode::write, Errc::busy).find(loop.path() + ": in use"), 0u);
    auto reader = open(loop.path(), OpenMode::read);
    EXPECT_TRUE(reader);
    close(reader);
    ::close(fd);
    auto writer = open(loop.path());
    ASSERT_TRUE(writer);
    EXPECT_LT(::open(loop.path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC), 0);
    EXPECT_EQ(errno, EBUSY);
    close(writer);
}

}  // namespace
}  // namespace udm::test
