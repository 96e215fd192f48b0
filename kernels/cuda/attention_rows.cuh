#pragma once

#include <limits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/number.cuh"

/// What the tensor-core kernels of attention have in common: how 16 queries' scores become weights, and their sums rows
/// of y. A lane of the warp that owns them holds, of every block of 8 columns, columns 2t and 2t+1 of rows g and g+8,
/// where g = lane/4 and t = lane%4: float[columns / 8][4].
namespace cpvt::cuda {

/// Below every score, yet finite: a row's reference before its first key.
constexpr float kLowestScore = std::numeric_limits<float>::lowest();

/// A row's largest score, times scale, from which on P = 2^(scale (S - largest)) is taken as it stands. Below, where
/// scale S - scale largest is one instruction, the rounding of scale largest is a factor of all weights, which cancels:
/// one within 2^(1/512). At 2^28 it would be up to 2^16, beyond fp16. Where a row passes this limit from one tile to
/// the next, that factor stays with the sums before: as much as rounding a score of this size does.
constexpr float kLargeReference = 65536;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <class T>
struct AttentionProblem {
  const T* qkv;
  int64_t stride;
  int32_t heads, head_dim;
  float scale;  // times log2 e: scores are in units of log2, ready for 2^x
  const AttentionTile* tiles;
  T* y;
  int64_t y_stride;

  explicit AttentionProblem(const AttentionArgs& args)
      : qkv(static_cast<const T*>(args.qkv)),
        stride(args.stride),
        heads(args.heads),
        head_dim(args.head_dim),
        scale(args.scale * 1.44269504088896341F),
        tiles(args.tiles),
        y(static_cast<T*>(args.y)),
        y_stride(args.y_stride) {}
};

/// Rows of kDim numbers in shared memory. The 16-byte chunks of a row change places from row to row, so that the
/// same chunk of 8 rows, as well as 8 chunks of a row, lie in different banks. For 64 and 32 numbers of 16 bits this is
/// the swizzling of 128 and 64 bytes that TMA and wgmma have.
template <class T, int kDim>
struct SwizzledRows {
  static constexpr int kPerChunk = Chunk<T>::kSize;
  static constexpr int kChunks = kDim / kPerChunk;

  static __device__ int at(int row, int chunk) {
    const int turn = kChunks % 8 == 0 ? row & 7 : row >> 1 & 3;
    return (row * kChunks + (chunk ^ turn)) * kPerChunk;
  }

  /// at(row, chunk + 2 d), from at(row, chunk) of a chunk below 2: one exclusive or.
  static __device__ int right_of(int at, int d) {
    constexpr int kTurns = kChunks % 8 == 0 ? 8 : 4;
    return (at ^ 2 * d % kTurns * kPerChunk) + 2 * d / kTurns * kTurns * kPerChunk;
  }
};

/// 16 bytes of a row of y, or as many as are within head_dim.
template <bool kAligned, class T>
__device__ void store_chunk(T* to, const Chunk<T>& chunk, int column, int head_dim) {
  if constexpr (kAligned) {
    if (column < head_dim) *reinterpret_cast<Chunk<T>*>(to + column) = chunk;
  } else {
#pragma unroll
    for (int e = 0; e < Chunk<T>::kSize; ++e) {
      if (column + e < head_dim) to[column + e] = chunk.at[e];
    }
  }
}

/// Two weights, at most 1 but for rounding, as a tensor-core fragment has them. Unlike pack2 this never saturates.
template <class T>
__device__ uint32_t pack_weights(float low, float high);
template <>
__device__ inline uint32_t pack_weights<half>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}
template <>
__device__ inline uint32_t pack_weights<bfloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

/// Of 16 keys, those of blocks b and b+1 of 8: the left operand of a product with their values.
template <class T, int kBlocks>
__device__ void weights_of_16_keys(const float (&weights)[kBlocks][4], int b, uint32_t (&fragment)[4]) {
  fragment[0] = pack_weights<T>(weights[b][0], weights[b][1]);
  fragment[1] = pack_weights<T>(weights[b][2], weights[b][3]);
  fragment[2] = pack_weights<T>(weights[b + 1][0], weights[b + 1][1]);
  fragment[3] = pack_weights<T>(weights[b + 1][2], weights[b + 1][3]);
}

