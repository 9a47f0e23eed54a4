#include "ctl/revival.hpp"

#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"

namespace udm::ctl {
namespace {
using std::chrono::milliseconds;
constexpr milliseconds kAgain{1000};
}  // namespace

Revival::Revival(Devices& devices, std::function<void()> brought_up) : devices_{devices}, brought_up_{std::move(brought_up)} {
    const auto uris = devices_.exports_awaited();
    exports_ = uris.size();
    if (uris.empty()) {
        looked_ = true;
        return;
    }
    for (const std::string& uri : uris) threads_.emplace_back([this, uri] { look(uri); });
    main_ = std::thread{[this] { run(); }};
}

// An export that is found stays open until its devices are up: they join its connections.
void Revival::look(const std::string& uri) {
    Host& host = devices_.host();
    std::unique_lock lock{mutex_};
    bool first = true;
    std::string last;
    do {
        lock.unlock();
        Found found;
        found.home = devices_.home_of_export(host.identify(uri));
        auto opened = host.opener(found.home).open(uri, OpenMode::read);
        lock.lock();
        if (std::exchange(first, false)) ++asked_;
        if (opened && stopping_) {    // run() has let go of what was found before
            lock.unlock();
            run_on(host.env(found.home).reactor, [&device = *opened] { device.reset(); });
            return;
        }
        if (opened) {
            found.device = std::move(*opened);
            found_[uri] = std::move(found);
        } else if (!stopping_ && opened.error().message != last) {
            last = opened.error().message;
            log_warning("", "{}; it is tried again", last);
        }
        changed_.notify_all();
    } while (!found_.contains(uri) && !pause(lock, kAgain));
}

bool Revival::pause(std::unique_lock<std::mutex>& lock, milliseconds time) {
    changed_.wait_for(lock, time, [this] { return stopping_; });
    return stopping_;
}

std::set<std::string> Revival::there() const {
    std::set<std::string> uris;
    for (const auto& [uri, found] : found_) uris.insert(uri);
    return uris;
}

void Revival::run() {
    std::unique_lock lock{mutex_};
    for (bool left = true; left && !stopping_;) {
        const std::size_t asked = asked_;
        const auto uris = there();
        lock.unlock();
        const bool any = devices_.bring_up_remote(uris);
        if (any) brought_up_();
        left = devices_.any_remote();
        lock.lock();
        if (asked == exports_ || !left) {
            looked_ = true;
            changed_.notify_all();
        }
        if (left && found_.size() == uris.size()) changed_.wait_for(lock, kAgain, [&] { return stopping_ || found_.size() != uris.size() || asked_ != asked; });
    }
    looked_ = true;
    stopping_ = true;    // nobody waits for what is left: devices that were removed meanwhile
    changed_.notify_all();
    auto found = std::move(found_);
    found_.clear();
    lock.unlock();
    for (auto& [uri, each] : found) run_on(devices_.host().env(each.home).reactor, [&device = each.device] { device.reset(); });
}

void Revival::wait_for_first_look(milliseconds patience) {
    std::unique_lock lock{mutex_};
    changed_.wait_for(lock, patience, [this] { return looked_; });
}

void Revival::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    if (main_.joinable()) main_.join();
    for (auto& [uri, each] : found_) run_on(devices_.host().env(each.home).reactor, [&device = each.device] { device.reset(); });
    found_.clear();
}

}  // namespace udm::ctl
