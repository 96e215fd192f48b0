#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/thread_pool.h"
#include "kernels/token_grid.h"

namespace cpvt::cpu {

/// y[i] = mean over the patch rows of image i (class tokens apart): global average pooling. Summed in double, top to
/// bottom. x: [T, width], y: [images, width]; strides in floats >= width; no overlap. Every image has at least one
/// patch.
void mean_rows(const float* x, int64_t x_stride, std::span<const TokenGrid> images, float* y, int64_t y_stride,
               int64_t width, ThreadPool& pool);

/// y[i] = the first row of image i, its class token. Shapes as above.
void class_rows(const float* x, int64_t x_stride, std::span<const TokenGrid> images, float* y, int64_t y_stride,
                int64_t width);

}  // namespace cpvt::cpu
