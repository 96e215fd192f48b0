#pragma once

#include <string_view>

#include "tools/ptxsim/program/program.h"

namespace ptxsim {

/// The functions that device code may call without having them: vprintf, malloc, free, __assertfail. A handler like
/// call's: slots are the results' and arguments' places in the frame (flags[0] and flags[1] many), the bytes of lane l
/// at offset + l * 16 · n. Null for a name that is none of them.
Handler device_runtime_function(std::string_view name);

}  // namespace ptxsim
