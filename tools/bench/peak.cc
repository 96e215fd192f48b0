#include "tools/bench/peak.h"

#include <algorithm>
#include <chrono>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tools/bench/peak.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace cpvt::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kRounds = 100000;
constexpr int kChains = 12;

/// Runs kRounds * kChains multiply-adds; returns their floating-point operations.
double multiply_add(float* sink) {
  const hn::ScalableTag<float> d;
  const auto m = hn::Set(d, 0.999F);
  // Different starts, or the compiler sees that they are one.
  auto a = hn::Iota(d, 0), b = hn::Iota(d, 1), c = hn::Iota(d, 2), e = hn::Iota(d, 3), f = hn::Iota(d, 4);
  auto g = hn::Iota(d, 5), h = hn::Iota(d, 6), i = hn::Iota(d, 7), j = hn::Iota(d, 8), k = hn::Iota(d, 9);
  auto l = hn::Iota(d, 10), o = hn::Iota(d, 11);
  for (int round = 0; round < kRounds; ++round) {
    a = hn::MulAdd(a, m, m);
    b = hn::MulAdd(b, m, m);
    c = hn::MulAdd(c, m, m);
    e = hn::MulAdd(e, m, m);
    f = hn::MulAdd(f, m, m);
    g = hn::MulAdd(g, m, m);
    h = hn::MulAdd(h, m, m);
    i = hn::MulAdd(i, m, m);
    j = hn::MulAdd(j, m, m);
    k = hn::MulAdd(k, m, m);
    l = hn::MulAdd(l, m, m);
    o = hn::MulAdd(o, m, m);
  }
  a = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)), hn::Add(hn::Add(f, g), hn::Add(h, i)));
  *sink = hn::GetLane(hn::Add(hn::Add(a, hn::Add(j, k)), hn::Add(l, o)));
  return 2.0 * kRounds * kChains * static_cast<double>(hn::Lanes(d));
}

}  // namespace cpvt::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt::bench {

HWY_EXPORT(multiply_add);

double peak_gflops() {
  using Clock = std::chrono::steady_clock;
  volatile float kept = 0;
  double best = 0;
  for (int round = 0; round < 100; ++round) {
    float sink = 0;
    const auto begin = Clock::now();
    const double flops = HWY_DYNAMIC_DISPATCH(multiply_add)(&sink);
    const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
    kept = sink;
    best = std::max(best, flops / took.count());
  }
  (void)kept;
  return best;
}

}  // namespace cpvt::bench
#endif
