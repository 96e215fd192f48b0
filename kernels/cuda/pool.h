#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cuda/dtype.h"
#include "kernels/token_grid.h"

namespace cpvt::cuda {

/// Rows of an image that a block takes, to one row of partial sums in the workspace.
constexpr int kPoolChunk = 16;

/// A block's share of a mean: up to kPoolChunk patch rows of one image, and which row of the workspace is their sum.
struct PoolTile {
  int64_t first_row;
  int32_t rows;
  int32_t sums;
};

std::vector<PoolTile> pool_tiles(std::span<const TokenGrid> images);

/// Rows of tokens to one row per image: the image's first row (its class token), or the mean over its patch rows (GAP),
/// each row taken through LayerNorm first where gamma is not null. The mean is summed in fp32, in an order that depends
/// on the image's grid alone.
struct PoolArgs {
  DType dtype;
  bool mean;      // else the class token
  const void* x;  // [rows, width]
  int64_t x_stride;
  const float* gamma;  // [width] or null
  const float* beta;
  float eps;
  const TokenGrid* images;  // one behind the other
  int32_t image_count;
  const PoolTile* tiles;  // of a mean
  int32_t tile_count;
  float* workspace;  // pool_workspace_bytes(...)
  void* y;           // [images, width]
  int64_t y_stride;
  int64_t width;
};

/// Where an image's partial sums begin, in rows of the workspace: behind those of the images before, whatever their
/// sizes.
constexpr int64_t pool_first_sum(int64_t image, int64_t first_row) { return first_row / kPoolChunk + image; }

/// `rows`: where the last image ends.
constexpr size_t pool_workspace_bytes(int64_t images, int64_t rows, int64_t width) {
  return static_cast<size_t>(pool_first_sum(images, rows) * width) * sizeof(float);
}

int pool(const PoolArgs& args, void* stream);

}  // namespace cpvt::cuda
