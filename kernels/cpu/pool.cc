#include "kernels/cpu/pool.h"

#include <algorithm>
#include <array>

namespace cpvt::cpu {

namespace {
constexpr int64_t kColumns = 64;  // of one item: 512 bytes of sums
}

// Reads x once, which bounds it; plain loops vectorise well enough for that.
void mean_rows(const float* x, int64_t x_stride, std::span<const TokenGrid> images, float* y, int64_t y_stride,
               int64_t width, ThreadPool& pool) {
  const int64_t parts = (width + kColumns - 1) / kColumns;
  pool.run(static_cast<int64_t>(images.size()) * parts, [&](int64_t item, int) {
    const int64_t image = item / parts;
    const int64_t column = item % parts * kColumns;
    const int64_t columns = std::min(kColumns, width - column);
    const TokenGrid& grid = images[static_cast<size_t>(image)];
    std::array<double, kColumns> sums{};
    for (int64_t row = 0; row < grid.patches(); ++row) {
      const float* from = x + (grid.first_patch() + row) * x_stride + column;
      for (int64_t c = 0; c < columns; ++c) sums[static_cast<size_t>(c)] += from[c];
    }
    const auto count = static_cast<double>(grid.patches());
    for (int64_t c = 0; c < columns; ++c) {
      y[image * y_stride + column + c] = static_cast<float>(sums[static_cast<size_t>(c)] / count);
    }
  });
}

void class_rows(const float* x, int64_t x_stride, std::span<const TokenGrid> images, float* y, int64_t y_stride,
                int64_t width) {
  for (size_t i = 0; i < images.size(); ++i) {
    std::copy_n(x + images[i].first_row * x_stride, width, y + static_cast<int64_t>(i) * y_stride);
  }
}

}  // namespace cpvt::cpu
