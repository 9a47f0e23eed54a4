#include "ctl/exports.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ctl/changes.hpp"
#include "port/nbd_uri.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"

namespace udm::ctl {
namespace {
constexpr std::string_view kPrefix = "export/";
std::string key_of(std::string_view uri) { return fmt::format("{}{}", kPrefix, uri); }

// An export, and what its clients may ask for, which lives as long.
class ServedWithQuestions final : public Served {
  public:
    ServedWithQuestions(std::unique_ptr<ExtentQuestions> questions, std::unique_ptr<Served> served)
        : questions_{std::move(questions)}, served_{std::move(served)} {}
    void begin_end() override { served_->begin_end(); }
    std::string uri() const override { return served_->uri(); }
    std::size_t connections() const override { return served_->connections(); }

  private:
    std::unique_ptr<ExtentQuestions> questions_;
    std::unique_ptr<Served> served_;  // goes first
};
}  // namespace

// Names the record by its number, which a rename doesn't change.
State::Change Exports::change_of(const std::string& uri, const Record& record, const Request& request) {
    Json value = {{"minor", record.minor}, {"mode", request.mode}};
    if (!request.group.empty()) value["group"] = request.group;
    if (request.read_only) value["read_only"] = true;
    return {key_of(uri), std::move(value)};
}

void Exports::publish(const Record& record, const std::string& what) const {
    devices_.publish(record, "export", what);
}

// Counts one open of the device; finish() takes it back.
std::unique_ptr<Served> Exports::serve(const RecordPtr& record, const Request& request) {
    const std::string name = devices_.name_of(*record);
    if (!server_) throw Failure{Errc::unsupported, "this daemon serves no exports", name};
    NbdUri uri = must(parse_nbd_uri(request.uri), name);
    uri.address.mode = request.mode;
    uri.address.group = request.group;
    uri.address.numbers = request.numbers;
    Registry& registry = devices_.registry();
    registry.export_opened(*record, +1);    // before the look: who drops the device looks at the count
    try {
        bool read_only = false;
        {
            const std::lock_guard lock{registry.mutex};
            read_only = request.read_only || record->still || (record->live && record->live->read_only);
            if (record->merging.contains("layer"))
                throw Failure{Errc::busy, fmt::format("{} is being dropped: what stands on it is merged into it", name), name};
            if (!record->live)
                throw Failure{Errc::bad_argument,
                              fmt::format("{} has no table yet, so there is nothing to serve", name), name};
        }
        Device& device = devices_.ensure_device(record, devices_.least_loaded());
        unsigned home = 0;
        {
            const std::lock_guard lock{registry.mutex};
            home = record->home;
        }
        auto questions = Changes{devices_}.questions_of(record);
        const ExportRequest wanted{.address = uri.address,
                                   .name = uri.name,
                                   .description = name,
                                   .read_only = read_only,
                                   .questions = questions.get()};
        auto served = must(server_->serve(wanted, device, home), name);
        return std::make_unique<ServedWithQuestions>(std::move(questions), std::move(served));
    } catch (...) {
        registry.export_opened(*record, -1);
        throw;
    }
}

// A name service may take its time: never asked with a lock held.
std::vector<std::string> Exports::look_up(const std::string& uri) const {
    if (!server_) return {};
    const NbdUri parsed = must(parse_nbd_uri(uri), "");
    if (parsed.address.kind != Address::Kind::tcp) return {};
    return must(server_->look_up(parsed.address), "");
}

void Exports::finish(Entry entry) {
    entry.served.reset();  // waits for its clients' last answers
    if (devices_.registry().export_opened(*entry.record, -1)) devices_.remove_later(entry.record);
}

std::string Exports::add(const DeviceKey& key, const Request& request) {
    const RecordPtr record = devices_.registry().find(key);
    Entry entry{record, request, nullptr};
    entry.request.numbers = look_up(request.uri);
    const std::lock_guard changing{changing_};
    try {
        entry.served = serve(record, entry.request);
    } catch (const Failure&) {
        devices_.remove_later(record);    // if its last user went while it was counted
        throw;
    }
    const std::string uri = entry.served->uri();
    entry.request.uri = uri;
    try {
        devices_.commit({change_of(uri, *record, entry.request)});
    } catch (const Failure&) {
        finish(std::move(entry));
        throw;
    }
    keep(uri, std::move(entry));
    publish(*record, "served at " + uri);
    log_info(devices_.name_of(*record), "served at {}", uri);
    return uri;
}

std::vector<std::string> Exports::remove(const DeviceKey& key, const std::optional<std::string>& uri) {
    const RecordPtr record = devices_.registry().find(key);
    const std::string name = devices_.name_of(*record);
    std::string wanted;
    if (uri) wanted = to_text(must(parse_nbd_uri(*uri), name));
    std::vector<State::Change> changes;
    std::vector<std::string> uris;
    std::unique_lock changing{changing_};
    {
        const std::lock_guard lock{mutex_};
        for (const std::string& at : uris_locked(*record)) {
            if (!uri || at == wanted) uris.push_back(at);
        }
        for (const auto& [at, waiting] : waiting_) {
            if (waiting.minor == record->minor && (!uri || at == wanted)) uris.push_back(at);
        }
    }
    if (uris.empty()) {
        throw Failure{
            Errc::no_file,
            uri ? fmt::format("{} is not served at {}", name, *uri) : fmt::format("{} is not exported", name),
            name};
    }
    for (const std::string& at : uris) changes.push_back({key_of(at), std::nullopt});
    devices_.commit(changes);
    std::vector<Entry> ending;
    {
        const std::lock_guard lock{mutex_};
        for (const std::string& at : uris) {
            waiting_.erase(at);
            if (auto node = entries_.extract(at)) {
                ending.push_back(std::move(node.mapped()));
                const auto of_record = by_serial_.find(record->serial);
                of_record->second.erase(at);
                if (of_record->second.empty()) by_serial_.erase(of_record);
            }
        }
    }
    changing.unlock();  // their clients may take their time
    for (Entry& entry : ending) entry.served->begin_end();
    for (Entry& entry : ending) {
        const std::string at = entry.request.uri;
        finish(std::move(entry));
        publish(*record, "no longer served at " + at);
        log_info(name, "no longer served at {}", at);
    }
    return uris;
}

Json Exports::list(const std::optional<DeviceKey>& key, const std::optional<std::string>& after,
                   std::uint64_t most) const {
    const RecordPtr wanted = key ? devices_.registry().find(*key) : nullptr;
    Json list = Json::array();
    const std::lock_guard lock{mutex_};
    const auto show = [&](const std::string& uri, const Entry& entry) {
        list.push_back({{"device", devices_.name_of(*entry.record)},
                        {"uri", uri},
                        {"read_only", entry.request.read_only},
                        {"connections", entry.served->connections()}});
    };
    if (wanted) {
        for (const std::string& uri : uris_locked(*wanted)) {
            if (list.size() < most && (!after || uri > *after)) show(uri, entries_.at(uri));
        }
        return list;
    }
    for (auto at = after ? entries_.upper_bound(*after) : entries_.begin();
         at != entries_.end() && list.size() < most; ++at) {
        show(at->first, at->second);
    }
    return list;
}

std::set<std::string> Exports::uris_locked(const Record& record) const {
    const auto found = by_serial_.find(record.serial);
    return found == by_serial_.end() ? std::set<std::string>{} : found->second;
}

std::set<std::string> Exports::uris_of(const Record& record) const {
    const std::lock_guard lock{mutex_};
    return uris_locked(record);
}

void Exports::keep(const std::string& uri, Entry entry) {
    const std::lock_guard lock{mutex_};
    waiting_.erase(uri);
    by_serial_[entry.record->serial].insert(uri);
    entries_[uri] = std::move(entry);
}

std::size_t Exports::size() const {
    const std::lock_guard lock{mutex_};
    return entries_.size();
}

std::unique_ptr<Served> Exports::serve_patiently(const RecordPtr& record, const Request& request,
                                                 Patience& patience) {
    for (;;) {
        try {
            return serve(record, request);
        } catch (const Failure& failure) {
            if (!is_in_use(failure.error()) || !patience.wait()) throw;
        }
    }
}

void Exports::restore(std::chrono::milliseconds patience_ms) {
    std::vector<State::Change> forgotten;
    for (const auto& [key, value] : devices_.state().all(std::string{kPrefix})) {
        const std::string uri = key.substr(kPrefix.size());
        DeviceKey device;
        if (value.is_object()) device.minor = value.value("minor", ~0u);
        if (device.minor && devices_.registry().try_find(device)) {
            const std::lock_guard lock{mutex_};
            waiting_[uri] = {*device.minor, "not served yet"};
        } else {
            log_error("", "export {} was of a device that is gone: forgotten", uri);
            forgotten.push_back({key, std::nullopt});
        }
    }
    try {
        devices_.commit(forgotten);
    } catch (const Failure& failure) {
        log_warning("", "{}", failure.what());  // they are forgotten again at the next start
    }
    Patience patience{patience_ms};
    serve_waiting(patience);
}

void Exports::serve_waiting() {
    Patience none{{}};
    serve_waiting(none);
}

void Exports::serve_waiting(Patience& patience) {
    std::map<std::string, Waiting> all;
    {
        const std::lock_guard lock{mutex_};
        all = waiting_;
    }
    for (const auto& [uri, waiting] : all) {
        std::string why;
        std::vector<std::string> numbers;
        try {
            numbers = look_up(uri);
        } catch (const std::exception& error) {
            why = error.what();
        }
        const std::lock_guard changing{changing_};
        {
            const std::lock_guard lock{mutex_};
            if (!waiting_.contains(uri)) continue;    // somebody has removed it meanwhile
        }
        if (why.empty()) why = serve_kept(uri, waiting.minor, numbers, patience);
        const std::lock_guard lock{mutex_};
        const auto at = waiting_.find(uri);
        if (at == waiting_.end()) continue;  // it is served, or was removed with its device
        if (why.empty()) {
            waiting_.erase(at);
        } else {
            if (why != at->second.why) log_error("", "export {} is not served: {}", uri, why);
            at->second.why = std::move(why);
        }
    }
}

// changing_ is held.
std::string Exports::serve_kept(const std::string& uri, std::uint32_t minor, const std::vector<std::string>& numbers,
                                Patience& patience) {
    try {
        DeviceKey key;
        key.minor = minor;
        const RecordPtr record = devices_.registry().find(key);
        {
            const std::lock_guard lock{devices_.registry().mutex};
            if (record->kept) return fmt::format("{} is held", record->name);
        }
        const auto value = devices_.state().get(key_of(uri));
        if (!value) return "it was removed";
        const Request request{uri, value->value("mode", 0600u), value->value("group", std::string{}),
                              value->value("read_only", false), numbers};
        keep(uri, Entry{record, request, serve_patiently(record, request, patience)});
        return {};
    } catch (const std::exception& error) {
        return error.what();
    }
}

// Of a device that goes: those that aren't served, since one that is served keeps it there.
std::vector<State::Change> Exports::changes_at_removal(const Record& record) const {
    std::vector<State::Change> changes;
    const std::lock_guard lock{mutex_};
    for (const auto& [uri, waiting] : waiting_) {
        if (waiting.minor == record.minor) changes.push_back({key_of(uri), std::nullopt});
    }
    return changes;
}

void Exports::removed(const Record& record) {
    const std::lock_guard lock{mutex_};
    std::erase_if(waiting_, [&](const auto& each) { return each.second.minor == record.minor; });
}

void Exports::begin_stop() {
    {
        const std::lock_guard lock{mutex_};
        for (auto& [uri, entry] : entries_) entry.served->begin_end();
    }
    devices_.let_go_held_back();
}

void Exports::stop() {
    std::map<std::string, Entry> last;
    {
        const std::lock_guard lock{mutex_};
        last.swap(entries_);
        by_serial_.clear();
    }
    for (auto& [uri, entry] : last) finish(std::move(entry));
}

std::vector<std::string> Exports::warnings() const {
    const std::lock_guard lock{mutex_};
    std::vector<std::string> all;
    for (const auto& [uri, waiting] : waiting_)
        all.push_back(fmt::format("export {} is not served: {}", uri, waiting.why));
    return all;
}

}  // namespace udm::ctl
