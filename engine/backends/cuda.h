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

/// The calling thread's current CUDA device, or the simulator's: threads that use the backend's runners must have the
/// same (device 0, where nobody chose; CUDA_VISIBLE_DEVICES says which that is). `dtype` is fp32, fp16 or bf16;
/// `threads` of each runner pack large batches' pixels for the copy to the device. Throws Error where the plugin or a
/// device of compute capability 8.0 or more that can be used is missing, or cuBLASLt where it is asked for.
std::unique_ptr<Backend> make_cuda_backend(CudaRuntime runtime, const std::string& dtype, Gemm gemm = Gemm::kOwn,
                                           int threads = 1);

}  // namespace cpvt
