// Decision 17: locks against other processes, with real qemu-io as one of them.
#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "test/contract/engine_fixture.hpp"

extern char** environ;

namespace udm::test {
namespace {

const char* const kQemuIo = "/usr/bin/qemu-io";

// A qemu-io that has the image open and waits for commands.
class QemuIo {
  public:
    QemuIo(const std::string& path, bool read_only) {
        int to[2], from[2];
        if (::pipe2(to, O_CLOEXEC) != 0 || ::pipe2(from, O_CLOEXEC) != 0) return;
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, to[0], 0);
        ::posix_spawn_file_actions_adddup2(&actions, from[1], 1);
        ::posix_spawn_file_actions_adddup2(&actions, from[1], 2);
        std::vector<std::string> words{kQemuIo, "-f", "raw"};
        if (read_only) words.push_back("-r");
        words.push_back(path);
        std::vector<char*> argv;
        for (std::string& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        if (::posix_spawn(&pid_, kQemuIo, &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
        ::posix_spawn_file_actions_destroy(&actions);
        ::close(to[0]);
        ::close(from[1]);
        in_ = to[1];
        out_ = from[0];
        // Its answer shows that the image is open, or that it could not be.
        ask("read 0 512\n");
        char buffer[4096];
        ssize_t n;
        while ((n = ::read(out_, buffer, sizeof buffer)) > 0) {
            said_.append(buffer, static_cast<std::size_t>(n));
            if (said_.find("ops;") != std::string::npos) {
                opened_ = true;
                break;
            }
        }
    }
    QemuIo(const QemuIo&) = delete;
    QemuIo& operator=(const QemuIo&) = delete;
    ~QemuIo() { end(); }
    void end() {
        if (pid_ < 0) return;
        ask("quit\n");
        ::close(in_);
        ::close(out_);
        int status;
        ::waitpid(pid_, &status, 0);
        pid_ = -1;
    }
    bool opened() const { return opened_; }
    const std::string& said() const { return said_; }
    pid_t pid() const { return pid_; }

  private:
    void ask(const char* command) {
        [[maybe_unused]] const ssize_t n = ::write(in_, command, std::strlen(command));
    }
    pid_t pid_ = -1;
    int in_ = -1, out_ = -1;
    bool opened_ = false;
    std::string said_;
};

// What a killed daemon leaves for a while: a reader's lock whose description no process has open any more. One that is under way in
// a socket is like that.
class LockLeftBehind {
  public:
    explicit LockLeftBehind(const std::string& path) {
        const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        for (const off_t byte : {100, 201}) {
            struct flock lock {};
            lock.l_type = F_RDLCK;
            lock.l_start = byte;
            lock.l_len = 1;
            EXPECT_EQ(::fcntl(file, F_OFD_SETLK, &lock), 0);
        }
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets_), 0);
        char data = 'x';
        iovec bytes{&data, 1};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
        msghdr message{};
        message.msg_iov = &bytes;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(header), &file, sizeof file);
        EXPECT_EQ(::sendmsg(sockets_[0], &message, 0), 1);
        ::close(file);
    }
    LockLeftBehind(const LockLeftBehind&) = delete;
    LockLeftBehind& operator=(const LockLeftBehind&) = delete;
    ~LockLeftBehind() { end(); }
    void end() {
        for (int& one : sockets_) {
            if (one >= 0) ::close(std::exchange(one, -1));
        }
    }

  private:
    int sockets_[2]{-1, -1};
};

class FileLock : public EngineTest {
  protected:
    void SetUp() override {
        ::signal(SIGPIPE, SIG_IGN);
        start(Variant::threads);
        path_ = make_file(folder_ / "image", 1u << 20);
    }
    bool can_open(OpenMode mode, std::string* why = nullptr) {
        auto device = engine().opener(0).open(path_, mode);
        if (!device) {
            EXPECT_EQ(device.error().code, Errc::busy);
            if (why) *why = device.error().message;
            return false;
        }
        close(*device);
        return true;
    }
    bool qemu_can(bool read_only) {
        const QemuIo qemu{path_, read_only};
        EXPECT_TRUE(qemu.opened() || qemu.said().find("lock") != std::string::npos) << qemu.said();
        return qemu.opened();
    }

