#include "kernels/cpu/elementwise.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpvt::cpu::HWY_NAMESPACE {

void gelu_rows(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    for_each_vector(width, [&](int64_t c, auto access) HWY_ATTR { access.store(gelu(access.load(x + c)), y + c); });
  }
}

void add_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y, int64_t y_stride,
              int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, a += a_stride, b += b_stride, y += y_stride) {
    for_each_vector(width, [&](int64_t c, auto access)
                               HWY_ATTR { access.store(hn::Add(access.load(a + c), access.load(b + c)), y + c); });
  }
}

}  // namespace cpvt::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt::cpu {

HWY_EXPORT(gelu_rows);
HWY_EXPORT(add_rows);

namespace {

constexpr int64_t kRowsPerItem = 16;

/// body(first row, rows) for blocks of rows.
template <class Body>
void for_each_block(int64_t rows, ThreadPool& pool, const Body& body) {
  pool.run((rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int) {
    const int64_t row = item * kRowsPerItem;
    body(row, std::min(kRowsPerItem, rows - row));
  });
}

}  // namespace

void gelu_erf(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t width,
              ThreadPool& pool) {
  for_each_block(rows, pool, [&](int64_t row, int64_t count) {
    HWY_DYNAMIC_DISPATCH(gelu_rows)(x + row * x_stride, x_stride, y + row * y_stride, y_stride, count, width);
  });
}

void add(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y, int64_t y_stride, int64_t rows,
         int64_t width, ThreadPool& pool) {
  for_each_block(rows, pool, [&](int64_t row, int64_t count) {
    HWY_DYNAMIC_DISPATCH(add_rows)
    (a + row * a_stride, a_stride, b + row * b_stride, b_stride, y + row * y_stride, y_stride, count, width);
  });
}

void add_position(const float* x, int64_t x_stride, std::span<const float* const> tables,
                  std::span<const TokenGrid> images, float* y, int64_t y_stride, int64_t width, ThreadPool& pool) {
  for (size_t i = 0; i < images.size(); ++i) {
    const int64_t first = images[i].first_row;
    add(x + first * x_stride, x_stride, tables[i], width, y + first * y_stride, y_stride, images[i].rows(), width,
        pool);
  }
}

}  // namespace cpvt::cpu
#endif
