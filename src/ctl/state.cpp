#include "ctl/state.hpp"

#include <fmt/format.h>

#include "ctl/log.hpp"

namespace udm::ctl {
namespace {
// A record is {"put":{key:value,…},"del":[key,…]}. Built as text so that values are not parsed and written
// again.
class RecordText {
  public:
    void put(const std::string& key, const std::string& value) {
        put_ += put_.empty() ? "" : ",";
        put_ += to_line(Json(key)) + ':' + value;
    }
    void del(const std::string& key) { del_ += (del_.empty() ? "" : ",") + to_line(Json(key)); }
    bool empty() const { return put_.empty() && del_.empty(); }
    std::size_t size() const { return put_.size() + del_.size(); }
    std::string take() {
        std::string text = "{";
        if (!put_.empty()) text += "\"put\":{" + put_ + '}';
        if (!del_.empty()) text += (put_.empty() ? "" : ",") + ("\"del\":[" + del_ + ']');
        put_.clear();
        del_.clear();
        return text + '}';
    }

  private:
    std::string put_, del_;
};
std::uint64_t weight(const std::string& key, const std::string& value) {
    return key.size() + value.size() + 8;
}
}  // namespace

Result<void> State::open(const std::string& directory) {
    const std::lock_guard lock{mutex_};
    TRY(StateLog::Opened opened, log_.open(directory));
    if (opened.torn_bytes != 0) {
        log_warning(
            "", "state: the last change was not finished when the daemon ended and was dropped ({} bytes)",
            opened.torn_bytes);
    }
    warning_ = opened.damaged;
    for (const std::string& text : opened.records) {
        const Json record = Json::parse(text, nullptr, false);
        // The checksum holds, so udm wrote this: it can only be of a version that does things differently.
        if (!record.is_object())
            return fail(Errc::corrupt,
                        "a record of the state in " + directory + " makes no sense: " + text.substr(0, 80));
        apply(record);
    }
    return {};
}

void State::apply(const Json& record) {
    if (const auto put = record.find("put"); put != record.end() && put->is_object()) {
        for (const auto& [key, value] : put->items()) {
            std::string text = to_line(value);
            auto& kept = values_[key];
            live_bytes_ += weight(key, text) - (kept.empty() ? 0 : weight(key, kept));
            kept = std::move(text);
        }
    }
    if (const auto del = record.find("del"); del != record.end() && del->is_array()) {
        for (const Json& key : *del) {
            if (!key.is_string()) continue;
            const auto kept = values_.find(key.get_ref<const std::string&>());
            if (kept == values_.end()) continue;
            live_bytes_ -= weight(kept->first, kept->second);
            values_.erase(kept);
        }
    }
}

Result<void> State::commit(const std::vector<Change>& changes) {
    const std::lock_guard lock{mutex_};
    RecordText record;
    for (const Change& change : changes) {
        const auto kept = values_.find(change.key);
        if (change.value) {
            const std::string text = to_line(*change.value);
            if (kept == values_.end() || kept->second != text) record.put(change.key, text);
        } else if (kept != values_.end()) {
            record.del(change.key);
        }
    }
    if (record.empty()) return {};
    const std::string text = record.take();
    if (log_.is_open()) {
        if (auto appended = log_.append(text); !appended) {
            // A new file may work where the old one doesn't; if not, nothing has changed.
            if (auto again = log_.rewrite(as_records()); !again) return appended;
            CHECK(log_.append(text));
        }
    }
    apply(Json::parse(text));
    if (auto compacted = compact_if_due(); !compacted) {
        log_warning("", "state: {}; going on with the longer file", compacted.error().message);
    }
    return {};
}

Result<void> State::compact_if_due() {
    if (!log_.is_open() || log_.size() < 2 * live_bytes_ + kSlack) return {};
    return log_.rewrite(as_records());
}

std::vector<std::string> State::as_records() const {
    std::vector<std::string> records;
    RecordText record;
    for (const auto& [key, value] : values_) {
        record.put(key, value);
        if (record.size() >= kRecordBytes) records.push_back(record.take());
    }
    if (!record.empty()) records.push_back(record.take());
    return records;
}

std::vector<std::pair<std::string, Json>> State::all(const std::string& prefix) const {
    const std::lock_guard lock{mutex_};
    std::vector<std::pair<std::string, Json>> found;
    for (auto at = values_.lower_bound(prefix); at != values_.end() && at->first.starts_with(prefix); ++at) {
        found.emplace_back(at->first, Json::parse(at->second));
    }
    return found;
}

std::optional<Json> State::get(const std::string& key) const {
    const std::lock_guard lock{mutex_};
    const auto kept = values_.find(key);
    if (kept == values_.end()) return std::nullopt;
    return Json::parse(kept->second);
}

std::uint64_t State::bytes_written() const {
    const std::lock_guard lock{mutex_};
    return log_.bytes_written();
}

}  // namespace udm::ctl
