// udm create: a device of a file, a disk, memory, or the lines of a table.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>

#include "apps/udm/commands.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"
#include "port/nbd_uri.hpp"

namespace udm::app {
namespace {

void make_sparse_file(const std::string& path, std::uint64_t bytes) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) throw Refusal{fmt::format("{}: {}", path, std::strerror(errno))};
    const int failed = ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    ::close(fd);
    if (failed != 0) {
        ::unlink(path.c_str());
        throw Refusal{fmt::format("{}: {}", path, std::strerror(failed))};
    }
}

struct Create {
    std::string name, table, size, uuid;
    std::vector<std::string> words;  // FILE, or a table's line
    bool read_only = false, force = false;

    void run(Context& context) const {
        if (words.empty() == table.empty()) {
            throw WrongWords{
                words.empty() ? "what is it to be made of?" : "FILE and --table are one too many",
                fmt::format("udm create {0} disk.img, or udm create {0} 0 2048 zero", name)};
        }
        Json params{{"name", name}};
        if (read_only) params["read_only"] = true;
        if (!force) params["careful"] = true;
        if (!uuid.empty()) params["uuid"] = uuid;
        std::string made;  // a file that was made, and goes again when the device cannot be
        if (words.size() == 1 && is_nbd_uri(words[0]) && size.empty()) {
            params["of"] = with_absolute_socket(words[0]);
        } else {
            params["table"] = words.size() == 1 ? table_of_file(words[0], made) : table_of_text();
        }
        Json info;
        try {
            info = context.call("device.create", std::move(params), "making " + name);
        } catch (...) {
            if (!made.empty()) ::unlink(made.c_str());
            throw;
        }
        context.print(
            info, fmt::format("{} is there: {}{}", name, human_sectors(info.value("size", std::uint64_t{0})),
                              read_only ? ", read-only" : ""));
    }

  private:
    Json table_of_text() const {
        try {
            if (table == "-")
                return ctl::parse_table(std::string{std::istreambuf_iterator<char>{std::cin}, {}},
                                        " on stdin");
            std::string text = table;
            for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
            return ctl::parse_table(text, " ");
        } catch (const ctl::BadTable& bad) {
            throw WrongWords{
                bad.what(),
                "a line is START LENGTH TYPE WORDS, in sectors of 512 bytes: 0 2048 linear disk.img 0"};
        }
    }

    static Json line(std::uint64_t bytes, const std::string& device) {
        return Json::array(
            {{{"start", 0}, {"length", bytes / 512}, {"type", "linear"}, {"params", device + " 0"}}});
    }

    Json table_of_file(const std::string& word, std::string& made) const {
        if (word.starts_with("ram:")) {
            if (size.empty())
                throw WrongWords{"memory needs --size",
                                 fmt::format("udm create {} {} --size 1G", name, word)};
            const std::uint64_t bytes = size_argument(size, "--size");
            return line(bytes, fmt::format("{}:{}", word, bytes));
        }
        if (is_nbd_uri(word)) return line(size_argument(size, "--size"), quote_word(with_absolute_socket(word)));
        const std::string path = ctl::absolute_path(word.find(':') == std::string::npos ? word : "./" + word);
        std::uint64_t bytes = size_of(path);
        if (!size.empty()) {
            const std::uint64_t wanted = size_argument(size, "--size");
            if (!std::filesystem::exists(path)) {
                make_sparse_file(path, wanted);
                made = path;
                bytes = wanted;
            }
            if (wanted > bytes) {
                throw Refusal{fmt::format("{} has {}, less than --size {}", path, human_size(bytes), size),
                              "leave --size out, or `truncate` the file first"};
            }
            bytes = wanted;
        }
        if (bytes < 512) {
            const bool there = std::filesystem::exists(path);
            throw Refusal{there ? fmt::format("{} is smaller than a sector of 512 bytes", path)
                                : fmt::format("{} does not exist", path),
                          "--size 10G makes a new file, which takes room only as it is written"};
        }
        return line(bytes, quote_word(path));
    }
};

}  // namespace

void add_create_command(CLI::App& app, Context& context) {
    auto create = std::make_shared<Create>();
    auto* command = app.add_subcommand("create", "Make a device of an image, a disk, memory, or a table");
    command->add_option("NAME", create->name, "What it is called")->required();
    command->add_option("FILE|TABLE...", create->words,
                        "Image, block device, NBD URI or ram:WORD; or a line of a table: 0 2048 linear disk.img 0");
    command->add_option("--size", create->size,
                        "Of a new file (made sparse) or of memory; of a file or an export that is there, how much of it");
    command->add_option("--table", create->table,
                        "Lines of a table, as udmsetup takes them; - reads standard input");
    command->add_option("--uuid", create->uuid, "At most 128 characters");
    command->add_flag("--read-only", create->read_only, "Writes fail");
    command->add_flag("--force", create->force, "Also where it can write past a volume's snapshots, which breaks them");
    command->callback([create, &context] { create->run(context); });
}

}  // namespace udm::app
