#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

/// Floating-point formats and the exact conversions between them, bit by bit and without branches, so that loops over
/// lanes become vectors.
namespace ptxsim {

enum class Rounding : uint8_t {
  kNearest,      // .rn: ties to even
  kZero,         // .rz
  kDown,         // .rm
  kUp,           // .rp
  kNearestAway,  // .rna: ties away from zero
};

/// What becomes of values beyond the largest finite one.
enum class Overflow : uint8_t {
  kIeee,    // infinity, or the largest finite value where the rounding says so
  kFinite,  // .satfinite: the largest finite value, also for infinity
};

/// A binary format in the low bits of a Bits. kHasInfinity is false for e4m3, whose largest exponent holds numbers and
/// one NaN (all ones). The NaN is the one that PTX calls canonical.
template <class B, int kExponentBits, int kMantissaBits, B kCanonicalNan, bool kHasInfinity = true>
struct Format {
  using Bits = B;
  static constexpr int kExponent = kExponentBits, kMantissa = kMantissaBits;
  static constexpr int kBias = (1 << (kExponent - 1)) - 1;
  static constexpr bool kInfinite = kHasInfinity;
  static constexpr Bits kSign = static_cast<Bits>(Bits{1} << (kExponent + kMantissa));
  static constexpr Bits kNan = kCanonicalNan;
  static constexpr Bits kTopExponent = static_cast<Bits>(((Bits{1} << kExponent) - 1) << kMantissa);
  static constexpr Bits kLargest =
      static_cast<Bits>(kHasInfinity ? kTopExponent - 1 : (kTopExponent | ((Bits{1} << kMantissa) - 2)));
  static constexpr Bits kInfinity = static_cast<Bits>(kHasInfinity ? kTopExponent : kCanonicalNan);
  static constexpr bool is_nan(Bits v) {
    const auto magnitude = static_cast<Bits>(v & (kSign - 1));
    return kHasInfinity ? magnitude > kTopExponent : magnitude == kCanonicalNan;
  }
};

using F16 = Format<uint16_t, 5, 10, 0x7fff>;
using Bf16 = Format<uint16_t, 8, 7, 0x7fff>;
using F32 = Format<uint32_t, 8, 23, 0x7fffffff>;
using F64 = Format<uint64_t, 11, 52, 0x7fffffffffffffff>;
using E4m3 = Format<uint8_t, 4, 3, 0x7f, false>;
using E5m2 = Format<uint8_t, 5, 2, 0x7f>;
/// tf32 shares f32's exponent and place: 10 bits of mantissa, here in the low 19 bits; see f32_to_tf32.
using Tf32Packed = Format<uint32_t, 8, 10, 0x3ffff>;

/// What to add to a magnitude before its low `cut` bits are cut off.
template <Rounding kRounding, class Bits>
[[gnu::always_inline]] constexpr Bits rounding_bias(Bits magnitude, Bits cut, bool negative) {
  const Bits unit = Bits{1} << cut;
  const Bits half = unit >> 1;
  switch (kRounding) {
    case Rounding::kNearest:
      return half - 1 + (magnitude >> cut & 1);
    case Rounding::kZero:
      return 0;
    case Rounding::kDown:
      return negative ? unit - 1 : 0;
    case Rounding::kUp:
      return negative ? 0 : unit - 1;
    case Rounding::kNearestAway:
      return half;
  }
  return 0;
}

template <class To, Rounding kRounding, Overflow kOverflow>
[[gnu::always_inline]] constexpr typename To::Bits overflowed(bool negative) {
  constexpr bool kNearest = kRounding == Rounding::kNearest || kRounding == Rounding::kNearestAway;
  if (kOverflow == Overflow::kFinite || kRounding == Rounding::kZero) return To::kLargest;
  if (kNearest) return To::kInfinity;
  return (kRounding == Rounding::kDown) == negative ? To::kInfinity : To::kLargest;
}

/// A finite magnitude of From rounded to To's places, as if To's exponent had no upper end.
template <class To, class From, Rounding kRounding>
[[gnu::always_inline]] constexpr typename From::Bits round_finite(typename From::Bits magnitude, bool negative) {
  using Bits = typename From::Bits;
  constexpr Bits kCut = From::kMantissa - To::kMantissa;
  constexpr Bits kFirstNormal = static_cast<Bits>(From::kBias - To::kBias + 1) << From::kMantissa;
  // A carry out of the mantissa counts the exponent up, which is right.
  const auto cut_normal = [&](Bits m) { return (m + rounding_bias<kRounding, Bits>(m, kCut, negative)) >> kCut; };
  if constexpr (From::kExponent == To::kExponent) {
    return cut_normal(magnitude);
  } else if constexpr (kRounding == Rounding::kNearest && std::is_same_v<From, F32>) {
    // For To's subnormals the processor's addition rounds: the sum's last place is To's smallest number.
    constexpr Bits kBase = static_cast<Bits>(From::kBias + From::kMantissa + 1 - To::kBias - To::kMantissa)
                           << From::kMantissa;
    const Bits sum = std::bit_cast<Bits>(std::bit_cast<float>(magnitude) + std::bit_cast<float>(kBase));
    const Bits normal = cut_normal(magnitude - kFirstNormal + (Bits{1} << From::kMantissa));
    return magnitude < kFirstNormal ? sum - kBase : normal;
  } else {
    constexpr int kWidth = static_cast<int>(sizeof(Bits)) * 8;
    const int exponent = static_cast<int>(magnitude >> From::kMantissa);
    const Bits hidden = Bits{exponent != 0} << From::kMantissa;
    const Bits significand = (magnitude & ((Bits{1} << From::kMantissa) - 1)) | hidden;
    // The biased exponent in To; what lies below its normal numbers loses more bits.
    const int wanted = (exponent > 1 ? exponent : 1) - From::kBias + To::kBias;
    const int places = static_cast<int>(kCut) + (wanted < 1 ? 1 - wanted : 0);
    const Bits cut = static_cast<Bits>(places < kWidth - 2 ? places : kWidth - 2);
    const Bits kept = (significand + rounding_bias<kRounding>(significand, cut, negative)) >> cut;
    return kept + (static_cast<Bits>((wanted > 1 ? wanted : 1) - 1) << To::kMantissa);
  }
}

/// A value of a wider format in a narrower one. Subnormals on both sides are exact.
template <class To, class From, Rounding kRounding, Overflow kOverflow = Overflow::kIeee>
[[gnu::always_inline]] constexpr typename To::Bits narrow(typename From::Bits value) {
  static_assert(From::kMantissa > To::kMantissa && From::kExponent >= To::kExponent);
  using Bits = typename From::Bits;
  const bool negative = (value & From::kSign) != 0;
  const Bits magnitude = value & (From::kSign - 1);
  const Bits rounded = round_finite<To, From, kRounding>(magnitude, negative);
  const Bits finite = rounded > To::kLargest ? Bits{overflowed<To, kRounding, kOverflow>(negative)} : rounded;
  // Infinity itself is no overflow: it stays, whatever the rounding.
  constexpr Bits kInfinity = kOverflow == Overflow::kFinite ? Bits{To::kLargest} : Bits{To::kInfinity};
  const Bits number = magnitude == From::kTopExponent ? kInfinity : finite;
  const Bits signed_number = number | (negative ? Bits{To::kSign} : Bits{0});
  return static_cast<typename To::Bits>(magnitude > From::kTopExponent ? Bits{To::kNan} : signed_number);
}

/// A value of a narrower format in a wider one: exact. NaNs become canonical.
template <class To, class From>
[[gnu::always_inline]] constexpr typename To::Bits widen(typename From::Bits value) {
  static_assert(To::kMantissa > From::kMantissa && To::kExponent >= From::kExponent);
  using Bits = typename To::Bits;
  constexpr int kShift = To::kMantissa - From::kMantissa;
  const Bits magnitude = Bits{value} & Bits{From::kSign - 1};
  const Bits sign = (value & From::kSign) != 0 ? To::kSign : Bits{0};
  Bits result = magnitude << kShift;
  if constexpr (To::kExponent > From::kExponent) {
    // Read in the wider format, the bits are the value but for a power of two: subnormals come out right too.
    using Number = std::conditional_t<sizeof(Bits) == 8, double, float>;
    constexpr auto kScale =
        std::bit_cast<Number>(static_cast<Bits>(To::kBias + To::kBias - From::kBias) << To::kMantissa);
    result = std::bit_cast<Bits>(std::bit_cast<Number>(result) * kScale);
    if constexpr (From::kInfinite) result = magnitude >= From::kTopExponent ? To::kTopExponent : result;
  }
  const bool nan = From::is_nan(static_cast<typename From::Bits>(magnitude));
  return nan ? To::kNan : result | sign;
}

template <Rounding kRounding = Rounding::kNearest>
[[gnu::always_inline]] inline uint16_t f32_to_f16(float value) {
  return narrow<F16, F32, kRounding>(std::bit_cast<uint32_t>(value));
}

template <Rounding kRounding = Rounding::kNearest>
[[gnu::always_inline]] inline uint16_t f32_to_bf16(float value) {
  return narrow<Bf16, F32, kRounding>(std::bit_cast<uint32_t>(value));
}

[[gnu::always_inline]] inline float f16_to_f32(uint16_t value) { return std::bit_cast<float>(widen<F32, F16>(value)); }
/// bf16 is the upper half of an f32; as on the device, a NaN keeps its bits.
[[gnu::always_inline]] inline float bf16_to_f32(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

/// An f32 whose lower 13 bits of mantissa are zero. The default is the rounding of the plain cvt.rna.
template <Rounding kRounding = Rounding::kNearestAway, Overflow kOverflow = Overflow::kIeee>
[[gnu::always_inline]] inline uint32_t f32_to_tf32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t packed = narrow<Tf32Packed, F32, kRounding, kOverflow>(bits);
  return F32::is_nan(bits) ? F32::kNan : packed << 13;
}

/// cvt.rn.satfinite: beyond the largest number, that.
[[gnu::always_inline]] inline uint8_t f32_to_e4m3(float value) {
  return static_cast<uint8_t>(narrow<E4m3, F32, Rounding::kNearest, Overflow::kFinite>(std::bit_cast<uint32_t>(value)));
}
[[gnu::always_inline]] inline uint8_t f32_to_e5m2(float value) {
  return static_cast<uint8_t>(narrow<E5m2, F32, Rounding::kNearest, Overflow::kFinite>(std::bit_cast<uint32_t>(value)));
}
[[gnu::always_inline]] inline float e4m3_to_f32(uint8_t value) { return std::bit_cast<float>(widen<F32, E4m3>(value)); }
[[gnu::always_inline]] inline float e5m2_to_f32(uint8_t value) { return std::bit_cast<float>(widen<F32, E5m2>(value)); }

}  // namespace ptxsim
