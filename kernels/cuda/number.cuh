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
  // Written so that a NaN, which compares false, passes through: fminf would turn it into 65504.
  v = v > 65504.0F ? 65504.0F : v;
  v = v < -65504.0F ? -65504.0F : v;
  return __float2half_rn(v);
}
template <>
__device__ inline bfloat16 from_float<bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

/// Two neighbours as tensor-core fragments and 4-byte stores want them, the first in the low half.
template <class T>
__device__ inline uint32_t pack2(float low, float high) {
  static_assert(sizeof(T) == 2);
  const T a = from_float<T>(low);
  const T b = from_float<T>(high);
  uint16_t bits[2];
  memcpy(&bits[0], &a, 2);
  memcpy(&bits[1], &b, 2);
  return static_cast<uint32_t>(bits[0]) | static_cast<uint32_t>(bits[1]) << 16;
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
