#include "ctl/exports.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ctl/export_uri.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"

namespace udm::ctl {
namespace {
constexpr std::string_view kPrefix = "export/";
std::string key_of(std::string_view uri) { return fmt::format("{}{}", kPrefix, uri); }
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
    ExportUri uri = must(parse_export_uri(request.uri), name);
    uri.address.mode = request.mode;
    uri.address.group = request.group;
    Registry& registry = devices_.registry();
    bool read_only = false;
    {
        const std::lock_guard lock{registry.mutex};
        read_only = request.read_only || record->still || (record->live && record->live->read_only);
        if (!record->live)
            throw Failure{Errc::bad_argument,
                          fmt::format("{} has no table yet, so there is nothing to serve", name), name};
    }
    registry.export_opened(*record, +1);
    try {
        Device& device = devices_.ensure_device(record, devices_.least_loaded());
        unsigned home = 0;
        {
            const std::lock_guard lock{registry.mutex};
            home = record->home;
        }
        return must(
            server_->serve(
                {.address = uri.address, .name = uri.name, .description = name, .read_only = read_only},
                device, home),
            name);
    } catch (...) {
        registry.export_opened(*record, -1);
        throw;
    }
}

void Exports::finish(Entry entry) {
    entry.served.reset();  // waits for its clients' last answers
    if (devices_.registry().export_opened(*entry.record, -1)) devices_.remove_later(entry.record);
}

std::string Exports::add(const DeviceKey& key, const Request& request) {
    const RecordPtr record = devices_.registry().find(key);
    Entry entry{record, request, serve(record, request)};
    const std::string uri = entry.served->uri();
    entry.request.uri = uri;
    try {
        devices_.commit({change_of(uri, *record, entry.request)});
    } catch (const Failure&) {
        finish(std::move(entry));
        throw;
    }
    {
        const std::lock_guard lock{mutex_};
        waiting_.erase(uri);
        entries_[uri] = std::move(entry);
    }
    publish(*record, "served at " + uri);
    log_info(devices_.name_of(*record), "served at {}", uri);
    return uri;
}

std::vector<std::string> Exports::remove(const DeviceKey& key, const std::optional<std::string>& uri) {
    const RecordPtr record = devices_.registry().find(key);
    const std::string name = devices_.name_of(*record);
    std::string wanted;
    if (uri) wanted = to_text(must(parse_export_uri(*uri), name));
    std::vector<State::Change> changes;
    std::vector<std::string> uris;
    {
        const std::lock_guard lock{mutex_};
        for (const auto& [at, entry] : entries_) {
            if (entry.record == record && (!uri || at == wanted)) uris.push_back(at);
        }
        for (const auto& [at, why] : waiting_) {
            const auto kept = devices_.state().get(key_of(at));
            if (kept && kept->value("minor", ~0u) == record->minor && (!uri || at == wanted))
                uris.push_back(at);
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
    for (const std::string& at : uris) {
        std::optional<Entry> entry;
        {
            const std::lock_guard lock{mutex_};
            waiting_.erase(at);
            if (auto node = entries_.extract(at)) entry = std::move(node.mapped());
        }
        if (!entry) continue;
        finish(std::move(*entry));
        publish(*record, "no longer served at " + at);
        log_info(name, "no longer served at {}", at);
    }
    return uris;
}

Json Exports::list(const std::optional<DeviceKey>& key) const {
    const RecordPtr wanted = key ? devices_.registry().find(*key) : nullptr;
    Json list = Json::array();
    const std::lock_guard lock{mutex_};
    for (const auto& [uri, entry] : entries_) {
        if (wanted && entry.record != wanted) continue;
        list.push_back({{"device", devices_.name_of(*entry.record)},
                        {"uri", uri},
                        {"read_only", entry.request.read_only},
                        {"connections", entry.served->connections()}});
    }
    return list;
}

std::vector<std::string> Exports::uris_of(const Record& record) const {
    std::vector<std::string> uris;
    const std::lock_guard lock{mutex_};
    for (const auto& [uri, entry] : entries_) {
        if (entry.record.get() == &record) uris.push_back(uri);
    }
    return uris;
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
    Patience patience{patience_ms};
    for (const auto& [key, value] : devices_.state().all(std::string{kPrefix})) {
        const std::string uri = key.substr(kPrefix.size());
        {
            const std::lock_guard lock{mutex_};
            if (entries_.contains(uri)) continue;
        }
        std::string why;
        try {
            DeviceKey device;
            device.minor = value.at("minor").get<std::uint32_t>();
            const RecordPtr record = devices_.registry().find(device);
            bool held = false;
            {
                const std::lock_guard lock{devices_.registry().mutex};
                held = record->kept.has_value();
                if (held) why = fmt::format("{} is held", record->name);
            }
            if (!held) {
                const Request request{uri, value.value("mode", 0600u), value.value("group", std::string{}),
                                      value.value("read_only", false)};
                Entry entry{record, request, serve_patiently(record, request, patience)};
                const std::lock_guard lock{mutex_};
                entries_[uri] = std::move(entry);
                waiting_.erase(uri);
                continue;
            }
        } catch (const std::exception& error) {
            why = error.what();
        }
        log_error("", "export {} is not served: {}", uri, why);
        const std::lock_guard lock{mutex_};
        waiting_[uri] = why;
    }
}

void Exports::stop() {
    std::map<std::string, Entry> last;
    {
        const std::lock_guard lock{mutex_};
        last.swap(entries_);
    }
    for (auto& [uri, entry] : last) finish(std::move(entry));
}

std::vector<std::string> Exports::warnings() const {
    const std::lock_guard lock{mutex_};
    std::vector<std::string> all;
    for (const auto& [uri, why] : waiting_)
        all.push_back(fmt::format("export {} is not served: {}", uri, why));
    return all;
}

}  // namespace udm::ctl
