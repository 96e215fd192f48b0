#pragma once

namespace ptxsim::runtime {

/// An entry point that there is no more to: prints its name and returns cudaErrorNotSupported, the last error from now
/// on.
int unsupported(const char* name);

}  // namespace ptxsim::runtime
