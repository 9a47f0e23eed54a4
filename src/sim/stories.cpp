#include "sim/stories.hpp"

namespace udm {

const std::vector<std::unique_ptr<Story>>& all_stories() {
    static const std::vector<std::unique_ptr<Story>> stories = [] {
        std::vector<std::unique_ptr<Story>> list;
        list.push_back(snapshot_story());
        list.push_back(merge_story());
        list.push_back(mirror_story());
        list.push_back(scrub_story());
        list.push_back(linear_story());
        list.push_back(disk_story());
        return list;
    }();
    return stories;
}

const Story* find_story(std::string_view name) {
    for (const auto& story : all_stories()) {
        if (story->name() == name) return story.get();
    }
    return nullptr;
}

}  // namespace udm
