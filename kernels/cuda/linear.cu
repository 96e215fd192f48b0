// y = scale * activation(norm(x) W^T + b) + residual: every dense layer of a transformer, with the LayerNorm before it
// and the residual behind it in the same pass.
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
//   32x32    2 of 16x32  3      106 (96)   24 (36)                 fp32, one image
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

#include "kernels/cuda/gemm_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/row_norm.cuh"

namespace cpvt::cuda {
namespace {

using gemm::kChunkNumbers;
using gemm::kLine;
using gemm::kLineNumbers;

/// 16 bytes of memory that is 16-byte aligned; only the first `count` numbers are read, the others are zeros.
template <class T>
__device__ uint4 load_packed(const T* from, int count) {
  if (count >= kChunkNumbers<T>) return *reinterpret_cast<const uint4*>(from);
  T numbers[kChunkNumbers<T>];
#pragma unroll
  for (int e = 0; e < kChunkNumbers<T>; ++e) numbers[e] = e < count ? from[e] : from_float<T>(0);
  uint4 bits;
  memcpy(&bits, numbers, sizeof(bits));
  return bits;
}

/// Takes the bits by value: through a reference into memory they would be read number by number.
template <class T>
__device__ void unpack(uint4 bits, float (&v)[kChunkNumbers<T>]) {
  T numbers[kChunkNumbers<T>];
  memcpy(numbers, &bits, sizeof(bits));
#pragma unroll
  for (int e = 0; e < kChunkNumbers<T>; ++e) v[e] = to_float(numbers[e]);
}

/// As many floats as 16 bytes of T hold numbers.
template <int kCount>
__device__ void load_floats(const float* from, int count, float (&v)[kCount]) {
  if (count >= kCount) {
#pragma unroll
    for (int e = 0; e < kCount; e += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + e);
      v[e] = four.x, v[e + 1] = four.y, v[e + 2] = four.z, v[e + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int e = 0; e < kCount; ++e) v[e] = e < count ? from[e] : 0.0F;
  }
}

template <class T>
__device__ uint4 pack(const float (&v)[kChunkNumbers<T>]) {
  if constexpr (sizeof(T) == 4) {
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
  } else {
    return make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7]));
  }
}

/// x/2 (1 + erf(x / sqrt 2)). For 16 bits as max(x, 0) - |x| q with q = erfc(|x| / sqrt 2) / 2 from Abramowitz and
/// Stegun 7.1.26, wrong by at most 2.5e-7 |x|, which a rounding to 16 bits does not notice: erff takes twice the
/// instructions, more than the tensor cores take for the product where k is 192.
template <class T>
__device__ float gelu(float x) {
  if constexpr (sizeof(T) == 4) {
    return gelu_erf(x);
  } else {
    const float size = fabsf(x);
    float t;
    float power;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(size, 0.23164189F, 1.0F)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(size * -0.72134752F * size));
    float q = fmaf(t, 0.5307027145F, -0.7265760135F);
    q = fmaf(q, t, 0.7107068705F);
    q = fmaf(q, t, -0.142248368F);
    q = fmaf(q, t, 0.127414796F);
    return fmaf(-size, q * t * power, fmaxf(x, 0.0F));
  }
}

template <class T>
__device__ void store_packed(T* to, int count, const float (&v)[kChunkNumbers<T>]) {
  const uint4 bits = pack<T>(v);
  if (count >= kChunkNumbers<T>) {
    *reinterpret_cast<uint4*>(to) = bits;
  } else {
    T numbers[kChunkNumbers<T>];
    memcpy(numbers, &bits, sizeof(bits));
#pragma unroll
    for (int e = 0; e < kChunkNumbers<T>; ++e) {
      if (e < count) to[e] = numbers[e];
    }
  }
}

