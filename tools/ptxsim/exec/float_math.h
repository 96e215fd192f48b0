#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "tools/ptxsim/exec/formats.h"

/// Arithmetic of f32 as the device does it, lane by lane and without branches so that loops over lanes become vectors.
/// Nothing here calls the C library for a function whose last bit depends on the machine: the approximations are
/// polynomials and correctly rounded operations, so a kernel gives the same bits everywhere.
namespace ptxsim {

inline uint32_t bits_of_f32(float x) { return std::bit_cast<uint32_t>(x); }
inline float f32_of_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

/// What an f32 operation returns for every NaN.
inline float canonical(float x) { return x == x ? x : f32_of_bits(F32::kNan); }

/// .ftz of a source where the arithmetic mode below is not at hand.
inline float flush(float x) {
  const uint32_t bits = bits_of_f32(x);
  return f32_of_bits((bits & F32::kTopExponent) == 0 ? bits & F32::kSign : bits);
}

/// .sat: into [0, 1]; NaN and -0 become +0.
inline float saturate(float x) {
  const float below = x > 0.0F ? x : 0.0F;
  return below < 1.0F ? below : 1.0F;
}

/// .relu: what is negative becomes +0, NaN stays.
inline float rectify(float x) { return x <= 0.0F ? 0.0F : x; }

/// While one lives, the processor rounds in this direction and, with kFtz, takes subnormal sources for zero and makes
/// such results zero (of the same sign; which results are subnormal is judged after rounding, as ptxas does when it
/// folds constants). The barriers keep loads and stores of lanes, and with them the arithmetic between, inside.
template <Rounding kRounding, bool kFtz>
class ArithmeticMode {
 public:
  ArithmeticMode() {
    if constexpr (kChanges) {
      saved_ = _mm_getcsr();
      _mm_setcsr(kMasked | kDirection | (kFtz ? kFlush : 0));
      asm volatile("" ::: "memory");
    }
  }
  ~ArithmeticMode() {
    if constexpr (kChanges) {
      asm volatile("" ::: "memory");
      _mm_setcsr(saved_);
    }
  }
  ArithmeticMode(const ArithmeticMode&) = delete;
  ArithmeticMode& operator=(const ArithmeticMode&) = delete;