    TempFolder folder_{"/var/tmp"};
    std::string path_;
};

#define NEEDS_QEMU_IO() \
    if (::access(kQemuIo, X_OK) != 0) GTEST_SKIP() << "no qemu-io here"

TEST_F(FileLock, KeepsQemuAwayFromWhatWeWrite) {
    NEEDS_QEMU_IO();
    auto writer = open(path_);
    EXPECT_FALSE(qemu_can(false));
    EXPECT_FALSE(qemu_can(true));
    close(writer);
    EXPECT_TRUE(qemu_can(false));
}

TEST_F(FileLock, LetsQemuReadWhatWeRead) {
    NEEDS_QEMU_IO();
    auto reader = open(path_, OpenMode::read);
    EXPECT_TRUE(qemu_can(true));
    EXPECT_FALSE(qemu_can(false));
    close(reader);
    EXPECT_TRUE(qemu_can(false));
}

TEST_F(FileLock, StaysAwayFromWhatQemuWritesAndNamesIt) {
    NEEDS_QEMU_IO();
    QemuIo qemu{path_, false};
    ASSERT_TRUE(qemu.opened()) << qemu.said();
    for (const OpenMode mode : {OpenMode::read, OpenMode::write}) {
        std::string why;
        EXPECT_FALSE(can_open(mode, &why));
        EXPECT_EQ(
            why.find(path_ + ": in use by another process: pid " + std::to_string(qemu.pid()) + " (qemu-io)"),
            0u)
            << why;
    }
    qemu.end();
    EXPECT_TRUE(can_open(OpenMode::write));
}

TEST_F(FileLock, ReadsButDoesNotWriteWhatQemuReads) {
    NEEDS_QEMU_IO();
    const QemuIo qemu{path_, true};
    ASSERT_TRUE(qemu.opened()) << qemu.said();
    EXPECT_TRUE(can_open(OpenMode::read));
    EXPECT_FALSE(can_open(OpenMode::write));
}

TEST_F(FileLock, IsOneForAllUsesInADaemon) {
    auto first = open(path_, OpenMode::read);
    auto second = open(path_, OpenMode::write);  // the lock becomes a writer's
    auto third = open(path_, OpenMode::write);
    auto fourth = open(path_, OpenMode::read);
    for (auto* device : {&first, &second, &third, &fourth}) ASSERT_TRUE(*device);
    if (::access(kQemuIo, X_OK) == 0) {
        EXPECT_FALSE(qemu_can(true));
    }
    close(second);
    close(third);
    if (::access(kQemuIo, X_OK) == 0) {  // readers are left
        EXPECT_TRUE(qemu_can(true));
        EXPECT_FALSE(qemu_can(false));
    }
    close(first);
    close(fourth);
    if (::access(kQemuIo, X_OK) == 0) {
        EXPECT_TRUE(qemu_can(false));
    }
}

TEST_F(FileLock, RefusesToBecomeAWriterWhileOthersReadAndKeepsReading) {
    NEEDS_QEMU_IO();
    auto reader = open(path_, OpenMode::read);
    QemuIo qemu{path_, true};
    ASSERT_TRUE(qemu.opened()) << qemu.said();
    EXPECT_FALSE(can_open(OpenMode::write));
    std::vector<char> data(4096);
    EXPECT_EQ(read(reader->disk(), 0, data), IoStatus::ok);
    EXPECT_FALSE(qemu_can(false));  // our reader's lock is still there
    qemu.end();
    EXPECT_TRUE(can_open(OpenMode::write));
    close(reader);
}

// Two daemons: as two engines, since locks belong to descriptions and not to processes.
TEST_F(FileLock, HoldsBetweenDaemons) {
    auto other = Engine::start({.reactors = 1, .kind = EngineConfig::Kind::threads});
    ASSERT_TRUE(other);
    auto try_other = [&](OpenMode mode) {
        auto device = (*other)->opener(0).open(path_, mode);
        if (device) on((*other)->reactor(0), [&] { device->reset(); });
        return device.has_value();
    };
    auto reader = open(path_, OpenMode::read);
    EXPECT_TRUE(try_other(OpenMode::read));
    EXPECT_FALSE(try_other(OpenMode::write));
    auto writer = open(path_);
    EXPECT_FALSE(try_other(OpenMode::read));
    EXPECT_FALSE(try_other(OpenMode::write));
    close(writer);
    EXPECT_TRUE(try_other(OpenMode::read));
    close(reader);
    EXPECT_TRUE(try_other(OpenMode::write));
    (*other)->stop();
}

TEST_F(FileLock, WaitsForWhatAKilledDaemonLeftBehind) {
    using namespace std::chrono_literals;
    auto patient = Engine::start({.reactors = 1, .kind = EngineConfig::Kind::threads, .patience_with_locks = 1h});
    ASSERT_TRUE(patient);
    DeviceOpener& opener = (*patient)->opener(0);
    LockLeftBehind left{path_};
    auto reader = opener.open(path_, OpenMode::read);    // shares it
    ASSERT_TRUE(reader) << reader.error().message;
    auto writer = std::async(std::launch::async, [&] { return opener.open(path_, OpenMode::write); });
    EXPECT_EQ(writer.wait_for(100ms), std::future_status::timeout);
    left.end();
    auto opened = writer.get();
    EXPECT_TRUE(opened) << opened.error().message;
    if (opened) on((*patient)->reactor(0), [&] { opened->reset(); });
    // Who lives is not waited for: that would take an hour.
    if (::access(kQemuIo, X_OK) == 0) {
        const QemuIo qemu{path_, true};
        ASSERT_TRUE(qemu.opened()) << qemu.said();
        EXPECT_FALSE(opener.open(path_, OpenMode::write));
    }
    on((*patient)->reactor(0), [&] { reader->reset(); });
    (*patient)->stop();
}

TEST_F(FileLock, IsNotWaitedForLongAfterTheStart) {
    auto reader = open(path_, OpenMode::read);
    const LockLeftBehind left{path_};
    std::string why;
    EXPECT_FALSE(can_open(OpenMode::write, &why));    // this engine has no patience
    EXPECT_NE(why.find(path_ + ": in use by another process: "), std::string::npos) << why;
    close(reader);
}

TEST_F(FileLock, NamesTheHolderOfAnOrdinaryLock) {
    int ready[2], go[2];
    ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(go, O_CLOEXEC), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
        const int fd = ::open(path_.c_str(), O_RDWR);
        struct flock lock {};
        lock.l_type = F_WRLCK;
        char c = ::fcntl(fd, F_SETLK, &lock) == 0 ? 'y' : 'n';
        [[maybe_unused]] ssize_t n = ::write(ready[1], &c, 1);
        ::close(go[1]);
        n = ::read(go[0], &c, 1);
        ::_exit(0);
    }
    char c = 0;
    ASSERT_EQ(::read(ready[0], &c, 1), 1);
    ASSERT_EQ(c, 'y');
    std::string why;
    EXPECT_FALSE(can_open(OpenMode::write, &why));
    EXPECT_NE(why.find("pid " + std::to_string(pid)), std::string::npos) << why;
    EXPECT_FALSE(can_open(OpenMode::read));
    ::close(go[0]);
    ::close(go[1]);
    int status;
    ::waitpid(pid, &status, 0);
    EXPECT_TRUE(can_open(OpenMode::write));
    ::close(ready[0]);
    ::close(ready[1]);
}

}  // namespace
}  // namespace udm::test
