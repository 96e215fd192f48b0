// y = softmax(scale q k^T) v, for each image and head; q, k and v lie in the rows of qkv, [3, heads, head_dim] each.
//
// One pass over keys and values with an online softmax. A warp owns 16 queries (or 2 x 16), which stay in registers
// with their sums O, and takes in the image's keys 64 at a time:
//   S = q k^T          in fp32; from the tensor cores
//   P = 2^(c S - m)    c = scale log2 e; m: the row's largest c S so far, by shuffles among its 4 lanes
//   O = f O + P v      f = 2^(m before - m)
// The accumulators of the first product are where the left operand of the second is wanted: P never leaves registers.
//
// Tiles. A block is 4 warps: 64 queries, or 128 where the batch fills the machine. They share the tiles of 64 keys and
// values, which cp.async brings to one of two buffers while the other is computed on: one barrier for each tile. Rows
// are of padded head_dim (32, 64, 96, 128), their 16-byte chunks exchanged by an exclusive or, which makes ldmatrix and
// every other access free of bank conflicts. Where heads don't begin at 16-byte boundaries, loads are of single numbers
// and not asynchronous. Shared memory for 64 dimensions: 8 or 16 KiB of queries, 32 of keys and values.
//
// 197 tokens (224 pixels and a class token) take 3 whole tiles and a tail, which costs 16 keys, not 64: as much as a
// single tile of 208 would. A single tile would spare the rescaling of O, a tenth of a tile's instructions, but 16
// queries' scores alone would be 104 registers, so that 32 queries to a warp were impossible, and nothing would overlap
// its loads.
//
// A query's sums run over the keys in this order whatever block or batch computes them: results are the same bits. Keys
// beyond the image are never read; their scores count as -infinity, their values as 0.
//
// Traffic: q and y once; k and v once from memory, and from the second-level cache once for every 128 (64) queries. A
// large batch of 197 tokens is limited by memory. Longer images are by the exponentials, 16 per clock and
// multiprocessor: with 64 dimensions the tensor cores need as long for their 128 multiply-adds each at best, with 32
// half as long. With 16 queries to a warp shared memory would come first, since it then delivers a fragment of k or v
// for just 2 products.
//
// fp32 does the same on FFMA: P passes through shared memory, keys and values have one buffer each (one arrives while
// the other is in use), and exponentials are exp2f. Shared memory is its limiter, by half more than the arithmetic.

#include <algorithm>
#include <bit>

#include "kernels/cuda/attention_hopper.h"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace cpvt::cuda {
namespace {

constexpr int kTileQueries = static_cast<int>(kAttentionQueries);
constexpr int kKeys = 64;  // of a tile
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr uint32_t kWholeWarp = 0xFFFFFFFF;

/// Rows of kDim numbers in shared memory, which a block loads.
template <class T, int kDim>
struct Tile : SwizzledRows<T, kDim> {
  using SwizzledRows<T, kDim>::at;
  using SwizzledRows<T, kDim>::kPerChunk;
  using SwizzledRows<T, kDim>::kChunks;
  static constexpr int kStep =
      std::bit_floor(static_cast<uint32_t>(kThreads / kChunks));  // rows that a block loads at once

  /// One head of the first `rows` of kRows rows, by the whole block. Rows beyond, which may be another image's, and
  /// columns beyond head_dim are not read and become zero.
  template <bool kAligned, int kRows>
  static __device__ void load(T* tile, const T* from, int64_t stride, int rows, int head_dim) {
    const int first = static_cast<int>(threadIdx.x) / kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % kChunks;
    if (kStep * kChunks < kThreads && first >= kStep) return;
    const int width = head_dim - chunk * kPerChunk;
    const T* source = from + first * stride + chunk * kPerChunk;
#pragma unroll
    for (int i = 0; i < kRows; i += kStep) {
      T* to = tile + at(first + i, chunk);
      const int valid = first + i < rows ? width : 0;
      if constexpr (kAligned) {
        ptx::cp_async_16(to, source, valid > 0 ? 16 : 0);
      } else {
        Chunk<T> values;
#pragma unroll
        for (int e = 0; e < kPerChunk; ++e) values.at[e] = e < valid ? source[e] : T(0.0F);
        *reinterpret_cast<Chunk<T>*>(to) = values;
      }
      source += kStep * stride;
    }
  }
};

/// The block's part of a tile: `queries` from the first, which may be beyond the image's last.
__device__ inline AttentionTile part_of_tile(const AttentionTile* tiles, int queries) {
  const int parts = kTileQueries / queries;
  AttentionTile tile = tiles[static_cast<int>(blockIdx.y) / parts];
  tile.first_query += static_cast<int>(blockIdx.y) % parts * queries;
  return tile;
}

/// The block's head of an image: where its queries, keys, values and results have their first row.
template <class T>
struct Head {
  const T *q, *k, *v;
  T* y;

