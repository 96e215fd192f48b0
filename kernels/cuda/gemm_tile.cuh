#pragma once

#include "kernels/cuda/number.cuh"
#include "kernels/cuda/ptx.cuh"

/// The inner part of a matrix product x w^T on one block: tiles of x and w in shared memory, their product in
/// registers.
///
/// Both operands lie in shared memory as lines: 128 bytes of a row, 64 numbers of 16 bits or 32 of fp32, one step of
/// the product. A line spans all 32 banks; its eight 16-byte chunks are permuted by chunk ^ key(row), with the key
/// chosen so that the eight rows which are read together have eight different ones. A row's 8 chunks are written
/// together. Neither reads nor writes conflict.
///
/// Columns of the product are dealt to the threads so that one ends up with 16 bytes of neighbours as they will be
/// stored: which row of w stands behind a fragment's column is free to choose. So the results go from the registers
/// straight to global memory, in full sectors.
namespace cpvt::cuda::gemm {

constexpr int kLine = 128;
constexpr int kChunk = 16;

template <class T>
constexpr int kLineNumbers = kLine / static_cast<int>(sizeof(T));
template <class T>
constexpr int kChunkNumbers = kChunk / static_cast<int>(sizeof(T));

/// Where a chunk of a line lies.
__device__ inline int chunk_offset(int chunk, int key) { return (chunk ^ key) * kChunk; }

/// Brings columns [column, column + a line) of kRows rows to shared memory, `pitch` bytes from line to line. Rows from
/// `rows` on and columns from `width` on become zeros. Thread t brings chunk t % 8 of rows t / 8, t / 8 + kThreads
/// / 8...
template <int kRows, int kThreads, class Key, class T>
__device__ void load_lines(char* lines, int pitch, const T* from, int64_t stride, int64_t rows, int64_t column,
                           int64_t width, Key key) {
  constexpr int kRowsAtOnce = kThreads / 8;
  static_assert(kRows % kRowsAtOnce == 0);
  const int chunk = static_cast<int>(threadIdx.x & 7);
  const int first = static_cast<int>(threadIdx.x >> 3);
  const T* source = from + first * stride + column + chunk * kChunkNumbers<T>;
  auto bring = [&](auto valid) {
#pragma unroll
    for (int i = 0; i < kRows / kRowsAtOnce; ++i) {
      const int row = first + i * kRowsAtOnce;
      ptx::cp_async_16(lines + row * pitch + chunk_offset(chunk, key(row)), source, valid(row));
      source += kRowsAtOnce * stride;
    }
  };
  if (rows >= kRows && column + kLineNumbers<T> <= width) {
    bring([](int) { return kChunk; });
  } else {
    // Where no byte is wanted the address may be anything.
    const int64_t left = (width - column) * static_cast<int64_t>(sizeof(T)) - chunk * kChunk;
    const int bytes = left >= kChunk ? kChunk : left > 0 ? static_cast<int>(left) : 0;
    bring([&](int row) { return row < rows ? bytes : 0; });
  }
}

/// 16-bit products on the tensor cores, mma m16n8k16: a block of kWarpsDown x kWarpsAcross warps, each with a tile of
/// multiples of 16 rows and 32 columns. Every element is summed over k in steps of 16, in order, whatever the tile.
///
/// Thread l of a warp holds rows l/4 + 8i and, of each 32 columns, 8(l%4)..8(l%4)+7: column c of the j-th of their four
/// fragments is column 8(c/2) + 2j + c%2 of the tile.
template <class T_, int kRows_, int kColumns_, int kWarpsDown, int kWarpsAcross>
class TensorProduct {
 public:
  using T = T_;
  static constexpr int kRows = kRows_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kThreads = 32 * kWarpsDown * kWarpsAcross;

  static constexpr int kThreadRows = kRows / kWarpsDown / 8;
  static constexpr int kThreadChunks = kColumns / kWarpsAcross / 32;
  static constexpr int kRowStep = 8;
  static constexpr int kChunksAtOnce = 1;  // of the epilogue: every register is taken
  __device__ static int row() { return first_row() + lane() / 4; }
  __device__ static int column(int chunk) { return first_column() + 32 * chunk + 8 * (lane() % 4); }
  __device__ float at(int i, int chunk, int e) const { return sum_[i / 2][4 * chunk + e / 2][i % 2 * 2 + e % 2]; }

  struct XKey {
    __device__ int operator()(int row) const { return row & 7; }
  };
  struct WKey {
    __device__ int operator()(int row) const { return (row >> 2 & 6) | (row & 1); }
  };

  __device__ void clear() {
#pragma unroll
    for (auto& row : sum_) {
#pragma unroll
      for (auto& tile : row) {
#pragma unroll
        for (float& v : tile) v = 0;
      }
    }
  }

