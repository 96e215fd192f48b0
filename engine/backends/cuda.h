#pragma once

#include <memory>
#include <string>

#include "engine/backends/backend.h"
#include "engine/backends/cuda_plugin.h"

namespace cpvt {

/// Whose products the Linears are.
enum class Gemm {
  kOwn,
  kCublasLt,  ///< kernels/cuda/linear_cublaslt.h; results then depend, in their last bits, on the batch
};

/// The process's current CUDA device, or the simulator's; `dtype` is fp32, fp16 or bf16. Throws Error where the plugin
/// or a device of compute capability 8.0 or more is missing, or cuBLASLt where it is asked for.
std::unique_ptr<Backend> make_cuda_backend(CudaRuntime runtime, const std::string& dtype, Gemm gemm = Gemm::kOwn);

}  // namespace cpvt
