// The parameters of one call. Each is asked for by name and type; end() refuses what nobody asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ctl/json.hpp"
#include "ctl/record.hpp"

namespace udm::ctl {

// All throw RpcError (-32602) that names the parameter and what it should be. null is as good as absent.
class Params {
  public:
    explicit Params(const Json& object) : object_{object} {}

    std::string text(const char* name);
    std::optional<std::string> text_if(const char* name);
    std::uint64_t number(const char* name);
    std::optional<std::uint64_t> number_if(const char* name, std::uint64_t max = ~std::uint64_t{0});
    bool flag(const char* name);  // absent: false
    DeviceKey device(const char* name = "device");
    std::optional<DeviceKey> device_if(const char* name = "device");
    std::vector<TableLine> table(const char* name);
    std::optional<std::vector<TableLine>> table_if(const char* name);
    const Json* any(const char* name);  // null pointer: absent (a null that is given counts as given)
    void end();

  private:
    const Json* find(const char* name);
    const Json& required(const char* name);
    const Json& object_;
    std::set<std::string> known_;
};

}  // namespace udm::ctl