  __device__ Head(const AttentionProblem<T>& problem, int64_t first_row) {
    const int column = static_cast<int>(blockIdx.x) * problem.head_dim;
    const int64_t width = static_cast<int64_t>(problem.heads) * problem.head_dim;
    q = problem.qkv + first_row * problem.stride + column;
    k = q + width;
    v = k + width;
    y = problem.y + first_row * problem.y_stride + column;
  }
};

/// The queries of a warp, kBlocks times 16.
template <class T, int kDim, int kBlocks>
class WarpRows {
 public:
  static constexpr int kQueries = kBlocks * 16;

  __device__ void load_queries(const T* tile) {
    const int at = Rows::at(lane() % 16, lane() / 16);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int d = 0; d < kDim / 16; ++d) {
        ptx::ldmatrix_x4(q_[block][d], tile + Rows::right_of(at, d) + (first_row() + block * 16) * kDim);
      }
    }
  }

  /// Takes in the tile's first `keys` keys; all of them where it is no tail.
  template <bool kTail>
  __device__ void attend(const T* k, const T* v, int keys, float scale) {
    // S = Q K^T. A tail costs what its keys cost, in steps of 16.
    const int k_at = Rows::at(lane() / 16 * 8 + lane() % 8, lane() / 8 % 2);
    float s[kBlocks][kKeys / 8][4] = {};
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step) {
        if (kTail && step * 16 >= keys) break;
        uint32_t b[4];
        ptx::ldmatrix_x4(b, k + Rows::right_of(k_at, d) + step * 16 * kDim);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          ptx::mma_16x8x16<T>(s[block][2 * step], q_[block][d], b[0], b[1]);
          ptx::mma_16x8x16<T>(s[block][2 * step + 1], q_[block][d], b[2], b[3]);
        }
      }
    }
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      float factor[2];
      softmax_[block].template weigh<kTail>(s[block], keys, scale, factor);
      OnlineSoftmax::rescale(o_[block], factor);
    }

    // O += P V. Two blocks of P, as the first product left them, are the left operand of the second.
    const int v_at = Rows::at(lane() % 16, lane() / 16);
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      if (kTail && step * 16 >= keys) break;
      uint32_t p[kBlocks][4];
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        weights_of_16_keys<T>(s[block], 2 * step, p[block]);
      }
#pragma unroll
      for (int d = 0; d < kDim / 16; ++d) {
        uint32_t b[4];
        ptx::ldmatrix_x4_trans(b, v + Rows::right_of(v_at, d) + step * 16 * kDim);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          ptx::mma_16x8x16<T>(o_[block][2 * d], p[block], b[0], b[1]);
          ptx::mma_16x8x16<T>(o_[block][2 * d + 1], p[block], b[2], b[3]);
        }
      }
    }
  }

  /// Writes `rows` rows, by way of the tile of the queries.
  template <bool kAligned>
  __device__ void store(T* tile, T* y, int64_t stride, int rows, int head_dim) const {
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      softmax_[block].template store<kAligned>(o_[block], tile, first_row() + block * 16, y + block * 16 * stride,
                                               stride, rows - block * 16, head_dim);
    }
  }

 private:
  using Rows = Tile<T, kDim>;
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int first_row() { return static_cast<int>(threadIdx.x) / 32 * kQueries; }

  uint32_t q_[kBlocks][kDim / 16][4];
  float o_[kBlocks][kDim / 8][4] = {};
  OnlineSoftmax softmax_[kBlocks];
};

