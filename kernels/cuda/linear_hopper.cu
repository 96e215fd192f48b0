// linear()'s products of 16 bits on a Hopper: the tensor cores by wgmma, which takes both operands from shared memory,
// and TMA to bring them there.
//
// A block is one to two warpgroups of consumers, each with 64 rows and all columns of the block's tile, and one thread
// of another that brings lines (gemm_tile.cuh) of x and w into a ring of stages, as far ahead as the ring is long,
// over the ends of tiles: the next tile's first lines come while the last one's results leave. A stage has two
// barriers: full, for the bytes that come, and empty, for the consumers' warps that have read it. wgmma's own
// swizzling of lines is TMA's, and w's rows come in an order that leaves each thread with 16 bytes of neighbouring
// columns (WarpgroupProduct): the epilogue is that of linear.cu. Zeros come for whatever lies outside of x and w.
//
// The blocks of a cluster have different rows and the same columns. Each brings a quarter of w's tile, to all four:
// L2 is asked for a line of w once for a cluster's rows, 256 or 512 of them.
//
// With gamma a block keeps to its rows for one or several tiles of columns: they are brought once, normalised by all
// of the block's threads to the bits that layernorm.cu would store, and stay; only w streams by.
//
// The sum over k runs upwards in steps of 16 whatever the tile, as in linear.cu; but how wgmma rounds within a step
// and mma.sync does need not be the same. So which of the two it is depends on the machine, dtype, n and k alone.
//
// Registers are fp16's; bf16 has at most two more or less.
//
//   tile    warpgroups  stages  cluster  registers  shared memory, KiB  for
//   128x256 2           4       4        168 (232)  193                 many rows, wide n; the producer gives registers
//   128x192 2           5       4        167        201
//   64x192  1           6       4        189        193
//   64x128  1           8       4        146        193                 some rows
//   64x64   1           8       4        113        129
//   64x32   1           8       1        64         97                  one image
//   64x192  1           5       4        191        172 (k = 384)       norm
//   64x64   1           6       4        125        100 (k = 384)       norm, some rows
//   64x32   1           6       1        126        76 (k = 384)        norm, one image
//
// Estimates by ptxsim's counters, h200, not measurements: no bank conflict, nothing spills. L2 is the limit of large
// products: a step of a 128x256 tile asks it for 128 + 64 lines, and takes the tensor cores 1024 clocks, in which a
// processor's share of L2 (5.5 TB/s) is 160 lines; shared memory, which TMA writes and wgmma reads, is busy for as long
// as the tensor cores. 6272 rows, n = 3072, k = 768, GELU: 43 us (linear.cu: 93) if units overlapped; 64 by tile_time
// below, for the epilogue overlaps with nothing. With norm and GELU instructions are the limit: 6272 rows, n = 1536,
// k = 384: 12.7 us (21).
//
// Tried: clusters of 2: the products of a width of 768 at 6272 rows ask L2 for a fifth more. 192x256, three warpgroups:
// ptxas does not give 128 accumulators to a block of 512 threads. Bias, gamma and beta read by every thread for itself:
// a fifth and more of all sectors. Numbers unpacked anew for each pass of LayerNorm: conversions become the limit for
// one image.

#include <algorithm>
#include <limits>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/linear_hopper.h"
#include "kernels/cuda/linear_tile.cuh"
#include "kernels/cuda/ptx_hopper.cuh"

namespace cpvt::cuda {
namespace gemm {

constexpr int kGroupThreads = 128;
constexpr int kGroupRows = 64;

/// A block's tile: kGroups warpgroups of 64 rows each, and all of its columns in each.
///
/// Row 32 a + 8 c + 2 j + e of w lies in place 8 (j kColumns / 32 + a) + 2 c + e. So a thread, which has columns 2 c
/// and 2 c + 1 of each eight, ends up with columns 8 c..8 c + 7 of each 32; and what has the same j is in one piece.
template <class T_, int kGroups_, int kColumns_>
class WarpgroupProduct {
 public:
  using T = T_;
  static constexpr int kGroups = kGroups_;
  static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kColumns = kColumns_;
  static constexpr int kThreads = kGroups * kGroupThreads;  // the first ones of the block

