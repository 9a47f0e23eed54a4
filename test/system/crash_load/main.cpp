// crash_load: load for a server that is killed, and a judge of what is there afterwards.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "test/system/crash_load/load.hpp"

namespace {

using namespace crash;

constexpr const char* kHelp =
    R"(usage: crash_load --fill FILE SIZE                        writes the content that the load starts from
       crash_load --journal FILE [options] NAME=URI...    loads volumes (origins) until told to finish
       crash_load --check FILE NAME=URI...                verifies volumes and snapshots against a journal

  --connections N  2, each volume      --depth N  16, each connection      --patience S  60, for a server to come back
  --seed N         1                   --flush-may-fail  a flush that fails covers nothing, and the load goes on

Commands on standard input, each answered by one line that starts with "ok" or "failed":
  begin SNAP ORIGIN        a snapshot of ORIGIN is about to be taken
  end SNAP URI [write]     it was taken; it is read from now on, and with `write` written, too
  abort SNAP               it was not
  revert SNAP VOLUME       ends SNAP's connections; VOLUME is about to go back to what it shows
  reverted SNAP            it has, and SNAP is gone
  kept SNAP URI [write]    it has not; SNAP is as it was
  drop SNAP                ends its connections and forgets it
  hold / go                stops sending and waits for all answers / goes on
  verify                   reads everything from end to end
  status                   counters
  finish                   stops writing, flushes by closing, verifies everything, and ends
Exit status: 0 all is well, 1 bad usage, 2 something was read that must not be there, 3 a request was refused, 4 the server stayed away.
)";

int fill(const char* path, const char* size_word) {
    const auto size = udm::parse_size(size_word);
    if (!size || *size % kSectorSize != 0) {
        fmt::print(stderr, "crash_load: --fill: size in whole sectors, not '{}'\n", size_word);
        return 1;
    }
    std::FILE* file = std::fopen(path, "we");
    if (file == nullptr) {
        fmt::print(stderr, "crash_load: {}: {}\n", path, std::strerror(errno));
        return 1;
    }
    unsigned char sector[kSectorSize];
    bool good = true;
    for (std::uint64_t s = 0; s < *size / kSectorSize && good; ++s) {
        fill_sector(sector, 0, s);
        good = std::fwrite(sector, sizeof sector, 1, file) == 1;
    }
    good = std::fclose(file) == 0 && good;
    if (!good) fmt::print(stderr, "crash_load: {}: {}\n", path, std::strerror(errno));
    return good ? 0 : 1;
}

class Shell {
  public:
    Shell(const Settings& settings, const std::string& journal_path)
        : settings_{settings}, journal_{journal_path, model_}, load_{settings, journal_, model_, 1} {}

    void add_origin(const std::string& name, const std::string& uri) {
        journal_.volume(name, nbd::Connection::open(nbd::Uri::parse(uri)).size / kSectorSize);
        load_.add(*model_.find(name), uri, true);
    }

    int run() {
        say("ok ready");
        while (!finished_) {
            if (load_.turn(STDIN_FILENO, 100)) read_commands();
        }
        load_.verify();
        wait([&] { return !load_.verifying(); });
        say("ok " + counters());
        return 0;
    }

  private:
    void say(const std::string& line) {
        fmt::print("{}\n", line);
        std::fflush(stdout);
    }
    void wait(const std::function<bool()>& done) {
        while (!done()) load_.turn(-1, 100);
    }
    std::string counters() const {
        const auto& c = load_.counters();
        return fmt::format(
            "writes={} acknowledged={} reads={} flushes={} failed_flushes={} sectors_checked={} losses={} connected={}",
            c.writes, c.acknowledged, c.reads, c.flushes, c.failed_flushes, c.sectors_checked, c.losses,
            load_.connected() ? 1 : 0);
    }
    void read_commands() {
        char buffer[4096];
        const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) return;
        if (n <= 0) throw std::runtime_error("standard input ended before `finish`");
        input_.append(buffer, static_cast<std::size_t>(n));
        for (std::size_t end; (end = input_.find('\n')) != input_.npos && !finished_;) {
            const std::string line = input_.substr(0, end);
            input_.erase(0, end + 1);
            say(command(line));
        }
    }
    void part_from(const std::string& name) {
        load_.remove(name);
        wait([&] { return !load_.has(name); });
    }
    std::string command(const std::string& line) {
        std::istringstream words(line);
        std::string verb, a, b, c;
        words >> verb >> a >> b >> c;
        if (verb == "begin") {
            Volume* origin = model_.find(b);
            if (origin == nullptr) return "failed no volume " + b;
            if (model_.find(a) != nullptr) return "failed there is a snapshot " + a;
            journal_.take_begins(a, *origin);
        } else if (verb == "end") {
            load_.add(journal_.take_ends(a), b, c == "write");
        } else if (verb == "abort") {
            journal_.take_failed(a);
        } else if (verb == "revert") {
            Volume* volume = model_.find(b);
            if (volume == nullptr) return "failed no volume " + b;
            if (!load_.has(a)) return "failed no snapshot " + a;
            part_from(a);
            journal_.revert_begins(a, *volume);
        } else if (verb == "reverted") {
            load_.hold(true);  // a read of before may bring what was there before
            wait([&] { return load_.connected() && load_.quiet(); });
            load_.hold(false);
            journal_.revert_ends(a);
        } else if (verb == "kept") {
            journal_.revert_failed(a);
            load_.add(*model_.find(a), b, c == "write");
        } else if (verb == "drop") {
            if (!load_.has(a)) return "failed no snapshot " + a;
            part_from(a);
            journal_.drop(a);
        } else if (verb == "hold") {
            load_.hold(true);
            wait([&] { return load_.quiet(); });
        } else if (verb == "go") {
            load_.hold(false);
        } else if (verb == "verify") {
            load_.verify();
            wait([&] { return !load_.verifying(); });
        } else if (verb == "finish") {
            load_.hold(true);
            wait([&] { return load_.connected() && load_.quiet(); });
            finished_ = true;
        } else if (verb != "status") {
            return "failed unknown command " + verb;
        }
        return finished_ ? "ok finishing" : "ok " + counters();
    }

    Settings settings_;
    Model model_;
    Journal journal_;
    Load load_;
    std::string input_;
    bool finished_ = false;
};

