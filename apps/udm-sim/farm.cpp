#include "apps/udm-sim/farm.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "sim/runner.hpp"

namespace udm::sim_app {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kHangs_s = 60;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What the processes share. One writer a field, but for `failures`.
struct Totals {
    std::atomic<std::uint64_t> seed;    // the one at hand
    std::atomic<std::uint64_t> histories, requests, views, faults, cuts, swaps, steps, left_out;
};
struct Shared {
    std::atomic<std::uint64_t> failures;
    std::atomic<bool> stop;
    Totals jobs[256];
};

void add(std::atomic<std::uint64_t>& to, std::uint64_t n) { to.store(to.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }

// One write for one report, so that processes do not mix their lines.
void say(const std::string& text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const ssize_t n = ::write(STDOUT_FILENO, text.data() + at, text.size() - at);
        if (n <= 0) return;
        at += static_cast<std::size_t>(n);
    }
}

std::string report(const Story& story, const RunOptions& run, const std::vector<std::string>& violations) {
    std::string text = fmt::format("seed {}: {} violation{}\n", run.seed, violations.size(), violations.size() == 1 ? "" : "s");
    for (const std::string& violation : violations) text += "  " + violation + "\n";
    return text + "  replay with: udm-sim " + replay_arguments(story, run) + "\n";
}

void run_share(const Story& story, const Options& options, Shared& shared, unsigned job, std::uint64_t from) {
    Totals& totals = shared.jobs[job];
    for (std::uint64_t seed = from; seed <= options.last && !shared.stop; seed += options.jobs) {
        totals.seed = seed;
        const RunOptions run{.seed = seed, .without = options.without};
        const Outcome outcome = run_story(story, run);
        add(totals.histories, 1);
        add(totals.requests, outcome.requests);
        add(totals.views, outcome.views);
        add(totals.faults, outcome.faults);
        add(totals.cuts, outcome.cuts);
        add(totals.swaps, outcome.swaps);
        add(totals.steps, outcome.steps);
        add(totals.left_out, outcome.left_out);
        if (!outcome.failed()) continue;
        if (++shared.failures >= options.failures_max) shared.stop = true;
        say(report(story, run, outcome.violations));
    }
}

struct Child {
    pid_t pid = -1;
    std::uint64_t seen_seed = 0;
    Clock::time_point seen_at{};
};

pid_t start(const Story& story, const Options& options, Shared& shared, unsigned job, std::uint64_t from) {
    shared.jobs[job].seed = from;
    const pid_t pid = ::fork();
    if (pid < 0) throw std::runtime_error{"cannot start a process"};
    if (pid != 0) return pid;
    run_share(story, options, shared, job, from);
    std::_Exit(0);
}

std::string ended_how(int status) {
    if (WIFSIGNALED(status)) return fmt::format("it ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return fmt::format("it ended with status {}", WEXITSTATUS(status));
}

void print_totals(const Story& story, const Shared& shared, const Options& options, double seconds) {
    std::uint64_t sum[8]{};
    for (unsigned job = 0; job < options.jobs; ++job) {
        const Totals& t = shared.jobs[job];
        const std::atomic<std::uint64_t>* const fields[] = {&t.histories, &t.requests, &t.views, &t.faults,
                                                            &t.cuts, &t.swaps, &t.steps, &t.left_out};
        for (std::size_t i = 0; i < 8; ++i) sum[i] += *fields[i];
    }
    const double n = sum[0] == 0 ? 1 : static_cast<double>(sum[0]);
    const auto mean = [n](std::uint64_t total) { return static_cast<double>(total) / n; };
    say(fmt::format("{} histories of '{}' in {:.1f} s, {:.0f}/s: {} failed\n"
                    "in the mean: {:.1f} client requests, {:.1f} {}, {:.1f} faulted disk requests, {:.2f} power "
                    "cuts, {:.1f} suspends and swaps, {:.0f} events{}\n",
                    sum[0], options.story, seconds, static_cast<double>(sum[0]) / seconds, shared.failures.load(), mean(sum[1]),
                    mean(sum[2]), story.views(), mean(sum[3]), mean(sum[4]), mean(sum[5]), mean(sum[6]),
                    options.without.empty() ? std::string{} : fmt::format(", {:.1f} cares left out", mean(sum[7]))));
}

}  // namespace

std::uint64_t run_seeds(const Story& story, const Options& options) {
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error{"no memory to share"};
    auto& shared = *new (memory) Shared{};
    const auto begun = Clock::now();
    std::vector<Child> children(options.jobs);
    unsigned running = 0;
    for (unsigned job = 0; job < options.jobs; ++job) {
        const std::uint64_t from = options.first + job;
        if (from > options.last) continue;
        children[job] = {start(story, options, shared, job, from), from, Clock::now()};
        ++running;
    }
    while (running != 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
        if (options.budget_s > 0 && seconds_since(begun) > options.budget_s) shared.stop = true;
        for (unsigned job = 0; job < options.jobs; ++job) {
            Child& child = children[job];
            if (child.pid < 0) continue;
            const std::uint64_t seed = shared.jobs[job].seed;
            if (seed != child.seen_seed) {
                child.seen_seed = seed;
                child.seen_at = Clock::now();
            }
            const bool hangs = seconds_since(child.seen_at) > kHangs_s;
            if (hangs) ::kill(child.pid, SIGKILL);
            int status = 0;
            if (::waitpid(child.pid, &status, hangs ? 0 : WNOHANG) != child.pid) continue;
            child.pid = -1;
            --running;
            if (!hangs && WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
            const RunOptions run{.seed = seed, .without = options.without};
            say(report(story, run, {hangs ? fmt::format("it ran for {} s", kHangs_s) : ended_how(status)}));
            add(shared.jobs[job].histories, 1);
            if (++shared.failures >= options.failures_max) shared.stop = true;
            if (shared.stop || seed + options.jobs > options.last) continue;
            child = {start(story, options, shared, job, seed + options.jobs), seed + options.jobs, Clock::now()};
            ++running;
        }
    }
    if (!options.quiet || shared.failures != 0) print_totals(story, shared, options, seconds_since(begun));
    const std::uint64_t failures = shared.failures;
    ::munmap(memory, sizeof(Shared));
    return failures;
}

bool fails_apart(const Story& story, const RunOptions& run) {
    const pid_t pid = ::fork();
    if (pid < 0) throw std::runtime_error{"cannot start a process"};
    if (pid == 0) {
        const int nowhere = ::open("/dev/null", O_WRONLY);
        ::dup2(nowhere, STDERR_FILENO);
        ::alarm(20);
        const Outcome outcome = run_story(story, run);
        std::_Exit(outcome.failed() ? 1 : 0);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

}  // namespace udm::sim_app
