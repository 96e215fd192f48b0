#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/dtype.h"
#include "kernels/token_grid.h"

namespace cpvt::cuda {

/// A block's share: a rectangle of one image's grid, or, where it has no columns, that image's prefix rows. How an
/// image is cut is no part of its result, not even of the bits.
struct PegTile {
  TokenGrid image;
  int32_t top, left, height, width;
};

/// The largest rectangle that peg takes.
struct PegTileSize {
  int32_t height, width;
};
constexpr PegTileSize peg_largest_tile(int kernel) { return kernel <= 9 ? PegTileSize{4, 8} : PegTileSize{16, 16}; }

/// Rectangles as even as they can be; smaller ones for so few images that they would leave most of the device idle.
std::vector<PegTile> peg_tiles(std::span<const TokenGrid> images, int kernel);

/// y = x + dwconv_k(x) + bias over each image's grid, zero padding (k-1)/2, prefix rows copied; and, where `normed` is
/// not null, normed = LayerNorm(y as stored) in the same pass. CPVT, section 3.2.
struct PegArgs {
  DType dtype;
  const void* x;  // [rows, width]
  int64_t x_stride;
  const void* weight;  // [kernel * kernel, width], stride row_stride(width, dtype): channels last, as the tokens are
  const float* bias;   // [width]
  int32_t kernel;      // odd, 3 to 27
  const PegTile* tiles;
  int32_t tile_count;
  void* y;  // [rows, width]; does not overlap x
  int64_t y_stride;
  const float* gamma;  // [width]
  const float* beta;
  float eps;
  void* normed;  // [rows, width] or null
  int64_t normed_stride;
  int64_t width;
};

int peg(const PegArgs& args, void* stream);

}  // namespace cpvt::cuda
