// y = (x - mean(x)) / sqrt(var(x) + eps) * gamma + beta, row by row.
//
// A warp takes two rows (one, where they are wide; 8 or 16 lanes take the pair where that many chunks of 16 bytes hold
// a row), reads them once into registers, 16 bytes a lane, and makes mean, variance about the mean and result from
// there. Each row is read and written once. gamma and beta are read again by every warp, out of the first-level cache:
// with two rows at a time twice (fp32: once) as many bytes as the rows. Limiter: memory for many rows; for few, the
// latency of one read and two butterflies. Counted by ptxsim in fp16: width 192: x and y 12 sectors a request (all of a
// row), 52 registers, 56 % occupancy; width 768: 16 sectors a request (all of 512 bytes), 94 registers, 31 %: 20 warps
// with two rows each, 60 KiB on their way in a multiprocessor at once, which covers the latency.

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layernorm.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_norm.cuh"

namespace cpvt::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kMostWidth = kWidestLayerNorm;

/// kLanes lanes have kChunks chunks each of each of kRows rows.
template <class T, int kLanes, int kChunks, int kRows>
__global__ void __launch_bounds__(kThreads)
    layernorm_rows(const T* x, int64_t x_stride, const float* gamma, const float* beta, float eps, T* y,
                   int64_t y_stride, int64_t rows, int width) {
  // No kernel writes gamma and beta: they come from DRAM while the one before ends.
  if (blockIdx.x == 0) {
    constexpr int kLine = 128 / sizeof(float);
    for (int c = static_cast<int>(threadIdx.x) * kLine; c < width; c += kThreads * kLine) {
      ptx::prefetch(gamma + c);
      ptx::prefetch(beta + c);
    }
  }
  ptx::follow_earlier_kernels();
  constexpr int kSize = Chunk<T>::kSize;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t first_row = (int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes) * kRows;

  Chunk<T> v[kRows][kChunks];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int here = first_row + r < rows ? width : 0;  // lanes without a row still take part in the butterflies
#pragma unroll
    for (int j = 0; j < kChunks; ++j) {
      v[r][j] = load_chunk(x + (first_row + r) * x_stride, (lane + j * kLanes) * kSize, here);
    }
  }
  Moments moments[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    moments[r] = row_moments<kLanes>(
        [&](auto f) {
#pragma unroll
          for (int j = 0; j < kChunks; ++j) for_each_element(v[r][j], (lane + j * kLanes) * kSize, width, f);
        },
        width, eps);
  }
#pragma unroll
  for (int j = 0; j < kChunks; ++j) {
    const int c = (lane + j * kLanes) * kSize;
    if (c >= width) break;
    const Affine<T> affine(gamma, beta, c, width);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first_row + r >= rows) break;
      Chunk<T> result;
#pragma unroll
      for (int e = 0; e < kSize; ++e) result.at[e] = affine(to_float(v[r][j].at[e]), moments[r], e);
      store_chunk(result, y + (first_row + r) * y_stride, c, width);
    }
  }
}

template <class T, int kLanes, int kChunks, int kRows>
int launch_rows(const LayerNormArgs& args, void* stream) {
  constexpr int64_t kRowsPerBlock = kThreads / kLanes * kRows;
  return launch(layernorm_rows<T, kLanes, kChunks, kRows>, dim3(ceil_div(args.rows, kRowsPerBlock)), dim3(kThreads), 0,
                stream, static_cast<const T*>(args.x), args.x_stride, args.gamma, args.beta, args.eps,
                static_cast<T*>(args.y), args.y_stride, args.rows, static_cast<int>(args.width));
}

}  // namespace

int layernorm(const LayerNormArgs& args, void* stream) {
  if (args.width < 1 || args.width > kMostWidth) return cudaErrorInvalidValue;
  return for_dtype(args.dtype, [&](auto number) -> int {
    using T = decltype(number);
    const int64_t chunks = ceil_div(args.width, Chunk<T>::kSize);
    if (chunks <= 8) return launch_rows<T, 8, 1, 2>(args, stream);
    if (chunks <= 16) return launch_rows<T, 16, 1, 2>(args, stream);
    if (chunks <= 32) return launch_rows<T, 32, 1, 2>(args, stream);
    if (chunks <= 64) return launch_rows<T, 32, 2, 2>(args, stream);
    if (chunks <= 96) return launch_rows<T, 32, 3, 2>(args, stream);
    if (chunks <= 128) return launch_rows<T, 32, 4, 2>(args, stream);
    if (chunks <= 256) return launch_rows<T, 32, 8, 1>(args, stream);
    if (chunks <= 512) return launch_rows<T, 32, 16, 1>(args, stream);
    if constexpr (sizeof(T) == 4) return launch_rows<T, 32, 32, 1>(args, stream);
    return cudaErrorInvalidValue;  // not reached: 512 chunks of 16-bit numbers are the most
  });
}

}  // namespace cpvt::cuda
