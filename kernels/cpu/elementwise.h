#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/thread_pool.h"
#include "kernels/token_grid.h"

namespace cpvt::cpu {

// All: rows of `width` floats, strides in floats >= width. y may be an input (same pointer and stride); else no
// overlap. PackedLinear's epilogues give the same bits as these.

/// y = x/2 (1 + erf(x / sqrt 2)).
void gelu_erf(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t width,
              ThreadPool& pool);

/// y = a + b.
void add(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y, int64_t y_stride, int64_t rows,
         int64_t width, ThreadPool& pool);

/// y = x + table on every row of every image, prefix rows too. tables[i]: [images[i].rows(), width], dense: the
/// position table of that image's grid. x, y: [T, width].
void add_position(const float* x, int64_t x_stride, std::span<const float* const> tables,
                  std::span<const TokenGrid> images, float* y, int64_t y_stride, int64_t width, ThreadPool& pool);

}  // namespace cpvt::cpu
