#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/dtype.h"

/// Storage numbers and the fp32 that kernels compute in.
namespace cpvt::cuda {

using half = __half;
using bfloat16 = __nv_bfloat16;

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(half v) { return __half2float(v); }
__device__ inline float to_float(bfloat16 v) { return __bfloat162float(v); }

/// Rounds to nearest even; fp16 stays finite (its largest is 65504). Not a number stays not a number.
template <class T>
__device__ T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) {
  return v;
}
template <>
__device__ inline half from_float<half>(float v) {
  const half largest = __float2half_rn(65504.0F);
  return __hmax_nan(__hmin_nan(__float2half_rn(v), largest), __hneg(largest));
}
template <>
__device__ inline bfloat16 from_float<bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

/// Two neighbours as tensor-core fragments and 4-byte stores want them, the first in the low half.
template <class T>
__device__ uint32_t pack2(float low, float high);
template <>
__device__ inline uint32_t pack2<half>(float low, float high) {
  const __half2 largest = __float2half2_rn(65504.0F);
  const __half2 pair = __hmax2_nan(__hmin2_nan(__floats2half2_rn(low, high), largest), __hneg2(largest));
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
template <>
__device__ inline uint32_t pack2<bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

/// 16 bytes, the unit of every vector access.
template <class T>
struct alignas(16) Chunk {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

/// x/2 (1 + erf(x / sqrt 2)), the exact form.
__device__ inline float gelu_erf(float x) { return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F)); }

}  // namespace cpvt::cuda
