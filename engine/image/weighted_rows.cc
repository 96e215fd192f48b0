#include "engine/image/weighted_rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/image/weighted_rows.cc"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set
// After foreach_target.h, by Highway's rules.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace cpvt::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Exact integer sums: every instruction set gives the same bytes.
void weighted_rows_simd(const uint8_t* HWY_RESTRICT rows, size_t stride, const int32_t* HWY_RESTRICT weights, int taps,
                        size_t n, uint8_t* HWY_RESTRICT out) {
  const hn::ScalableTag<int32_t> sums;
  const hn::Rebind<uint8_t, decltype(sums)> bytes;
  const size_t lanes = hn::Lanes(sums);
  const auto half = hn::Set(sums, 1 << (weight_bits - 1));
  size_t i = 0;
  // Two vectors at a time: a weight is broadcast once for both, and their sums do not wait for each other.
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    auto sum0 = half;
    auto sum1 = half;
    const uint8_t* pixels = rows + i;
    for (int k = 0; k < taps; ++k, pixels += stride) {
      const auto weight = hn::Set(sums, weights[k]);
      sum0 = hn::Add(sum0, hn::Mul(weight, hn::PromoteTo(sums, hn::LoadU(bytes, pixels))));
      sum1 = hn::Add(sum1, hn::Mul(weight, hn::PromoteTo(sums, hn::LoadU(bytes, pixels + lanes))));
    }
    // DemoteTo saturates, which is the clip.
    hn::StoreU(hn::DemoteTo(bytes, hn::ShiftRight<weight_bits>(sum0)), bytes, out + i);
    hn::StoreU(hn::DemoteTo(bytes, hn::ShiftRight<weight_bits>(sum1)), bytes, out + i + lanes);
  }
  for (; i < n; ++i) {
    int32_t sum = 1 << (weight_bits - 1);
    for (int k = 0; k < taps; ++k) sum += weights[k] * rows[static_cast<size_t>(k) * stride + i];
    out[i] = static_cast<uint8_t>(std::clamp(sum >> weight_bits, 0, 255));
  }
}

}  // namespace cpvt::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt {

HWY_EXPORT(weighted_rows_simd);

void weighted_rows(const uint8_t* rows, size_t stride, const int32_t* weights, int taps, size_t n, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(weighted_rows_simd)(rows, stride, weights, taps, n, out);
}

}  // namespace cpvt
#endif