  static constexpr int kThreadRows = 2;
  static constexpr int kThreadChunks = kColumns / 32;
  static constexpr int kRowStep = 8;
  static constexpr int kChunksAtOnce = kThreadChunks % 2 == 0 ? 2 : 1;
  __device__ static int row() { return static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4); }
  __device__ static int column(int chunk) { return 32 * chunk + 8 * static_cast<int>(threadIdx.x % 4); }
  __device__ float at(int i, int chunk, int e) const {
    return sum_[4 * (e / 2 * kThreadChunks + chunk) + i * 2 + e % 2];
  }

  /// Begins to add the product of a line of x, this warpgroup's rows, and of w; where it is the first, to nothing.
  __device__ void step(uint32_t x, uint32_t w, bool first) {
    const uint64_t a = ptx::wgmma_operand(x);
    const uint64_t b = ptx::wgmma_operand(w);
    ptx::wgmma_fence();
#pragma unroll
    for (int k16 = 0; k16 < 4; ++k16) {
      ptx::Wgmma<T, kColumns>::multiply(sum_, a + 2 * k16, b + 2 * k16, k16 > 0 || !first ? 1 : 0);
    }
    ptx::wgmma_commit();
  }

  /// All that has begun is done; from here on the sums may be read.
  __device__ void finish() {
    ptx::wgmma_wait<0>();
#pragma unroll
    for (float& v : sum_) asm volatile("" : "+f"(v)::"memory");
  }

 private:
  float sum_[kColumns / 2] = {};
};

/// b of a tile's columns, each in one lane of a warp: on their way while the product is made.
template <int kColumns>
class TileBias {
 public:
  __device__ TileBias(const LinearArgs& args, int64_t first_column) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int column = 128 * i + 4 * static_cast<int>(threadIdx.x % 32);
      const auto count = static_cast<int>(min(args.n - first_column - column, int64_t{4}));
      if (column < kColumns) load_floats(args.bias + first_column + column, count, mine_[i]);
    }
  }
  __device__ void operator()(int chunk, int64_t, int, float (&v)[8]) const {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const unsigned lane = chunk % 4 * 8 + threadIdx.x % 4 * 2 + e / 4;
      v[e] = __shfl_sync(0xFFFFFFFFU, mine_[chunk / 4][e % 4], static_cast<int>(lane));
    }
  }

 private:
  static constexpr int kParts = (kColumns + 127) / 128;
  float mine_[kParts][4] = {};
};

/// gamma and beta in shared memory, for all rows of a block: each as the first four numbers of all chunks, then the
/// other four, so that eight neighbouring chunks are read without conflicts.
class SharedAffine {
 public:
  static constexpr int kLineBytes = 2 * kLineNumbers<half> * static_cast<int>(sizeof(float));
  struct OfChunk {
    float gamma[8], beta[8];
  };

  __device__ SharedAffine(char* memory, int lines) : memory_(reinterpret_cast<float4*>(memory)), chunks_(8 * lines) {}

  template <int kThreads>
  __device__ void fill(const LinearArgs& args) {
    for (int i = static_cast<int>(threadIdx.x); i < 4 * chunks_; i += kThreads) {
      const int part = i / chunks_;
      const int column = 8 * (i - part * chunks_) + 4 * (part & 1);
      const Chunk<float> four = load_chunk(part < 2 ? args.gamma : args.beta, column, static_cast<int>(args.k));
      memory_[i] = make_float4(four.at[0], four.at[1], four.at[2], four.at[3]);
    }
  }
  __device__ OfChunk operator()(int column) const {
    OfChunk result;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 gamma = memory_[half * chunks_ + column / 8];
      const float4 beta = memory_[(2 + half) * chunks_ + column / 8];
      memcpy(result.gamma + 4 * half, &gamma, sizeof gamma);
      memcpy(result.beta + 4 * half, &beta, sizeof beta);
    }
    return result;
  }

 private:
  float4* memory_;
  int chunks_;
};

}  // namespace gemm

