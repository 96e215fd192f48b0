#pragma once

#include <cstddef>
#include <cstdint>

namespace cpvt::cuda {

/// What activations and weights are stored as. Accumulators, statistics, softmax, biases and LayerNorm's gamma and beta
/// are fp32 always. A value too large for fp16 is stored as the largest finite one, never as infinity.
enum class DType : int32_t { kF32, kF16, kBF16 };

constexpr size_t element_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

/// Rows begin at multiples of this many bytes, so that kernels may move 16 bytes at a time; what lies between a row's
/// width and its stride is neither read nor written.
constexpr size_t kRowAlignment = 16;

/// Elements from one row to the next of a dense matrix of this width.
constexpr int64_t row_stride(int64_t width, DType dtype) {
  const auto step = static_cast<int64_t>(kRowAlignment / element_bytes(dtype));
  return (width + step - 1) / step * step;
}

}  // namespace cpvt::cuda
