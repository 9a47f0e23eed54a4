#include "sim/sim_opener.hpp"

#include <gtest/gtest.h>

#include "sim/sim_reactor.hpp"

namespace udm {
namespace {

TEST(SimOpener, FindsADiskByEachOfItsNamesAndCountsWhoHasItOpen) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}}, other{reactor, Sectors{64}};
    SimOpener opener;
    opener.add("other", other);
    const DiskId id = opener.add("vda", disk);
    auto first = opener.open("sim:vda", OpenMode::write);
    auto second = opener.open("vda", OpenMode::read);
    auto third = opener.open("7:1", OpenMode::read);
    ASSERT_TRUE(first && second && third);
    EXPECT_EQ((*first)->id(), id);
    EXPECT_EQ((*second)->id(), id);
    EXPECT_EQ(&(*third)->disk(), &disk);
    EXPECT_EQ((*first)->words(), "sim:vda");
    EXPECT_EQ((*first)->major(), 7u);
    EXPECT_EQ((*first)->minor(), 1u);
    EXPECT_EQ(opener.open_count("vda"), 3u);
    EXPECT_EQ(opener.open_count("other"), 0u);
}

TEST(SimOpener, RefusesWhatIsNotThereAndWritingToReadOnlyDisks) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    disk.limits_to_set().read_only = true;
    SimOpener opener;
    opener.add("vda", disk);
    const auto missing = opener.open("vdb", OpenMode::read);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, Errc::no_device);
    const auto written = opener.open("vda", OpenMode::write);
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, Errc::read_only);
    EXPECT_TRUE(opener.open("vda", OpenMode::read));
}

TEST(SimOpener, OpensMappedDevicesByTheirNames) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    SimOpener opener;
    const DiskId id = opener.add_mapped("home", disk);
    EXPECT_EQ(id.kind, DiskId::Kind::mapped);
    for (const char* words : {"home", "udm:home", "/dev/mapper/home", "253:0"}) {
        const auto opened = opener.open(words, OpenMode::write);
        ASSERT_TRUE(opened) << words;
        EXPECT_EQ((*opened)->id(), id);
    }
}

}  // namespace
}  // namespace udm
