// A socket that listens, before anybody accepts from it. Control plane: may block shortly.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "port/net.hpp"

namespace udm {

struct ListenSocket {
    int fd = -1;
    std::uint16_t port = 0;  // tcp
    std::string path;        // unix_socket: to be removed in the end, if it is still this one
    dev_t device = 0;
    ino_t inode = 0;
};

// What a host's name means, as numbers; its own number for what is one, loopback for the empty name. Blocks as long as
// the name service does. Errors: bad_argument.
Result<std::vector<std::string>> look_up_host(const std::string& host);
// Asks no name service: a host with a name comes with its numbers. Errors name the address: busy when somebody answers there (decision 21), exists when there is something
// that is no socket, bad_argument for what cannot be.
Result<ListenSocket> open_listen_socket(const Address& address);
// Refuses who connects from here on, and removes its file.
void stop_listening(ListenSocket& socket) noexcept;
// The same, and closes it.
void close_listen_socket(ListenSocket& socket) noexcept;

}  // namespace udm
