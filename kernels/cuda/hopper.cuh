#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>

#include <algorithm>

#include "kernels/cuda/dtype.h"
#include "kernels/cuda/launch.cuh"

/// What kernels that TMA brings their operands have in common.
namespace cpvt::cuda {

/// A place in a ring of stages, and the parity of the phase that it is in.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

inline PFN_cuTensorMapEncodeTiled_v12000 find_tensor_map_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

/// A tensor of 16-bit numbers, its first dimension without gaps, of which copies bring boxes whose first dimension is
/// 64 or 32 numbers, in the swizzling of as many bytes as these are. `strides`: in bytes, of the other dimensions.
template <int kRank>
int encode_tensor_map(CUtensorMap* map, DType dtype, const void* data, const cuuint64_t (&extents)[kRank],
                      const cuuint64_t (&strides)[kRank - 1], const cuuint32_t (&box)[kRank]) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = find_tensor_map_encoder();
  if (encoder == nullptr) return cudaErrorNotSupported;
  cuuint32_t ones[kRank];
  std::fill_n(ones, kRank, 1);
  const CUtensorMapDataType type =
      dtype == DType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const CUtensorMapSwizzle swizzle = box[0] == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
  // The two enumerations share their numbers where both have a code.
  return static_cast<int>(encoder(map, type, kRank, const_cast<void*>(data), extents, strides, box, ones,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

}  // namespace cpvt::cuda
