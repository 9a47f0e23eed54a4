// A small NBD server without the device mapper: exports devices as they are, for tests and measurements of the NBD
// server alone.
//
//   nbd_ram_server [--engine uring|threads] [--reactors N] (--socket PATH | --port N) NAME=WORDS[,ro]...
//
// WORDS as in a table line ("ram:64M"). Prints "ready ADDRESS" when it listens; SIGTERM ends it in an orderly way, and then
// it exits with 1 if anything was left behind.
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <semaphore>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "engine/engine.hpp"
#include "exports/nbd/server.hpp"

namespace {

struct Options {
    udm::EngineConfig engine{.reactors = 1};
    udm::Address address;
    std::vector<std::string> exports;
};

[[noreturn]] void usage(const std::string& why) {
    std::cerr << "nbd_ram_server: " << why << "\n";
    std::exit(2);
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto value = [&]() -> std::string {
            if (++i == argc) usage(word + " needs a value");
            return argv[i];
        };
        if (word == "--engine") {
            const std::string kind = value();
            options.engine.kind = kind == "threads" ? udm::EngineConfig::Kind::threads : udm::EngineConfig::Kind::uring;
        } else if (word == "--reactors") {
            options.engine.reactors = udm::parse_u32(value()).value_or(1);
        } else if (word == "--socket") {
            options.address.path = value();
        } else if (word == "--port") {
            options.address.kind = udm::Address::Kind::tcp;
            options.address.port = static_cast<std::uint16_t>(udm::parse_u32(value()).value_or(0));
        } else if (word.find('=') != std::string::npos) {
            options.exports.push_back(word);
        } else {
            usage("what is " + word + "?");
        }
    }
    return options;
}

// Runs f on a reactor and waits for it.
template <class F>
void on(udm::Reactor& reactor, F&& f) {
    struct Call final : udm::Task {
        explicit Call(F& f_) : f{f_} {}
        void run() noexcept override {
            f();
            done.release();
        }
        F& f;
        std::binary_semaphore done{0};
    } call{f};
    reactor.post_remote(call);
    call.done.acquire();
}

struct Stopped final : udm::nbd::Done {
    void done() noexcept override { semaphore.release(); }
    std::binary_semaphore semaphore{0};
};

}  // namespace

int main(int argc, char** argv) {
    Options options = parse(argc, argv);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    auto engine = udm::Engine::start(options.engine);
    if (!engine) usage(engine.error().message);
    udm::Engine& e = **engine;
    std::vector<std::unique_ptr<udm::OpenDevice>> devices;
    auto server = std::make_unique<udm::nbd::Server>(e.reactor(0), e.network(0));
    for (std::size_t i = 0; i < options.exports.size(); ++i) {
        const std::string& word = options.exports[i];
        const auto equals = word.find('=');
        std::string words = word.substr(equals + 1);
        const bool read_only = words.ends_with(",ro");
        if (read_only) words.resize(words.size() - 3);
        const unsigned home = static_cast<unsigned>(i) % e.size();
        auto device = e.opener(home).open(words, read_only ? udm::OpenMode::read : udm::OpenMode::write);
        if (!device) usage(device.error().message);
        devices.push_back(std::move(*device));
        udm::nbd::Export what{.name = word.substr(0, equals),
                              .description = words,
                              .disk = &devices.back()->disk(),
                              .home = &e.reactor(home),
                              .network = &e.network(home),
                              .read_only = read_only};
        on(e.reactor(0), [&] {
            if (auto added = server->add(std::move(what)); !added) usage(added.error().message);
        });
    }
    if (auto listening = server->listen(options.address); !listening) usage(listening.error().message);
    std::cout << "ready "
              << (options.address.kind == udm::Address::Kind::tcp ? std::to_string(server->address().port)
                                                                  : options.address.path)
              << std::endl;
    int signal = 0;
    sigwait(&signals, &signal);

    Stopped stopped;
    on(e.reactor(0), [&] { server->stop(stopped); });
    stopped.semaphore.acquire();
    bool clean = true;
    for (unsigned i = 0; i < e.size(); ++i) {
        on(e.reactor(i), [&] { clean = clean && e.reactor(i).ios_out() == 0 && e.reactor(i).buffers().bytes_out() == 0; });
    }
    server.reset();
    for (unsigned i = 0; i < devices.size(); ++i) on(e.reactor(i % e.size()), [&] { devices[i].reset(); });
    e.stop();
    if (!clean) std::cerr << "nbd_ram_server: requests or buffers were left behind\n";
    return clean ? 0 : 1;
}
