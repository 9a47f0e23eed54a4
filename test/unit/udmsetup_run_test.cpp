// Whole runs of udmsetup against a daemon whose answers are recorded JSON.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/udmsetup/run.hpp"

namespace udm::udmsetup {
namespace {

Json info(const std::string& name, unsigned minor, Json changes = Json::object()) {
    Json result{{"name", name},
                {"uuid", ""},
                {"major", 253},
                {"minor", minor},
                {"state", "active"},
                {"read_only", false},
                {"live_table", true},
                {"inactive_table", false},
                {"open_count", 0},
                {"event_number", 0},
                {"targets", 1},
                {"deferred_remove", false},
                {"internal_suspend", false},
                {"size", 8192},
                {"home", 0},
                {"held_because", nullptr},
                {"exports", Json::array()}};
    result.update(changes);
    return result;
}

Json error(int number, const std::string& message) {
    return {{"code", -32000}, {"message", message}, {"data", {{"errno", number}}}};
}

// Answers of a daemon: by method, and by method and device for those that need it. An object with `code` is
// an error.
struct Daemon {
    std::map<std::string, Json> answers;
    std::vector<std::string> calls;

    Json call(std::string_view method, const Json& params) {
        calls.push_back(std::string{method} + " " + params.dump());
        std::string key{method};
        if (const auto device = params.find("device"); device != params.end()) {
            const std::string name = device->is_string() ? device->get<std::string>() : device->dump();
            if (answers.contains(key + " " + name)) key += " " + name;
        }
        const auto answer = answers.find(key);
        if (answer == answers.end()) throw ctl::CallError{error(ENXIO, "no such device")};
        if (answer->second.is_object() && answer->second.contains("code"))
            throw ctl::CallError{answer->second};
        return answer->second;
    }
};

class Link final : public ctl::Endpoint {
  public:
    explicit Link(Daemon& daemon) : daemon_{daemon} {}
    Json call(std::string_view method, Json params) override { return daemon_.call(method, params); }

  private:
    Daemon& daemon_;
};

struct Result {
    int status;
    std::string out, err;
};

Result run_tool(Daemon& daemon, std::vector<std::string> words) {
    words.insert(words.begin(), "udmsetup");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const auto options = parse_options(static_cast<int>(words.size()), argv.data());
    if (!options) return {1, "", "options"};
    char *out = nullptr, *err = nullptr;
    std::size_t out_size = 0, err_size = 0;
    std::FILE* out_stream = ::open_memstream(&out, &out_size);
    std::FILE* err_stream = ::open_memstream(&err, &err_size);
    const int status = run(*options, out_stream, err_stream,
                           [&](const std::string&) { return std::make_unique<Link>(daemon); });
    std::fclose(out_stream);
    std::fclose(err_stream);
    Result result{status, {out, out_size}, {err, err_size}};
    std::free(out);
    std::free(err);
    return result;
}

TEST(UdmsetupInfo, PrintsTheBlockOfEachDevice) {
    Daemon daemon{
        {{"device.info lin", info("lin", 0, {{"uuid", "UU-1"}, {"inactive_table", true}, {"open_count", 2}})},
         {"device.info ro",
          info("ro", 1, {{"read_only", true}, {"state", "suspended"}, {"deferred_remove", true}})},
         {"device.info empty", info("empty", 2, {{"live_table", false}, {"targets", 0}})}},
        {}};
    EXPECT_EQ(run_tool(daemon, {"info", "lin"}).out,
              "Name:              lin\nState:             ACTIVE\nRead Ahead:        0\nTables present:    "
              "LIVE & INACTIVE\n"
              "Open count:        2\nEvent number:      0\nMajor, minor:      253, 0\nNumber of targets: "
              "1\nUUID: UU-1\n\n");
    EXPECT_EQ(run_tool(daemon, {"info", "ro"}).out.substr(22, 59),
              "State:             SUSPENDED (READ-ONLY) (DEFERRED REMOVE)\n");
    EXPECT_EQ(
        run_tool(daemon, {"info", "empty"}).out,
        "Name:              empty\nState:             ACTIVE\nTables present:    None\n"
        "Open count:        0\nEvent number:      0\nMajor, minor:      253, 2\nNumber of targets: 0\n\n");
}

TEST(UdmsetupInfo, OfADeviceThatIsNotThereFails) {
    Daemon daemon;
    const Result result = run_tool(daemon, {"info", "nosuch"});
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.err, "Device does not exist.\nCommand failed.\n");
}

TEST(UdmsetupInfo, InColumnsHasDmsetupsWidths) {
    Daemon daemon{{{"device.list", Json::array({info("lin", 0)})},
                   {"device.deps",
                    Json::array({{{"major", 254}, {"minor", 32}, {"words", "/d/a"}, {"name", nullptr}}})}},
                  {}};
    EXPECT_EQ(run_tool(daemon, {"info", "-c"}).out,
              "Name             Maj Min Stat Open Targ Event  UUID                            \n"
              "lin              253   0 L--w    0    1      0                                 \n");
    EXPECT_EQ(run_tool(daemon, {"info", "-c", "-o", "name,devnos_used,device_count,device_ref_count"}).out,
              "Name             DevNosUsed       #Devs #Refs\n"
              "lin              254:32               1     0\n");
}

TEST(UdmsetupCreate, LoadsAndResumesAndTellsTheDaemonAbsolutePaths) {
    Daemon daemon{
        {{"device.create", info("v", 4)}, {"table.load", info("v", 4)}, {"device.resume", info("v", 4)}}, {}};
    const Result result =
        run_tool(daemon, {"create", "v", "-u", "U", "-r", "--table", "0 8 linear /dev/x 0"});
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.out + result.err, "");
    EXPECT_EQ(
        daemon.calls,
        (std::vector<std::string>{
            R"(device.create {"name":"v","read_only":true,"uuid":"U"})",
            R"(table.load {"device":"v","read_only":true,"table":[{"length":8,"params":"/dev/x 0","start":0,"type":"linear"}]})",
            R"(device.resume {"device":"v"})"}));
}

