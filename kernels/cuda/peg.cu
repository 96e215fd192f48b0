// The positional encoding generator on token rows:
//   y[oy, ox, c] = x[oy, ox, c] + bias[c] + sum over dy, dx of w[dy, dx, c] x[oy + dy - k/2, ox + dx - k/2, c]
// summed in fp32 as bias, then the taps row by row (fmaf), x itself after the centre's row, and rounded once.
//
// A block takes a rectangle of one image's grid (up to 4 x 8; for k > 9, 16 x 16) and 64 channels (32 bytes of them).
// It fetches what the rectangle's outputs meet, and the weights, with 16-byte cp.async; columns beyond the grid become
// zeros there, rows beyond it are passed over. A thread sums a strip of 8 outputs, for k = 3 in two rows at once, of
// two neighbouring channels: each input that it reads from shared memory meets up to 8 outputs while it slides by.
// Lanes of a warp read neighbouring channels; where a warp holds several rows, their odd distance keeps them in
// different banks. A warp's stores are 128 (k > 9: 32) contiguous bytes a token.
//
// With `normed`, and k <= 9, a block goes through all channels of its rectangle, the next ones fetched meanwhile, keeps
// the results as stored, and its warps then normalise whole rows, writing y on the way. What does not fit in 99 KiB of
// shared memory (4 x 8 rows of 768 fp32 channels), and k > 9, where arithmetic hides everything else, takes a second
// launch over the same rectangles.
//
// Counted by ptxsim on images of 14 x 14 tokens and a class token, fp16, D = 192 and 768 alike unless told; y (and
// normed) written once, in full sectors; x fetched, from the second-level cache mostly, times its size:
//                        x fetched   sectors a request: loads, stores   registers   shared memory      occupancy
//   k = 3, batch 1            2.25        7.5           4.0 of 4            72        9,600 bytes         44 %
//   k = 3, batch 32           1.73        8.1           4.0 of 4            72        9,600               44 %
//   the same, normed          1.74       10.3          12.0 of 12 (D 192)   80       50,688 (D 192)       38 %
//                                        15.9          16.0 of 16 (D 768)   80       87,552 (D 768)       25 %
//   k = 27, batch 1           3.98        7.7           3.5 of 4            66       81,120               25 %
//   k = 27, batch 32          1.00        6.5           3.9 of 4            66       81,120               25 %
// No bank conflicts in any of these; 56 x 56 tokens and k = 27 have them in 1 of 20 shared reads, by warps that hold
// the end of one column of strips and the beginning of the next.
// Limiters: k = 3: issue and memory alike at a large batch (a thread's 2 x 8 outputs of two channels are about 800
// instructions, 288 of them fused multiply-adds); one chain of fetch, sum and store at batch 1. k = 27: fp32
// arithmetic, 128 of the inner loop's 181 instructions. Tried: one row a thread for k = 3 takes a seventh more
// instructions to sum.

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peg.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_norm.cuh"