/// 2^x within 2 units of the last place; results below 2^-126 are zero.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The softmax of 16 queries over keys that come a tile at a time.
class OnlineSoftmax {
 public:
  /// Scores to weights, P = 2^(scale S - reference), the reference being the row's largest score so far. What was
  /// summed with an earlier one is to be scaled by `factor`, of rows g and g+8. Any reference is as right as another:
  /// its rounding cancels in the quotient, as long as it is small; scores beyond have their largest taken off first
  /// (kLargeReference). With kTail only the first `keys` keys exist: the others in their block of 16 weigh nothing,
  /// further ones are left as they are.
  template <bool kTail, int kBlocks>
  __device__ void weigh(float (&s)[kBlocks][4], int keys, float scale, float (&factor)[2]) {
    const auto beyond = [&](int n) { return kTail && n / 2 * 16 >= keys; };
    if constexpr (kTail) {
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        if (beyond(n)) break;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + e % 2 >= keys) s[n][e] = kMinusInfinity;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = s[0][2 * r];
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        if (beyond(n)) break;
        most = fmaxf(most, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
      }
      most = fmaxf(most, __shfl_xor_sync(kWholeWarp, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kWholeWarp, most, 2));
      most = fmaxf(most_[r], most);
      float reference = __fmul_rn(most, scale);  // the same in the weights and in the factor: never fused
      factor[r] = exp2_approximate(reference_[r] - reference);
      reference_[r] = reference;
      if (fabsf(reference) > kLargeReference) {
        factor[r] = exp2_approximate((most_[r] - most) * scale);
        reference = 0;
#pragma unroll
        for (int n = 0; n < kBlocks; ++n) {
          if (beyond(n)) break;
          s[n][2 * r] -= most, s[n][2 * r + 1] -= most;
        }
      }
      most_[r] = most;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        if (beyond(n)) break;
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          s[n][e] = exp2_approximate(fmaf(s[n][e], scale, -reference));
          sum += s[n][e];
        }
      }
      total_[r] = total_[r] * factor[r] + sum;
    }
  }

  template <int kBlocks>
  static __device__ void rescale(float (&o)[kBlocks][4], const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[n][e] *= factor[e / 2];
    }
  }

  /// Divides the sums o by those of the weights and writes the first `rows` rows to y, by way of rows that are the
  /// warp's own, from the 16th part `first` of a tile on, so that stores are of 16 bytes.
  template <bool kAligned, class T, int kBlocks>
  __device__ void store(const float (&o)[kBlocks][4], T* tile, int first, T* y, int64_t stride, int rows,
                        int head_dim) const {
    using Rows = SwizzledRows<T, kBlocks * 8>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = total_[r];
      total += __shfl_xor_sync(kWholeWarp, total, 1);
      total += __shfl_xor_sync(kWholeWarp, total, 2);
      const float factor = 1.0F / total;
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        *reinterpret_cast<uint32_t*>(tile + Rows::at(first + r * 8 + lane / 4, n) + lane % 4 * 2) =
            pack2<T>(o[n][2 * r] * factor, o[n][2 * r + 1] * factor);
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * Rows::kChunks / 32; ++i) {
      const int row = (i * 32 + lane) / Rows::kChunks;
      const int chunk = (i * 32 + lane) % Rows::kChunks;
      if (row < rows) {
        store_chunk<kAligned>(y + row * stride, *reinterpret_cast<const Chunk<T>*>(tile + Rows::at(first + row, chunk)),
                              chunk * Rows::kPerChunk, head_dim);
      }
    }
  }

 private:
  static constexpr uint32_t kWholeWarp = 0xFFFFFFFF;
  float most_[2] = {kLowestScore, kLowestScore};       // the largest score of rows g and g+8
  float reference_[2] = {kLowestScore, kLowestScore};  // the same times scale
  float total_[2] = {};                                // this lane's share
};

}  // namespace cpvt::cuda
