#pragma once

#include "kernels/cuda/number.cuh"

/// LayerNorm of a row by a group of neighbouring lanes, for every kernel that has whole rows at hand. Lane l of L has
/// the row's chunks l, l + L, l + 2L, ...; it adds its own elements in rising order, then the lanes are added in a
/// butterfly. Lanes without elements add zeros, which change nothing: the bits depend on the row and its width alone,
/// not on L, as long as L is 32, or a smaller power of two and no less than the row's chunks.
/// gamma and beta begin at multiples of 16 bytes, as rows do.
namespace cpvt::cuda {

/// Elements c, c+1, ... of a row: 16 bytes at once, or one by one where the row ends within them. What lies beyond the
/// width is not read and becomes zero.
template <class T>
__device__ inline Chunk<T> load_chunk(const T* row, int c, int width) {
  if (c + Chunk<T>::kSize <= width) return *reinterpret_cast<const Chunk<T>*>(row + c);
  Chunk<T> v;
#pragma unroll
  for (int e = 0; e < Chunk<T>::kSize; ++e) v.at[e] = c + e < width ? row[c + e] : from_float<T>(0.0F);
  return v;
}

template <class T>
__device__ inline void store_chunk(const Chunk<T>& v, T* row, int c, int width) {
  if (c + Chunk<T>::kSize <= width) {
    *reinterpret_cast<Chunk<T>*>(row + c) = v;
  } else {
#pragma unroll
    for (int e = 0; e < Chunk<T>::kSize; ++e) {
      if (c + e < width) row[c + e] = v.at[e];
    }
  }
}

struct Moments {
  float mean;
  float scale;  // 1 / sqrt(variance + eps)
};

template <int kLanes>
__device__ inline float group_sum(float v) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(0xFFFFFFFFU, v, offset);
  return v;
}

/// f of each element of a chunk that lies within the width, in rising order.
template <class T, class F>
__device__ inline void for_each_element(const Chunk<T>& v, int c, int width, F f) {
  if (c + Chunk<T>::kSize <= width) {
#pragma unroll
    for (int e = 0; e < Chunk<T>::kSize; ++e) f(to_float(v.at[e]));
  } else if (c < width) {
#pragma unroll
    for (int e = 0; e < Chunk<T>::kSize; ++e) {
      if (c + e < width) f(to_float(v.at[e]));
    }
  }
}

/// visit(f) calls f for each of the lane's elements, the same ones each time. All lanes of the warp take part.
template <int kLanes, class Visit>
__device__ inline Moments row_moments(Visit visit, int width, float eps) {
  const float per_element = 1.0F / static_cast<float>(width);
  float sum = 0;
  visit([&](float v) { sum += v; });
  const float mean = group_sum<kLanes>(sum) * per_element;
  float squares = 0;
  visit([&](float v) {
    const float d = v - mean;
    squares = fmaf(d, d, squares);
  });
  return {mean, 1.0F / sqrtf(fmaf(group_sum<kLanes>(squares), per_element, eps))};
}

/// gamma and beta of a chunk's elements; zero beyond the width.
template <class T>
struct Affine {
  float gamma[Chunk<T>::kSize], beta[Chunk<T>::kSize];

  __device__ Affine(const float* all_gamma, const float* all_beta, int c, int width) {
#pragma unroll
    for (int e = 0; e < Chunk<T>::kSize; e += 4) {
      const Chunk<float> g = load_chunk(all_gamma, c + e, width);
      const Chunk<float> b = load_chunk(all_beta, c + e, width);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        gamma[e + i] = g.at[i];
        beta[e + i] = b.at[i];
      }
    }
  }
  __device__ T operator()(float v, const Moments& m, int e) const {
    return from_float<T>(fmaf((v - m.mean) * m.scale, gamma[e], beta[e]));
  }
};

}  // namespace cpvt::cuda
