#pragma once

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

/// y = x + scale * table on every row of every image, prefix rows too. A table is [grid.rows(), width], dense.
struct AddPositionArgs {
  DType dtype;
  const void* x;  // [rows, width]
  int64_t x_stride;
  const float* tables;
  const PositionImage* images;
  int32_t image_count;
  int64_t most_rows;  // of any image
  float scale;
  void* y;  // may be x
  int64_t y_stride;
  int64_t width;
};

int add_position(const AddPositionArgs& args, void* stream);

}  // namespace cpvt::cuda
