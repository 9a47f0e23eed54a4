// The stories, one a file.
#pragma once

#include <memory>

#include "sim/story.hpp"

namespace udm {

std::unique_ptr<Story> disk_story();
std::unique_ptr<Story> linear_story();
std::unique_ptr<Story> snapshot_story();
std::unique_ptr<Story> merge_story();
std::unique_ptr<Story> mirror_story();
std::unique_ptr<Story> scrub_story();

}  // namespace udm
