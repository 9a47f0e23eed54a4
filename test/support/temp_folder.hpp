// A new folder with a short path, gone with the object.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace udm::test {

class TempFolder {
  public:
    TempFolder() {
        char name[] = "/tmp/udm-XXXXXX";
        if (!::mkdtemp(name)) throw std::runtime_error{"mkdtemp"};
        path_ = name;
    }
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;
    ~TempFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& path() const noexcept { return path_; }
    std::string operator/(const std::string& name) const { return path_ + '/' + name; }

  private:
    std::string path_;
};

}  // namespace udm::test