namespace cpvt::cuda {
namespace {

constexpr int kStrip = 8;        // outputs that a thread sums side by side: neighbours in a grid row
constexpr int kSmallKernel = 9;  // up to here a rectangle is small enough for a block to keep all of its channels
constexpr int kNormBlocks = 8;   // of a rectangle, where its rows are normalised apart
constexpr int kNormThreads = 256;
constexpr size_t kSharedBytes = 99 * 1024;  // what every device since sm_80 has, and two blocks of the H100

__device__ inline float2 load_pair(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ inline float2 load_pair(const half* p) { return __half22float2(*reinterpret_cast<const __half2*>(p)); }
__device__ inline float2 load_pair(const bfloat16* p) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}

template <class T>
__device__ inline void store_pair(float2 v, T* to) {
  if constexpr (sizeof(T) == 4) {
    *reinterpret_cast<float2*>(to) = v;
  } else {
    *reinterpret_cast<uint32_t*>(to) = pack2<T>(v.x, v.y);
  }
}

__device__ inline void fma_pair(float2& sum, float2 a, float2 b) {
  sum.x = fmaf(a.x, b.x, sum.x);
  sum.y = fmaf(a.y, b.y, sum.y);
}

__device__ inline void add_pair(float2& sum, float2 a) {
  sum.x += a.x;
  sum.y += a.y;
}

template <class T>
struct Operands {
  const T* x;
  int64_t x_stride;
  const T* weight;
  int64_t weight_stride;
  const float* bias;
  int kernel;
  const PegTile* tiles;
  T* y;
  int64_t y_stride;
  const float* gamma;
  const float* beta;
  float eps;
  T* normed;
  int64_t normed_stride;
  int width;
};

/// How a block shares out a rectangle: each thread has two channels of a pass and a strip in each of kRows neighbouring
/// rows.
template <class T, int kKernel, int kPassBytes, bool kNormed>
struct Shape {
  static constexpr bool kLarge = kPassBytes == 32;
  static constexpr PegTileSize kTile = peg_largest_tile(kLarge ? kSmallKernel + 2 : kSmallKernel);
  static constexpr int kRows = kKernel > 0 && !kNormed ? 2 : 1;
  static constexpr int kChannels = kPassBytes / sizeof(T);
  static constexpr int kLanes = kChannels / 2;
  static constexpr int kThreads = kTile.height / kRows * kTile.width / kStrip * kLanes;
  static constexpr int kBlocks = kRows > 1 ? 8 : kThreads > 128 && kNormed ? 3 : 1;  // at once, for the registers' sake
  // Of fetching: a thread has a chunk of every kColumns-th column and every kRowsApart-th row.
  static constexpr int kChunks = kPassBytes / 16;
  static constexpr int kRowsApart = kLarge ? kThreads / kChunks / 32 : 1;
  static constexpr int kColumns = kThreads / kChunks / kRowsApart;
};

/// What of one image a rectangle's outputs meet, as it lies in shared memory. Rows are those of the grid alone; columns
/// reach beyond it, as zeros, as far as a strip can that lies there but for one output; for unrolled kernels, which
/// leave out no tap, by their reach more.
struct Field {
  int top, left, rows, columns, pitch;

