#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/dtype.h"
#include "kernels/token_grid.h"

namespace cpvt::cuda {

/// y = x/2 (1 + erf(x / sqrt 2)).
struct GeluArgs {
  DType dtype;
  const void* x;  // [rows, width]
  int64_t x_stride;
  void* y;  // may be x
  int64_t y_stride;
  int64_t rows, width;
};

int gelu(const GeluArgs& args, void* stream);

/// One image of a batch, and where its position table begins: `offset` floats into the tables.
struct PositionImage {
  TokenGrid grid;
  int64_t offset;
};

/// Rows of an image that a block takes.
constexpr int64_t kPositionRows = 16;

/// A block's share: up to kPositionRows rows of one image, and where their part of its table begins.
struct PositionTile {
  int64_t first_row;
  int64_t offset;
  int64_t rows;
};

std::vector<PositionTile> position_tiles(std::span<const PositionImage> images, int64_t width);

/// y = x + scale * table on every row of every image, prefix rows too. A table is [grid.rows(), width], dense.
struct AddPositionArgs {
  DType dtype;
  const void* x;  // [rows, width]
  int64_t x_stride;
  const float* tables;
  const PositionTile* tiles;
  int32_t tile_count;
  float scale;
  void* y;  // may be x
  int64_t y_stride;
  int64_t width;
};

int add_position(const AddPositionArgs& args, void* stream);

}  // namespace cpvt::cuda
