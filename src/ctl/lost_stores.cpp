#include "ctl/lost_stores.hpp"

#include <algorithm>

#include "ctl/log.hpp"
#include "port/reactor.hpp"

namespace udm::ctl {
namespace {
constexpr const char* kLostPrefix = "lost/";

Json value_of(const DiskId& id, const std::string& words) {
    return {{"kind", static_cast<unsigned>(id.kind)},
            {"device", id.device},
            {"inode", id.inode},
            {"words", words}};
}

// The answer to record(), back on the reactor that asked.
class Answer final : public Task {
  public:
    Answer(LostStores::Recorded& done, Reactor& reactor) : done_{done}, reactor_{reactor} {}
    void send(IoStatus status) {
        status_ = status;
        reactor_.post_remote(*this);
    }
    virtual ~Answer() = default;

  private:
    void run() noexcept override {
        done_.recorded(status_);
        delete this;
    }
    LostStores::Recorded& done_;
    Reactor& reactor_;
    IoStatus status_{IoStatus::ok};
};
}  // namespace

void LostStoreList::load() {
    const std::lock_guard lock{mutex_};
    for (const auto& [key, value] : state_.all(kLostPrefix)) {
        Lost lost;
        lost.id.kind = static_cast<DiskId::Kind>(value.value("kind", 0u));
        lost.id.device = value.value("device", std::uint64_t{0});
        lost.id.inode = value.value("inode", std::uint64_t{0});
        lost.words = value.value("words", std::string{});
        put(key, lost);
        next_ = std::max(next_, std::uint64_t{std::strtoull(
                                    key.c_str() + std::char_traits<char>::length(kLostPrefix), nullptr, 10)} +
                                    1);
    }
}

// A look at one store costs the same whatever number of others is lost.
void LostStoreList::put(const std::string& key, const Lost& lost) {
    take(key);
    lost_[key] = lost;
    by_id_[lost.id].insert(key);
    by_words_[lost.words].insert(key);
}

void LostStoreList::take(const std::string& key) {
    const auto found = lost_.find(key);
    if (found == lost_.end()) return;
    const auto out_of = [&key](auto& index, const auto& value) {
        const auto at = index.find(value);
        at->second.erase(key);
        if (at->second.empty()) index.erase(at);
    };
    out_of(by_id_, found->second.id);
    out_of(by_words_, found->second.words);
    lost_.erase(found);
}

template <class Index, class Value>
std::set<std::string> LostStoreList::keys_of(const Index& index, const Value& value) {
    const auto found = index.find(value);
    return found == index.end() ? std::set<std::string>{} : found->second;
}

State::Change LostStoreList::change_for(const std::string& words, const DiskId& id) {
    const std::lock_guard lock{mutex_};
    for (const std::string& key : keys_of(by_words_, words)) {
        if (lost_.at(key).id == id) return {key, value_of(id, words)};
    }
    return {kLostPrefix + std::to_string(next_++), value_of(id, words)};
}

void LostStoreList::note_lost(const State::Change& change) {
    const std::lock_guard lock{mutex_};
    const Json& value = *change.value;
    put(change.key, {{static_cast<DiskId::Kind>(value["kind"].get<unsigned>()), value["device"], value["inode"]},
                     value["words"]});
}

void LostStoreList::record(const DiskId& store, const std::string& words, Recorded& done) noexcept {
    const State::Change change = change_for(words, store);
    note_lost(change);  // in memory at once
    auto* answer = new Answer{done, *Reactor::current()};
    worker_.post([this, change, answer] {
        const auto committed = state_.commit({change});
        if (!committed)
            log_error("", "a lost snapshot store could not be recorded: {}", committed.error().message);
        answer->send(committed ? IoStatus::ok : IoStatus::io_error);
    });
}

bool LostStoreList::is_lost(const DiskId& store) const noexcept {
    const std::lock_guard lock{mutex_};
    return by_id_.contains(store);
}

void LostStoreList::seen(std::string_view words, const DiskId& id) {
    const std::lock_guard lock{mutex_};
    for (const std::string& key : keys_of(by_words_, words)) {
        put(key, {id, std::string{words}});  // the words stay in the state, and lead here again
    }
}

// Words alone never bring a mark back, so a mark goes for good only when the state says so too.
void LostStoreList::drop(const std::string& key) {
    take(key);
    worker_.post([this, key] {
        if (const auto committed = state_.commit({{key, std::nullopt}}); !committed) {
            log_error("", "the mark of a lost snapshot store could not be taken back: {}",
                      committed.error().message);
        }
    });
}

void LostStoreList::forget(const DiskId& store) noexcept {
    const std::lock_guard lock{mutex_};
    for (const std::string& key : keys_of(by_id_, store)) drop(key);
}

void LostStoreList::forget_words(const std::string& words) {
    const std::lock_guard lock{mutex_};
    for (const std::string& key : keys_of(by_words_, words)) drop(key);
}

std::vector<std::string> LostStoreList::all() const {
    const std::lock_guard lock{mutex_};
    std::vector<std::string> words;
    for (const auto& [key, lost] : lost_) words.push_back(lost.words);
    return words;
}

}  // namespace udm::ctl