TEST(UdmsetupCreate, TakesTheDeviceAwayWhenItsTableIsRefusedAndSaysWhy) {
    Daemon daemon{{{"device.create", info("bad", 0)},
                   {"table.load",
                    error(ENODEV, "table: 253:0: linear: Device lookup failed: /dev/none does not exist")},
                   {"device.remove", {{"deferred", false}}}},
                  {}};
    const Result result = run_tool(daemon, {"create", "bad", "--table", "0 8 linear /dev/none 0"});
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.err,
              "device-mapper: reload ioctl on bad (253:0) failed: No such device\n"
              "  table: 253:0: linear: Device lookup failed: /dev/none does not exist\n"
              "Command failed.\n");
    EXPECT_EQ(daemon.calls.back(), R"(device.remove {"device":"bad"})");
}

TEST(UdmsetupCreate, RefusesNamesBeforeAnythingIsAsked) {
    Daemon daemon;
    EXPECT_EQ(run_tool(daemon, {"create", "a/b", "-n"}).err,
              "Name \"a/b\" invalid. It contains \"/\".\nCommand failed.\n");
    EXPECT_EQ(run_tool(daemon, {"create", std::string(128, 'x'), "-n"}).err,
              "Name \"" + std::string(128, 'x') + "\" too long.\nCommand failed.\n");
    EXPECT_EQ(run_tool(daemon, {"create"}).err,
              "Please provide a name for the new device.\nCommand failed.\n");
    EXPECT_TRUE(daemon.calls.empty());
}

TEST(UdmsetupRemove, StopsAtTheFirstThatFails) {
    Daemon daemon{{{"device.info", info("x", 0)},
                   {"device.remove a", {{"deferred", false}}},
                   {"device.remove b", error(EBUSY, "b: in use by c")}},
                  {}};
    const Result result = run_tool(daemon, {"remove", "a", "b", "c"});
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.err,
              "device-mapper: remove ioctl on b  failed: Device or resource busy\n  b: in use by c\nCommand "
              "failed.\n");
    EXPECT_EQ(daemon.calls.size(), 4u);
}

TEST(UdmsetupRemove, ByForceOfNothingFailsInAllOfDmsetupsSteps) {
    Daemon daemon;
    EXPECT_EQ(run_tool(daemon, {"remove", "--force", "nosuch"}).err,
              "device-mapper: table ioctl on nosuch  failed: No such device or address\n"
              "device-mapper: reload ioctl on nosuch  failed: No such device or address\n"
              "device-mapper: remove ioctl on nosuch  failed: No such device or address\n"
              "Command failed.\n");
}

TEST(UdmsetupTable, NamesTheDeviceWhereThereAreSeveral) {
    const Json lines = Json::array({{{"start", 0}, {"length", 8}, {"type", "zero"}, {"text", ""}},
                                    {{"start", 8}, {"length", 8}, {"type", "linear"}, {"text", "/d/a 3"}}});
    Daemon daemon{{{"device.list", Json::array({info("a", 0), info("b", 1, {{"live_table", false}})})},
                   {"device.info", info("a", 0, {{"uuid", "U;1"}})},
                   {"table.get a", lines},
                   {"table.get b", Json::array()}},
                  {}};
    EXPECT_EQ(run_tool(daemon, {"table", "a"}).out, "0 8 zero \n8 8 linear /d/a 3\n");
    EXPECT_EQ(run_tool(daemon, {"table"}).out, "a: 0 8 zero \na: 8 8 linear /d/a 3\nb: \n");
    EXPECT_EQ(run_tool(daemon, {"table", "--target", "linear"}).out, "a: 8 8 linear /d/a 3\n");
    EXPECT_EQ(run_tool(daemon, {"table", "--concise", "a"}).out,
              "a,U\\;1,0,rw,0 8 zero ,8 8 linear /d/a 3\n");
}

