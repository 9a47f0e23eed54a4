#include "base/result.hpp"

#include <cstring>

namespace udm {

Error error_from_errno(int error, const std::string& what) {
    return Error{static_cast<Errc>(error), what + ": " + std::strerror(error)};
}

}  // namespace udm
