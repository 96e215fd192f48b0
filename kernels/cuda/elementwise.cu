// y = gelu(x), and y = x + scale * table.
//
// Layout: rows of `width` numbers, rows 16-byte aligned. A thread takes one vector of a row: 16 bytes for GELU; for the
// position table four numbers, so that the table's four floats are one 16-byte access and x's are contiguous over a
// warp. Vectors are numbered through all rows (positions: through the 16 rows of a PositionTile, so that blocks follow
// the rows of a ragged batch), which fills blocks whatever the width; the last of a row may be partial.
// Every byte moves once, in full sectors: 16 to a request for GELU, 8 (of 16-bit numbers) and 16 for positions. 24 to
// 32 registers, no shared memory. Limiter: DRAM.
// These passes are what is left when no product can take them as its epilogue.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace cpvt::cuda {
namespace {

constexpr int kThreads = 256;

/// `N` neighbours of a row.
template <class T, int N>
struct alignas(N * sizeof(T)) Vector {
  T at[N];
};

/// y[c .. c + N) = f(x[c + i], i), those of them that are in the row.
template <int N, class T, class F>
__device__ void map_vector(const T* x, T* y, int64_t c, int64_t width, F f) {
  if (c + N <= width) {
    auto v = *reinterpret_cast<const Vector<T, N>*>(x + c);
#pragma unroll
    for (int i = 0; i < N; ++i) v.at[i] = from_float<T>(f(to_float(v.at[i]), i));
    *reinterpret_cast<Vector<T, N>*>(y + c) = v;
  } else {
    for (int i = 0; c + i < width; ++i) y[c + i] = from_float<T>(f(to_float(x[c + i]), i));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) gelu_rows(const T* x, int64_t x_stride, T* y, int64_t y_stride,
                                                      uint32_t rows, int64_t width, uint32_t vectors_per_row) {
  ptx::follow_earlier_kernels();
  constexpr int kSize = Chunk<T>::kSize;
  const uint32_t vector = blockIdx.x * kThreads + threadIdx.x;
  const uint32_t row = vector / vectors_per_row;
  if (row >= rows) return;
  const int64_t c = static_cast<int64_t>(vector - row * vectors_per_row) * kSize;
  map_vector<kSize>(x + row * x_stride, y + row * y_stride, c, width, [](float v, int) { return gelu_erf(v); });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_position_rows(const T* x, int64_t x_stride, const float* tables, const PositionTile* tiles, float scale, T* y,
                      int64_t y_stride, int64_t width, uint32_t vectors_per_row) {
  ptx::follow_earlier_kernels();
  constexpr int kSize = 4;
  const PositionTile tile = tiles[blockIdx.x];
  const uint32_t vector = blockIdx.y * kThreads + threadIdx.x;
  const uint32_t row = vector / vectors_per_row;
  if (row >= tile.rows) return;
  const int64_t c = static_cast<int64_t>(vector - row * vectors_per_row) * kSize;
  const float* table = tables + tile.offset + row * width + c;
  const int64_t at = tile.first_row + row;
  // A table is dense: whether its rows are aligned depends on the width and on where it begins.
  if (c + kSize <= width && reinterpret_cast<uintptr_t>(table) % 16 == 0) {
    const auto t = *reinterpret_cast<const Vector<float, kSize>*>(table);
    map_vector<kSize>(x + at * x_stride, y + at * y_stride, c, width,
                      [&](float v, int i) { return fmaf(scale, t.at[i], v); });
  } else {
    map_vector<kSize>(x + at * x_stride, y + at * y_stride, c, width,
                      [&](float v, int i) { return fmaf(scale, table[i], v); });
  }
}

/// Vectors are numbered in 32 bits.
bool too_many(int64_t rows, int64_t vectors_per_row) { return rows * vectors_per_row > INT32_MAX; }

}  // namespace

int gelu(const GeluArgs& a, void* stream) {
  return for_dtype(a.dtype, [&](auto number) -> int {
    using T = decltype(number);
    const int64_t vectors = ceil_div(a.width, Chunk<T>::kSize);
    if (too_many(a.rows, vectors)) return cudaErrorInvalidValue;
    return launch(gelu_rows<T>, static_cast<unsigned>(ceil_div(a.rows * vectors, kThreads)), kThreads, 0, stream,
                  static_cast<const T*>(a.x), a.x_stride, static_cast<T*>(a.y), a.y_stride,
                  static_cast<uint32_t>(a.rows), a.width, static_cast<uint32_t>(vectors));
  });
}

int add_position(const AddPositionArgs& a, void* stream) {
  return for_dtype(a.dtype, [&](auto number) -> int {
    using T = decltype(number);
    const int64_t vectors = ceil_div(a.width, 4);
    if (too_many(kPositionRows, vectors)) return cudaErrorInvalidValue;
    const dim3 grid(static_cast<unsigned>(a.tile_count),
                    static_cast<unsigned>(ceil_div(kPositionRows * vectors, kThreads)));
    return launch(add_position_rows<T>, grid, kThreads, 0, stream, static_cast<const T*>(a.x), a.x_stride, a.tables,
                  a.tiles, a.scale, static_cast<T*>(a.y), a.y_stride, a.width, static_cast<uint32_t>(vectors));
  });
}

}  // namespace cpvt::cuda
