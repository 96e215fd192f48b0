#pragma once

#include "kernels/cuda/gemm_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/row_norm.cuh"

/// What comes before and behind the product in every kernel of a linear layer: LayerNorm of rows in shared memory, and
/// the epilogue. Every one of them gives the same bits for the same product.
namespace cpvt::cuda::gemm {

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
/// Stegun 7.1.26, wrong by at most 2.5e-7 |x|: below fp16's rounding except in the negative tail (x < -3), where the
/// value itself is small beside all that the next product adds to it. erff takes twice the instructions, more than the
/// tensor cores take for the product where k is 192.
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

/// LayerNorm of kRows rows in shared memory, in place, by kThreads threads; `row_pitch` and `line_pitch` bytes from row
/// to row and from line to line. affine_of(column) has a chunk's gamma and beta. A thread works on the chunks that
/// load_lines let it bring, on all of its rows at a time, so that it reads gamma and beta once. It holds the numbers of
/// kHeldLines lines, which then are the most that there may be, in registers, or none. Columns from k on stay zeros.
///
/// The bits are those of row_norm.cuh with 32 lanes to a row. Here there are 8, each doing the work of four of
/// those: what it has of line q is lane + 8 (q % 4)'s.
template <class T, int kRows, int kThreads, int kHeldLines, class Key, class AffineOf>
__device__ void normalise(char* rows, int row_pitch, int line_pitch, const LinearArgs& args, Key key,
                          AffineOf affine_of) {
  constexpr int kCount = kChunkNumbers<T>;
  constexpr int kStep = kThreads / 8;
  constexpr int kMine = kRows / kStep;
  static_assert(kRows % kStep == 0);
  const auto k = static_cast<int>(args.k);
  const int lane = static_cast<int>(threadIdx.x & 7);
  const int first = static_cast<int>(threadIdx.x >> 3);
  auto at = [&](int i, int line) {
    const int row = first + i * kStep;
    return reinterpret_cast<uint4*>(rows + row * row_pitch + line * line_pitch + chunk_offset(lane, key(row)));
  };
  constexpr bool kHolds = kHeldLines > 0;
  float held[kMine][kHolds ? kHeldLines : 1][kCount];
  // The numbers of a chunk; with `held`, `line` is a constant where this is inlined.
  auto load = [&](int i, int line, float(&x)[kCount]) {
    if constexpr (kHolds) {
#pragma unroll
      for (int e = 0; e < kCount; ++e) x[e] = held[i][line][e];
    } else {
      unpack<T>(*at(i, line), x);
    }
  };
  if constexpr (kHolds) {
#pragma unroll
    for (int line = 0; line < kHeldLines; ++line) {
      if (line * kLineNumbers<T> + lane * kCount >= k) break;
#pragma unroll
      for (int i = 0; i < kMine; ++i) unpack<T>(*at(i, line), held[i][line]);
    }
  }
  // The sum of term(number, row, whether the number is inside the row) over each row.
  auto sum_of_rows = [&](float* sums, auto term) {
    float part[kMine][4] = {};
#pragma unroll(kHolds ? kHeldLines : 1)
    for (int first_line = 0; kHolds ? first_line < kHeldLines : first_line * kLineNumbers<T> < k; first_line += 4) {
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        if (kHolds && first_line + q >= kHeldLines) break;
        const int column = (first_line + q) * kLineNumbers<T> + lane * kCount;
        if (column >= k) break;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          float x[kCount];
          load(i, first_line + q, x);
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

#pragma unroll(kHolds ? kHeldLines : 1)
  for (int line = 0; kHolds ? line < kHeldLines : true; ++line) {
    const int column = line * kLineNumbers<T> + lane * kCount;
    if (column >= k) break;
    const auto affine = affine_of(column);
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      float x[kCount];
      load(i, line, x);
#pragma unroll
      for (int e = 0; e < kCount; ++e) x[e] = fmaf((x[e] - mean[i]) * scale[i], affine.gamma[e], affine.beta[e]);
      *at(i, line) = pack<T>(x);
    }
  }
}

/// y = scale * activation(product + b) + residual on one tile; bias(chunk, column, count, v) gives b of a chunk, which
/// all lanes of a warp ask for together. A thread reads what it will overwrite of the residual, kChunksAtOnce whole
/// columns of chunks at a time, before it stores there.
template <class Product, class Bias>
__device__ void store_tile(const Product& product, int64_t first_row, int64_t first_column, const LinearArgs& args,
                           Bias bias) {
  using T = typename Product::T;
  constexpr int kCount = kChunkNumbers<T>;
  constexpr int kRows = Product::kThreadRows;
  constexpr int kStep = Product::kRowStep;
  constexpr int kAtOnce = Product::kChunksAtOnce;
  static_assert(Product::kThreadChunks % kAtOnce == 0);
  first_row += Product::row();
  // Addresses are to be worked out from here on, not ahead of the main loop, where every register is taken.
  asm volatile("" : "+l"(first_row), "+l"(first_column));
  // To go; the i-th of this thread's rows exists where kStep * i < rows.
  const auto rows = static_cast<int>(min(args.rows - first_row, static_cast<int64_t>(Product::kRows)));
#pragma unroll
  for (int first = 0; first < Product::kThreadChunks; first += kAtOnce) {
    const int64_t column = first_column + Product::column(first);
    auto count_of = [&](int c) {
      return static_cast<int>(min(args.n - column - 32 * c, static_cast<int64_t>(kCount)));
    };
    if (count_of(0) <= 0) return;
    uint4 residual[kAtOnce][kRows];
    if (args.residual != nullptr) {
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) {
        const T* from = static_cast<const T*>(args.residual) + first_row * args.residual_stride + column + 32 * c;
#pragma unroll
        for (int i = 0; i < kRows; ++i, from += kStep * args.residual_stride) {
          if ((c == 0 || count_of(c) > 0) && kStep * i < rows) residual[c][i] = load_packed(from, count_of(c));
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kAtOnce; ++c) {
      if (c > 0 && count_of(c) <= 0) return;
      float b[kCount];
      bias(first + c, column + 32 * c, count_of(c), b);
      T* to = static_cast<T*>(args.y) + first_row * args.y_stride + column + 32 * c;
#pragma unroll
      for (int i = 0; i < kRows; ++i, to += kStep * args.y_stride) {
        if (kStep * i >= rows) break;
        float v[kCount];
#pragma unroll
        for (int e = 0; e < kCount; ++e) v[e] = product.at(i, first + c, e) + b[e];
        if (args.gelu) {
#pragma unroll
          for (int e = 0; e < kCount; ++e) v[e] = gelu<T>(v[e]);
        }
        float added[kCount] = {};
        if (args.residual != nullptr) unpack<T>(residual[c][i], added);
#pragma unroll
        for (int e = 0; e < kCount; ++e) v[e] = fmaf(args.scale, v[e], added[e]);
        store_packed(to, count_of(c), v);
      }
    }
  }
}

}  // namespace cpvt::cuda::gemm
