// How the control plane says no: thrown inside ctl/, caught where an answer is made of it.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "base/result.hpp"

namespace udm::ctl {

class Failure final : public std::exception {
  public:
    explicit Failure(Error error, std::string device = {})
        : error_{std::move(error)}, device_{std::move(device)} {}
    Failure(Errc code, std::string message, std::string device = {})
        : Failure{Error{code, std::move(message)}, std::move(device)} {}
    const char* what() const noexcept override { return error_.message.c_str(); }
    const Error& error() const noexcept { return error_; }
    // The device it is about, for data.device; may be empty.
    const std::string& device() const noexcept { return device_; }

  private:
    Error error_;
    std::string device_;
};

// The value, or the error thrown.
template <class T>
T must(Result<T>&& result, const std::string& device = {}) {
    if (!result) throw Failure{std::move(result.error()), device};
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace udm::ctl
