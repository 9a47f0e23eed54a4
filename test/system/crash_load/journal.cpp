#include "test/system/crash_load/journal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace crash {

Journal::Journal(const std::string& path, Model& model)
    : file_{std::fopen(path.c_str(), "ae")}, model_{model} {
    if (!file_) throw std::system_error(errno, std::system_category(), path);
    std::setvbuf(file_.get(), nullptr, _IOFBF, 1 << 20);
}

void Journal::write_out() { std::fflush(file_.get()); }

void Journal::volume(const std::string& name, std::uint64_t sectors) {
    fmt::print(file_.get(), "v {} {}\n", name, sectors);
    model_.add_volume(name, sectors);
}
void Journal::sent(Volume& v, Seq seq, std::uint64_t first, std::uint32_t count) {
    fmt::print(file_.get(), "w {} {} {} {}\n", v.name(), seq, first, count);
    model_.sent(v, seq, first, count);
}
void Journal::acknowledged(Volume& v, Seq seq, std::uint64_t first, std::uint32_t count, bool fua) {
    fmt::print(file_.get(), "a {} {} {} {} {}\n", v.name(), seq, first, count, fua ? 1 : 0);
    model_.acknowledged(v, seq, first, count, fua);
}
void Journal::flushed(Volume& v, std::uint64_t mark) {
    fmt::print(file_.get(), "f {} {}\n", v.name(), mark);
    model_.flushed(v, mark);
}
void Journal::lost() {
    fmt::print(file_.get(), "x\n");
    model_.lost();
}
void Journal::take_begins(const std::string& snapshot, Volume& origin) {
    fmt::print(file_.get(), "b {} {}\n", snapshot, origin.name());
    model_.take_begins(snapshot, origin);
    write_out();
}
Volume& Journal::take_ends(const std::string& snapshot) {
    fmt::print(file_.get(), "e {}\n", snapshot);
    write_out();
    return model_.take_ends(snapshot);
}
void Journal::take_failed(const std::string& snapshot) {
    fmt::print(file_.get(), "n {}\n", snapshot);
    model_.take_failed(snapshot);
}
void Journal::revert_begins(const std::string& snapshot, Volume& volume) {
    fmt::print(file_.get(), "r {} {}\n", snapshot, volume.name());
    model_.revert_begins(snapshot, volume);
    write_out();
}
void Journal::revert_ends(const std::string& snapshot) {
    fmt::print(file_.get(), "R {}\n", snapshot);
    model_.revert_ends(snapshot);
    write_out();
}
void Journal::revert_failed(const std::string& snapshot) {
    fmt::print(file_.get(), "q {}\n", snapshot);
    model_.revert_failed(snapshot);
}
void Journal::drop(const std::string& name) {
    fmt::print(file_.get(), "d {}\n", name);
    model_.drop(name);
    write_out();
}
void Journal::check(Volume& v, std::uint64_t first, std::span<const unsigned char> data) {
    model_.check(v, first, data, [&](std::uint64_t sector, Seq seq) {
        fmt::print(file_.get(), "s {} {} {}\n", v.name(), sector, seq);
    });
}

Seq replay(const std::string& path, Model& model) {
    std::ifstream in(path);
    if (!in) throw std::runtime_error(path + ": cannot be read");
    Seq highest = 0;
    std::string line;
    for (std::uint64_t number = 1; std::getline(in, line); ++number) {
        if (in.eof()) break;  // cut short when its writer died: nothing that counted
        std::istringstream words(line);
        std::string kind, name, origin;
        std::uint64_t seq = 0, first = 0;
        std::uint32_t count = 0;
        int fua = 0;
        const auto volume = [&]() -> Volume& {
            words >> name;
            Volume* v = model.find(name);
            if (v == nullptr)
                throw std::runtime_error(fmt::format("{}:{}: no volume {}", path, number, name));
            return *v;
        };
        words >> kind;
        if (kind == "v") {
            words >> name >> first;
            model.add_volume(name, first);
        } else if (kind == "w") {
            Volume& v = volume();
            words >> seq >> first >> count;
            model.sent(v, seq, first, count);
            highest = std::max(highest, seq & ~kZero);
        } else if (kind == "a") {
            Volume& v = volume();
            words >> seq >> first >> count >> fua;
            model.acknowledged(v, seq, first, count, fua != 0);
        } else if (kind == "f") {
            Volume& v = volume();
            words >> seq;
            model.flushed(v, seq);
        } else if (kind == "s") {
            Volume& v = volume();
            words >> first >> seq;
            model.settle(v, first, seq);
        } else if (kind == "b") {
            words >> name;
            const std::string snapshot = name;
            model.take_begins(snapshot, volume());
        } else if (kind == "e") {
            words >> name;
            model.take_ends(name);
        } else if (kind == "n") {
            words >> name;
            model.take_failed(name);
        } else if (kind == "r") {
            words >> name;
            const std::string snapshot = name;
            model.revert_begins(snapshot, volume());
        } else if (kind == "R") {
            words >> name;
            model.revert_ends(name);
        } else if (kind == "q") {
            words >> name;
            model.revert_failed(name);
        } else if (kind == "d") {
            words >> name;
            model.drop(name);
        } else if (kind == "x") {
            model.lost();
        } else {
            throw std::runtime_error(fmt::format("{}:{}: not understood: {}", path, number, line));
        }
        if (words.fail())
            throw std::runtime_error(fmt::format("{}:{}: words are missing: {}", path, number, line));
    }
    model.lost();  // whoever reads on now does so in another life
    return highest;
}

}  // namespace crash
