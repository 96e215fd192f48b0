#pragma once

#include "kernels/cuda/dtype.h"

namespace cpvt::cuda {

/// y = scale * activation(norm(x) W^T + b) + residual. In every launcher's arguments pointers are device memory,
/// matrices have rows that begin at multiples of kRowAlignment bytes, as do bias, gamma and beta, strides are in
/// elements, and a launcher returns a cudaError_t. A row of y depends on that row of x and of the residual alone, bit
/// for bit.
struct LinearArgs {
  DType dtype;
  const void* x;  // [rows, k]
  int64_t x_stride;
  /// LayerNorm of x's rows before the product, normalised values rounded to dtype; null for none. [k], k <= 768.
  const float* gamma;
  const float* beta;
  float eps;
  const void* weight;  // [n, k], stride row_stride(k, dtype)
  const float* bias;   // [n]
  bool gelu;           // the exact erf form
  float scale;
  const void* residual;  // [rows, n] or null; may be y itself
  int64_t residual_stride;
  void* y;  // [rows, n]
  int64_t y_stride;
  int64_t rows, n, k;
};

/// The widest rows that the LayerNorm prologue takes.
constexpr int64_t kWidestNormalisedLinear = 768;

int linear(const LinearArgs& args, void* stream);

}  // namespace cpvt::cuda
