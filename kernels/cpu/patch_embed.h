#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/tile_gemm.h"
#include "kernels/token_grid.h"

namespace cpvt::cpu {

/// One image of a batch: pixels [channels, height, width], contiguous. Pixels right of and below the last whole patch
/// are not read into anything, as with a convolution whose stride is its kernel.
struct Image {
  const float* pixels = nullptr;
  int64_t height = 0;
  int64_t width = 0;
};

/// Patches to token rows: a convolution with kernel = stride = patch, its weight packed once. Immutable, like
/// PackedLinear.
class PackedPatchEmbed {
 public:
  /// weight: [width, channels, patch, patch]; bias: [width] or null. Both are copied.
  PackedPatchEmbed(const float* weight, const float* bias, int64_t width, int64_t channels, int64_t patch);

  /// Image i goes to the rows of grids[i], where grids[i].height = images[i].height / patch, and width alike.
  /// class_token: [width], written to the first prefix row of each image; null writes no prefix row.
  /// y: [T, width], y_stride >= width, in floats. workspace: workspace_floats(pool.threads()).
  void run(std::span<const Image> images, std::span<const TokenGrid> grids, const float* class_token, float* y,
           int64_t y_stride, float* workspace, ThreadPool& pool) const;

  int64_t workspace_floats(int threads) const;
  size_t bytes() const { return gemm_.bytes(); }

 private:
  TileGemm gemm_;
  int64_t channels_;
  int64_t patch_;
};

}  // namespace cpvt::cpu