namespace {

using gemm::kGroupRows;
using gemm::kGroupThreads;
using gemm::kLine;
using gemm::WarpgroupProduct;

constexpr int kLineNumbers = gemm::kLineNumbers<half>;
constexpr int kMostHeldLines = 6;  // of rows that are normalised
constexpr int kAtom = 1024;        // eight rows of a line: where the swizzling begins anew

/// Which tiles a cluster of blocks makes, one after the other. Tiles are as high as the cluster's blocks together, and
/// numbered row by row. With norm a cluster's tiles are neighbours in a row, without it they are `step` apart.
struct Work {
  int32_t across;    // tiles in a row
  int32_t all;       // tiles
  int32_t step;      // from a cluster's tile to its next
  int32_t at_most;   // tiles of a cluster
  int32_t clusters;  // with norm: that share a row of tiles; without: all
};

template <class Product_, int kStages_, int kCluster_, bool kNormalise_>
struct Config {
  using Product = Product_;
  static constexpr int kStages = kStages_;
  static constexpr int kCluster = kCluster_;
  static constexpr bool kNormalise = kNormalise_;
  static constexpr int kThreads = Product::kThreads + kGroupThreads;
  static constexpr int kXBytes = Product::kRows * kLine;
  static constexpr int kWBytes = Product::kColumns * kLine;
  static constexpr int kStageBytes = (kNormalise ? 0 : kXBytes) + kWBytes;
  static constexpr int kBarrierBytes = 8 * (2 * kStages + 2);
  static_assert(4 % kCluster == 0);
  /// 168 registers a thread are all of a multiprocessor's; the producer needs few of its own.
  static constexpr bool kMovesRegisters = Product::kGroups == 2 && Product::kColumns == 256;
  static_assert(!kMovesRegisters || 232 * Product::kThreads + 40 * kGroupThreads <= 168 * kThreads);

  static constexpr int64_t shared_bytes(int64_t k) {
    const int64_t line_bytes = kNormalise ? kXBytes + gemm::SharedAffine::kLineBytes : 0;
    return kAtom + ceil_div(k, kLineNumbers) * line_bytes + kStages * kStageBytes + kBarrierBytes;
  }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
__device__ void run_block(const CUtensorMap& x_map, const CUtensorMap& w_map, const LinearArgs& args,
                          const Work& work) {
  using Product = typename C::Product;
  constexpr int kStages = C::kStages;
  constexpr int kRows = Product::kRows;
  constexpr int kConsumerWarps = Product::kThreads / 32;
  extern __shared__ char shared[];

  const int lines = static_cast<int>((args.k + kLineNumbers - 1) / kLineNumbers);
  char* const start = shared + (0U - ptx::shared_address(shared)) % kAtom;
  const uint32_t rows = ptx::shared_address(start);
  const uint32_t ring = rows + (C::kNormalise ? static_cast<uint32_t>(lines * C::kXBytes) : 0);
  const uint32_t full = ring + kStages * C::kStageBytes;
  const uint32_t empty = full + 8 * kStages;
  const uint32_t rows_here = empty + 8 * kStages;
  auto stage_of = [&](int stage) { return ring + static_cast<uint32_t>(stage * C::kStageBytes); };

  const auto rank = C::kCluster > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  const int cluster = static_cast<int>(blockIdx.x) / C::kCluster;
  const int first_tile =
      C::kNormalise ? cluster / work.clusters * work.across + cluster % work.clusters * work.at_most : cluster;
  const int end_tile =
      C::kNormalise ? min(first_tile + work.at_most, (cluster / work.clusters + 1) * work.across) : work.all;
  auto first_row_of = [&](int tile) { return (tile / work.across * C::kCluster + rank) * kRows; };

  // One thread of the last warpgroup brings everything; it runs ahead of the others by as many lines as there are
  // stages.
  const bool producer = threadIdx.x == Product::kThreads;
  if (producer) {
    ptx::prefetch_map(w_map);
    ptx::prefetch_map(x_map);
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::barrier_init(full + 8 * stage, 1);
      ptx::barrier_init(empty + 8 * stage, kConsumerWarps * C::kCluster);
    }
    if (C::kNormalise) ptx::barrier_init(rows_here, 1);
    ptx::barrier_init_fence();
  }
  if constexpr (C::kCluster > 1) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }

