#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/tile_gemm.h"

namespace cpvt::cpu {

enum class Activation {
  none,
  gelu_erf,  ///< x/2 (1 + erf(x / sqrt 2)), as elementwise.h has it
};

/// y = activation(x W^T + b) + residual, the weight packed once. Immutable: any number of threads may run one at a time
/// each. A row of y depends on that row of x and of the residual alone, bit for bit: not on the rows beside it, nor on
/// the threads.
class PackedLinear {
 public:
  /// weight: [n, k] row-major as PyTorch has it; bias: [n] or null. Both are copied. n, k >= 1.
  PackedLinear(const float* weight, const float* bias, int64_t n, int64_t k, Activation activation);

  /// x: [rows, k], y: [rows, n], residual: null or [rows, n]; strides are the floats from one row to the next, >= the
  /// width. The residual may be y itself (same pointer and stride). x overlaps neither. workspace:
  /// workspace_floats(pool.threads()).
  void run(const float* x, int64_t x_stride, const float* residual, int64_t residual_stride, float* y, int64_t y_stride,
           int64_t rows, float* workspace, ThreadPool& pool) const;

  int64_t workspace_floats(int threads) const;
  int64_t outputs() const { return gemm_.n(); }
  int64_t inputs() const { return gemm_.k(); }
  size_t bytes() const;  ///< of packed weights and bias

 private:
  TileGemm gemm_;
  Activation activation_;
};

}  // namespace cpvt::cpu
