#pragma once

#include <cstddef>

#include "kernels/cuda/dtype.h"
#include "kernels/token_grid.h"

namespace cpvt::cuda {

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
  int64_t most_rows;  // of any image
  float* workspace;   // pool_workspace_bytes(...)
  void* y;            // [images, width]
  int64_t y_stride;
  int64_t width;
};

/// Rows of an image that a block takes, to one row of partial sums in the workspace.
constexpr int kPoolChunk = 16;

/// `rows`: where the last image ends. The partial sums of image i begin with number first_row / kPoolChunk + i: behind
/// those of the images before, whatever their sizes.
constexpr size_t pool_workspace_bytes(int64_t images, int64_t rows, int64_t width) {
  return static_cast<size_t>((rows / kPoolChunk + images) * width) * sizeof(float);
}

int pool(const PoolArgs& args, void* stream);

}  // namespace cpvt::cuda
