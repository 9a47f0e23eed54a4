#include "apps/udmsetup/run.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "apps/udmsetup/device_fields.hpp"
#include "apps/udmsetup/selection.hpp"
#include "apps/udmsetup/concise.hpp"
#include "apps/udmsetup/verbs.hpp"

namespace udm::udmsetup {
namespace {

bool all_among(std::string_view words, std::initializer_list<std::string_view> known) {
    while (!words.empty()) {
        const auto end = std::min(words.find(','), words.size());
        if (end != 0 && std::find(known.begin(), known.end(), words.substr(0, end)) == known.end())
            return false;
        words.remove_prefix(std::min(end + 1, words.size()));
    }
    return true;
}

// What -o may say depends on the verb.
bool check_fields(const Options& options, std::FILE* err) {
    if (!options.fields || options.columns || options.verb == "splitname") return true;
    if (options.tree) {
        if (all_among(*options.fields, {"device", "nodevice", "blkdevname", "active", "open", "rw", "uuid",
                                        "ascii", "utf", "vt100", "compact", "inverted", "notrunc"})) {
            return true;
        }
        fmt::print(err, "Tree options not recognised: {}.\n", *options.fields);
    } else {
        if (all_among(*options.fields, {"devno", "devname", "blkdevname"})) return true;
        fmt::print(err, "Option not recognised: {}.\n", *options.fields);
    }
    fmt::print(err, "Couldn't process command line.\n");
    return false;
}

std::string json_text(const Json& value) { return value.dump(2, ' ', false, Json::error_handler_t::replace); }

void print_wrong_words(const Verb& verb, std::FILE* out, std::FILE* err) {
    std::fflush(out);
    fmt::print(err, "Incorrect number of arguments.\nUsage: udmsetup {}\n", verb.usage);
}

int run_once(Session& session, const Verb& verb, std::FILE* err) {
    try {
        verb.run(session);
        return 0;
    } catch (const VerbFailed&) {
        session.error("Command failed.");
    } catch (const WrongWords&) {
        print_wrong_words(verb, session.out(), err);
    } catch (const BadTable& bad) {
        session.error("{}", bad.what());
        session.error("Command failed.");
    } catch (const BadReport& bad) {
        std::fflush(session.out());
        if (bad.fields_help) fmt::print(err, "{}", fields_help(device_fields(), bad.selection_help));
        if (bad.selection_help) fmt::print(err, "{}", selection_help());
        if (!bad.message.empty()) session.error("{}", bad.message);
        return bad.failed ? 1 : 0;
    } catch (const ctl::CallError& error) {  // of a call that is about no one device
        session.error("{}", error.what());
        session.error("Command failed.");
    } catch (const ctl::NoDaemon& none) {
        session.error("udmsetup: {}", none.what());
        session.error("Command failed.");
    }
    return 1;
}

}  // namespace

int run(const Options& options, std::FILE* out, std::FILE* err, const Session::Connect& connect) {
    const Verb* verb = nullptr;
    if (options.help) {
        verb = find_verb("help");
    } else if (options.version) {
        verb = find_verb("version");
    } else if (options.verb.empty()) {
        fmt::print(err, "{}", usage_text());
        return 1;
    } else if (verb = find_verb(options.verb); verb == nullptr) {
        fmt::print(err, "Unknown command.\n{}", usage_text());
        return 1;
    }
    if (!check_fields(options, err)) return 1;
    const bool asked = options.help || options.version;
    if (!asked && (options.words.size() < verb->least || options.words.size() > verb->most)) {
        print_wrong_words(*verb, out, err);
        return 1;
    }

    std::uint64_t left = options.count.value_or(options.interval_seconds ? 0 : 1);
    const bool endless = left == 0;
    Session session{options, out, err, connect};
    for (;;) {
        session.result = Json{};
        session.failures = Json::array();
        const int status = run_once(session, *verb, err);
        if (options.json && !asked) {
            if (status != 0) {
                fmt::print(out, "{}\n",
                           json_text({{"errors", session.failures}, {"result", session.result}}));
            } else {
                fmt::print(out, "{}\n", json_text(session.result));
            }
        }
        std::fflush(out);
        if (status != 0 || (!endless && --left == 0)) return status;
        if (options.columns) fmt::print(out, "\n");
        std::this_thread::sleep_for(std::chrono::seconds{options.interval_seconds.value_or(1)});
    }
}

}  // namespace udm::udmsetup
