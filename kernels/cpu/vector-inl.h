// Included once per SIMD target by the kernels' .cc files, inside foreach_target.h's loop (hence no #pragma once).

#include "hwy/highway.h"

#if defined(CPVT_KERNELS_CPU_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CPVT_KERNELS_CPU_VECTOR_INL_H_
#undef CPVT_KERNELS_CPU_VECTOR_INL_H_
#else
#define CPVT_KERNELS_CPU_VECTOR_INL_H_
#endif

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace cpvt::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The widest vector of floats; everything below is written for it.
using F = hn::ScalableTag<float>;
using Vec = hn::Vec<F>;
constexpr F kF;
constexpr int64_t kLanes = hn::MaxLanes(F());  // x86: every target's vectors have this length

HWY_INLINE Vec Set(float value) { return hn::Set(kF, value); }

/// How a loop over columns touches memory: whole vectors, and the first few lanes of the last one.
struct WholeVector {
  HWY_INLINE Vec load(const float* from) const { return hn::LoadU(kF, from); }
  HWY_INLINE void store(Vec value, float* to) const { hn::StoreU(value, kF, to); }
};
struct FirstLanes {
  hn::Mask<F> mask;
  explicit HWY_INLINE FirstLanes(int64_t lanes) : mask(hn::FirstN(kF, static_cast<size_t>(lanes))) {}
  HWY_INLINE Vec load(const float* from) const { return hn::MaskedLoad(mask, kF, from); }
  HWY_INLINE void store(Vec value, float* to) const { hn::BlendedStore(value, mask, kF, to); }
};

/// body(column, access) for 0, kLanes, ... < width.
template <class Body>
HWY_INLINE void for_each_vector(int64_t width, const Body& body) {
  int64_t column = 0;
  for (; column + kLanes <= width; column += kLanes) body(column, WholeVector());
  if (column < width) body(column, FirstLanes(width - column));
}

/// 2^x for x <= 0, within 1.1 ulp; below -126 it is 0, NaN stays NaN.
/// x = r + f, r integer, |f| <= 1/2: 2^r goes into the exponent, 2^f is a minimax polynomial (relative error 2e-9).
HWY_INLINE Vec exp2_of_nonpositive(Vec x) {
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits of the sum; its own low bits are zero.
  const Vec shifter = Set(0x1.8p23F);
  const Vec shifted = hn::Add(x, shifter);
  const Vec f = hn::Sub(x, hn::Sub(shifted, shifter));
  Vec p = Set(0.00015353360504377633F);
  p = hn::MulAdd(p, f, Set(0.0013398875016719103F));
  p = hn::MulAdd(p, f, Set(0.00961843691766262F));
  p = hn::MulAdd(p, f, Set(0.055503323674201965F));
  p = hn::MulAdd(p, f, Set(0.24022647738456726F));
  p = hn::MulAdd(p, f, Set(0.6931471824645996F));
  p = hn::MulAdd(p, f, Set(1.0F));
  const hn::RebindToSigned<F> di;
  const Vec scaled = hn::BitCast(kF, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
  return hn::IfThenZeroElse(hn::Lt(x, Set(-126.0F)), scaled);
}

/// gelu(x) = x/2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x|/2 erfc(|x| / sqrt 2), without cancellation on either side.
/// erfc(u / sqrt 2) = 2^-L(u), L a polynomial of degree 10 without constant term, fitted on [0, 8] so that the error of
/// gelu itself is least (5e-9 before rounding); beyond 8 erfc is below 2e-15 and stays there.
HWY_INLINE Vec gelu(Vec x) {
  const Vec u = hn::Abs(x);
  const Vec t = hn::Min(Set(8.0F), u);
  Vec p = Set(-4.143458909311448e-08F);
  p = hn::MulAdd(p, t, Set(1.153304651779763e-06F));
  p = hn::MulAdd(p, t, Set(-1.3659518117492553e-05F));
  p = hn::MulAdd(p, t, Set(8.910091855796054e-05F));
  p = hn::MulAdd(p, t, Set(-0.0003128910029772669F));
  p = hn::MulAdd(p, t, Set(4.95075000799261e-05F));
  p = hn::MulAdd(p, t, Set(0.006906668655574322F));
  p = hn::MulAdd(p, t, Set(-0.05242528021335602F));
  p = hn::MulAdd(p, t, Set(-0.4592231810092926F));
  p = hn::MulAdd(p, t, Set(-1.151104211807251F));
  const Vec erfc = exp2_of_nonpositive(hn::Mul(p, t));
  return hn::NegMulAdd(hn::Mul(Set(0.5F), u), erfc, hn::Max(Set(0.0F), x));
}

}  // namespace cpvt::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
