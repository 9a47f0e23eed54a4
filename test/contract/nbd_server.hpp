// nbdkit as an NBD server for one test: on a Unix socket in a folder of its own, ended with the object.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "test/contract/engine_fixture.hpp"

namespace udm::test {

class Nbdkit {
  public:
    Nbdkit() = default;
    Nbdkit(const Nbdkit&) = delete;
    Nbdkit& operator=(const Nbdkit&) = delete;
    ~Nbdkit() { kill(); }

    static bool is_here() { return ::access("/usr/sbin/nbdkit", X_OK) == 0 || ::access("/usr/bin/nbdkit", X_OK) == 0; }
    std::string socket() const { return folder_ / "s"; }
    std::string uri() const { return "nbd+unix:///?socket=" + socket(); }
    // `words`: filters, plugin and its arguments. Returns when it answers.
    void start(const std::vector<std::string>& words) {
        std::vector<std::string> command{"nbdkit", "-f", "-U", socket()};
        command.insert(command.end(), words.begin(), words.end());
        std::vector<char*> argv;
        for (std::string& word : command) argv.push_back(word.data());
        argv.push_back(nullptr);
        ::unlink(socket().c_str());
        pid_ = ::fork();
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::execvp(argv[0], argv.data());
            ::_exit(127);
        }
        while (!answers()) {
            ASSERT_EQ(::waitpid(pid_, nullptr, WNOHANG), 0) << "nbdkit ended at once";
            ::poll(nullptr, 0, 1);
        }
    }
    void signal(int which) const { ::kill(pid_, which); }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }

  private:
    bool answers() const {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket().copy(address.sun_path, sizeof address.sun_path - 1);
        const bool ok = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        ::close(fd);
        return ok;
    }
    TempFolder folder_;
    pid_t pid_ = -1;
};

}  // namespace udm::test