 private:
  static constexpr bool kChanges = kFtz || kRounding != Rounding::kNearest;
  static constexpr uint32_t kMasked = 0x1f80;  // no exception traps
  static constexpr uint32_t kFlush = 0x8040;   // FTZ and DAZ
  static constexpr uint32_t kDirection = kRounding == Rounding::kZero   ? 0x6000
                                         : kRounding == Rounding::kUp   ? 0x4000
                                         : kRounding == Rounding::kDown ? 0x2000
                                                                        : 0;
  uint32_t saved_ = 0;
};

// --- minimum and maximum --------------------------------------------------------------------------------------------

enum class Pick : uint8_t { kMin, kMax };

/// min and max: of two zeros -0 is the smaller; a NaN loses against a number unless kNan wants it; two NaNs, or one
/// with kNan, give the canonical NaN.
template <class F, Pick kPick, bool kNan, class T>
T extreme(T a, T b) {
  using Bits = typename F::Bits;
  const auto x = std::bit_cast<Bits>(a), y = std::bit_cast<Bits>(b);
  const bool first = kPick == Pick::kMin ? a < b : a > b;
  // Equal numbers differ at most in the sign of zero.
  const Bits same = kPick == Pick::kMin ? x | y : x & y;
  Bits result = a == b ? same : (first ? x : y);
  if constexpr (kNan) {
    result = (a != a) | (b != b) ? F::kNan : result;
  } else {
    result = b != b ? x : result;
    result = (a != a) & (b != b) ? F::kNan : result;
  }
  return std::bit_cast<T>(result);
}

/// .xorsign.abs: the extreme of the magnitudes with the product's sign; a NaN keeps its own.
template <class F, Pick kPick, bool kNan, class T>
T extreme_xorsign(T a, T b) {
  using Bits = typename F::Bits;
  constexpr Bits kMagnitude = F::kSign - 1;
  const auto x = std::bit_cast<Bits>(a), y = std::bit_cast<Bits>(b);
  const T result = extreme<F, kPick, kNan>(std::bit_cast<T>(x & kMagnitude), std::bit_cast<T>(y & kMagnitude));
  const Bits sign = (x ^ y) & F::kSign;
  const Bits bits = std::bit_cast<Bits>(result);
  return std::bit_cast<T>(result == result ? bits | sign : bits);
}

// --- approximations -------------------------------------------------------------------------------------------------

inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

/// The sum of coefficient[i] * x^i. (A recursion, for loops inside of loops over lanes do not become vectors.)
template <size_t i = 0, class T, size_t n>
inline __attribute__((always_inline)) T polynomial(T x, const T (&coefficient)[n]) {
  if constexpr (i + 1 == n) {
    return coefficient[i];
  } else {
    return fused(polynomial<i + 1>(x, coefficient), x, coefficient[i]);
  }
}

/// 2^x - 1 for |x| <= 1/2, to 2^-25 of itself: the Taylor series, ln(2)^i / i!.
inline float exp2_minus_1(float x) {
  constexpr float kSeries[] = {0.69314718F,   0.24022651F,    0.055504109F, 0.0096181291F,
                               0.0013333558F, 0.00015403530F, 1.5252734e-5F};
  return x * polynomial(x, kSeries);
}

/// Adding this to |x| < 2^22 leaves the nearest integer in the low bits.
constexpr float kRoundF32 = 0x1.8p23F;
constexpr double kRoundF64 = 0x1.8p52;

/// 2^x, an ulp at most. Whole x are exact; below 2^-126 the result is rounded once.
inline float ex2(float x) {
  const float high = x > 129.0F ? 129.0F : x;
  const float inside = high < -152.0F ? -152.0F : high;
  const float shifted = inside + kRoundF32;
  const auto n = static_cast<int32_t>(bits_of_f32(shifted) - bits_of_f32(kRoundF32));
  const float fraction = inside - (shifted - kRoundF32);
  // 2^n in two steps, for n goes beyond the exponents of normal numbers on both sides.
  const int32_t half = n >> 1;
  const float scale1 = f32_of_bits(static_cast<uint32_t>(half + 127) << 23);
  const float scale2 = f32_of_bits(static_cast<uint32_t>(n - half + 127) << 23);
  return (1.0F + exp2_minus_1(fraction)) * scale1 * scale2;
}

/// tanh(x) = (e^2x - 1) / (e^2x + 1), some 2^-22 of itself.
inline float tanh_approximate(float x) {
  const float magnitude = std::fabs(x);
  const float scaled = magnitude * 2.8853901F;  // 2 / ln 2
  const float inside = scaled > 40.0F ? 40.0F : scaled;
  const float shifted = inside + kRoundF32;
  const auto n = static_cast<int32_t>(bits_of_f32(shifted) - bits_of_f32(kRoundF32));
  const float power = f32_of_bits(static_cast<uint32_t>(n + 127) << 23);
  const float minus1 = fused(power, exp2_minus_1(inside - (shifted - kRoundF32)), power - 1.0F);
  const float result = minus1 / (minus1 + 2.0F);
  // Below 2^-12 it is x itself to the last bit; NaN comes through `result`.
  const float chosen = magnitude < 0x1p-12F ? magnitude : result;
  return f32_of_bits(bits_of_f32(chosen) | (bits_of_f32(x) & F32::kSign));
}

/// log2(x), correctly rounded but for some 2^-28 of itself.
inline float lg2(float x) {
  constexpr uint32_t kSqrtHalf = 0x3f3504f3;
  const bool small = x < 0x1p-126F;
  const uint32_t bits = bits_of_f32(small ? x * 0x1p24F : x) - kSqrtHalf;
  const int32_t exponent = (static_cast<int32_t>(bits) >> 23) - (small ? 24 : 0);
  const double mantissa = f32_of_bits((bits & 0x7fffff) + kSqrtHalf);  // in [sqrt(1/2), sqrt(2))
  // log2(m) = 2 / ln(2) * artanh(s)
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  constexpr double kTwoByLn2 = 2.8853900817779268;
  constexpr double kSeries[] = {kTwoByLn2, kTwoByLn2 / 3, kTwoByLn2 / 5, kTwoByLn2 / 7, kTwoByLn2 / 9, kTwoByLn2 / 11};
  const auto number = static_cast<float>(static_cast<double>(exponent) + s * polynomial(s * s, kSeries));
  const float infinity = f32_of_bits(F32::kInfinity);
  float result = x < infinity ? number : x;  // also NaN
  result = x < 0.0F ? f32_of_bits(F32::kNan) : result;
  return x == 0.0F ? -infinity : result;
}

/// sin (quarter = 0) or cos (quarter = 1) of x, to some 2^-23 for |x| < 2^20; always within [-1, 1]. NaN of infinity.
inline float sine(float x, uint32_t quarter) {
  constexpr double kTurn = 0.15915494309189535;  // 1 / (2 pi)
  const double turns = static_cast<double>(x) * kTurn;
  const double quarters = 4.0 * (turns - ((turns + kRoundF64) - kRoundF64));
  const double shifted = quarters + kRoundF64;
  const uint32_t quadrant = static_cast<uint32_t>(std::bit_cast<uint64_t>(shifted)) + quarter;
  const float z = static_cast<float>(quarters - (shifted - kRoundF64)) * 1.5707964F;
  const float square = z * z;
  constexpr float kSine[] = {1.0F, -0.16666667F, 0.0083333333F, -0.00019841270F, 2.7557319e-6F};
  constexpr float kCosine[] = {1.0F, -0.5F, 0.041666667F, -0.0013888889F, 2.4801587e-5F, -2.7557319e-7F};
  const float odd = z * polynomial(square, kSine), even = polynomial(square, kCosine);
  const float magnitude = (quadrant & 1) != 0 ? even : odd;
  return f32_of_bits(bits_of_f32(magnitude) ^ (quadrant & 2) << 30);
}

inline float sin_approximate(float x) {  // odd: also -0 for -0
  return f32_of_bits(bits_of_f32(sine(std::fabs(x), 0)) ^ (bits_of_f32(x) & F32::kSign));
}
inline float cos_approximate(float x) { return sine(x, 1); }

}  // namespace ptxsim