template <class T, int kDim, bool kAligned, int kBlocks>
__global__ void __launch_bounds__(kThreads, 2) attention_mma_kernel(const AttentionProblem<T> problem) {
  ptx::follow_earlier_kernels();
  using Rows = Tile<T, kDim>;
  using Warp = WarpRows<T, kDim, kBlocks>;
  constexpr int kQueries = kWarps * Warp::kQueries;
  extern __shared__ uint4 shared[];
  T* const q_tile = reinterpret_cast<T*>(shared);
  T* const k_tile = q_tile + kQueries * kDim;
  T* const v_tile = k_tile + 2 * kKeys * kDim;

  const AttentionTile tile = part_of_tile(problem.tiles, kQueries);
  if (tile.first_query >= tile.tokens) return;
  const int head_dim = problem.head_dim;
  const int64_t stride = problem.stride;
  const Head<T> head(problem, tile.first_row);

  Rows::template load<kAligned, kQueries>(q_tile, head.q + tile.first_query * stride, stride,
                                          tile.tokens - tile.first_query, head_dim);
  ptx::cp_async_commit();
  Rows::template load<kAligned, kKeys>(k_tile, head.k, stride, tile.tokens, head_dim);
  Rows::template load<kAligned, kKeys>(v_tile, head.v, stride, tile.tokens, head_dim);
  ptx::cp_async_commit();

  const int warp_query = tile.first_query + static_cast<int>(threadIdx.x) / 32 * Warp::kQueries;
  const int rows = tile.tokens - warp_query;  // may be none: this warp then only helps to load
  Warp warp;
  ptx::cp_async_wait<1>();
  __syncthreads();
  warp.load_queries(q_tile);

  for (int key = 0; key < tile.tokens; key += kKeys) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before, which makes room for the next
    const int here = key & kKeys ? kKeys * kDim : 0;
    const int there = kKeys * kDim - here;
    const int next = key + kKeys;
    if (next < tile.tokens) {
      Rows::template load<kAligned, kKeys>(k_tile + there, head.k + next * stride, stride, tile.tokens - next,
                                           head_dim);
      Rows::template load<kAligned, kKeys>(v_tile + there, head.v + next * stride, stride, tile.tokens - next,
                                           head_dim);
      ptx::cp_async_commit();
    }
    const int keys = tile.tokens - key;
    if (rows <= 0) continue;
    if (keys >= kKeys) {
      warp.template attend<false>(k_tile + here, v_tile + here, kKeys, problem.scale);
    } else {
      warp.template attend<true>(k_tile + here, v_tile + here, keys, problem.scale);
    }
  }
  if (rows <= 0) return;
  T* const y = head.y + warp_query * problem.y_stride;
  warp.template store<kAligned>(q_tile, y, problem.y_stride, rows, head_dim);
}

/// The same in fp32, by fused multiply-adds. Of a warp's 16 queries a lane has 4, every fourth from r = lane/8, and of
/// 64 keys 8, every eighth from c = lane%8; of the result, every eighth chunk of 4 columns from c.
template <int kDim>
class WarpRowsF32 {
 public:
  static constexpr int kQueries = 16;

  /// Weights of the tile's first `keys` keys, to p [16, 64], which is the warp's own.
  template <bool kTail>
  __device__ void scores(const float* q, const float* k, float* p, int keys, float scale) {
    float s[4][8] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
      float4 query[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) query[j] = read(q + Rows::at(first_row() + row(j), chunk));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (kTail && i * 8 >= keys) break;
        const float4 key = read(k + Rows::at(i * 8 + lane() % 8, chunk));
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          s[j][i] = fmaf(query[j].x, key.x, s[j][i]);
          s[j][i] = fmaf(query[j].y, key.y, s[j][i]);
          s[j][i] = fmaf(query[j].z, key.z, s[j][i]);
          s[j][i] = fmaf(query[j].w, key.w, s[j][i]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float most = kLowestScore;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (kTail && i * 8 + lane() % 8 >= keys) s[j][i] = kMinusInfinity;
        most = fmaxf(most, s[j][i]);
      }
#pragma unroll
      for (int step = 1; step < 8; step *= 2) most = fmaxf(most, __shfl_xor_sync(kWholeWarp, most, step));
      most = fmaxf(most_[j], most);
      float reference = __fmul_rn(most, scale);  // the same in the weights and in the factor: never fused
      float factor = exp2f(reference_[j] - reference);
      reference_[j] = reference;
      if (fabsf(reference) > kLargeReference) {
        factor = exp2f((most_[j] - most) * scale);
        reference = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) s[j][i] -= most;
      }
      most_[j] = most;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float weight = exp2f(fmaf(s[j][i], scale, -reference));
        sum += weight;
        p[weight_at(j, i * 2 + lane() % 8 / 4) + lane() % 4] = weight;
      }
      total_[j] = total_[j] * factor + sum;
