#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace cpvt::cpu {

/// y = (x - mean(x)) / sqrt(var(x) + eps) * gamma + beta over each row of x [rows, width]; the variance is the biased
/// one, as torch.nn.LayerNorm has it. Mean first, then the variance about it; a row whose squares overflow becomes NaN.
/// gamma, beta: [width]. Strides in floats, >= width. y may be x (same pointer and stride); otherwise they do not
/// overlap.
void layernorm(const float* x, int64_t x_stride, const float* gamma, const float* beta, float eps, float* y,
               int64_t y_stride, int64_t rows, int64_t width, ThreadPool& pool);

}  // namespace cpvt::cpu
