#pragma once

#include "kernels/cuda/plugin.h"

namespace cpvt {

enum class CudaRuntime {
  kReal,       ///< libcudart.so.13, as the loader finds it
  kSimulator,  ///< ptxsim's
};

/// Opens ../lib/libcpvt_cuda.so, seen from the running program, upon that runtime; it stays open. A process has one
/// runtime: asking for the other afterwards is an Error. Throws Error where a library is missing or of another version,
/// and where there is no device.
const cuda::Plugin& open_cuda_plugin(CudaRuntime runtime);

/// Throws Error unless `error` is cudaSuccess; `what` says what was tried.
void check_cuda(const cuda::Plugin& plugin, int error, const char* what);

}  // namespace cpvt
