#include "kernels/cpu/layernorm.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/layernorm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpvt::cpu::HWY_NAMESPACE {

/// Three passes over a row that stays in L1: sum, squares about the mean, result. One accumulator per lane, then the
/// lanes.
void layernorm_row(const float* x, const float* gamma, const float* beta, float eps, float* y, int64_t width) {
  const float per_element = 1.0F / static_cast<float>(width);
  Vec sum = hn::Zero(kF);
  for_each_vector(width, [&](int64_t c, auto access) HWY_ATTR { sum = hn::Add(sum, access.load(x + c)); });
  const Vec mean = hn::Mul(hn::SumOfLanes(kF, sum), Set(per_element));

  Vec squares = hn::Zero(kF);
  const int64_t whole = width / kLanes * kLanes;
  for (int64_t c = 0; c < whole; c += kLanes) {
    const Vec d = hn::Sub(hn::LoadU(kF, x + c), mean);
    squares = hn::MulAdd(d, d, squares);
  }
  if (whole < width) {  // lanes beyond the row are zero, not minus the mean
    const FirstLanes last(width - whole);
    const Vec d = hn::IfThenElseZero(last.mask, hn::Sub(last.load(x + whole), mean));
    squares = hn::MulAdd(d, d, squares);
  }
  const float variance = hn::GetLane(hn::SumOfLanes(kF, squares)) * per_element;
  // Squares that overflowed would make the scale 0 and the row beta, as if nothing were wrong: infinity becomes NaN.
  const float overflow = variance - variance;
  const Vec scale = Set(1.0F / std::sqrt(variance + eps) + overflow);

  for_each_vector(width, [&](int64_t c, auto access) HWY_ATTR {
    const Vec normal = hn::Mul(hn::Sub(access.load(x + c), mean), scale);
    access.store(hn::MulAdd(normal, access.load(gamma + c), access.load(beta + c)), y + c);
  });
}

void layernorm_rows(const float* x, int64_t x_stride, const float* gamma, const float* beta, float eps, float* y,
                    int64_t y_stride, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row)
    layernorm_row(x + row * x_stride, gamma, beta, eps, y + row * y_stride, width);
}

}  // namespace cpvt::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt::cpu {

HWY_EXPORT(layernorm_rows);

namespace {
constexpr int64_t kRowsPerItem = 16;
}

void layernorm(const float* x, int64_t x_stride, const float* gamma, const float* beta, float eps, float* y,
               int64_t y_stride, int64_t rows, int64_t width, ThreadPool& pool) {
  pool.run((rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int) {
    const int64_t row = item * kRowsPerItem;
    HWY_DYNAMIC_DISPATCH(layernorm_rows)
    (x + row * x_stride, x_stride, gamma, beta, eps, y + row * y_stride, y_stride, std::min(kRowsPerItem, rows - row),
     width);
  });
}

}  // namespace cpvt::cpu
#endif