  __device__ Field(const PegTile& tile, int reach, bool unrolled) {
    const int height = static_cast<int>(tile.image.height);
    const int width = static_cast<int>(tile.image.width);
    const int strips = (tile.width + kStrip - 1) / kStrip;
    top = max(tile.top - reach, 0);
    rows = min(tile.top + tile.height + reach, height) - top;
    left = max(tile.left - reach, 1 - kStrip);
    columns = min(tile.left + strips * kStrip + reach, width + kStrip - 1 + (unrolled ? reach : 0)) - left;
    pitch = columns | 1;
  }
};

/// Adds the taps of an unrolled kernel to strips in kRows rows. `column` is where the first output's first tap meets
/// the field, of whose rows, counted from there, those of [first_row, end_row) exist.
template <int kKernel, int kRows, int kChannels, class T>
__device__ inline void add_unrolled(const T* column, int row_step, const T* weight, int first_row, int end_row,
                                    float2 (&sum)[kRows][kStrip]) {
  float2 w[kKernel][kKernel];
#pragma unroll
  for (int dy = 0; dy < kKernel; ++dy) {
#pragma unroll
    for (int dx = 0; dx < kKernel; ++dx) w[dy][dx] = load_pair(weight + (dy * kKernel + dx) * kChannels);
  }
#pragma unroll
  for (int iy = 0; iy < kKernel + kRows - 1; ++iy) {
    if (iy < first_row || iy >= end_row) continue;
    float2 x[kStrip + kKernel - 1];
#pragma unroll
    for (int j = 0; j < kStrip + kKernel - 1; ++j) x[j] = load_pair(column + iy * row_step + j * kChannels);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int dy = iy - r;
      if (dy < 0 || dy >= kKernel) continue;
#pragma unroll
      for (int dx = 0; dx < kKernel; ++dx) {
#pragma unroll
        for (int o = 0; o < kStrip; ++o) fma_pair(sum[r][o], w[dy][dx], x[o + dx]);
      }
      if (dy == kKernel / 2) {
#pragma unroll
        for (int o = 0; o < kStrip; ++o) add_pair(sum[r][o], x[o + kKernel / 2]);
      }
    }
  }
}

/// The same for any kernel and one row: a window of kStrip inputs slides over the taps [first, end) of each row; those
/// before and behind meet zeros only.
template <int kChannels, class T>
__device__ inline void add_sliding(const T* column, int row_step, const T* weight, int kernel, int first_row,
                                   int end_row, int first, int end, float2 (&sum)[kStrip]) {
  for (int dy = first_row; dy < end_row; ++dy) {
    const T* row = column + dy * row_step + first * kChannels;
    const T* w = weight + (dy * kernel + first) * kChannels;
    float2 x[kStrip];
#pragma unroll
    for (int j = 0; j < kStrip - 1; ++j) x[j] = load_pair(row + j * kChannels);
    const auto add_tap = [&](int t) {  // t: a constant, once unrolled
      x[(t + kStrip - 1) % kStrip] = load_pair(row + (t + kStrip - 1) * kChannels);
      const float2 tap = load_pair(w + t * kChannels);
#pragma unroll
      for (int o = 0; o < kStrip; ++o) fma_pair(sum[o], tap, x[(t + o) % kStrip]);
    };
    int left = end - first;
    for (; left >= kStrip; left -= kStrip, row += kStrip * kChannels, w += kStrip * kChannels) {
#pragma unroll
      for (int t = 0; t < kStrip; ++t) add_tap(t);
    }
#pragma unroll
    for (int t = 0; t < kStrip - 1; ++t) {
      if (t < left) add_tap(t);
    }
    if (dy == kernel / 2) {
      const T* centre = column + dy * row_step + kernel / 2 * kChannels;
#pragma unroll
      for (int o = 0; o < kStrip; ++o) add_pair(sum[o], load_pair(centre + o * kChannels));
    }
  }
}

/// A warp's LayerNorm of the rows first, first + step, ... of `count`: from(p) is where the p-th lies, token(p) which
/// row of the token matrix it is. kCopy: y receives the row as it is. Four rows at a time, for one reading of gamma and
/// beta.
template <bool kCopy, class T, class From, class Token>
__device__ inline void normalise_rows(const Operands<T>& args, int first, int step, int count, From from, Token token) {
  constexpr int kSize = Chunk<T>::kSize;
  constexpr int kRows = 4;
  const int width = args.width;
  const int first_element = static_cast<int>(threadIdx.x % 32) * kSize;
  for (; first < count; first += kRows * step) {
    const T* row[kRows];
    int64_t at[kRows];
    Moments moments[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int p = first + r * step;
      if (p >= count) break;
      row[r] = from(p);
      at[r] = token(p);
      moments[r] = row_moments<32>(
          [&](auto f) {
            for (int c = first_element; c < width; c += 32 * kSize) {
              for_each_element(load_chunk(row[r], c, width), c, width, f);
            }
          },
          width, args.eps);
    }
    for (int c = first_element; c < width; c += 32 * kSize) {
      const Affine<T> affine(args.gamma, args.beta, c, width);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (first + r * step >= count) break;
        Chunk<T> v = load_chunk(row[r], c, width);
        if constexpr (kCopy) store_chunk(v, args.y + at[r] * args.y_stride, c, width);
#pragma unroll
        for (int e = 0; e < kSize; ++e) v.at[e] = affine(to_float(v.at[e]), moments[r], e);
        store_chunk(v, args.normed + at[r] * args.normed_stride, c, width);
      }
    }
  }
}

template <class T>
__device__ inline void copy_chunk(const T* from, T* to, int c, int width) {
  if (c + Chunk<T>::kSize <= width) {
    *reinterpret_cast<uint4*>(to + c) = *reinterpret_cast<const uint4*>(from + c);
  } else {
    for (; c < width; ++c) to[c] = from[c];
  }
}

