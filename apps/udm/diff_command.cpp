// udm snapshot diff.
#include <fmt/format.h>

#include <optional>
#include <vector>

#include "apps/udm/commands.hpp"
#include "apps/udm/diff_map.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

constexpr std::size_t kShown = 20;

struct Diff {
    std::string snapshot, other;
    bool all = false;

    void run(Context& context) const;
};

// Page by page, each printed or counted as it comes: there may be millions.
class Listing {
  public:
    Listing(const Context& context, bool all) : context_{context}, all_{all} {}

    void begin(const Json& page) {
        size_ = page.value("size", std::uint64_t{0});
        map_.emplace(size_);
        if (context_.json) {
            const auto text = [&](const char* key) { return page.at(key).dump(-1, ' ', false, Json::error_handler_t::replace); };
            fmt::print("{{\"snapshot\": {}, \"against\": {}, \"size\": {}, \"extents\": [", text("device"), text("against"), size_);
        }
    }
    void add(std::uint64_t offset, std::uint64_t length) {
        if (count_ != 0 && end_ == offset) {    // the last page's last, gone on
            end_ += length;
        } else {
            put();
            start_ = offset;
            end_ = offset + length;
            ++count_;
        }
        bytes_ += length;
        map_->add(offset, length);
    }
    void finish(const Json& page) {
        put();
        if (context_.json) {
            fmt::print("],\n\"count\": {}, \"bytes\": {}}}\n", count_, bytes_);
            return;
        }
        const auto name = [&](const char* key) { return page.value(key, ""); };
        if (count_ == 0) {
            fmt::print("{} and {} are equal: nothing was written\n", name("device"), name("against"));
        } else {
            const double share = size_ == 0 ? 0 : 100 * static_cast<double>(bytes_) / static_cast<double>(size_);
            fmt::print("{} and {} may differ in {} place{}: {} of {}, {:.2g}%\n", name("device"), name("against"), count_,
                       count_ == 1 ? "" : "s", human_size(bytes_), human_size(size_), share);
            fmt::print("  [{}]\n", map_->text());
            Columns columns{{"OFFSET>", "LENGTH>", ">"}};
            for (const auto& [offset, length] : rows_) columns.add({std::to_string(offset), std::to_string(length), human_size(length)});
            fmt::print("{}", columns.text());
            if (count_ > rows_.size()) fmt::print("and {} more (--all lists them)\n", count_ - rows_.size());
        }
        if (const auto beyond = page.value("against_size", std::uint64_t{0}); beyond > size_)
            context_.note(fmt::format("{} goes on for {} more, which is not listed", name("against"), human_size(beyond - size_)));
    }

  private:
    void put() {
        if (count_ == 0) return;
        if (context_.json) {
            fmt::print("{}\n[{}, {}]", count_ == 1 ? "" : ",", start_, end_ - start_);
        } else if (all_ || rows_.size() < kShown) {
            rows_.emplace_back(start_, end_ - start_);
        }
    }
    const Context& context_;
    const bool all_;
    std::uint64_t size_ = 0, bytes_ = 0, count_ = 0, start_ = 0, end_ = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> rows_;
    std::optional<DiffMap> map_;
};

void Diff::run(Context& context) const {
    Json params{{"snapshot", snapshot}};
    if (!other.empty()) params["against"] = other;
    Json page = context.call("snapshot.diff", params, "comparing");
    Listing listing{context, all};
    listing.begin(page);
    for (;;) {
        for (const Json& extent : page["extents"]) listing.add(extent.at(0), extent.at(1));
        const Json next = page["next"];
        if (!next.is_number()) break;
        params["offset"] = next;
        page = context.call("snapshot.diff", params, "comparing");
    }
    listing.finish(page);
    std::fflush(stdout);
}

}  // namespace

void add_diff_command(CLI::App& snapshot, Context& context) {
    auto diff = std::make_shared<Diff>();
    auto* command = snapshot.add_subcommand("diff", "Where a snapshot differs from its origin, or from another device");
    command->add_option("SNAPSHOT", diff->snapshot)->required();
    command->add_option("OTHER", diff->other, "Another snapshot of the same volume, or the volume (else its origin)");
    command->add_flag("--all", diff->all, "List all places, not the first 20");
    command->footer("Nothing is read for it: what is kept in a place of its own is listed, in whole chunks. So it may list what is\n"
                    "equal, and never misses a difference.");
    command->callback([diff, &context] { diff->run(context); });
}

}  // namespace udm::app
