// udm serve: one command from an image to an export. Uses the running daemon, or a private one that ends with it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/parse.hpp"
#include "apps/udm/commands.hpp"

namespace udm::app {
namespace {

namespace fs = std::filesystem;

// A daemon of our own in a folder of its own; ends with this object.
class PrivateDaemon {
  public:
    PrivateDaemon() {
        std::string pattern = (fs::temp_directory_path() / "udm-serve-XXXXXX").string();
        if (!::mkdtemp(pattern.data())) throw Refusal(fmt::format("{}: {}", pattern, std::strerror(errno)));
        folder_ = pattern;
        const std::string program = find_udmd();
        const std::string log = folder_ + "/udmd.log";
        pid_ = ::fork();
        if (pid_ < 0) throw Refusal(fmt::format("cannot start udmd: {}", std::strerror(errno)));
        if (pid_ == 0) {
            ::setpgid(0, 0);    // Ctrl-C is ours to deal with
            const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            ::dup2(fd, STDOUT_FILENO);
            ::dup2(fd, STDERR_FILENO);
            const std::string socket = path();
            ::execl(program.c_str(), "udmd", "--socket", socket.c_str(), static_cast<char*>(nullptr));
            ::_exit(127);
        }
        wait_for(program, log);
    }
    ~PrivateDaemon() {
        if (alive()) {
            ::kill(pid_, SIGTERM);
            ::waitpid(pid_, nullptr, 0);
        }
        std::error_code ignored;
        fs::remove_all(folder_, ignored);
    }
    PrivateDaemon(const PrivateDaemon&) = delete;
    PrivateDaemon& operator=(const PrivateDaemon&) = delete;
    std::string path() const { return folder_ + "/control.sock"; }
    const std::string& folder() const { return folder_; }
    bool alive() {
        if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) != 0) pid_ = -1;
        return pid_ > 0;
    }

  private:
    // Beside this program, else wherever the shell would find it.
    static std::string find_udmd() {
        std::error_code ignored;
        const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
        for (const fs::path& place : {self.parent_path() / "udmd", fs::path{"/usr/sbin/udmd"}, fs::path{"/usr/local/sbin/udmd"}, fs::path{"/usr/bin/udmd"}}) {
            if (::access(place.c_str(), X_OK) == 0) return place.string();
        }
        throw Refusal("no daemon runs, and udmd is not to be found", "start udmd, or install it beside udm");
    }
    void wait_for(const std::string& program, const std::string& log) {
        for (int tries = 0; tries < 1000; ++tries) {
            try {
                ctl::Client probe{path()};
                return;
            } catch (const ctl::NoDaemon&) {
                if (!alive()) break;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        throw Refusal(fmt::format("{} did not start", program), "what it said is in " + log);
    }
    std::string folder_;
    pid_t pid_ = -1;
};

struct Serve {
    std::string file, name, uri;
    bool read_only = false;

    void run(Context& context) const {
        const std::string path = absolute(file);
        catch_signals();    // so that whatever is made is also taken away
        std::unique_ptr<PrivateDaemon> own;
        try {
            context.daemon();
        } catch (const ctl::NoDaemon&) {
            if (!context.socket.empty()) throw;    // a certain daemon was asked for
            own = std::make_unique<PrivateDaemon>();
            context.use(own->path());
        }
        const std::string device = name.empty() ? name_of(path) : name;
        const std::uint64_t sectors = size_of(path) / 512;
        if (sectors == 0) throw Refusal(fmt::format("{} {}", path, fs::exists(path) ? "is smaller than a sector" : "does not exist"));
        context.call("device.create", {{"name", device}, {"read_only", read_only}, {"table", fmt::format("0 {} linear {} 0", sectors, quote_word(path))}});
        try {
            Json params{{"device", device}, {"uri", uri.empty() ? default_uri(context, own.get(), device) : uri}, {"read_only", read_only}};
            const Json exported = context.call("export.add", std::move(params));
            context.print(exported, exported["uri"]);
            wait_for_end(context);
        } catch (...) {
            take_away(context, device);
            throw;
        }
        take_away(context, device);
    }

    static void take_away(Context& context, const std::string& device) {
        try {
            context.call("export.remove", {{"device", device}});
            context.call("device.remove", {{"device", device}});
        } catch (const ctl::NoDaemon&) {    // it went first
        }
    }

    // Until a signal, or until the daemon goes away.
    static void wait_for_end(Context& context) {
        ctl::Client watch{context.daemon().path()};
        watch.call("events.subscribe");
        // A signal cuts the wait short; the second bounds the race of one that comes right before it.
        while (!stop_requested()) watch.next_event(std::chrono::milliseconds(1000));
    }

    static std::string name_of(const std::string& path) {
        std::string stem = fs::path(path).stem().string();
        for (char& c : stem) {
            if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.' && c != '+') c = '_';
        }
        return stem.empty() ? "disk" : stem.substr(0, 127);
    }

    static std::string default_uri(Context& context, const PrivateDaemon* own, const std::string& device) {
        const std::string folder = own ? own->folder() : fs::path(context.daemon().path()).parent_path().string();
        return fmt::format("nbd+unix:///{}?socket={}/nbd-{}.sock", device, folder, device);
    }
};

}  // namespace

void add_serve_command(CLI::App& app, Context& context) {
    auto serve = std::make_shared<Serve>();
    auto* command = app.add_subcommand("serve", "Serve an image over NBD until Ctrl-C; prints the URI on one line");
    command->add_option("FILE", serve->file, "Image or block device")->required();
    command->add_option("--name", serve->name, "Of the device and the export (else the file's)");
    command->add_option("--uri", serve->uri, "Where to serve it (else a Unix socket beside the daemon's)");
    command->add_flag("--read-only", serve->read_only);
    command->callback([serve, &context] { serve->run(context); });
}

}  // namespace udm::app