/// The p-th row of a rectangle, in the token matrix.
__device__ inline int64_t token_row(const PegTile& tile, int p) {
  const int row = p / tile.width;
  return tile.image.first_row + tile.image.prefix + (tile.top + row) * tile.image.width + tile.left + p -
         row * tile.width;
}

/// kKernel: the kernel's extent where it is unrolled, else 0.
template <class T, int kKernel, int kPassBytes, bool kNormed>
__global__ void __launch_bounds__(Shape<T, kKernel, kPassBytes, kNormed>::kThreads,
                                  Shape<T, kKernel, kPassBytes, kNormed>::kBlocks)
    peg_rectangles(const Operands<T> args) {
  ptx::follow_earlier_kernels();
  using Shape = Shape<T, kKernel, kPassBytes, kNormed>;
  constexpr int kChannels = Shape::kChannels;
  constexpr int kRows = Shape::kRows;
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  T* shared = reinterpret_cast<T*>(shared_bytes);
  const PegTile tile = args.tiles[blockIdx.x];
  const int thread = static_cast<int>(threadIdx.x);
  const int width = args.width;

  if (tile.width == 0) {
    if (blockIdx.y > 0) return;
    const auto token = [&](int p) { return tile.image.first_row + p; };
    const auto from = [&](int p) { return args.x + token(p) * args.x_stride; };
    const int count = static_cast<int>(tile.image.prefix);
    if constexpr (kNormed) {
      normalise_rows<true>(args, thread / 32, Shape::kThreads / 32, count, from, token);
    } else {
      for (int p = 0; p < count; ++p) {
        for (int c = thread * Chunk<T>::kSize; c < width; c += Shape::kThreads * Chunk<T>::kSize) {
          copy_chunk(from(p), args.y + token(p) * args.y_stride, c, width);
        }
      }
    }
    return;
  }

  const int grid_height = static_cast<int>(tile.image.height);
  const int grid_width = static_cast<int>(tile.image.width);
  const int64_t first_patch = tile.image.first_row + tile.image.prefix;
  const int kernel = kKernel > 0 ? kKernel : args.kernel;
  const int reach = kernel / 2;
  const Field field(tile, reach, kKernel > 0);
  const int row_step = field.pitch * kChannels;
  const int weights_at = field.rows * row_step;
  const int buffer_size = weights_at + kernel * kernel * kChannels;

  const auto fetch = [&](int pass, T* buffer) {
    const int chunk = thread % Shape::kChunks;
    const int place = thread / Shape::kChunks;
    const int c = pass * kChannels + chunk * Chunk<T>::kSize;
    if (c >= width) return;
    const int bytes = min(width - c, Chunk<T>::kSize) * static_cast<int>(sizeof(T));
    buffer += chunk * Chunk<T>::kSize;
    const int first_row = place / Shape::kColumns;
    const int64_t step = Shape::kRowsApart * grid_width * args.x_stride;
    for (int column = place % Shape::kColumns; column < field.columns; column += Shape::kColumns) {
      const int at = field.left + column;
      const bool inside = at >= 0 && at < grid_width;
      const T* from =
          args.x + (first_patch + (field.top + first_row) * grid_width + (inside ? at : 0)) * args.x_stride + c;
      T* to = buffer + first_row * row_step + column * kChannels;
      for (int row = first_row; row < field.rows; row += Shape::kRowsApart) {
        ptx::cp_async_16(to, from, inside ? bytes : 0);
        from += step;
        to += Shape::kRowsApart * row_step;
      }
    }
    constexpr int kTapsApart = Shape::kThreads / Shape::kChunks;
    const T* from = args.weight + place * args.weight_stride + c;
    T* to = buffer + weights_at + place * kChannels;
    for (int tap = place; tap < kernel * kernel; tap += kTapsApart) {
      ptx::cp_async_16(to, from, bytes);
      from += kTapsApart * args.weight_stride;
      to += kTapsApart * kChannels;
    }
  };

  // Neighbouring lanes have neighbouring channels, then neighbouring rows of the rectangle, then its strips.
  const int lane = thread % Shape::kLanes;
  const int bands = (tile.height + kRows - 1) / kRows;
  const int row = thread / Shape::kLanes % bands * kRows;
  const int strip = thread / Shape::kLanes / bands * kStrip;
  const int outputs = min(tile.width - strip, kStrip);  // <= 0: nothing to do
  const int oy = tile.top + row;
  const int ox = tile.left + strip;

  // Where the thread's first output goes, how far it is to its next and to the next row's: y, or with kNormed shared
  // memory, [rectangle's rows, width].
  const int results_stride = (width + Chunk<T>::kSize - 1) / Chunk<T>::kSize * Chunk<T>::kSize;
  T* results = shared + 2 * buffer_size;
  T* out;
  int64_t out_step, out_row_step;
  if constexpr (kNormed) {
    out = results + (row * tile.width + strip) * results_stride;
    out_step = results_stride;
    out_row_step = tile.width * out_step;
  } else {
    out = args.y + (first_patch + oy * grid_width + ox) * args.y_stride;
    out_step = args.y_stride;
    out_row_step = grid_width * out_step;
  }

  const int first_pass = static_cast<int>(blockIdx.y);
  const int end_pass = kNormed ? (width + kChannels - 1) / kChannels : first_pass + 1;
  fetch(first_pass, shared);
  ptx::cp_async_commit();
  for (int pass = first_pass; pass < end_pass; ++pass) {
    const T* buffer = shared + (pass - first_pass) % 2 * buffer_size;
    if (kNormed && pass + 1 < end_pass) fetch(pass + 1, shared + (pass + 1 - first_pass) % 2 * buffer_size);
    ptx::cp_async_commit();
    const int c = pass * kChannels + 2 * lane;
    const bool busy = outputs > 0 && c < width;
    // + 0: a bias of -0 would tell taps that are left out from taps that meet zeros, and so one cut from another.
    const float2 bias = {(busy ? args.bias[c] : 0.0F) + 0.0F, (busy && c + 1 < width ? args.bias[c + 1] : 0.0F) + 0.0F};
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (busy) {
      float2 sum[kRows][kStrip];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int o = 0; o < kStrip; ++o) sum[r][o] = bias;
      }
      const int above = oy - reach - field.top;  // field row of the first tap; negative where that is out of the grid
      const T* column = buffer + above * row_step + (ox - reach - field.left) * kChannels + 2 * lane;
      const T* weight = buffer + weights_at + 2 * lane;
      if constexpr (kKernel > 0) {
        add_unrolled<kKernel, kRows, kChannels>(column, row_step, weight, -above, field.rows - above, sum);
      } else {
        const int first_tap = max(reach - ox - (kStrip - 1), 0);
        const int end_tap = min(kernel, grid_width + reach - ox);
        add_sliding<kChannels>(column, row_step, weight, kernel, max(-above, 0), min(kernel, grid_height + reach - oy),
                               first_tap, end_tap, sum[0]);
      }
      const auto for_each_output = [&](auto store) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (row + r >= tile.height) break;
#pragma unroll
          for (int o = 0; o < kStrip; ++o) {
            if (o < outputs) store(sum[r][o], out + c + r * out_row_step + o * out_step);
          }
        }
      };
      if (c + 1 < width) {
        for_each_output([](float2 v, T* to) { store_pair(v, to); });
      } else {
        for_each_output([](float2 v, T* to) { *to = from_float<T>(v.x); });
      }
    }
    if constexpr (kNormed) __syncthreads();  // the buffer is free again; after the last pass, the results are whole
  }

  if constexpr (kNormed) {
    normalise_rows<true>(
        args, thread / 32, Shape::kThreads / 32, tile.height * tile.width,
        [&](int p) { return results + p * results_stride; }, [&](int p) { return token_row(tile, p); });
  }
}

