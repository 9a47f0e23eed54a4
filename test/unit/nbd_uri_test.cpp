// NBD URIs: what is one, what it means, and what is said of others.
#include "port/nbd_uri.hpp"

#include <gtest/gtest.h>

namespace udm {
namespace {

std::string canonical(const char* uri) {
    const auto parsed = parse_nbd_uri(uri);
    return parsed ? to_text(*parsed) : parsed.error().message;
}

TEST(NbdUris, AreToldFromOtherWords) {
    for (const char* uri : {"nbd://h/x", "NBD://h/x", "nbds://h/x", "nbd+unix:///x?socket=/s", "nbd+vsock://1/x", "nbds+unix:///"})
        EXPECT_TRUE(is_nbd_uri(uri)) << uri;
    for (const char* word : {"", "/nbd://h", "nbd", "nbd:", "nbd:/h", "udm:nbd", "ram:1M", "7:0", "http://h/x", "xnbd://h/x", "://"})
        EXPECT_FALSE(is_nbd_uri(word)) << word;
}

TEST(NbdUris, OfOneExportHaveOneCanonicalForm) {
    EXPECT_EQ(canonical("nbd://host/x"), "nbd://host/x");
    EXPECT_EQ(canonical("NBD://HOST:10809/%78"), "nbd://host/x");
    EXPECT_EQ(canonical("nbd:///x"), "nbd://localhost/x");
    EXPECT_EQ(canonical("nbd://localhost/x"), "nbd://localhost/x");
    EXPECT_EQ(canonical("nbd://[FE80::1]:1/"), "nbd://[fe80::1]:1/");
    EXPECT_EQ(canonical("nbd+unix:///a%20b?socket=/run/s%201"), "nbd+unix:///a%20b?socket=/run/s%201");
    EXPECT_NE(canonical("nbd://host/X"), canonical("nbd://host/x")) << "names of exports have cases";
}

TEST(NbdUris, ThatAreNoneSayWhatWouldBeRight) {
    for (const char* uri : {"nbd://h:99999/x", "nbd://a:b:c/x", "nbd://h/x?y=1", "nbd+unix:///x", "nbd+unix://h/x?socket=/s",
                            "nbd+unix:///x?socket=s", "nbd://h/%0", "nbd://h/%00", "nbd+vsock://1/x", "nbd://h/x#y", "nbds://h/x"}) {
        const auto parsed = parse_nbd_uri(uri);
        ASSERT_FALSE(parsed) << uri;
        EXPECT_TRUE(parsed.error().message.starts_with(uri)) << parsed.error().message;
    }
    EXPECT_EQ(parse_nbd_uri("nbds://h/x").error().code, Errc::unsupported);
}

}  // namespace
}  // namespace udm
