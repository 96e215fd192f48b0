#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/dtype.h"
#include "kernels/token_grid.h"

namespace cpvt::cuda {

constexpr int64_t kAttentionQueries = 256;  // of a tile; an image's last may have fewer

/// A share of a ragged batch: some queries of one image, against all of its keys.
struct AttentionTile {
  int32_t first_row;    // of the image
  int32_t tokens;       // of the image
  int32_t first_query;  // within the image
};

/// The tiles of a batch, the longest first. Every query row of every image is in exactly one.
std::vector<AttentionTile> attention_tiles(std::span<const TokenGrid> images);

/// y = softmax(scale q k^T) v for every head, each image attending to its own rows. qkv: rows of [3, heads, head_dim],
/// read in place. One pass, online softmax. head_dim 1 to 128; 32 and 64 are the fast ones.
struct AttentionArgs {
  DType dtype;
  const void* qkv;  // [rows, 3 heads head_dim]
  int64_t stride;
  int64_t rows;
  int32_t heads, head_dim;
  float scale;  // > 0
  const AttentionTile* tiles;
  int32_t tile_count;
  void* y;  // [rows, heads head_dim]; only rows that belong to an image are written
  int64_t y_stride;
};

constexpr int64_t kLargestHeadDim = 128;

/// Shared memory that a block needs at most: 112 KiB for fp32 heads of more than 96, which not every device has.
constexpr uint64_t attention_shared_bytes(DType dtype, int64_t head_dim) {
  return dtype == DType::kF32 && head_dim > 96 ? 112 * 1024 : 96 * 1024;
}

int attention(const AttentionArgs& args, void* stream);

}  // namespace cpvt::cuda