/// normed = LayerNorm(y), for kernels and widths whose results no block can keep.
template <class T>
__global__ void __launch_bounds__(kNormThreads) peg_norm(const Operands<T> args) {
  ptx::follow_earlier_kernels();
  const PegTile tile = args.tiles[blockIdx.x];
  const int rows = tile.width == 0 ? static_cast<int>(tile.image.prefix) : tile.height * tile.width;
  const auto token = [&](int p) { return tile.width == 0 ? tile.image.first_row + p : token_row(tile, p); };
  normalise_rows<false>(
      args, (static_cast<int>(blockIdx.y) * kNormThreads + static_cast<int>(threadIdx.x)) / 32,
      kNormBlocks * kNormThreads / 32, rows, [&](int p) { return args.y + token(p) * args.y_stride; }, token);
}

/// A pass of the largest rectangle: its field and the weights.
constexpr size_t buffer_bytes(int kernel, size_t pass_bytes) {
  const PegTileSize size = peg_largest_tile(kernel);
  const int pitch = (size.width + kernel - 1) | 1;
  return static_cast<size_t>((size.height + kernel - 1) * pitch + kernel * kernel) * pass_bytes;
}

template <class T, int kKernel, int kPassBytes, bool kNormed>
int launch_rectangles(const Operands<T>& operands, int tile_count, size_t shared_bytes, void* stream) {
  using Shape = Shape<T, kKernel, kPassBytes, kNormed>;
  const auto passes = static_cast<unsigned>(ceil_div(operands.width, Shape::kChannels));
  return launch(peg_rectangles<T, kKernel, kPassBytes, kNormed>, dim3(tile_count, kNormed ? 1 : passes),
                dim3(Shape::kThreads), shared_bytes, stream, operands);
}

}  // namespace

