// udm mirror create: a mirror of files, devices and NBD exports, with its log.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <fstream>
#include <optional>

#include "apps/udm/blank.hpp"
#include "apps/udm/commands.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"
#include "ctl/cow_file.hpp"
#include "ctl/mirror_log.hpp"
#include "port/nbd_uri.hpp"

namespace udm::app {
namespace {

constexpr std::size_t kLegsMost = 9;
constexpr std::string_view kLogMagic = "rRiM";    // docs/formats/disk_log.md

// Files that were made; they go again unless the mirror came to be.
class MadeFiles {
  public:
    MadeFiles() = default;
    MadeFiles(const MadeFiles&) = delete;
    MadeFiles& operator=(const MadeFiles&) = delete;
    ~MadeFiles() {
        for (const std::string& path : paths_) ::unlink(path.c_str());
    }
    // `reserve`: all its space at once, so that none is missing later.
    void make(const std::string& path, std::uint64_t bytes, bool reserve) {
        ctl::make_cow_file(path, bytes, reserve);
        paths_.push_back(path);
        ctl::keep_cow_file(path);
    }
    bool has(const std::string& path) const { return std::ranges::find(paths_, path) != paths_.end(); }
    void keep() { paths_.clear(); }

  private:
    std::vector<std::string> paths_;
};

struct Leg {
    std::string words;     // as in the table
    bool is_file = false;
    bool missing = false;
    std::optional<std::uint64_t> size;    // bytes, where it is known here
};

struct Create {
    std::string name, log, region, size;
    std::vector<std::string> legs;
    bool in_sync = false, overwrite = false, hold = false, reuse_log = false;

    void run(Context& context) const {
        if (legs.size() < 2 || legs.size() > kLegsMost)
            throw WrongWords{fmt::format("a mirror has 2 to {} legs, not {}", kLegsMost, legs.size()),
                             "udm mirror create vol disk.img copy.img; the first leg's data are copied to the others"};
        if (in_sync && reuse_log) throw WrongWords{"--in-sync and --reuse-log are one too many", "a log that is reused says itself what is in sync"};
        std::vector<Leg> all;
        for (const std::string& word : legs) all.push_back(look_at(context, word));
        check_twice(all);
        const std::uint64_t bytes = size_of_volume(all), region_bytes = region_of(bytes);
        MadeFiles made;
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (all[i].missing) made.make(all[i].words, bytes, false);
            else if (i != 0 && !in_sync && !reuse_log && !overwrite) refuse_what_holds_something(context, all[i], all[0]);
        }
        std::string log_path;
        std::string params = log_words(all, bytes, region_bytes, made, log_path);
        params += fmt::format(" {}", all.size());
        for (const Leg& leg : all) params += fmt::format(" {} 0", quote_word(leg.words));
        params += hold ? " 1 handle_errors" : " 2 handle_errors keep_log";
        Json line{{"start", 0}, {"length", bytes / 512}, {"type", "mirror"}, {"params", params}};
        Json info = context.call("device.create", {{"name", name}, {"table", Json::array({std::move(line)})}, {"careful", true}}, "making " + name);
        std::string text = fmt::format("{} is there: {} on {} legs, {}", name, human_size(bytes), all.size(),
                                       log_path.empty() ? "its log in memory" : "its log in " + log_path);
        for (const Leg& leg : all) {
            if (made.has(leg.words)) text += fmt::format("\n{} is new", leg.words);
        }
        if (!in_sync && !reuse_log) text += fmt::format("\n{} is copied to the other leg{} while {} is in use: `udm mirror show {} --watch`", all[0].words,
                                                        all.size() == 2 ? "" : "s", name, name);
        made.keep();
        info["log"] = log_path.empty() ? Json{} : Json(log_path);
        info["region_size"] = region_bytes;
        context.print(info, text);
    }

  private:
    static Leg look_at(Context& context, const std::string& word) {
        if (is_nbd_uri(word)) return {.words = with_absolute_socket(word)};
        if (word.starts_with("udm:")) {
            const Json info = context.call("device.info", {{"device", word.substr(4)}});
            return {.words = word, .size = info.value("size", std::uint64_t{0}) * 512};
        }
        if (word.starts_with("ram:")) return {.words = word};
        Leg leg{.words = ctl::absolute_path(word.find(':') == std::string::npos ? word : "./" + word), .is_file = true};
        leg.missing = !std::filesystem::exists(leg.words);
        if (!leg.missing) leg.size = size_of(leg.words);
        return leg;
    }

