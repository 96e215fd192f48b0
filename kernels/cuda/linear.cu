// y = scale * activation(norm(x) W^T + b) + residual: every dense layer of a transformer, with the LayerNorm before it
// and the residual behind it in the same pass. On a Hopper most of those with 16 bits are linear_hopper.cu's.
//
// Operands: rows of x and rows of W, k contiguous in both, as mma.m16n8k16 wants them. A block makes a tile of y, a
// line (128 bytes of k, gemm_tile.cuh) at a time; 2 to 6 lines are in shared memory, all but one of them on their way
// by cp.async, and there is one barrier to a line. Tails of k, n and rows are zeros that cp.async fills in, and stores
// that do not happen. The sum over k runs upwards in steps of 16 (fp32: of 1) whatever the tile, so that the choice of
// one, by rows and n, leaves no trace in the bits.
//
// With gamma, the block's rows are brought to shared memory whole and normalised there, to the bits that
// layernorm.cu would store, and only W streams by: for one or several tiles of columns, with no pause in between.
//
// The epilogue works in registers, on 16 bytes of neighbouring columns at a time; an access of a warp is 8 rows of 64
// bytes (fp32: 4 of 128). What a thread overwrites of the residual it has read itself, so y may be the residual.
//
//   tile     warps       lines  registers  shared memory, KiB      for
//   (in brackets: with norm, shared memory at k = 192)
//   128x128  4 of 64x64  3      241 (243)  96 (96)                 n a multiple of 128
//   128x96   4 of 32x96  3      216 (219)  84 (84)                 n = 192, 576: no column wasted
//   128x192  8 of 32x96  2          (211)     (144 at k = 384)     norm, k > 256: one block to a processor
//   64x64    4 of 32x32  4      123 (128)  64 (56)                 a few images
//   32x32    2 of 16x32  6       96        48                      one image
//   32x64    4 of 16x32  4           (80)     (44)                 one image, norm
//   64x64    2 of 32x64  3      254 (231)  48 (72)                 fp32
//   32x32    2 of 16x32  3      115 (96)   24 (36)                 fp32, one image
//
// Counted by ptxsim, h100: no bank conflict; 16 sectors to a request of cp.async, of the residual and of y. x is read
// once from memory and for the other columns' blocks from L2, W from L2. Where k is 192, instructions are the limit
// with norm and GELU: 50176 rows, n = 768: 45 M warp instructions, 44 us at full issue, against 29 us of memory. So
// rounding, GELU and normalising are written for few of them. Wider k is limited by L2 and the tensor cores: 6272 rows,
// n = 384, k = 1536: 23 us, 12 us.
//
// Tried: one tile of columns to a block with norm: at k = 192 normalising costs as much as a tile's product. 64x64
// tiles as soon as larger ones leave some processors idle: at 6272 rows and n = 192 L2's traffic, the limit, grows
// by 1.6. erff for 16 bits: with n = 768 a third of all instructions more.

#include <limits>

#include "kernels/cuda/linear_hopper.h"
#include "kernels/cuda/linear_tile.cuh"

namespace cpvt::cuda {
namespace {

using gemm::kChunkNumbers;
using gemm::kLine;
using gemm::kLineNumbers;

template <class Product, int kStages, bool kNormalise>
struct Memory {
  static constexpr int kXBytes = kNormalise ? 0 : Product::kRows * kLine;
  static constexpr int kStageBytes = kXBytes + Product::kColumns * kLine;
  static int64_t bytes(int64_t k) {
    const int64_t lines = ceil_div(k, kLineNumbers<typename Product::T>);
    return kStages * kStageBytes + (kNormalise ? Product::kRows * lines * kLine : 0);
  }
};

/// One block: a tile of rows, and `tiles` tiles of columns one after the other, the flow of lines never stopping.
template <class Product, int kStages, bool kNormalise>
__global__ void __launch_bounds__(Product::kThreads) linear_tiles(LinearArgs args, int32_t tiles) {
  using T = typename Product::T;
  using M = Memory<Product, kStages, kNormalise>;
  constexpr int kRows = Product::kRows;
  constexpr int kColumns = Product::kColumns;
  constexpr int kThreads = Product::kThreads;
  extern __shared__ __align__(128) char shared[];

  const int lines = static_cast<int>((args.k + kLineNumbers<T> - 1) / kLineNumbers<T>);
  // Blocks that share rows are neighbours, so that the second finds in the cache what the first has read.
  const auto all_tiles = static_cast<int>((args.n + kColumns - 1) / kColumns);
  const int groups = (all_tiles + tiles - 1) / tiles;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / groups) * kRows;
  const int first_tile = static_cast<int>(blockIdx.x % groups) * tiles;
  const int last_tile = min(all_tiles, first_tile + tiles);
  const T* const x = static_cast<const T*>(args.x) + first_row * args.x_stride;
  const int64_t w_stride = (args.k + kChunkNumbers<T> - 1) / kChunkNumbers<T> * kChunkNumbers<T>;