/// LayerNorm of the block's rows in shared memory, in place. A thread works on the chunks that load_lines let it bring,
/// so it has to wait for nobody; on all of its rows at a time, so that it reads gamma and beta once. Columns from k on
/// stay zeros.
///
/// The bits are those of row_norm.cuh with 32 lanes to a row. Here there are 8, each doing the work of four of
/// those: what it has of line q is lane + 8 (q % 4)'s.
template <class Product>
__device__ void normalise(char* rows, int pitch, const LinearArgs& args) {
  using T = typename Product::T;
  constexpr int kCount = kChunkNumbers<T>;
  constexpr int kStep = Product::kThreads / 8;
  constexpr int kMine = Product::kRows / kStep;
  const auto k = static_cast<int>(args.k);
  const int lane = static_cast<int>(threadIdx.x & 7);
  const int first = static_cast<int>(threadIdx.x >> 3);
  auto at = [&](int i, int line) {
    const int row = first + i * kStep;
    return reinterpret_cast<uint4*>(rows + row * pitch + line * kLine +
                                    gemm::chunk_offset(lane, typename Product::XKey()(row)));
  };
  // The sum of term(number, row, whether the number is inside the row) over each row.
  auto sum_of_rows = [&](float* sums, auto term) {
    float part[kMine][4] = {};
    for (int first_line = 0; first_line * kLineNumbers<T> < k; first_line += 4) {
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int column = (first_line + q) * kLineNumbers<T> + lane * kCount;
        if (column >= k) break;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          float x[kCount];
          unpack<T>(*at(i, first_line + q), x);
#pragma unroll
          for (int e = 0; e < kCount; ++e) part[i][q] = term(part[i][q], x[e], i, column + e < k);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kMine; ++i) sums[i] = group_sum<8>((part[i][0] + part[i][2]) + (part[i][1] + part[i][3]));
  };
  const float per_element = 1.0F / static_cast<float>(k);
  float mean[kMine];
  sum_of_rows(mean, [](float sum, float x, int, bool) { return sum + x; });
#pragma unroll
  for (float& v : mean) v *= per_element;
  float scale[kMine];
  sum_of_rows(scale, [&](float sum, float x, int i, bool inside) {
    const float d = inside ? x - mean[i] : 0.0F;
    return fmaf(d, d, sum);
  });
#pragma unroll
  for (float& v : scale) v = 1.0F / sqrtf(fmaf(v, per_element, args.eps));

  for (int column = lane * kCount, line = 0; column < k; column += kLineNumbers<T>, ++line) {
    const Affine<T> affine(args.gamma, args.beta, column, k);
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      float x[kCount];
      unpack<T>(*at(i, line), x);
#pragma unroll
      for (int e = 0; e < kCount; ++e) x[e] = fmaf((x[e] - mean[i]) * scale[i], affine.gamma[e], affine.beta[e]);
      *at(i, line) = pack<T>(x);
    }
  }
}

/// y = scale * activation(product + b) + residual on one tile. A thread reads what it will overwrite of the residual, a
/// whole column of chunks at a time, before it stores there.
template <class Product>
__device__ void store_tile(const Product& product, int64_t first_row, int64_t first_column, const LinearArgs& args) {
  using T = typename Product::T;
  constexpr int kCount = kChunkNumbers<T>;
  constexpr int kRows = Product::kThreadRows;
  constexpr int kStep = Product::kRowStep;
  first_row += Product::row();
  // Addresses are to be worked out from here on, not ahead of the main loop, where every register is taken.
  asm volatile("" : "+l"(first_row), "+l"(first_column));
  // To go; the i-th of this thread's rows exists where kStep * i < rows.
  const auto rows = static_cast<int>(min(args.rows - first_row, static_cast<int64_t>(Product::kRows)));
#pragma unroll
  for (int chunk = 0; chunk < Product::kThreadChunks; ++chunk) {
    const int64_t column = first_column + Product::column(chunk);
    const auto count = static_cast<int>(min(args.n - column, static_cast<int64_t>(kCount)));
    if (count <= 0) return;
    uint4 residual[kRows];
    if (args.residual != nullptr) {
      const T* from = static_cast<const T*>(args.residual) + first_row * args.residual_stride + column;
#pragma unroll
      for (int i = 0; i < kRows; ++i, from += kStep * args.residual_stride) {
        if (kStep * i < rows) residual[i] = load_packed(from, count);
      }
    }
    float bias[kCount];
    load_floats(args.bias + column, count, bias);
    T* to = static_cast<T*>(args.y) + first_row * args.y_stride + column;
#pragma unroll
    for (int i = 0; i < kRows; ++i, to += kStep * args.y_stride) {
      if (kStep * i >= rows) break;
      float v[kCount];
#pragma unroll
      for (int e = 0; e < kCount; ++e) v[e] = product.at(i, chunk, e) + bias[e];
      if (args.gelu) {
#pragma unroll
        for (int e = 0; e < kCount; ++e) v[e] = gelu<T>(v[e]);
      }
      float added[kCount] = {};
      if (args.residual != nullptr) unpack<T>(residual[i], added);
#pragma unroll
      for (int e = 0; e < kCount; ++e) v[e] = fmaf(args.scale, v[e], added[e]);
      store_packed(to, count, v);
    }
  }
}

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
    normalise<Product>(shared, whole_pitch, args);
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
    store_tile(product, first_row, static_cast<int64_t>(tile) * kColumns, args);
  }
}

/// The launcher's choices are of speed alone, and made for an H100: every one of them gives the same bits.
constexpr int64_t kProcessors = 132;

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
  return for_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    return args.gamma != nullptr ? run<T, true>(args, shared_limit(), stream)
                                 : run<T, false>(args, shared_limit(), stream);
  });
}

}  // namespace cpvt::cuda