int peg(const PegArgs& args, void* stream) {
  if (args.kernel < 3 || args.kernel > 27 || args.kernel % 2 == 0) return cudaErrorInvalidValue;
  return for_dtype(args.dtype, [&](auto number) -> int {
    using T = decltype(number);
    const Operands<T> operands{static_cast<const T*>(args.x),
                               args.x_stride,
                               static_cast<const T*>(args.weight),
                               row_stride(args.width, args.dtype),
                               args.bias,
                               args.kernel,
                               args.tiles,
                               static_cast<T*>(args.y),
                               args.y_stride,
                               args.gamma,
                               args.beta,
                               args.eps,
                               static_cast<T*>(args.normed),
                               args.normed_stride,
                               static_cast<int>(args.width)};
    const PegTileSize size = peg_largest_tile(args.kernel);
    const int count = args.tile_count;
    // Normalising in the same pass pays where a block can keep the rows of a rectangle, and the rectangle is small.
    const size_t shared_bytes = 2 * buffer_bytes(args.kernel, args.kernel == 3 ? 256 : 128) +
                                static_cast<size_t>(size.height * size.width * operands.weight_stride) * sizeof(T);
    if (args.normed != nullptr && args.kernel <= kSmallKernel && shared_bytes <= kSharedBytes) {
      return args.kernel == 3 ? launch_rectangles<T, 3, 256, true>(operands, count, shared_bytes, stream)
                              : launch_rectangles<T, 0, 128, true>(operands, count, shared_bytes, stream);
    }
    constexpr int kSmall = 64 * sizeof(T);
    int error = cudaSuccess;
    if (args.kernel == 3) {
      error = launch_rectangles<T, 3, kSmall, false>(operands, count, buffer_bytes(3, kSmall), stream);
    } else if (args.kernel <= kSmallKernel) {
      error = launch_rectangles<T, 0, kSmall, false>(operands, count, buffer_bytes(args.kernel, kSmall), stream);
    } else {
      error = launch_rectangles<T, 0, 32, false>(operands, count, buffer_bytes(args.kernel, 32), stream);
    }
    if (error != cudaSuccess || args.normed == nullptr) return error;
    return launch(peg_norm<T>, dim3(args.tile_count, kNormBlocks), dim3(kNormThreads), 0, stream, operands);
  });
}

}  // namespace cpvt::cuda