  const int whole_pitch = lines * kLine;
  char* const ring = shared + (kNormalise ? kRows * whole_pitch : 0);
  struct Place {
    int tile, line, stage;
  };
  auto after = [&](Place p) {
    const bool last = p.line + 1 == lines;
    return Place{p.tile + (last ? 1 : 0), last ? 0 : p.line + 1, p.stage + 1 == kStages ? 0 : p.stage + 1};
  };
  auto fetch_weights = [&](const Place& p) {
    if (p.tile >= last_tile) return;
    const int64_t w_row = static_cast<int64_t>(p.tile) * kColumns;
    gemm::load_lines<kColumns, kThreads>(ring + p.stage * M::kStageBytes + M::kXBytes, kLine,
                                         static_cast<const T*>(args.weight) + w_row * w_stride, w_stride,
                                         args.n - w_row, p.line * kLineNumbers<T>, args.k, typename Product::WKey());
  };
  auto fetch_rows = [&](const Place& p) {
    if (kNormalise || p.tile >= last_tile) return;
    gemm::load_lines<kRows, kThreads>(ring + p.stage * M::kStageBytes, kLine, x, args.x_stride, args.rows - first_row,
                                      p.line * kLineNumbers<T>, args.k, typename Product::XKey());
  };
  const Place first{first_tile, 0, 0};
  Place fetched = first;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage, fetched = after(fetched)) fetch_weights(fetched);
  ptx::follow_earlier_kernels();  // only now: weights are there before any kernel has run
  if constexpr (kNormalise) {
    for (int line = 0; line < lines; ++line) {
      gemm::load_lines<kRows, kThreads>(shared + line * kLine, whole_pitch, x, args.x_stride, args.rows - first_row,
                                        line * kLineNumbers<T>, args.k, typename Product::XKey());
    }
    ptx::cp_async_commit();
  }
  fetched = first;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage, fetched = after(fetched)) {
    fetch_rows(fetched);
    ptx::cp_async_commit();
  }

  if constexpr (kNormalise) {
    ptx::cp_async_wait<kStages - 1>();
    gemm::normalise<T, kRows, kThreads, 0>(shared, whole_pitch, kLine, args, typename Product::XKey(), [&](int column) {
      return Affine<T>(args.gamma, args.beta, column, static_cast<int>(args.k));
    });
  }

  Product product;
  int stage_index = 0;
  for (int tile = first_tile; tile < last_tile; ++tile) {
    product.clear();
    for (int line = 0; line < lines; ++line) {
      ptx::cp_async_wait<kStages - 2>();
      __syncthreads();  // this stage has arrived, and everybody is done with the one before, which is filled next
      fetch_rows(fetched);
      fetch_weights(fetched);
      ptx::cp_async_commit();
      fetched = after(fetched);
      const char* const stage = ring + stage_index * M::kStageBytes;
      if constexpr (kNormalise) {
        product.step(shared + line * kLine, whole_pitch, stage);
      } else {
        product.step(stage, kLine, stage + M::kXBytes);
      }
      stage_index = stage_index + 1 == kStages ? 0 : stage_index + 1;
    }
    gemm::store_tile(product, first_row, static_cast<int64_t>(tile) * kColumns, args,
                     [&](int, int64_t column, int count, auto& v) { gemm::load_floats(args.bias + column, count, v); });
  }
}

/// The launcher's choices are of speed alone, and made for an H100: every one of them gives the same bits.

/// A tile, and how many lines of it are in shared memory at a time.
template <class Product, int kStages>
struct Config {
  static int64_t tiles_down(const LinearArgs& args) { return ceil_div(args.rows, Product::kRows); }
  static int64_t tiles_across(const LinearArgs& args) { return ceil_div(args.n, Product::kColumns); }

