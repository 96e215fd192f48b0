#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/layernorm.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_cublaslt.h"
#include "kernels/cuda/patch_embed.h"
#include "kernels/cuda/peg.h"
#include "kernels/cuda/pool.h"

/// The boundary of libcpvt_cuda.so: plain structs and functions, so that the program needs neither CUDA to be built nor
/// the library to be started.
namespace cpvt::cuda {

constexpr uint32_t kPluginVersion = 6;  // of everything that this header includes
constexpr const char* kPluginEntry = "cpvt_cuda_plugin";

struct DeviceInfo {
  char name[256];
  int32_t major, minor;  // compute capability
  uint64_t memory_bytes;
  uint64_t shared_bytes;  // that a block may have
};

/// Every int is a cudaError_t, every `stream` a cudaStream_t, every `recording` a cudaGraphExec_t. All of the current
/// device.
struct Plugin {
  uint32_t version;  // kPluginVersion; first, so that a stranger's can be told
  const char* (*error_text)(int error);

  int (*device_count)(int* count);
  int (*describe)(DeviceInfo* info);
  int (*free_memory)(uint64_t* bytes);
  int (*allocate)(void** memory, uint64_t bytes);
  int (*release)(void* memory);
  int (*allocate_pinned)(void** memory, uint64_t bytes);  // host memory that is copied from and to without a detour
  int (*release_pinned)(void* memory);
  int (*allocate_on)(void** memory, uint64_t bytes, void* stream);  // in the stream's order, where the device can
  int (*release_on)(void* memory, void* stream);

  int (*make_stream)(void** stream);
  int (*destroy_stream)(void* stream);
  int (*synchronize)(void* stream);
  int (*copy)(void* to, const void* from, uint64_t bytes, void* stream);  // host or device memory either way

  int (*begin_recording)(void* stream);
  int (*end_recording)(void* stream, void** recording);  // null: what was recorded is thrown away
  int (*replay)(void* recording, void* stream);
  int (*destroy_recording)(void* recording);

  /// Ranges that Nsight shows, nested, of this thread.
  void (*push_range)(const char* name);
  void (*pop_range)();

  /// fp32 in host memory to and from storage numbers, rounding to nearest even; what fp16 cannot hold becomes infinite.
  void (*encode)(const float* values, int64_t count, DType dtype, void* storage);
  void (*decode)(const void* storage, int64_t count, DType dtype, float* values);

  int (*patch_embed)(const PatchEmbedArgs& args, void* stream);
  int (*add_position)(const AddPositionArgs& args, void* stream);
  int (*peg)(const PegArgs& args, void* stream);
  int (*layernorm)(const LayerNormArgs& args, void* stream);
  int (*linear)(const LinearArgs& args, void* stream);
  int (*gelu)(const GeluArgs& args, void* stream);
  int (*attention)(const AttentionArgs& args, void* stream);
  int (*pool)(const PoolArgs& args, void* stream);

  /// linear_cublaslt.h.
  const char* (*open_cublaslt)();
  int (*make_cublaslt)(void** cublaslt);
  int (*destroy_cublaslt)(void* cublaslt);
  int (*linear_cublaslt)(void* cublaslt, const CublasLtLinearArgs& args, void* stream);
};

}  // namespace cpvt::cuda

extern "C" {
using CpvtCudaPluginEntry = const cpvt::cuda::Plugin* (*)();
}