  const int group = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  struct Next {
    int tile, line;
    RingPlace<kStages> place;
  };
  auto advance = [&](Next& next) {
    next.place.advance();
    if (++next.line == lines) next.line = 0, next.tile += work.step;
  };
  auto fetch_weights = [&](const Next& next) {
    const uint32_t barrier = full + 8 * next.place.stage;
    ptx::barrier_expect(barrier, C::kStageBytes);
    const uint32_t tile = stage_of(next.place.stage) + (C::kNormalise ? 0 : C::kXBytes);
    const int columns = next.tile % work.across * (Product::kColumns / 32);
    constexpr int kParts = 4 / C::kCluster;  // of w's four pieces, what each block of a cluster brings for all
#pragma unroll
    for (int part = rank * kParts; part < (rank + 1) * kParts; ++part) {
      const uint32_t to = tile + part * (C::kWBytes / 4);
      if constexpr (C::kCluster > 1) {
        ptx::copy_box_5d(to, w_map, next.line * kLineNumbers, part, columns, barrier, (1 << C::kCluster) - 1);
      } else {
        ptx::copy_box_5d(to, w_map, next.line * kLineNumbers, part, columns, barrier);
      }
    }
  };
  auto fetch_rows = [&](const Next& next) {
    if constexpr (!C::kNormalise) {
      ptx::copy_box(stage_of(next.place.stage), x_map, next.line * kLineNumbers, first_row_of(next.tile),
                    full + 8 * next.place.stage);
    }
  };
  Next next{first_tile, 0, {}};
  if (producer) {
    for (int i = 0; i < kStages && next.tile < end_tile; ++i, advance(next)) fetch_weights(next);
  }
  [[maybe_unused]] gemm::SharedAffine affine(start + (rows_here + 16 - rows), lines);
  if constexpr (C::kNormalise) affine.fill<C::kThreads>(args);
  ptx::follow_earlier_kernels();  // only now: weights are there before any kernel has run
  if (producer) {
    Next first{first_tile, 0, {}};
    for (int i = 0; i < kStages && first.tile < end_tile; ++i, advance(first)) fetch_rows(first);
  }
  if constexpr (C::kNormalise) {
    if (producer) {
      ptx::barrier_expect(rows_here, static_cast<uint32_t>(lines * C::kXBytes));
      for (int line = 0; line < lines; ++line) {
        ptx::copy_box(rows + line * C::kXBytes, x_map, line * kLineNumbers, first_row_of(first_tile), rows_here);
      }
    }
    __syncthreads();
    ptx::barrier_wait(rows_here, 0);
    gemm::normalise<typename Product::T, kRows, C::kThreads, kMostHeldLines>(
        start, kLine, C::kXBytes, args, [](int row) { return row & 7; }, affine);
    ptx::async_proxy_fence();
    __syncthreads();
  }

  if (group == Product::kGroups) {
    if constexpr (C::kMovesRegisters) ptx::give_registers<40>();
    if (producer) {
      for (; next.tile < end_tile; advance(next)) {
        ptx::barrier_wait(empty + 8 * next.place.stage, next.place.parity ^ 1);
        fetch_weights(next);
        fetch_rows(next);
      }
    }
  } else {
    if constexpr (C::kMovesRegisters) ptx::take_registers<232>();
    const int lane = static_cast<int>(threadIdx.x % 32);
    // The stage may be filled again, by all blocks that fill a part of it.
    auto release = [&](int stage) {
      if (lane < C::kCluster) {
        if constexpr (C::kCluster > 1) {
          ptx::barrier_arrive_at(empty + 8 * stage, lane);
        } else {
          ptx::barrier_arrive(empty + 8 * stage);
        }
      }
    };
    Product product;
    RingPlace<kStages> place;
    const uint32_t group_rows = group * kGroupRows * kLine;
    for (int tile = first_tile; tile < end_tile; tile += work.step) {
      const int64_t first_column = static_cast<int64_t>(tile % work.across) * Product::kColumns;
      const gemm::TileBias<Product::kColumns> bias(args, first_column);
      int before = 0;
      for (int line = 0; line < lines; ++line) {
        ptx::barrier_wait(full + 8 * place.stage, place.parity);
        const uint32_t stage = stage_of(place.stage);
        if constexpr (C::kNormalise) {
          product.step(rows + line * C::kXBytes + group_rows, stage, line == 0);
        } else {
          product.step(stage + group_rows, stage + C::kXBytes, line == 0);
        }
        if (line > 0) {
          ptx::wgmma_wait<1>();
          release(before);
        }
        before = place.stage;
        place.advance();
      }
      product.finish();
      release(before);
      gemm::store_tile(product, first_row_of(tile), first_column, args, bias);
    }
  }
  // No block ends while another may still send to it.
  if constexpr (C::kCluster > 1) ptx::cluster_sync();
}