  /// Whether most processors get a tile, and the tile has room.
  template <bool kNormalise>
  static bool suits(const LinearArgs& args, int64_t shared_limit) {
    return tiles_down(args) * tiles_across(args) * 3 >= kProcessors * 2 &&
           Memory<Product, kStages, kNormalise>::bytes(args.k) <= shared_limit;
  }

  template <bool kNormalise>
  static int run(const LinearArgs& args, void* stream) {
    const int64_t tiles = kNormalise ? tiles_of_a_block(args) : 1;
    const int64_t blocks = tiles_down(args) * ceil_div(tiles_across(args), tiles);
    const int64_t bytes = Memory<Product, kStages, kNormalise>::bytes(args.k);
    return launch(linear_tiles<Product, kStages, kNormalise>, dim3(static_cast<unsigned>(blocks)), Product::kThreads,
                  static_cast<size_t>(bytes), stream, args, static_cast<int32_t>(tiles));
  }

 private:
  /// A block's rows are normalised once for all of its column tiles, at about the cost of one of them: more tiles to a
  /// block save that, fewer leave less for the busiest processor. Blocks that share a processor share its speed.
  static int64_t tiles_of_a_block(const LinearArgs& args) {
    int64_t best = 1;
    int64_t best_time = std::numeric_limits<int64_t>::max();
    for (int64_t tiles = 1; tiles <= tiles_across(args); ++tiles) {
      const int64_t blocks = tiles_down(args) * ceil_div(tiles_across(args), tiles);
      const int64_t time = ceil_div(blocks, kProcessors) * (1 + tiles);
      if (time < best_time) {
        best = tiles;
        best_time = time;
      }
    }
    return best;
  }
};

template <class T, bool kNormalise>
int run(const LinearArgs& args, int64_t limit, void* stream) {
  if constexpr (sizeof(T) == 4) {
    using Large = Config<gemm::FloatProduct<64, 64, 8, 8>, 3>;
    using Small = Config<gemm::FloatProduct<32, 32, 4, 4>, 3>;
    if (Large::template suits<kNormalise>(args, limit)) return Large::template run<kNormalise>(args, stream);
    return Small::template run<kNormalise>(args, stream);
  } else {
    // The widths of vision transformers are multiples of 96, of 128, or of both.
    using Large = Config<gemm::TensorProduct<T, 128, 128, 2, 2>, 3>;
    using Narrow = Config<gemm::TensorProduct<T, 128, 96, 4, 1>, 3>;
    using Medium = Config<gemm::TensorProduct<T, 64, 64, 2, 2>, 4>;
    // One image's rows: here the time is that of one block.
    using Small = Config<gemm::TensorProduct<T, 32, kNormalise ? 64 : 32, 2, kNormalise ? 2 : 1>, kNormalise ? 4 : 6>;
    // Two blocks to a processor hide each other's prologue and epilogue; where whole rows leave room for only one, it
    // has as many warps as the two.
    using Alone = Config<gemm::TensorProduct<T, 128, 192, 4, 2>, 2>;
    if (kNormalise && args.k > 256) {
      if constexpr (kNormalise) {
        if (Alone::template suits<true>(args, limit)) return Alone::template run<true>(args, stream);
      }
    } else if (ceil_div(args.n, 128) * 128 <= ceil_div(args.n, 96) * 96) {
      if (Large::template suits<kNormalise>(args, limit)) return Large::template run<kNormalise>(args, stream);
    } else {
      if (Narrow::template suits<kNormalise>(args, limit)) return Narrow::template run<kNormalise>(args, stream);
    }
    if (Medium::template suits<kNormalise>(args, limit)) return Medium::template run<kNormalise>(args, stream);
    return Small::template run<kNormalise>(args, stream);
  }
}

/// Bytes of shared memory that a block may have.
int64_t shared_limit() {
  int bytes = 0;  // where it cannot be had, the smallest tile is taken, and the launch says what is wrong
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, bytes) == cudaSuccess ? bytes : 0;
}

}  // namespace

int linear(const LinearArgs& args, void* stream) {
  if (args.gamma != nullptr && args.k > kWidestNormalisedLinear) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.n == 0) return cudaSuccess;
  if (takes_hopper(args)) return linear_hopper(args, stream);
  return for_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    return args.gamma != nullptr ? run<T, true>(args, shared_limit(), stream)
                                 : run<T, false>(args, shared_limit(), stream);
  });
}

}  // namespace cpvt::cuda
