#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/number.cuh"

/// What every launcher does.
namespace cpvt::cuda {

/// Calls f with a number of the type that dtype names.
template <class F>
int for_dtype(DType dtype, F f) {
  switch (dtype) {
    case DType::kF32:
      return f(float{});
    case DType::kF16:
      return f(half{});
    case DType::kBF16:
      return f(bfloat16{});
  }
  return cudaErrorInvalidValue;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Of the current device.
inline cudaError_t device_attribute(cudaDeviceAttr attribute, int& value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(&value, attribute, device);
}

/// Whether the sm_90a code runs, with wgmma and TMA, and kernels that may begin before the one before has ended: newer
/// devices get the PTX for sm_80, in which follow_earlier_kernels does not wait.
inline bool is_hopper() {
  int major = 0;
  return device_attribute(cudaDevAttrComputeCapabilityMajor, major) == cudaSuccess && major == 9;
}

/// What launchers of many tiles count with: an H100's multiprocessors.
constexpr int64_t kProcessors = 132;

/// Lets a kernel have so much dynamic shared memory: what is more than 48 KiB must be asked for. The limit belongs to
/// the kernel, not to the launch: every thread sets the same, the most that the device has.
template <class... Parameters>
cudaError_t allow_shared_memory(void (*kernel)(Parameters...), size_t bytes) {
  if (bytes <= 48 * 1024) return cudaSuccess;
  cudaFuncAttributes attributes{};
  int most = 0;
  cudaError_t error = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, most);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              most - static_cast<int>(attributes.sharedSizeBytes));
}

/// Launches and reports, as a kernel that calls ptx::follow_earlier_kernels; `cluster` neighbouring blocks of the grid
/// run together where that is more than one.
template <class... Parameters>
int launch_clusters(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, dim3 block, size_t shared_bytes,
                    void* stream, std::type_identity_t<Parameters>... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (const cudaError_t error = allow_shared_memory(kernel, shared_bytes); error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (is_hopper()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {cluster, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class... Parameters>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
           std::type_identity_t<Parameters>... arguments) {
  return launch_clusters(kernel, 1, grid, block, shared_bytes, stream, arguments...);
}

}  // namespace cpvt::cuda
