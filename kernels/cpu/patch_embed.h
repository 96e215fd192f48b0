#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/tile_gemm.h"
#include "kernels/token_grid.h"

namespace cpvt::cpu {

/// One image of a batch, contiguous: normalised floats, or bytes. Pixels right of and below the last whole patch are
/// not read into anything, as with a convolution whose stride is its kernel.
struct Image {
  const float* floats = nullptr;  // [channels, height, width], or null
  int64_t height = 0;
  int64_t width = 0;
  const uint8_t* bytes = nullptr;  // [height, width, channels]
};

/// Patches to token rows: a convolution with kernel = stride = patch, its weight packed once. Immutable, like
/// PackedLinear.
class PackedPatchEmbed {
 public:
  /// weight: [width, channels, patch, patch]; bias: [width] or null. Both are copied. mean, std: [channels], how bytes
  /// are normalised, or empty where there are none.
  PackedPatchEmbed(const float* weight, const float* bias, int64_t width, int64_t channels, int64_t patch,
                   std::span<const float> mean = {}, std::span<const float> std = {});

  /// Image i goes to the rows of grids[i], where grids[i].height = images[i].height / patch, and width alike.
  /// class_token: [width], written to the first prefix row of each image; null writes no prefix row.
  /// y: [T, width], y_stride >= width, in floats. workspace: workspace_floats of all images' patches. Images are all
  /// floats or all bytes.
  void run(std::span<const Image> images, std::span<const TokenGrid> grids, const float* class_token, float* y,
           int64_t y_stride, float* workspace, ThreadPool& pool) const;

  int64_t workspace_floats(int64_t patches, int threads) const;
  size_t bytes() const { return gemm_.bytes() + pixels_.size() * sizeof(float); }

 private:
  /// The whole patches of images of bytes as floats, one image behind the other.
  std::vector<Image> normalise(std::span<const Image> images, std::span<const TokenGrid> grids, float* floats,
                               ThreadPool& pool) const;

  TileGemm gemm_;
  int64_t channels_;
  int64_t patch_;
  std::vector<float> pixels_;  // [channels, 256]: each byte normalised
};

}  // namespace cpvt::cpu
