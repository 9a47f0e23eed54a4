// An NBD export that a device is to be made of, all of it: open until the device's table is. It is asked for its size, and some
// servers end with their last connection.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "core/target_type.hpp"
#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/host.hpp"
#include "port/nbd_uri.hpp"

namespace udm::ctl {

class WholeExport {
  public:
    // Throws Failure.
    WholeExport(Host& host, unsigned home, const std::string& uri, bool read_only) : host_{host}, home_{home} {
        if (!is_nbd_uri(uri)) throw Failure{Errc::bad_argument, fmt::format("{} is no NBD URI; use nbd://HOST:PORT/NAME", uri)};
        open_ = must(host.opener(home).open(uri, read_only ? OpenMode::read : OpenMode::write), {});
    }
    WholeExport(const WholeExport&) = delete;
    WholeExport& operator=(const WholeExport&) = delete;
    ~WholeExport() {
        run_on(host_.env(home_).reactor, [this] { open_.reset(); });
    }
    std::vector<TableLine> table() const {
        const Sectors size = open_->disk().limits().size;
        if (!size) throw Failure{Errc::bad_argument, fmt::format("{} is smaller than a sector of 512 bytes", open_->words())};
        return {{Sector{0}, size, "linear", quote_word(open_->words()) + " 0"}};
    }

  private:
    Host& host_;
    const unsigned home_;
    std::unique_ptr<OpenDevice> open_;
};

}  // namespace udm::ctl