#pragma unroll
      for (int m = 0; m < kDim / 32; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o_[j][m][e] *= factor;
      }
    }
    __syncwarp();
  }

  __device__ void mix(const float* v, const float* p, int keys) {
#pragma unroll 1
    for (int key = 0; key < keys; key += 4) {
      float weight[4][4];
#pragma unroll
      for (int j = 0; j < 4; ++j) *reinterpret_cast<float4*>(weight[j]) = read(p + weight_at(j, key / 4));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int m = 0; m < kDim / 32; ++m) {
          const float4 value = read(v + Rows::at(key + i, m * 8 + lane() % 8));
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            o_[j][m][0] = fmaf(weight[j][i], value.x, o_[j][m][0]);
            o_[j][m][1] = fmaf(weight[j][i], value.y, o_[j][m][1]);
            o_[j][m][2] = fmaf(weight[j][i], value.z, o_[j][m][2]);
            o_[j][m][3] = fmaf(weight[j][i], value.w, o_[j][m][3]);
          }
        }
      }
    }
    __syncwarp();  // p is free again
  }

  template <bool kAligned>
  __device__ void store(float* y, int64_t stride, int rows, int head_dim) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float total = total_[j];
#pragma unroll
      for (int step = 1; step < 8; step *= 2) total += __shfl_xor_sync(kWholeWarp, total, step);
      const float factor = 1.0F / total;
      if (row(j) >= rows) continue;
#pragma unroll
      for (int m = 0; m < kDim / 32; ++m) {
        const Chunk<float> chunk = {
            {o_[j][m][0] * factor, o_[j][m][1] * factor, o_[j][m][2] * factor, o_[j][m][3] * factor}};
        store_chunk<kAligned>(y + row(j) * stride, chunk, (m * 8 + lane() % 8) * 4, head_dim);
      }
    }
  }

 private:
  using Rows = Tile<float, kDim>;
  static __device__ float4 read(const float* at) { return *reinterpret_cast<const float4*>(at); }
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int first_row() { return static_cast<int>(threadIdx.x) / 32 * kQueries; }
  static __device__ int row(int j) { return j * 4 + lane() / 8; }
  /// Of 4 weights of query j. Chunks change places so that those of 4 queries lie in different banks, also in pairs.
  static __device__ int weight_at(int j, int chunk) { return row(j) * kKeys + (chunk ^ 2 * (lane() / 8)) * 4; }

  float o_[4][kDim / 32][4] = {};
  float most_[4] = {kLowestScore, kLowestScore, kLowestScore, kLowestScore};
  float reference_[4] = {kLowestScore, kLowestScore, kLowestScore, kLowestScore};
  float total_[4] = {};
};