  /// Adds the product of one line of every row of x and of w.
  __device__ void step(const char* x, int x_pitch, const char* w) {
    // The keys of the rows that this lane points at, and which half of a fragment's 16 columns of k.
    const int key = lane() % 8;
    const int x_half = lane() / 16;
    const int w_half = lane() / 8 % 2;
    x += (first_row() + lane() % 16) * x_pitch;
    w += (first_column() + key / 2 * 8 + key % 2 + lane() / 16 * 2) * kLine;
    // While the tensor cores work on one step of 16, the next one's fragments arrive.
    uint32_t a[2][kTiles][4];
    uint32_t b[2][2 * kThreadChunks][4];
    auto fetch = [&](int k16) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        ptx::ldmatrix_x4(a[k16 % 2][i], x + 16 * i * x_pitch + chunk_offset(2 * k16 + x_half, key));
      }
#pragma unroll
      for (int pair = 0; pair < 2 * kThreadChunks; ++pair) {
        const int row = pair / 2 * 32 + pair % 2 * 4;
        ptx::ldmatrix_x4(b[k16 % 2][pair], w + row * kLine + chunk_offset(2 * k16 + w_half, key));
      }
    };
    fetch(0);
#pragma unroll
    for (int k16 = 0; k16 < 4; ++k16) {
      if (k16 < 3) fetch(k16 + 1);
#pragma unroll
      for (int pair = 0; pair < 2 * kThreadChunks; ++pair) {
        const auto& w16 = b[k16 % 2][pair];
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          ptx::mma_16x8x16<T>(sum_[i][2 * pair], a[k16 % 2][i], w16[0], w16[1]);
          ptx::mma_16x8x16<T>(sum_[i][2 * pair + 1], a[k16 % 2][i], w16[2], w16[3]);
        }
      }
    }
  }

 private:
  static constexpr int kTiles = kRows / kWarpsDown / 16;  // of 16 rows
  static_assert(kRows % (16 * kWarpsDown) == 0 && kColumns % (32 * kWarpsAcross) == 0);

  __device__ static int lane() { return static_cast<int>(threadIdx.x & 31); }
  __device__ static int first_row() { return static_cast<int>(threadIdx.x >> 5) % kWarpsDown * (kRows / kWarpsDown); }
  __device__ static int first_column() {
    return static_cast<int>(threadIdx.x >> 5) / kWarpsDown * (kColumns / kWarpsAcross);
  }

  float sum_[kTiles][4 * kThreadChunks][4];
};

/// fp32 products by fused multiply-adds, one k after the other: a warp of 4 x 8 threads, each with kThreadRows rows and
/// kThreadColumns columns.
///
/// Thread l of a warp holds rows l/8 + 4i and, of each 32 columns, 4(l%8)..4(l%8)+3.
template <int kRows_, int kColumns_, int kThreadRows_, int kThreadColumns>
class FloatProduct {
 public:
  using T = float;
  static constexpr int kRows = kRows_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kThreads = kRows * kColumns / (kThreadRows_ * kThreadColumns);

  static constexpr int kThreadRows = kThreadRows_;
  static constexpr int kThreadChunks = kThreadColumns / 4;
  static constexpr int kRowStep = 4;
  static constexpr int kChunksAtOnce = 1;
  __device__ static int row() { return first_row() + lane() / 8; }
  __device__ static int column(int chunk) { return first_column() + 32 * chunk + 4 * (lane() % 8); }
  __device__ float at(int i, int chunk, int e) const { return sum_[i][4 * chunk + e]; }

  struct XKey {
    __device__ int operator()(int row) const { return row & 7; }
  };
  struct WKey {
    __device__ int operator()(int row) const { return row >> 2 & 7; }
  };

  __device__ void clear() {
#pragma unroll
    for (auto& row : sum_) {
#pragma unroll
      for (float& v : row) v = 0;
    }
  }

  /// Adds the product of one line of every row of x and of w.
  __device__ void step(const char* x, int x_pitch, const char* w) {
#pragma unroll 2
    for (int chunk = 0; chunk < 8; ++chunk) {
      float4 a[kThreadRows];
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const int r = row() + kRowStep * i;
        a[i] = *reinterpret_cast<const float4*>(x + r * x_pitch + chunk_offset(chunk, XKey()(r)));
      }
#pragma unroll
      for (int j = 0; j < kThreadColumns; ++j) {
        const int c = column(j / 4) + j % 4;
        const float4 b = *reinterpret_cast<const float4*>(w + c * kLine + chunk_offset(chunk, WKey()(c)));
#pragma unroll
        for (int i = 0; i < kThreadRows; ++i) {
          float& sum = sum_[i][j];
          sum = fmaf(a[i].x, b.x, sum);
          sum = fmaf(a[i].y, b.y, sum);
          sum = fmaf(a[i].z, b.z, sum);
          sum = fmaf(a[i].w, b.w, sum);
        }
      }
    }
  }

 private:
  static constexpr int kWarpsDown = kRows / (4 * kThreadRows);
  static_assert(kRows % (4 * kThreadRows) == 0 && kColumns % (8 * kThreadColumns) == 0 && kThreadColumns % 4 == 0);

  __device__ static int lane() { return static_cast<int>(threadIdx.x & 31); }
  __device__ static int first_row() { return static_cast<int>(threadIdx.x >> 5) % kWarpsDown * (4 * kThreadRows); }
  __device__ static int first_column() {
    return static_cast<int>(threadIdx.x >> 5) / kWarpsDown * (8 * kThreadColumns);
  }

  float sum_[kThreadRows][kThreadColumns];
};

}  // namespace cpvt::cuda::gemm
