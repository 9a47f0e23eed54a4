// A whole run of the tool, from its options to its exit status.
#pragma once

#include <cstdio>

#include "apps/udmsetup/session.hpp"

namespace udm::udmsetup {

// 0, or 1 when something failed; as dmsetup.
int run(const Options& options, std::FILE* out, std::FILE* err, const Session::Connect& connect);

}  // namespace udm::udmsetup
