// udm serve: one command from an image to an export. Uses the running daemon, or a private one that ends with
// it.
#include <fmt/format.h>

#include <cctype>
#include <filesystem>
#include <memory>

#include "apps/udm/commands.hpp"
#include "apps/udm/private_daemon.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"

namespace udm::app {
namespace {

namespace fs = std::filesystem;

// A device made for this command and what serves it; taken away again at the end, whatever happens.
class Served {
  public:
    Served(Context& context, std::string device) : context_{context}, device_{std::move(device)} {}
    ~Served() {
        try {
            context_.end_exports(device_);
            context_.call("device.remove", {{"device", device_}});
        } catch (const ctl::NoDaemon&) {
            // it went first, and took them with it
        } catch (const std::exception& error) {
            context_.note(fmt::format("udm: {} stays: {}", device_, error.what()));
        }
    }
    Served(const Served&) = delete;
    Served& operator=(const Served&) = delete;

  private:
    Context& context_;
    std::string device_;
};

struct Serve {
    std::string file, name, uri;
    bool read_only = false, force = false;

    void run(Context& context) const {
        const std::string path = ctl::absolute_path(file.find(':') == std::string::npos ? file : "./" + file);
        const std::uint64_t bytes = size_of(path);
        if (bytes < 512) {
            throw Refusal{fs::exists(path) ? fmt::format("{} is smaller than a sector of 512 bytes", path)
                                           : fmt::format("{} does not exist", path)};
        }
        if (bytes % 512 != 0) {
            context.note(
                fmt::format("udm: the last {} bytes of {} are not served: it isn't a multiple of 512 bytes",
                            bytes % 512, path));
        }
        catch_signals();  // so that whatever is made is also taken away
        std::unique_ptr<PrivateDaemon> own;
        try {
            context.daemon();
        } catch (const ctl::NoDaemon&) {
            if (!context.socket.empty()) throw;  // a certain daemon was asked for
            own = std::make_unique<PrivateDaemon>();
            context.use(own->socket());
        }
        const std::string device = name.empty() ? name_of(path) : name;
        Json params{{"name", device},
                    {"table", Json::array({{{"start", 0},
                                            {"length", bytes / 512},
                                            {"type", "linear"},
                                            {"params", quote_word(path) + " 0"}}})}};
        if (read_only) params["read_only"] = true;
        else if (!force) params["careful"] = true;
        try {
            context.call("device.create", std::move(params));
        } catch (const Refusal& refusal) {
            if (refusal.details.value("errno", 0) != EBUSY || !name.empty() || std::string_view{refusal.what()}.find("exists") == std::string_view::npos) throw;
            throw Refusal{refusal.what(), "--name NAME gives it another name"};
        }
        const Served served{context, device};
        Json request{{"device", device},
                     {"uri", uri.empty() ? default_uri(context, device) : with_absolute_socket(uri)}};
        if (read_only) request["read_only"] = true;
        const Json exported = context.call("export.add", std::move(request));
        context.print(exported, exported.value("uri", ""));
        wait_for_end(context);
    }

  private:
    // Until a signal, or until the daemon goes away (NoDaemon).
    static void wait_for_end(Context& context) {
        ctl::Client watch{
            context.daemon().path()};  // notifications would get between the answers of the other
        watch.call("events.subscribe");
        while (!stop_requested()) watch.next_event(std::nullopt, stop_descriptor());
    }

    // "my disk.img" is my_disk.
    static std::string name_of(const std::string& path) {
        std::string stem = fs::path(path).stem().string();
        for (char& c : stem) {
            if (std::isalnum(static_cast<unsigned char>(c)) == 0 &&
                std::string_view{"-_.+"}.find(c) == std::string_view::npos)
                c = '_';
        }
        if (stem.empty() || stem == "." || stem == ".." || stem == "control") stem += "disk";
        return stem.substr(0, 127);
    }

    static std::string default_uri(Context& context, const std::string& device) {
        const std::string folder = fs::path(context.daemon().path()).parent_path().string();
        return with_absolute_socket(
            fmt::format("nbd+unix:///{}?socket={}/nbd-{}.sock", device, folder, device));
    }
};

}  // namespace

void add_serve_command(CLI::App& app, Context& context) {
    auto serve = std::make_shared<Serve>();
    auto* command =
        app.add_subcommand("serve", "Serve an image over NBD until Ctrl-C; prints the URI on one line");
    command->add_option("FILE", serve->file, "Image or block device")->required();
    command->add_option("--name", serve->name, "Of the device and the export (else the file's)");
    command->add_option("--uri", serve->uri, "Where to serve it (else a Unix socket beside the daemon's)");
    command->add_flag("--read-only", serve->read_only, "Clients cannot write");
    command->add_flag("--force", serve->force, "Also where it can write past a volume's snapshots, which breaks them");
    command->callback([serve, &context] { serve->run(context); });
}

}  // namespace udm::app