int check(const Settings& settings, const std::string& path,
          const std::vector<std::pair<std::string, std::string>>& volumes) {
    Model model;
    const Seq highest = replay(path, model);
    Journal journal{"/dev/null", model};
    Load load{settings, journal, model, highest + 1};
    for (const auto& [name, uri] : volumes) {
        Volume* v = model.find(name);
        if (v == nullptr) throw std::invalid_argument("the journal knows no volume " + name);
        load.add(*v, uri, false);
    }
    load.verify();
    while (load.verifying()) load.turn(-1, 100);
    fmt::print("ok sectors_checked={}\n", load.counters().sectors_checked);
    return 0;
}

int run(int argc, char** argv) {
    Settings settings;
    std::string journal, to_check;
    std::vector<std::pair<std::string, std::string>> volumes;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto value = [&]() -> const char* {
            if (++i >= argc) throw std::invalid_argument(word + " needs a value");
            return argv[i];
        };
        const auto number = [&]() -> std::uint64_t {
            const char* text = value();
            const auto v = udm::parse_u64(text);
            if (!v) throw std::invalid_argument(word + ": a number, not '" + text + "'");
            return *v;
        };
        if (word == "--help") return fmt::print("{}", kHelp), 0;
        if (word == "--fill" && argc == 4) return fill(argv[2], argv[3]);
        if (word == "--journal")
            journal = value();
        else if (word == "--check")
            to_check = value();
        else if (word == "--connections")
            settings.connections = static_cast<unsigned>(number());
        else if (word == "--depth")
            settings.depth = static_cast<unsigned>(number());
        else if (word == "--flush-may-fail")
            settings.flush_may_fail = true;
        else if (word == "--patience")
            settings.patience_s = static_cast<double>(number());
        else if (word == "--seed")
            settings.seed = number();
        else if (const auto eq = word.find('='); eq != word.npos && word[0] != '-')
            volumes.emplace_back(word.substr(0, eq), word.substr(eq + 1));
        else
            throw std::invalid_argument("not understood: " + word);
    }
    if (volumes.empty()) throw std::invalid_argument("no volume: NAME=URI");
    if (journal.empty() == to_check.empty())
        throw std::invalid_argument("either --journal or --check is needed");
    if (settings.connections == 0 || settings.depth == 0)
        throw std::invalid_argument("--connections and --depth: at least 1");
    if (!to_check.empty()) return check(settings, to_check, volumes);
    Shell shell{settings, journal};
    for (const auto& [name, uri] : volumes) shell.add_origin(name, uri);
    return shell.run();
}

int report(int status, const std::string& kind, const std::string& what) {
    fmt::print("failed {}: {}\n", kind, what);
    fmt::print(stderr, "crash_load: {}: {}\n", kind, what);
    return status;
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    try {
        return run(argc, argv);
    } catch (const std::invalid_argument& e) {
        fmt::print(stderr, "crash_load: {}\ncrash_load: try --help\n", e.what());
        return 1;
    } catch (const Violation& v) {
        return report(2, "violation", v.what);
    } catch (const RequestFailed& r) {
        return report(3, "refused", r.what);
    } catch (const StayedAway& s) {
        return report(4, "away", s.what);
    } catch (const std::exception& e) {
        return report(1, "error", e.what());
    }
}
