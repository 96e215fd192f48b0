#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/thread_pool.h"
#include "kernels/token_grid.h"

namespace cpvt::cpu {

/// The positional encoding generator, y = x + dwconv_k(x) + bias over each image's grid: zero padding (k-1)/2, stride
/// 1; prefix rows (class tokens) are copied. x, y: [T, width] rows, strides in floats >= width; they must not overlap.
/// weight: [kernel*kernel, width] as repack_peg_weight leaves it; bias: [width]; kernel odd, >= 1.
void peg(const float* x, int64_t x_stride, const float* weight, const float* bias, int kernel,
         std::span<const TokenGrid> images, float* y, int64_t y_stride, int64_t width, ThreadPool& pool);

/// From a depthwise convolution's [width, 1, kernel, kernel] to [kernel*kernel, width]: channels last, as the tokens
/// are.
void repack_peg_weight(const float* weight, int64_t width, int kernel, float* repacked);

}  // namespace cpvt::cpu