#endif

template <class C>
__global__ void __launch_bounds__(C::kThreads)
    linear_warpgroups(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                      LinearArgs args, Work work) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run_block<C>(x_map, w_map, args, work);
#else
  __trap();  // never launched
#endif
}

// --- the launcher ----------------------------------------------------------------------------------------------------

/// How a configuration would do the work, and how long it would take by a count in clocks of an H100, so that one can
/// be chosen: of speed alone, for all of them give the same bits.
template <class C>
struct Launcher {
  using Product = typename C::Product;

  static Work plan(const LinearArgs& args, int64_t& time) {
    const int64_t down = ceil_div(args.rows, C::kCluster * Product::kRows);
    const int64_t across = ceil_div(args.n, Product::kColumns);
    Work best{};
    time = std::numeric_limits<int64_t>::max();
    const int64_t at_once = clusters_at_once();
    if constexpr (C::kNormalise) {
      for (int64_t tiles = 1; tiles <= across; ++tiles) {
        const int64_t sharing = ceil_div(across, tiles);
        const int64_t rounds = ceil_div(down * sharing, at_once);
        const int64_t busy = std::min(at_once, down * sharing) * C::kCluster;
        const int64_t here = rounds * (prologue(args) + tiles * tile_time(args, busy));
        if (here >= time) continue;
        time = here;
        best = {static_cast<int32_t>(across), static_cast<int32_t>(down * across), 1, static_cast<int32_t>(tiles),
                static_cast<int32_t>(sharing)};
      }
    } else {
      // As many clusters as the busiest one's share of tiles leaves work for.
      const int64_t tiles = ceil_div(down * across, at_once);
      const int64_t clusters = ceil_div(down * across, tiles);
      time = tiles * tile_time(args, clusters * C::kCluster);
      best = {static_cast<int32_t>(across), static_cast<int32_t>(down * across), static_cast<int32_t>(clusters),
              static_cast<int32_t>(tiles), static_cast<int32_t>(clusters)};
    }
    return best;
  }

  static int run(const LinearArgs& args, const Work& work, void* stream) {
    const auto bytes = static_cast<cuuint64_t>(element_bytes(args.dtype));
    const auto k = static_cast<cuuint64_t>(args.k);
    alignas(64) CUtensorMap x_map;
    int error = encode_tensor_map<2>(&x_map, args.dtype, args.x, {k, static_cast<cuuint64_t>(args.rows)},
                                     {static_cast<cuuint64_t>(args.x_stride) * bytes}, {kLineNumbers, Product::kRows});
    if (error != cudaSuccess) return error;
    // Row 32 a + 8 c + 2 j + e of w, as dimensions e, j, c, a, whose strides rise, each a multiple of the one before,
    // as the driver's manual asks; a box has one j: so WarpgroupProduct's order.
    const cuuint64_t row = static_cast<cuuint64_t>(row_stride(args.k, args.dtype)) * bytes;
    alignas(64) CUtensorMap w_map;
    error = encode_tensor_map<5>(&w_map, args.dtype, args.weight, {k, 2, 4, 4, static_cast<cuuint64_t>(args.n / 32)},
                                 {row, 2 * row, 8 * row, 32 * row}, {kLineNumbers, 2, 1, 4, Product::kColumns / 32});
    if (error != cudaSuccess) return error;
    const int clusters = C::kNormalise ? work.all / work.across * work.clusters : work.clusters;
    return launch_clusters(linear_warpgroups<C>, C::kCluster, static_cast<unsigned>(clusters * C::kCluster),
                           C::kThreads, static_cast<size_t>(C::shared_bytes(args.k)), stream, x_map, w_map, args, work);
  }

