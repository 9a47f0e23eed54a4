// The fields of `info -c`: what dmsetup shows of a device, except statistics.
#pragma once

#include <map>
#include <span>
#include <string>

#include "apps/udmsetup/report.hpp"
#include "apps/udmsetup/session.hpp"

namespace udm::udmsetup {

std::span<const Field> device_fields();
inline constexpr std::string_view kInfoColumns = "name,major,minor,attr,open,segments,events,uuid";
inline constexpr std::string_view kSplitNameColumns = "vg_name,lv_name,lv_layer";

// A device another one's table uses, in the order in which dmsetup shows them.
struct Dependency {
    std::uint32_t major, minor;
    std::string name;   // of a mapped device; else empty
    std::string words;  // as in the table

    std::string device_number() const { return std::to_string(major) + ":" + std::to_string(minor); }
    std::string block_name() const;  // "dm-0"; of others the last part of their path
    std::string any_name() const { return name.empty() ? block_name() : name; }
};
std::vector<Dependency> dependencies_of(const Json& answer);  // of device.deps

// Values of the fields, asked of the daemon as they are needed.
class DeviceRows {
  public:
    explicit DeviceRows(Session& session) : session_{session} {}
    // `info` as the daemon gives it; it must outlive the row.
    Row row(const Json& info);
    const std::vector<Dependency>& dependencies(const std::string& name);

  private:
    struct User {
        std::string name, number;
    };
    Cell value(std::size_t field, const Json& info);
    const std::vector<User>& users(const std::string& number);

    Session& session_;
    std::map<std::string, std::vector<Dependency>> dependencies_;  // by name
    std::map<std::string, std::vector<User>> users_;               // by device number
    bool users_known_ = false;
};

// Of a name alone, for splitname.
Row split_name_row(const std::string& name, const std::string& subsystem);

std::string attributes(const Json& info);  // "L-sw"

}  // namespace udm::udmsetup
