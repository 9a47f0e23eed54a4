#include "ctl/api.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/changes.hpp"
#include "ctl/failure.hpp"
#include "ctl/mirror_of.hpp"
#include "ctl/params.hpp"
#include "ctl/version.hpp"

namespace udm::ctl {
namespace {

// Long lists in pieces: `after` the element with this key, at most `limit` of them (docs/protocol.md).
struct Page {
    explicit Page(Params& params)
        : after{params.text_if("after")}, limit{params.number_if("limit").value_or(~std::uint64_t{0})} {}
    std::optional<std::string> after;
    std::uint64_t limit;
};

// `key` and `value`, or `settings`, an object of them.
Json settings_of(Params& p) {
    const auto key = p.text_if("key");
    const Json* value = p.any("value");
    const Json* many = p.any("settings");
    Json wanted = Json::object();
    if (many) {
        if (key || value || !many->is_object()) throw RpcError{rpc_code::kBadParams, R"(give key and value, or settings: {"KEY":value,…})"};
        wanted = *many;
    } else {
        if (!key) throw RpcError{rpc_code::kBadParams, "parameter key is missing"};
        if (!value) throw RpcError{rpc_code::kBadParams, "parameter value is missing (null goes back to the default)"};
        wanted[*key] = *value;
    }
    for (const auto& [setting, one] : wanted.items()) {
        if (one.is_structured())
            throw RpcError{rpc_code::kBadParams, fmt::format("the value of {} is a word, a number, true, false or null", setting)};
    }
    return wanted;
}

Json daemon_settings(const Devices& devices) {
    Json all = Json::object();
    for (const auto& one : devices.daemon_settings()) all[std::string{one.parameter.name}] = one.value;
    return all;
}

}  // namespace

Api::Api(Devices& devices, Exports& exports, std::function<void()> request_stop)
    : devices_{devices},
      exports_{exports},
      snapshots_{devices},
      scrubs_{devices},
      moving_{devices},
      mirroring_{devices},
      request_stop_{std::move(request_stop)} {
    add_device_methods();
    add_table_methods();
    add_export_methods();
    add_snapshot_methods();
    add_move_methods();
    add_mirror_methods();
    add_leg_methods();
    add_daemon_methods();
}

void Api::add(std::string name, std::function<Json(Params&)> handler) {
    methods_[std::move(name)] = [handler = std::move(handler)](Params& params, Caller&) {
        return Answer{handler(params), nullptr};
    };
}

Service::Answer Api::call(std::string_view method, const Json& params, Caller& caller) {
    const auto found = methods_.find(method);
    if (found == methods_.end())
        throw RpcError{rpc_code::kNoMethod, fmt::format("there is no method {}", method)};
    Params checked{params};
    return found->second(checked, caller);
}

std::vector<std::string> Api::method_names() const {
    std::vector<std::string> names;
    for (const auto& [name, handler] : methods_) names.push_back(name);
    return names;
}

Json Api::info(const Record& record) const {
    Json info = devices_.info(record);
    info["exports"] = exports_.uris_of(record);
    return info;
}

void Api::add_device_methods() {
    add("device.create", [this](Params& p) {
        Devices::Creation creation;
        creation.name = p.text("name");
        creation.uuid = p.text_if("uuid").value_or("");
        if (const auto minor = p.number_if("minor", 0xFFFFFFFF))
            creation.minor = static_cast<std::uint32_t>(*minor);
        creation.read_only = p.flag("read_only");
        creation.careful = p.flag("careful");
        creation.table = p.table_if("table");
        creation.of = p.text_if("of").value_or("");
        p.end();
        if (creation.table && !creation.of.empty()) throw RpcError{rpc_code::kBadParams, "give either table or of"};
        return info(*devices_.create(creation));
    });
    add("device.remove", [this](Params& p) {
        const DeviceKey key = p.device();
        const Devices::Removal how{.deferred = p.flag("deferred"), .force = p.flag("force"), .careful = p.flag("careful")};
        p.end();
        std::string kept;
        Json answer{{"deferred", devices_.remove(key, how, &kept)}};
        if (!kept.empty()) answer["kept"] = kept;
        return answer;
    });
    add("device.remove_all", [this](Params& p) {
        const Devices::Removal how{.deferred = p.flag("deferred"), .force = p.flag("force")};
        p.end();
        const Devices::Removed result = devices_.remove_all(how);
        return Json{{"removed", result.removed}, {"busy", result.busy}};
    });
    add("device.rename", [this](Params& p) {
        const DeviceKey key = p.device();
        const auto name = p.text_if("new_name"), uuid = p.text_if("new_uuid");
        p.end();
        if (name.has_value() == uuid.has_value())
            throw RpcError{rpc_code::kBadParams, "give either new_name or new_uuid"};
        return info(name ? *devices_.rename(key, *name) : *devices_.set_uuid(key, *uuid));
    });
    add("device.suspend", [this](Params& p) {
        const DeviceKey key = p.device();
        const bool noflush = p.flag("noflush");
        p.flag("nolockfs");  // there are no file systems to be locked
        p.end();
        return info(*devices_.suspend(key, noflush));
    });
    add("device.resume", [this](Params& p) {
        const DeviceKey key = p.device();
        p.end();
        const RecordPtr record = devices_.resume(key);
        exports_.serve_waiting();  // those that waited for it
        return info(*record);
    });
    add("device.info", [this](Params& p) {
        const DeviceKey key = p.device();
        const bool users = p.flag("users");
        p.end();
        const RecordPtr record = devices_.registry().find(key);
        Json about = info(*record);
        if (users) about["users"] = devices_.registry().users_of(*record);
        return about;
    });
    add("device.list", [this](Params& p) {
        const Page page{p};
        const bool status = p.flag("status"), table = p.flag("table"), inactive = p.flag("inactive");
        p.end();
        const auto records = devices_.registry().some(page.after, page.limit);
        std::vector<Json> statuses, tables;
        if (status) statuses = devices_.lines_of(records, inactive, false);
        if (table) tables = devices_.lines_of(records, inactive, true);
        Json list = Json::array();
        for (std::size_t i = 0; i < records.size(); ++i) {
            list.push_back(info(*records[i]));
            if (status) list.back()["status"] = std::move(statuses[i]);
            if (table) list.back()["table"] = std::move(tables[i]);
        }
        return list;
    });
    add("device.deps", [this](Params& p) {
        const DeviceKey key = p.device();
        const bool inactive = p.flag("inactive");
        p.end();
        return devices_.dependencies(key, inactive);
    });
    add("device.message", [this](Params& p) {
        const DeviceKey key = p.device();
        const Sector sector{p.number_if("sector").value_or(0)};
        const std::string text = p.text("message");
        p.end();
        const auto reply = devices_.message(key, sector, text);
        if (text.starts_with("scrub_")) scrubs_.note(devices_.registry().find(key));
        return Json{{"reply", reply ? Json(*reply) : Json(nullptr)}};
    });
    add("device.set", [this](Params& p) {
        const DeviceKey key = p.device();
        const Json wanted = settings_of(p);
        p.end();
        return Json{{"settings", devices_.set(key, wanted)}};
    });
    add("device.counters", [this](Params& p) {
        const auto key = p.device_if();
        const Page page{p};
        p.end();
        Registry& registry = devices_.registry();
        if (key) return devices_.counters({registry.find(*key)});
        return devices_.counters(registry.some(page.after, page.limit));
    });
    methods_["device.wait"] = [this](Params& p, Caller&) {
        const DeviceKey key = p.device();
        const auto number = static_cast<std::uint32_t>(p.number("event_number"));
        const auto timeout = p.number_if("timeout_ms");
        p.end();
        return Answer{nullptr, devices_.wait(key, number, timeout)};
    };
    methods_["events.subscribe"] = [this](Params& p, Caller& caller) {
        const auto key = p.device_if();
        p.end();
        caller.subscribe(key ? devices_.registry().find(*key)->serial : 0);
        return Answer{Json::object(), nullptr};
    };
}

void Api::add_table_methods() {
    add("table.load", [this](Params& p) {
        const DeviceKey key = p.device();
        const auto lines = p.table("table");
        const bool read_only = p.flag("read_only");
        p.end();
        return info(*devices_.load(key, lines, read_only));
    });
    add("table.clear", [this](Params& p) {
        const DeviceKey key = p.device();
        p.end();
        return info(*devices_.clear(key));
    });
    add("table.status", [this](Params& p) {
        const DeviceKey key = p.device();
        const bool inactive = p.flag("inactive");
        p.flag("noflush");  // no target of this version commits for a status
        p.end();
        return devices_.status(key, inactive);
    });
    add("table.get", [this](Params& p) {
        const DeviceKey key = p.device();
        const bool inactive = p.flag("inactive");
        p.end();
        return devices_.table(key, inactive);
    });
    add("table.regions", [this](Params& p) {
        const DeviceKey key = p.device();
        const std::uint64_t cells = p.number_if("cells", RegionMap::kCellsMax).value_or(64);
        p.end();
        if (cells == 0) throw RpcError{rpc_code::kBadParams, "parameter cells is 1 at least"};
        const RecordPtr asked = devices_.registry().find(key);
        Json mirrors = devices_.regions(*asked, cells);
        return mirrors.empty() ? devices_.regions(*find_mirror(devices_, key).record, cells) : mirrors;
    });
}

void Api::add_export_methods() {
    add("export.add", [this](Params& p) {
        const DeviceKey key = p.device();
        Exports::Request request;
        request.uri = p.text("uri");
        request.mode = static_cast<unsigned>(p.number_if("mode", 0777).value_or(0600));
        request.group = p.text_if("group").value_or("");
        request.read_only = p.flag("read_only");
        p.end();
        const std::string uri = exports_.add(key, request);
        return Json{{"uri", uri}, {"device", devices_.name_of(*devices_.registry().find(key))}};
    });
    add("export.remove", [this](Params& p) {
        const DeviceKey key = p.device();
        const auto uri = p.text_if("uri");
        p.end();
        return Json{{"removed", exports_.remove(key, uri)}};
    });
    add("export.list", [this](Params& p) {
        const auto key = p.device_if();
        const Page page{p};
        p.end();
        return exports_.list(key, page.after, page.limit);
    });
}

void Api::add_snapshot_methods() {
    add("snapshot.take", [this](Params& p) {
        Snapshots::Request request;
        const Json* origins = p.any("origins");
        if (!origins || !origins->is_array() || origins->empty()) {
            throw RpcError{rpc_code::kBadParams,
                           R"(parameter origins is a list of {"origin":device,"snapshot":name,"cow":path})"};
        }
        for (const Json& each : *origins) {
            if (!each.is_object()) throw RpcError{rpc_code::kBadParams, "an element of origins is an object"};
            Params of_one{each};
            request.origins.push_back(
                {of_one.device("origin"), of_one.text_if("snapshot"), of_one.text_if("cow")});
            of_one.end();
        }
        request.cow_dir = p.text_if("cow_dir");
        if (const Json* size = p.any("size"); size && !size->is_null()) {
            if (!size->is_string() && !size->is_number_unsigned())
                throw RpcError{rpc_code::kBadParams,
                               R"(parameter size is a number of bytes, or text such as "10G" or "20%")"};
            request.size = size->is_string() ? size->get<std::string>() : to_line(*size);
        }
        request.chunk = p.number_if("chunk").value_or(4096);
        const Json* persistent = p.any("persistent");
        request.persistent = !persistent || persistent->is_null() || p.flag("persistent");
        request.redirect = p.flag("redirect");
        request.reserve = p.flag("reserve");
        p.end();
        return snapshots_.take(request);
    });
    add("snapshot.drop", [this](Params& p) {
        const DeviceKey key = p.device("snapshot");
        p.end();
        return snapshots_.drop(key);
    });
    add("snapshot.merge", [this](Params& p) {
        const DeviceKey key = p.device("snapshot");
        p.end();
        return snapshots_.merge(key);
    });
    add("snapshot.list", [this](Params& p) {
        const auto origin = p.device_if("origin"), only = p.device_if("snapshot");
        const Page page{p};
        p.end();
        if (origin && only) throw RpcError{rpc_code::kBadParams, "give either origin or snapshot"};
        return snapshots_.list(origin, page.after, page.limit, only);
    });
    add("snapshot.diff", [this](Params& p) {
        Changes::Request request;
        request.device = p.device("snapshot");
        request.against = p.device_if("against");
        request.offset = p.number_if("offset").value_or(0);
        request.limit = p.number_if("limit").value_or(Changes::kExtentsMax);
        p.end();
        return Changes{devices_}.diff(request);
    });
}

void Api::add_move_methods() {
    add("move.start", [this](Params& p) {
        const DeviceKey key = p.device();
        const std::string to = p.text("to");
        std::optional<std::string> rate;
        if (const Json* given = p.any("rate"); given && !given->is_null()) {
            if (!given->is_string() && !given->is_number_unsigned())
                throw RpcError{rpc_code::kBadParams, R"(parameter rate is a number of bytes per second, or text such as "10M")"};
            rate = given->is_string() ? given->get<std::string>() : to_line(*given);
        }
        p.end();
        return moving_.start(key, to, rate);
    });
    add("move.abort", [this](Params& p) {
        const DeviceKey key = p.device();
        p.end();
        Json answer = moving_.abort(key);
        exports_.serve_waiting();    // those of a volume that was held
        return answer;
    });
    for (const bool paused : {true, false}) {
        add(paused ? "move.pause" : "move.resume", [this, paused](Params& p) {
            const DeviceKey key = p.device();
            p.end();
            return moving_.pause(key, paused);
        });
    }
    add("move.list", [this](Params& p) {
        const auto key = p.device_if();
        p.end();
        return moving_.list(key);
    });
}

void Api::add_daemon_methods() {
    add("version", [this](Params& p) {
        p.end();
        return Json{{"udm", kVersion},
                    {"library", "1.02.185 (2022-05-18)"},
                    {"driver", {4, 47, 0}},
                    {"pid", ::getpid()},
                    {"engine", devices_.host().engine_name()}};
    });
    add("target.list", [this](Params& p) {
        p.end();
        Json list = Json::array();
        if (devices_.host().reactor_count() == 0) return list;
        for (const auto& type : devices_.host().types(0).all()) {
            list.push_back({{"name", type->name()}, {"version", type->version()}});
        }
        return list;
    });
    add("daemon.status", [this](Params& p) {
        p.end();
        Json reactors = Json::array();
        const auto devices = devices_.devices_per_reactor();
        const auto cpu = devices_.host().cpu_ns();
        for (std::size_t i = 0; i < devices.size(); ++i) {
            reactors.push_back({{"devices", devices[i]}, {"cpu_ns", i < cpu.size() ? cpu[i] : 0}});
        }
        std::vector<std::string> warnings = devices_.host().warnings();
        for (const auto& more : {devices_.warnings(), exports_.warnings()})
            warnings.insert(warnings.end(), more.begin(), more.end());
        const State& state = devices_.state();
        const Host::OpenFiles files = devices_.host().open_files();
        const auto uptime = std::chrono::steady_clock::now() - started_;
        return Json{{"pid", ::getpid()},
                    {"uptime_ms", std::chrono::duration_cast<std::chrono::milliseconds>(uptime).count()},
                    {"engine", devices_.host().engine_name()},
                    {"reactors", std::move(reactors)},
                    {"devices", devices_.registry().size()},
                    {"exports", exports_.size()},
                    {"open_files", {{"open", files.open}, {"limit", files.limit ? Json(files.limit) : Json(nullptr)}}},
                    {"state_dir", state.is_kept() ? Json(state.directory()) : Json(nullptr)},
                    {"settings", daemon_settings(devices_)},
                    {"lost_stores", devices_.lost_stores().all()},
                    {"warnings", std::move(warnings)}};
    });
    add("daemon.set", [this](Params& p) {
        const Json wanted = settings_of(p);
        p.end();
        std::map<std::string, std::optional<std::uint64_t>> numbers;
        for (const auto& [setting, value] : wanted.items()) {
            std::optional<std::uint64_t>& number = numbers[setting];
            if (value.is_null()) continue;
            if (value.is_number_unsigned()) number = value.get<std::uint64_t>();
            if (value.is_string()) number = parse_size(value.get<std::string>());    // as people write it
            if (!number)
                throw RpcError{rpc_code::kBadParams, fmt::format("{} is {}, which is no number (64, 128M)", setting, to_line(value))};
        }
        for (const auto& [setting, number] : numbers) devices_.check_daemon(setting, number);
        for (const auto& [setting, number] : numbers) devices_.set_daemon(setting, number, true);
        return Json{{"settings", daemon_settings(devices_)}};
    });
    add("daemon.stop", [this](Params& p) {
        p.end();
        request_stop_();
        return Json::object();
    });
}

}  // namespace udm::ctl
