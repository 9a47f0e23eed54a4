// Runs a fuzzer's function without libFuzzer: over every file of its corpus, as it is, cut short at every length (of small ones) and
// with each byte damaged in turn. So what the fuzzers once found stays found in builds that have no clang.
//
// UDM_CORPUS: the folder; ctest sets it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

std::vector<Input> corpus() {
    std::vector<Input> inputs;
    const char* folder = std::getenv("UDM_CORPUS");
    if (!folder) throw std::runtime_error("UDM_CORPUS is not set: run it by ctest, or set it to the folder of the corpus");
    if (std::filesystem::is_directory(folder))
        for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
            if (entry.is_regular_file()) {
                std::ifstream file(entry.path(), std::ios::binary);
                inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
            }
    return inputs;
}

// A copy of the exact size, so that a sanitizer sees a read behind its end; never a null pointer, as with libFuzzer.
void feed(const Input& input, std::size_t size) {
    Input copy;
    copy.reserve(std::max<std::size_t>(size, 1));
    copy.assign(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_EQ(LLVMFuzzerTestOneInput(copy.data(), copy.size()), 0);
}

// How many bytes or lengths to skip between two variants of an input: a replay is quick, finding is the fuzzer's job.
std::size_t step_for(const Input& input) {
    const std::size_t variants = std::clamp<std::size_t>((std::size_t{1} << 20) / (input.size() + 1), 16, 512);
    return std::max<std::size_t>(1, input.size() / variants);
}

TEST(Corpus, IsTakenWithoutHarm) {
    feed({}, 0);
    for (const Input& input : corpus()) feed(input, input.size());
}

TEST(Corpus, CutShortIsTakenWithoutHarm) {
    for (const Input& input : corpus()) {
        const std::size_t step = step_for(input);
        for (std::size_t size = 0; size < input.size(); size += step) feed(input, size);
    }
}

TEST(Corpus, DamagedIsTakenWithoutHarm) {
    for (Input input : corpus()) {
        const std::size_t step = step_for(input);
        for (std::size_t at = 0; at < input.size(); at += step)
            for (const int damage : {0x01, 0x80, 0xff}) {
                input[at] = static_cast<std::uint8_t>(input[at] ^ damage);
                feed(input, input.size());
                input[at] = static_cast<std::uint8_t>(input[at] ^ damage);
            }
    }
}

}  // namespace
