// Result of the control plane: a value, or an Error with words that name the thing.
#pragma once

#include <cerrno>
#include <expected>
#include <string>
#include <utility>

#include "base/status.hpp"

namespace udm {

// Values are errno's, since tools print strerror of them as dmsetup does.
enum class Errc : int {
    bad_argument = EINVAL,
    not_found = ENXIO,         // no such mapped device
    no_device = ENODEV,        // a device argument that cannot be found
    no_file = ENOENT,
    exists = EEXIST,
    busy = EBUSY,
    io = EIO,
    no_space = ENOSPC,
    no_memory = ENOMEM,
    denied = EACCES,
    not_permitted = EPERM,
    read_only = EROFS,
    unsupported = EOPNOTSUPP,
    too_large = E2BIG,
    corrupt = EILSEQ,
    timed_out = ETIMEDOUT,
    interrupted = EINTR,
    too_many_files = EMFILE,
};

struct Error {
    Errc code{};
    std::string message;    // "snapshot: Couldn't create exception store: chunk size 7 is not a power of two"
};

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
  public:
    using std::expected<T, Error>::expected;
};

inline std::unexpected<Error> fail(Errc code, std::string message) {
    return std::unexpected<Error>(Error{code, std::move(message)});
}
template <class T>
std::unexpected<Error> fail(Result<T>& failed) {    // hands an error on
    return std::unexpected<Error>(std::move(failed.error()));
}
// An Error of a system call's errno: "WHAT: No such file or directory".
Error error_from_errno(int error, const std::string& what);

}  // namespace udm

// TRY(x, expression): x = value, or return the error. Two statements, no statement expression (GCC 12).
#define UDM_CONCAT_(a, b) a##b
#define UDM_CONCAT(a, b) UDM_CONCAT_(a, b)
#define TRY_AS_(tmp, decl, ...)            \
    auto tmp = (__VA_ARGS__);              \
    if (!tmp) return ::udm::fail(tmp);     \
    decl = std::move(*tmp)
#define TRY(decl, ...) TRY_AS_(UDM_CONCAT(try_, __LINE__), decl, __VA_ARGS__)
#define CHECK(...)                                                   \
    do {                                                             \
        if (auto check_ = (__VA_ARGS__); !check_) return ::udm::fail(check_); \
    } while (0)
// In a coroutine: CO_TRY(x, call(...)) awaits a Job<Result<T>> first held in a name of its own (GCC 12).
#define CO_TRY_AS_(job, tmp, decl, ...)       \
    auto job = (__VA_ARGS__);                 \
    auto tmp = co_await job;                  \
    if (!tmp) co_return ::udm::fail(tmp);     \
    decl = std::move(*tmp)
#define CO_TRY(decl, ...) CO_TRY_AS_(UDM_CONCAT(job_, __LINE__), UDM_CONCAT(try_, __LINE__), decl, __VA_ARGS__)
#define CO_CHECK(...)                                                  \
    do {                                                               \
        auto job_ = (__VA_ARGS__);                                     \
        auto check_ = co_await job_;                                   \
        if (!check_) co_return ::udm::fail(check_);                    \
    } while (0)
