#pragma once

#include "kernels/cuda/dtype.h"

namespace cpvt::cuda {

/// y = (x - mean(x)) / sqrt(var(x) + eps) * gamma + beta over each row; the variance is the biased one, taken about the
/// mean in a second pass over registers.
struct LayerNormArgs {
  DType dtype;
  const void* x;  // [rows, width]
  int64_t x_stride;
  const float* gamma;  // [width]
  const float* beta;
  float eps;
  void* y;  // [rows, width]; may be x
  int64_t y_stride;
  int64_t rows, width;
};

/// The widest rows: a warp keeps its row in registers.
constexpr int64_t kWidestLayerNorm = 4096;

int layernorm(const LayerNormArgs& args, void* stream);

}  // namespace cpvt::cuda