 private:
  /// A cluster lies within one of the chip's parts. They have up to 18 multiprocessors, but some have lost more of them
  /// than others, so that only the driver knows how many clusters fit: one more would wait for a whole round.
  static int64_t clusters_at_once() {
    static const int64_t count = [] {
      constexpr int64_t kMost = C::kCluster == 4 ? 32 : kProcessors / C::kCluster;
      constexpr auto kShared = static_cast<size_t>(C::shared_bytes(kMostHeldLines * kLineNumbers));
      cudaLaunchAttribute cluster{};
      cluster.id = cudaLaunchAttributeClusterDimension;
      cluster.val.clusterDim = {C::kCluster, 1, 1};
      cudaLaunchConfig_t config{};
      config.gridDim = C::kCluster;
      config.blockDim = C::kThreads;
      config.dynamicSmemBytes = kShared;
      config.attrs = &cluster;
      config.numAttrs = 1;
      int fit = 0;
      const bool known = allow_shared_memory(linear_warpgroups<C>, kShared) == cudaSuccess &&
                         cudaOccupancyMaxActiveClusters(&fit, linear_warpgroups<C>, &config) == cudaSuccess && fit > 0;
      return known ? std::min<int64_t>(fit, kMost) : kMost;
    }();
    return count;
  }

  /// L2's bytes a clock for one of `busy` blocks.
  static int64_t bytes_a_clock(int64_t busy) { return std::min<int64_t>(64, 2640 / busy); }

  static int64_t tile_time(const LinearArgs& args, int64_t busy) {
    constexpr int64_t kTensor = 2 * Product::kGroups * Product::kColumns;
    constexpr int64_t kShared =
        Product::kGroups * (kGroupRows + Product::kColumns) + Product::kColumns + (C::kNormalise ? 0 : Product::kRows);
    constexpr int64_t kBytes = (C::kNormalise ? 0 : C::kXBytes) + C::kWBytes / C::kCluster;
    const int64_t line = std::max({kTensor, kShared, kBytes / bytes_a_clock(busy)});
    return ceil_div(args.k, kLineNumbers) * line + 500 + (args.gelu ? 20 : 8) * Product::kGroups * Product::kColumns;
  }
  static int64_t prologue(const LinearArgs& args) {
    return 1000 + 5 * Product::kGroups * args.k + ceil_div(args.k, kLineNumbers) * C::kXBytes / 32;
  }
};

/// The quickest of some configurations.
template <class... Configs>
int run_best(const LinearArgs& args, void* stream) {
  int64_t best = std::numeric_limits<int64_t>::max();
  int (*run)(const LinearArgs&, const Work&, void*) = nullptr;
  Work work{};
  (
      [&] {
        int64_t time = 0;
        const Work here = Launcher<Configs>::plan(args, time);
        if (time >= best) return;
        best = time;
        run = Launcher<Configs>::run;
        work = here;
      }(),
      ...);
  return run(args, work, stream);
}

template <class T>
int run(const LinearArgs& args, void* stream) {
  if (args.gamma != nullptr) {
    return run_best<Config<WarpgroupProduct<T, 1, 192>, 5, 4, true>, Config<WarpgroupProduct<T, 1, 64>, 6, 4, true>,
                    Config<WarpgroupProduct<T, 1, 32>, 6, 1, true>>(args, stream);
  }
  return run_best<Config<WarpgroupProduct<T, 2, 256>, 4, 4, false>, Config<WarpgroupProduct<T, 2, 192>, 5, 4, false>,
                  Config<WarpgroupProduct<T, 1, 192>, 6, 4, false>, Config<WarpgroupProduct<T, 1, 128>, 8, 4, false>,
                  Config<WarpgroupProduct<T, 1, 64>, 8, 4, false>, Config<WarpgroupProduct<T, 1, 32>, 8, 1, false>>(
      args, stream);
}

}  // namespace

bool takes_hopper(const LinearArgs& args) {
  return args.dtype != DType::kF32 && args.n % 32 == 0 &&
         (args.gamma == nullptr || args.k <= kMostHeldLines * kLineNumbers) && is_hopper();
}

int linear_hopper(const LinearArgs& args, void* stream) {
  return args.dtype == DType::kF16 ? run<half>(args, stream) : run<bfloat16>(args, stream);
}

}  // namespace cpvt::cuda