    static void check_twice(const std::vector<Leg>& all) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            for (std::size_t k = 0; k < i; ++k) {
                std::error_code none;
                if (all[i].words == all[k].words || (all[i].is_file && all[k].is_file && std::filesystem::equivalent(all[i].words, all[k].words, none)))
                    throw Refusal{fmt::format("{} and {} are the same: it would hold one copy only", all[k].words, all[i].words), "a leg is a device or file of its own"};
            }
        }
    }

    std::uint64_t size_of_volume(const std::vector<Leg>& all) const {
        std::optional<std::uint64_t> smallest;
        for (const Leg& leg : all) {
            if (leg.size) smallest = std::min(smallest.value_or(*leg.size), *leg.size);
        }
        if (size.empty()) {
            if (all[0].missing)
                throw Refusal{fmt::format("{} does not exist", all[0].words), "the first leg has the data; for a new, empty mirror say --size 10G"};
            if (!smallest)
                throw Refusal{"how large is it to be? None of its legs' sizes is known here", "--size 10G; a leg that is smaller is refused"};
        }
        const std::uint64_t bytes = size.empty() ? *smallest / 512 * 512 : size_argument(size, "--size");
        for (const Leg& leg : all) {
            if (leg.size && *leg.size < bytes)
                throw Refusal{fmt::format("{} has {}, less than --size {}", leg.words, human_size(*leg.size), size), "leave --size out, or `truncate` the file first"};
        }
        if (bytes < 1024) throw Refusal{fmt::format("a mirror of {} bytes is too small: a region alone has 1024", bytes), "--size 10G makes new files"};
        return bytes;
    }

    std::uint64_t region_of(std::uint64_t bytes) const {
        if (region.empty()) return to_bytes(ctl::region_size_for({bytes / 512}));
        const std::uint64_t wanted = size_argument(region, "--region");
        if (!std::has_single_bit(wanted) || wanted < 1024 || wanted > bytes)
            throw WrongWords{fmt::format("--region: {} is no power of two of at least 1 KiB and at most {}", region, human_size(bytes)),
                             fmt::format("without --region it is {}", human_sectors(ctl::region_size_for({bytes / 512}).v))};
        return wanted;
    }

    static void refuse_what_holds_something(Context& context, const Leg& leg, const Leg& first) {
        const std::string advice = fmt::format("--overwrite, if it may go; --in-sync, if it is equal to {} already", first.words);
        if (leg.words.starts_with("ram:")) return;
        if (!leg.is_file)
            throw Refusal{fmt::format("whatever {} holds would be overwritten with {}, and one cannot look into it from here", leg.words, first.words), advice};
        if (const auto at = first_data(leg.words, context.json ? "" : "looking whether " + leg.words + " holds something"))
            throw Refusal{fmt::format("{} holds data (from byte {} on), which would be overwritten with {}", leg.words, *at, first.words), advice};
    }

    // The table's words up to the legs; makes the log's file.
    std::string log_words(const std::vector<Leg>& all, std::uint64_t bytes, std::uint64_t region_bytes, MadeFiles& made, std::string& path) const {
        const char* const word = in_sync ? " nosync" : "";
        const unsigned words = in_sync ? 2 : 1;
        if (log == "core") {
            if (reuse_log) throw WrongWords{"--reuse-log wants a log that was kept", "--log FILE"};
            return fmt::format("core {} {}{}", words, region_bytes / 512, word);
        }
        if (log.empty()) {
            const auto beside = std::ranges::find_if(all, [](const Leg& leg) { return leg.is_file && !leg.words.starts_with("/dev/"); });
            if (beside == all.end())
                throw Refusal{"no leg is a file that its log could be made beside",
                              "--log FILE says where; --log core keeps it in memory, and after a restart everything is copied again"};
            path = (std::filesystem::path{beside->words}.parent_path() / (name + ".log")).string();
        } else {
            path = ctl::absolute_path(log);
        }
        const std::uint64_t needed = ctl::mirror_log_bytes({bytes / 512}, {region_bytes / 512});
        if (std::filesystem::exists(path)) {
            check_log(path, needed);
        } else if (reuse_log) {
            throw Refusal{fmt::format("there is no log {} to be reused", path), "without --reuse-log it is made"};
        } else {
            made.make(path, needed, true);
        }
        return fmt::format("disk {} {} {}{}", words + 1, quote_word(path), region_bytes / 512, word);
    }

    void check_log(const std::string& path, std::uint64_t needed) const {
        const std::uint64_t has = size_of(path);
        if (has < needed) throw Refusal{fmt::format("the log {} has {}, and {} are needed", path, human_size(has), human_size(needed)), "--log another FILE, which is made"};
        std::array<char, 4> start{};
        std::ifstream{path, std::ios::binary}.read(start.data(), start.size());
        const bool is_log = std::string_view{start.data(), start.size()} == kLogMagic;
        if (reuse_log && is_log) return;
        if (is_log)
            throw Refusal{fmt::format("{} is a mirror's log", path), "--reuse-log, if it is of these very legs: only what it says to be out of sync is copied then; else --log another FILE"};
        if (const auto at = first_data(path, ""))
            throw Refusal{fmt::format("{} holds something that is no mirror's log (from byte {} on)", path, *at), "--log another FILE, which is made"};
        if (reuse_log) throw Refusal{fmt::format("{} is empty: there is no log to be reused", path), "without --reuse-log it becomes one"};
    }
};

}  // namespace

void add_mirror_create_command(CLI::App& mirror, Context& context) {
    auto create = std::make_shared<Create>();
    auto* command = mirror.add_subcommand("create", "Make a mirror; the first leg's data are copied to the others");
    command->add_option("NAME", create->name, "What it is called")->required();
    command->add_option("LEG...", create->legs, "Two to nine: images, block devices, NBD URIs, udm:NAME; a file that is not there is made")->required();
    command->add_option("--log", create->log, "Where its log goes: a file, which is made; a device; or `core`: in memory. Else NAME.log beside the first leg");
    command->add_option("--region", create->region, "What is marked and copied at a time: a power of two; 512K, or more for large volumes");
    command->add_option("--size", create->size, "Of new files; else that of the smallest leg");
    command->add_flag("--in-sync", create->in_sync, "The legs are equal already: nothing is copied");
    command->add_flag("--overwrite", create->overwrite, "What the other legs hold may go");
    command->add_flag("--reuse-log", create->reuse_log, "The log is of these very legs: copy only what it says to be out of sync");
    command->add_flag("--hold", create->hold, "Writes wait while a leg is missing, until somebody loads another table; else they go on");
    command->callback([create, &context] { create->run(context); });
}

}  // namespace udm::app
