#include "kernels/cuda/plugin.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <cstring>

namespace cpvt::cuda {

namespace {

int describe(DeviceInfo* info) {
  int device = 0;
  cudaDeviceProp properties;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  std::memcpy(info->name, properties.name, sizeof info->name);
  info->major = properties.major;
  info->minor = properties.minor;
  info->memory_bytes = properties.totalGlobalMem;
  info->shared_bytes = properties.sharedMemPerBlockOptin;
  return cudaSuccess;
}

int free_memory(uint64_t* bytes) {
  size_t free = 0;
  size_t total = 0;
  const cudaError_t error = cudaMemGetInfo(&free, &total);
  *bytes = free;
  return error;
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

/// cudaFree waits for all that the device has under way. Some virtual GPUs have nothing else.
bool has_memory_pools() {
  static const bool has = [] {
    int device = 0;
    int supported = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device) == cudaSuccess && supported != 0;
  }();
  return has;
}

int allocate_on(void** memory, uint64_t bytes, void* stream) {
  return has_memory_pools() ? cudaMallocAsync(memory, bytes, stream_of(stream)) : cudaMalloc(memory, bytes);
}

int release_on(void* memory, void* stream) {
  return has_memory_pools() ? cudaFreeAsync(memory, stream_of(stream)) : cudaFree(memory);
}

/// Instantiates what was recorded since begin_recording; the stream records no more, whatever happens.
int end_recording(void* stream, void** recording) {
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream_of(stream), &graph);
  if (error != cudaSuccess) return error;
  cudaGraphExec_t executable = nullptr;
  if (recording != nullptr) error = cudaGraphInstantiate(&executable, graph, 0);
  const cudaError_t destroyed = cudaGraphDestroy(graph);
  if (error != cudaSuccess) return error;
  if (recording != nullptr) *recording = executable;
  return destroyed;
}

void encode(const float* values, int64_t count, DType dtype, void* storage) {
  switch (dtype) {
    case DType::kF32:
      std::copy_n(values, count, static_cast<float*>(storage));
      break;
    case DType::kF16:
      std::transform(values, values + count, static_cast<__half*>(storage), __float2half_rn);
      break;
    case DType::kBF16:
      std::transform(values, values + count, static_cast<__nv_bfloat16*>(storage), __float2bfloat16_rn);
      break;
  }
}

void decode(const void* storage, int64_t count, DType dtype, float* values) {
  switch (dtype) {
    case DType::kF32:
      std::copy_n(static_cast<const float*>(storage), count, values);
      break;
    case DType::kF16: {
      const auto* from = static_cast<const __half*>(storage);
      std::transform(from, from + count, values, [](__half v) { return __half2float(v); });
      break;
    }
    case DType::kBF16: {
      const auto* from = static_cast<const __nv_bfloat16*>(storage);
      std::transform(from, from + count, values, [](__nv_bfloat16 v) { return __bfloat162float(v); });
      break;
    }
  }
}

constexpr Plugin kPlugin{
    .version = kPluginVersion,
    .error_text = [](int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); },
    .device_count = [](int* count) -> int { return cudaGetDeviceCount(count); },
    .describe = describe,
    .free_memory = free_memory,
    .allocate = [](void** memory, uint64_t bytes) -> int { return cudaMalloc(memory, bytes); },
    .release = [](void* memory) -> int { return cudaFree(memory); },
    .allocate_pinned = [](void** memory, uint64_t bytes) -> int { return cudaMallocHost(memory, bytes); },
    .release_pinned = [](void* memory) -> int { return cudaFreeHost(memory); },
    .allocate_on = allocate_on,
    .release_on = release_on,
    .make_stream = [](void** stream) -> int {
      return cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(stream), cudaStreamNonBlocking);
    },
    .destroy_stream = [](void* stream) -> int { return cudaStreamDestroy(stream_of(stream)); },
    .synchronize = [](void* stream) -> int { return cudaStreamSynchronize(stream_of(stream)); },
    .copy = [](void* to, const void* from, uint64_t bytes, void* stream) -> int {
      return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream));
    },
    .begin_recording = [](void* stream) -> int {
      return cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal);
    },
    .end_recording = end_recording,
    .replay = [](void* recording, void* stream) -> int {
      return cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), stream_of(stream));
    },
    .destroy_recording = [](void* recording) -> int {
      return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording));
    },
    .push_range = [](const char* name) { nvtxRangePushA(name); },
    .pop_range = [] { nvtxRangePop(); },
    .encode = encode,
    .decode = decode,
    .patch_embed = patch_embed,
    .add_position = add_position,
    .peg = peg,
    .layernorm = layernorm,
    .linear = linear,
    .gelu = gelu,
    .attention = attention,
    .pool = pool,
    .open_cublaslt = open_cublaslt,
    .make_cublaslt = make_cublaslt,
    .destroy_cublaslt = destroy_cublaslt,
    .linear_cublaslt = linear_cublaslt,
};

}  // namespace

}  // namespace cpvt::cuda

extern "C" __attribute__((visibility("default"))) const cpvt::cuda::Plugin* cpvt_cuda_plugin() {
  return &cpvt::cuda::kPlugin;
}
