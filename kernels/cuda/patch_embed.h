#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/dtype.h"
#include "kernels/token_grid.h"

namespace cpvt::cuda {

/// One image of a batch: its pixels begin `offset` elements into the batch's, and are exactly its grid times the patch.
struct PatchImage {
  TokenGrid grid;
  int64_t offset;
};

constexpr int32_t kPatchTile = 64;

/// A block's share: patches [first_patch, first_patch + kPatchTile) of one image, as far as it has them, in row-major
/// order over its grid.
struct PatchTile {
  int32_t image;
  int32_t first_patch;
};

std::vector<PatchTile> patch_tiles(std::span<const TokenGrid> grids);

enum class Pixels : int32_t {
  kF32Planar,      // float [channels, height, width], already normalised
  kU8Interleaved,  // uint8 [height, width, channels]: (v / 255 - mean) / std is taken on the way, channels <= 4
};

/// y = scale * (patches W^T + b): a convolution with kernel = stride = patch over images that are read in place, rows
/// of the product going to the images' patch rows; and scale * class_token to each image's prefix row.
struct PatchEmbedArgs {
  DType dtype;
  Pixels pixels_type;
  const void* pixels;  // 16-byte aligned; so is each image's first pixel
  const PatchImage* images;
  const PatchTile* tiles;
  int32_t tile_count;
  int32_t channels, patch;
  float mean[4], std[4];     // for kU8Interleaved
  const void* weight;        // [width, channels * patch * patch], stride row_stride(channels * patch * patch, dtype)
  const float* bias;         // [width]
  const float* class_token;  // [width] or null: no prefix row is written
  float scale;
  void* y;  // [rows, width]
  int64_t y_stride;
  int64_t width;
};

int patch_embed(const PatchEmbedArgs& args, void* stream);

}  // namespace cpvt::cuda