template <int kDim, bool kAligned>
__global__ void __launch_bounds__(kThreads, kDim > 64 ? 1 : 3)
    attention_fma_kernel(const AttentionProblem<float> problem) {
  ptx::follow_earlier_kernels();
  using Rows = Tile<float, kDim>;
  using Warp = WarpRowsF32<kDim>;
  constexpr int kQueries = kWarps * Warp::kQueries;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * Warp::kQueries;
  extern __shared__ uint4 shared[];
  float* const q_tile = reinterpret_cast<float*>(shared);
  float* const k_tile = q_tile + kQueries * kDim;
  float* const v_tile = k_tile + kKeys * kDim;
  float* const p = v_tile + kKeys * kDim + warp_row * kKeys;

  const AttentionTile tile = part_of_tile(problem.tiles, kQueries);
  if (tile.first_query >= tile.tokens) return;
  const int head_dim = problem.head_dim;
  const int64_t stride = problem.stride;
  const Head<float> head(problem, tile.first_row);

  Rows::template load<kAligned, kQueries>(q_tile, head.q + tile.first_query * stride, stride,
                                          tile.tokens - tile.first_query, head_dim);
  Rows::template load<kAligned, kKeys>(k_tile, head.k, stride, tile.tokens, head_dim);
  ptx::cp_async_commit();

  const int warp_query = tile.first_query + warp_row;
  const int rows = tile.tokens - warp_query;
  Warp warp;
  // Values arrive while scores are computed, the next keys while values are summed: one buffer of each will do.
  for (int key = 0; key < tile.tokens; key += kKeys) {
    const int keys = tile.tokens - key;
    ptx::cp_async_wait<0>();
    __syncthreads();
    Rows::template load<kAligned, kKeys>(v_tile, head.v + key * stride, stride, keys, head_dim);
    ptx::cp_async_commit();
    if (rows > 0) {
      if (keys >= kKeys) {
        warp.template scores<false>(q_tile, k_tile, p, kKeys, problem.scale);
      } else {
        warp.template scores<true>(q_tile, k_tile, p, keys, problem.scale);
      }
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
    const int next = key + kKeys;
    if (next < tile.tokens) {
      Rows::template load<kAligned, kKeys>(k_tile, head.k + next * stride, stride, tile.tokens - next, head_dim);
      ptx::cp_async_commit();
    }
    if (rows > 0) warp.mix(v_tile, p, min(keys, kKeys));
  }
  if (rows <= 0) return;
  float* const y = head.y + warp_query * problem.y_stride;
  warp.template store<kAligned>(y, problem.y_stride, rows, head_dim);
}

/// A block for each head of each `queries` queries. Heads run fastest, so that blocks start in the order of the tiles,
/// and those under way together read whole rows between them.
template <class T>
int launch_blocks(void (*kernel)(AttentionProblem<T>), const AttentionArgs& args, int queries, size_t shared_bytes,
                  void* stream) {
  AttentionProblem<T> problem(args);
  const int parts = kTileQueries / queries;
  const int most = 65535 / parts;  // tiles of a grid
  for (int first = 0; first < args.tile_count; first += most) {
    problem.tiles = args.tiles + first;
    const dim3 grid(static_cast<uint32_t>(args.heads),
                    static_cast<uint32_t>(std::min(most, args.tile_count - first) * parts));
    const int error = launch(kernel, grid, kThreads, shared_bytes, stream, problem);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <class T, int kDim, bool kAligned>
int launch_tiles(const AttentionArgs& args, void* stream) {
  constexpr size_t kRow = kDim * sizeof(T);
  if constexpr (sizeof(T) == 4) {
    constexpr int kQueries = 64;
    constexpr size_t kBytes = (kQueries + 2 * kKeys) * kRow + kQueries * kKeys * sizeof(T);
    return launch_blocks(attention_fma_kernel<kDim, kAligned>, args, kQueries, kBytes, stream);
  } else {
    // 32 queries to a warp halve what it reads of keys and values from shared memory, and what the block reads of them
    // from the second-level cache; 16 spread a small batch over more multiprocessors. Results are the same bits.
    if constexpr (kAligned && kDim <= 64) {
      int multiprocessors = 0;
      const cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, multiprocessors);
      if (error != cudaSuccess) return error;
      constexpr int kQueries = 128;
      if (int64_t{args.tile_count} * args.heads * (kTileQueries / kQueries) >= multiprocessors) {
        return launch_blocks(attention_mma_kernel<T, kDim, kAligned, 2>, args, kQueries, (kQueries + 4 * kKeys) * kRow,
                             stream);
      }
    }
    constexpr int kQueries = 64;
    return launch_blocks(attention_mma_kernel<T, kDim, kAligned, 1>, args, kQueries, (kQueries + 4 * kKeys) * kRow,
                         stream);
  }
}

template <class T, int kDim>
int launch_aligned(const AttentionArgs& args, void* stream) {
  return args.head_dim % Chunk<T>::kSize == 0 ? launch_tiles<T, kDim, true>(args, stream)
                                              : launch_tiles<T, kDim, false>(args, stream);
}

}  // namespace

int attention(const AttentionArgs& args, void* stream) {
  if (args.head_dim < 1 || args.head_dim > kLargestHeadDim || !(args.scale > 0)) return cudaErrorInvalidValue;
  if (takes_hopper(args)) return attention_hopper(args, stream);
  return for_dtype(args.dtype, [&]<class T>(T) {
    if (args.head_dim <= 32) return launch_aligned<T, 32>(args, stream);
    if (args.head_dim <= 64) return launch_aligned<T, 64>(args, stream);
    if (args.head_dim <= 96) return launch_aligned<T, 96>(args, stream);
    return launch_aligned<T, 128>(args, stream);
  });
}

}  // namespace cpvt::cuda