TEST(UdmsetupDeps, AreInLinuxsOrderTheLastOneFirst) {
    Daemon daemon{
        {{"device.deps",
          Json::array({{{"major", 253}, {"minor", 0}, {"words", "/dev/mapper/lin"}, {"name", "lin"}},
                       {{"major", 254}, {"minor", 48}, {"words", "/d/disk b"}, {"name", nullptr}}})}},
        {}};
    EXPECT_EQ(run_tool(daemon, {"deps", "x"}).out, "2 dependencies\t: (254, 48) (253, 0)\n");
    EXPECT_EQ(run_tool(daemon, {"deps", "-o", "devname", "x"}).out, "2 dependencies\t: (disk b) (lin)\n");
    EXPECT_EQ(run_tool(daemon, {"deps", "-o", "blkdevname", "x"}).out, "2 dependencies\t: (disk b) (dm-0)\n");
}

TEST(UdmsetupMessage, JoinsItsWordsAndPrintsTheReply) {
    Daemon daemon{{{"device.message", {{"reply", "0"}}}}, {}};
    EXPECT_EQ(run_tool(daemon, {"message", "x", "16", "@stats_create", "-", "/1"}).out, "0\n");
    EXPECT_EQ(daemon.calls.back(),
              R"(device.message {"device":"x","message":"@stats_create - /1","sector":16})");
    EXPECT_EQ(run_tool(daemon, {"message", "x", "y", "z"}).err, "Invalid sector.\nCommand failed.\n");
}

TEST(UdmsetupWait, EndsWellWhenTheDeviceGoes) {
    Daemon daemon{{{"device.info", info("x", 0)}, {"device.wait", error(ENXIO, "removed")}}, {}};
    EXPECT_EQ(run_tool(daemon, {"wait", "x"}).status, 0);
    Daemon none;
    EXPECT_EQ(run_tool(none, {"wait", "x"}).err,
              "device-mapper: waitevent ioctl on x  failed: No such device or address\nCommand failed.\n");
}

TEST(UdmsetupDevices, AreTakenByPathUuidAndNumber) {
    Daemon daemon{{{"table.get", Json::array()}}, {}};
    run_tool(daemon, {"table", "/dev/mapper/a"});
    run_tool(daemon, {"table", "/dev/dm-7"});
    run_tool(daemon, {"table", "-u", "U"});
    run_tool(daemon, {"table", "-j", "253", "-m", "3"});
    run_tool(daemon, {"table", "a\\x20b"});
    EXPECT_EQ(daemon.calls,
              (std::vector<std::string>{
                  R"(table.get {"device":"a"})", R"(table.get {"device":{"major":253,"minor":7}})",
                  R"(table.get {"device":{"uuid":"U"}})", R"(table.get {"device":{"major":253,"minor":3}})",
                  R"(table.get {"device":"a b"})"}));
    EXPECT_EQ(run_tool(daemon, {"table", "/dev/sda"}).err, "Device /dev/sda not found\nCommand failed.\n");
}

TEST(UdmsetupJson, HasResultsAndErrorsAsData) {
    Daemon daemon{
        {{"device.list", Json::array({info("a", 0)})},
         {"device.info a", info("a", 0)},
         {"table.get a", Json::array({{{"start", 0}, {"length", 8}, {"type", "zero"}, {"text", ""}}})}},
        {}};
    EXPECT_EQ(Json::parse(run_tool(daemon, {"--json", "ls"}).out),
              Json::parse(R"([{"name":"a","major":253,"minor":0}])"));
    EXPECT_EQ(Json::parse(run_tool(daemon, {"--json", "table", "a"}).out),
              Json::parse(R"([{"name":"a","targets":[{"start":0,"length":8,"type":"zero","params":""}]}])"));
    const Result failed = run_tool(daemon, {"--json", "table", "nosuch"});
    EXPECT_EQ(failed.status, 1);
    EXPECT_EQ(Json::parse(failed.out)["errors"][0]["errno"], ENXIO);
    EXPECT_EQ(Json::parse(failed.out)["errors"][0]["operation"], "table");
}

TEST(UdmsetupCommandLine, IsCheckedAsDmsetupDoes) {
    Daemon daemon;
    EXPECT_EQ(run_tool(daemon, {"ls", "-o", "nosuch"}).err,
              "Option not recognised: nosuch.\nCouldn't process command line.\n");
    EXPECT_EQ(run_tool(daemon, {"ls", "--tree", "-o", "ascii,x"}).err,
              "Tree options not recognised: ascii,x.\nCouldn't process command line.\n");
    EXPECT_EQ(run_tool(daemon, {"nonsense"}).err.substr(0, 17), "Unknown command.\n");
    EXPECT_EQ(run_tool(daemon, {"rename"}).err.substr(0, 31), "Incorrect number of arguments.\n");
    EXPECT_EQ(run_tool(daemon, {"suspend"}).err, "No device specified.\nCommand failed.\n");
    EXPECT_TRUE(daemon.calls.empty());
}

}  // namespace
}  // namespace udm::udmsetup
