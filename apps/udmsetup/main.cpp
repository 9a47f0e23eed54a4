// udmsetup: dmsetup's verbs, options, output and exit statuses, for devices of udmd.
#include <clocale>

#include "apps/udmsetup/run.hpp"

int main(int argc, char** argv) {
    std::setlocale(LC_CTYPE, "");  // whether the terminal takes UTF-8
    const auto options = udm::udmsetup::parse_options(argc, argv);
    if (!options) return 1;
    return udm::udmsetup::run(*options, stdout, stderr, [](const std::string& socket) {
        return std::make_unique<udm::ctl::Client>(udm::ctl::control_socket_path(socket));
    });
}
