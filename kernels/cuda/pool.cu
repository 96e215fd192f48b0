// An image's rows to one: y = norm(x[first row]), or y = mean over the patch rows of norm(x), norm being the identity
// where gamma is null.
//
// The mean has two stages, for one image must not be the work of one block:
//   sum_row_chunks   block (chunk of 16 patch rows of one image: PoolTile), 8 warps. A warp normalises and adds the
//                    chunk's rows warp and warp + 8; then the eight warps' sums are added in order and go to the
//                    workspace in fp32, [image, chunk, width].
//   mean_of_chunks   a thread per column and image adds the chunks in order, divides and rounds.
// gamma and beta are the same for all rows and so are applied to the mean, once: mean(gamma n + beta) = gamma mean(n) +
// beta. Statistics are a warp's: mean, then variance about it, then the sums; x comes from DRAM once, a row of 1.5 KiB
// stays in the first-level cache for its second and third reading.
// The order of every sum depends on the image's grid alone.
// Shared memory: 9 KiB, four floats of padding every 32 so that the lanes' 16-byte stores (8 floats apart in 16-bit
// types) meet no bank conflicts. 32 to 46 registers. Rows are read in full sectors, 16 to a request at multiples of 256
// (fp32: 128) columns. Limiter: DRAM for large batches, latency for one image (13 + 6 blocks at 196 x 768).
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pool.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_norm.cuh"

namespace cpvt::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRowsPerWarp = kPoolChunk / kWarps;
constexpr int kFinalThreads = 128;

template <class T>
constexpr int kWarpColumns = 32 * Chunk<T>::kSize;

/// The first of each kWarpColumns<T> columns that this lane has.
template <class T>
__device__ int lane_column() {
  return static_cast<int>(threadIdx.x) % 32 * Chunk<T>::kSize;
}

/// By one warp.
template <class T>
__device__ Moments moments_of(const T* row, int width, float eps) {
  return row_moments<32>(
      [&](auto f) {
        for (int c = lane_column<T>(); c < width; c += kWarpColumns<T>) {
          for_each_element(load_chunk(row, c, width), c, width, f);
        }
      },
      width, eps);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    class_rows(const T* x, int64_t x_stride, const float* gamma, const float* beta, float eps, const TokenGrid* images,
               int image_count, T* y, int64_t y_stride, int width) {
  ptx::follow_earlier_kernels();
  const int image = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (image >= image_count) return;
  const T* const row = x + images[image].first_row * x_stride;
  const Moments moments = gamma != nullptr ? moments_of(row, width, eps) : Moments{};
  for (int c = lane_column<T>(); c < width; c += kWarpColumns<T>) {
    Chunk<T> v = load_chunk(row, c, width);
    if (gamma != nullptr) {
      const Affine<T> affine(gamma, beta, c, width);
#pragma unroll
      for (int e = 0; e < Chunk<T>::kSize; ++e) v.at[e] = affine(to_float(v.at[e]), moments, e);
    }
    store_chunk(v, y + image * y_stride, c, width);
  }
}

/// pool_first_sum, for the device.
__device__ inline int64_t first_sum(int64_t image, const TokenGrid& grid) {
  return grid.first_row / kPoolChunk + image;
}

template <class T>
__global__ void __launch_bounds__(kThreads) sum_row_chunks(const T* x, int64_t x_stride, bool normalise, float eps,
                                                           const PoolTile* tiles, float* sums, int width) {
  ptx::follow_earlier_kernels();
  constexpr int kSize = Chunk<T>::kSize;
  constexpr int kUnits = kWarpColumns<T> / 4;
  __shared__ float4 of_warp[kWarps][kUnits + kUnits / 8];  // a unit of padding after every eight
  const PoolTile tile = tiles[blockIdx.x];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const T* row[kRowsPerWarp];  // null where the image has ended
  Moments moments[kRowsPerWarp];
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const int i = r * kWarps + warp;
    row[r] = i < tile.rows ? x + (tile.first_row + i) * x_stride : nullptr;
    moments[r] = normalise && row[r] != nullptr ? moments_of(row[r], width, eps) : Moments{.mean = 0, .scale = 1};
  }
  float* const to = sums + int64_t{tile.sums} * width;
  for (int begin = 0; begin < width; begin += kWarpColumns<T>) {
    const int c = begin + lane_column<T>();
    float sum[kSize] = {};
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {
      if (c >= width || row[r] == nullptr) continue;
      const Chunk<T> v = load_chunk(row[r], c, width);
#pragma unroll
      for (int e = 0; e < kSize; ++e) sum[e] += (to_float(v.at[e]) - moments[r].mean) * moments[r].scale;
    }
#pragma unroll
    for (int i = 0; i < kSize / 4; ++i) {
      const int unit = lane_column<T>() / 4 + i;
      of_warp[warp][unit + unit / 8] = make_float4(sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]);
    }
    __syncthreads();
    const int column = static_cast<int>(threadIdx.x);
    if (column < kWarpColumns<T> && begin + column < width) {
      float total = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += reinterpret_cast<const float*>(of_warp[w])[column + column / 32 * 4];
      to[begin + column] = total;
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(kFinalThreads)
    mean_of_chunks(const float* sums, const float* gamma, const float* beta, const TokenGrid* images, T* y,
                   int64_t y_stride, int64_t width) {
  ptx::follow_earlier_kernels();
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kFinalThreads + threadIdx.x;
  if (c >= width) return;
  const TokenGrid grid = images[blockIdx.y];
  const int64_t patches = grid.height * grid.width;
  const float* from = sums + first_sum(blockIdx.y, grid) * width + c;
  float sum = 0;
  for (int64_t chunk = 0; chunk * kPoolChunk < patches; ++chunk) sum += from[chunk * width];
  float mean = sum / static_cast<float>(patches);
  if (gamma != nullptr) mean = fmaf(mean, gamma[c], beta[c]);
  y[blockIdx.y * y_stride + c] = from_float<T>(mean);
}

}  // namespace

int pool(const PoolArgs& a, void* stream) {
  return for_dtype(a.dtype, [&](auto number) -> int {
    using T = decltype(number);
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    const auto images = static_cast<unsigned>(a.image_count);
    const auto width = static_cast<int>(a.width);
    if (!a.mean) {
      return launch(class_rows<T>, static_cast<unsigned>(ceil_div(a.image_count, kWarps)), kThreads, 0, stream, x,
                    a.x_stride, a.gamma, a.beta, a.eps, a.images, a.image_count, y, a.y_stride, width);
    }
    const int error = launch(sum_row_chunks<T>, static_cast<unsigned>(a.tile_count), kThreads, 0, stream, x, a.x_stride,
                             a.gamma != nullptr, a.eps, a.tiles, a.workspace, width);
    if (error != cudaSuccess) return error;
    return launch(mean_of_chunks<T>, dim3(static_cast<unsigned>(ceil_div(a.width, kFinalThreads)), images),
                  kFinalThreads, 0, stream, a.workspace, a.gamma, a.beta, a.images, y, a.y_stride, a.width);
  });
}

}  // namespace cpvt::cuda
