#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>

#include "tools/ptxsim/exec/formats.h"
#include "tools/ptxsim/exec/lanewise.h"

/// cvt: between integers, between floating types, and from one to the other.
namespace ptxsim {

namespace {

/// .rni, .rzi, .rmi, .rpi: to an integral value.
enum class Integral : uint8_t { kNone, kNearest, kZero, kDown, kUp };

struct Modifiers {
  std::optional<Rounding> rounding;
  Integral integral = Integral::kNone;
  bool ftz = false, sat = false, relu = false, satfinite = false;

  bool plain() const { return !ftz && !sat && !relu && !satfinite; }
  Rounding rounds() const { return rounding.value_or(Rounding::kNearest); }
};

Modifiers modifiers_of(const Lowering& l) {
  Modifiers found;
  const auto round = [&](Rounding rounding) {
    if (found.rounding || found.integral != Integral::kNone) l.unknown();
    found.rounding = rounding;
  };
  const auto integral = [&](Integral how) {
    if (found.rounding || found.integral != Integral::kNone) l.unknown();
    found.integral = how;
  };
  for (const std::string& m : l.text().modifiers) {
    if (data_type(m)) continue;
    if (m == "rn") {
      round(Rounding::kNearest);
    } else if (m == "rz") {
      round(Rounding::kZero);
    } else if (m == "rm") {
      round(Rounding::kDown);
    } else if (m == "rp") {
      round(Rounding::kUp);
    } else if (m == "rna") {
      round(Rounding::kNearestAway);
    } else if (m == "rni") {
      integral(Integral::kNearest);
    } else if (m == "rzi") {
      integral(Integral::kZero);
    } else if (m == "rmi") {
      integral(Integral::kDown);
    } else if (m == "rpi") {
      integral(Integral::kUp);
    } else if (m == "ftz") {
      found.ftz = true;
    } else if (m == "sat") {
      found.sat = true;
    } else if (m == "relu") {
      found.relu = true;
    } else if (m == "satfinite") {
      found.satfinite = true;
    } else {
      l.unknown();
    }
  }
  return found;
}

/// The width of the register that an operand is, or of the one that a type would have.
uint32_t width_of(const Lowering& l, const ptx::Operand& operand, DataType type) {
  const uint32_t bits = l.register_bits(operand);
  return std::max<uint32_t>(16, bits != 0 ? bits : bits_of(type));
}

bool is_integer(DataType type) {
  switch (type) {
    case DataType::kU8:
    case DataType::kS8:
    case DataType::kU16:
    case DataType::kS16:
    case DataType::kU32:
    case DataType::kS32:
    case DataType::kU64:
    case DataType::kS64:
      return true;
    default:
      return false;
  }
}

/// f.operator()<T>() for the C++ type of an integer type.
template <class F>
Handler with_integer(DataType type, F f) {
  switch (type) {
    case DataType::kU8:
      return f.template operator()<uint8_t>();
    case DataType::kS8:
      return f.template operator()<int8_t>();
    case DataType::kU16:
      return f.template operator()<uint16_t>();
    case DataType::kS16:
      return f.template operator()<int16_t>();
    case DataType::kU32:
      return f.template operator()<uint32_t>();
    case DataType::kS32:
      return f.template operator()<int32_t>();
    case DataType::kU64:
      return f.template operator()<uint64_t>();
    case DataType::kS64:
      return f.template operator()<int64_t>();
    default:
      return nullptr;
  }
}

// --- integer to integer ----------------------------------------------------------------------------------------------

/// The value's low bits, all but `cut`, with sign or zeros above.
template <bool kSign, class T>
T keep_low(T value, int cut) {
  using S = std::conditional_t<kSign, std::make_signed_t<T>, std::make_unsigned_t<T>>;
  return static_cast<T>(static_cast<S>(static_cast<S>(static_cast<std::make_unsigned_t<T>>(value) << cut)) >> cut);
}

/// slots: d (a register R), a (a register A). flags: how many bits the source's and the destination's type leave of the
/// wider register.
template <class R, class A, bool kFromSigned, bool kToSigned>
void extend(Warp& w, const Instruction& in, Mask m) {
  using Wide = std::conditional_t<(sizeof(R) > sizeof(A)), R, A>;
  // 16 bits shift as 32: C++ would promote them anyhow.
  using T = std::conditional_t<sizeof(Wide) == 2, uint32_t, Wide>;
  const A* a = w.lanes<A>(in.slots[1]);
  const int source_cut = in.flags[0], cut = in.flags[1];
  for_lanes(w.lanes<R>(in.slots[0]), m, [=](int l) {
    return static_cast<R>(keep_low<kToSigned>(keep_low<kFromSigned>(T{a[l]}, source_cut), cut));
  });
}

template <class R, class A>
Handler extend(bool from_signed, bool to_signed) {
  if (from_signed) return to_signed ? extend<R, A, true, true> : extend<R, A, true, false>;
  return to_signed ? extend<R, A, false, true> : extend<R, A, false, false>;
}

template <class R>
Handler extend(uint32_t from_bits, bool from_signed, bool to_signed) {
  switch (from_bits) {
    case 16:
      return extend<R, uint16_t>(from_signed, to_signed);
    case 32:
      return extend<R, uint32_t>(from_signed, to_signed);
    default:
      return extend<R, uint64_t>(from_signed, to_signed);
  }
}

/// From `from` in a register of from_bits to `to` in one of to_bits.
void emit_extend(Lowering& l, Slot d, uint32_t to_bits, DataType to, Slot a, uint32_t from_bits, DataType from) {
  const auto width = std::max<uint32_t>({32, to_bits, from_bits});
  const bool from_signed = is_signed(from), to_signed = is_signed(to);
  const Handler handler = to_bits == 16   ? extend<uint16_t>(from_bits, from_signed, to_signed)
                          : to_bits == 32 ? extend<uint32_t>(from_bits, from_signed, to_signed)
                                          : extend<uint64_t>(from_bits, from_signed, to_signed);
  Instruction& in = l.emit(handler, {d, a});
  in.flags[0] = static_cast<uint8_t>(width - bits_of(from));
  in.flags[1] = static_cast<uint8_t>(width - bits_of(to));
}

/// cvt.sat of 64-bit integers and narrower ones alike: slots: d (64), a (64, extended). A: int64_t or uint64_t.
template <class D, class A>
void clamp_integer(Warp& w, const Instruction& in, Mask m) {
  constexpr auto kLowest = __int128{std::numeric_limits<D>::min()}, kHighest = __int128{std::numeric_limits<D>::max()};
  const A* a = w.lanes<A>(in.slots[1]);
  for_lanes(w.lanes<uint64_t>(in.slots[0]), m, [=](int l) {
    const __int128 value = a[l];
    return static_cast<uint64_t>(value < kLowest ? kLowest : value > kHighest ? kHighest : value);
  });
}

void lower_integers(Lowering& l, DataType to, DataType from, const Modifiers& modifiers) {
  if (modifiers.rounding || modifiers.integral != Integral::kNone || modifiers.ftz || modifiers.relu ||
      modifiers.satfinite) {
    l.unknown();
  }
  const uint32_t from_bits = width_of(l, l.operand(1), from), to_bits = width_of(l, l.operand(0), to);
  const Slot a = l.read(1, from_bits);
  if (!modifiers.sat) {
    if (to_bits < bits_of(to)) l.fail("the destination has {} bits", to_bits);
    if (from_bits < bits_of(from)) l.fail("the source has {} bits", from_bits);
    emit_extend(l, l.write(0, to_bits), to_bits, to, a, from_bits, from);
    return;
  }
  const Slot wide = l.temporary(64);
  emit_extend(l, wide, 64, is_signed(from) ? DataType::kS64 : DataType::kU64, a, from_bits, from);
  const Slot clamped = l.temporary(64);
  const bool from_signed = is_signed(from);
  l.emit(with_integer(to,
                      [&]<class D>() {
                        return from_signed ? Handler{clamp_integer<D, int64_t>} : Handler{clamp_integer<D, uint64_t>};
                      }),
         {clamped, wide});
  l.hide();
  emit_extend(l, l.write(0, to_bits), to_bits, to, clamped, 64, to);
  l.hide();
}

// --- sources of floating types ---------------------------------------------------------------------------------------

struct FromF16 {
  using Register = uint16_t;
  static float load(uint16_t v) { return f16_to_f32(v); }
};
struct FromBf16 {
  using Register = uint16_t;
  static float load(uint16_t v) { return bf16_to_f32(v); }
};
struct FromF32 {
  using Register = float;
  static float load(float v) { return v; }
};
struct FromF64 {
  using Register = double;
  static double load(double v) { return v; }
};

template <Integral kHow, class T>
[[gnu::always_inline]] inline T integral(T x) {
  switch (kHow) {
    case Integral::kNone:
      return x;
    case Integral::kNearest:
      return std::rint(x);
    case Integral::kZero:
      return std::trunc(x);
    case Integral::kDown:
      return std::floor(x);
    case Integral::kUp:
      return std::ceil(x);
  }
  return x;
}

/// f.operator()<kHow>() for one of the four that round.
template <class F>
Handler with_integral(Integral how, F f) {
  switch (how) {
    case Integral::kNearest:
      return f.template operator()<Integral::kNearest>();
    case Integral::kZero:
      return f.template operator()<Integral::kZero>();
    case Integral::kDown:
      return f.template operator()<Integral::kDown>();
    case Integral::kUp:
      return f.template operator()<Integral::kUp>();
    case Integral::kNone:
      break;
  }
  return nullptr;
}

// --- floating to integer ---------------------------------------------------------------------------------------------

/// An integral x in D: beyond its range the nearest end of it; NaN is 0, or the lowest bit pattern with only its top
/// bit set where 64 bits take part.
template <class D, class T>
[[gnu::always_inline]] inline D to_integer(T x) {
  using Limits = std::numeric_limits<D>;
  constexpr int kDigits = Limits::digits, kMantissa = std::numeric_limits<T>::digits;
  constexpr D kHighest = Limits::max();
  // The largest T that D holds.
  constexpr T kHigh = static_cast<T>(kDigits > kMantissa ? kHighest - (kHighest >> kMantissa) : kHighest);
  constexpr T kLow = static_cast<T>(Limits::min());
  constexpr bool kWide = sizeof(T) == 8 || sizeof(D) == 8;
  constexpr D kNan = kWide ? static_cast<D>(uint64_t{1} << (sizeof(D) * 8 - 1)) : D{0};
  // Narrow results go by way of 32 bits, which vectors convert to.
  using Through = std::conditional_t<(sizeof(D) < 4), int32_t, D>;
  T inside = x < kLow ? kLow : x;
  inside = inside > kHigh ? kHigh : inside;
  inside = std::isnan(x) ? T{0} : inside;
  const auto converted = static_cast<D>(static_cast<Through>(inside));
  const D clamped = x > kHigh ? kHighest : converted;
  return std::isnan(x) ? kNan : clamped;
}

/// slots: d, a. immediate: with ftz, the bits of the smallest normal f32, below which a source counts as zero.
template <class Source, Integral kHow, class D>
void float_to_integer(Warp& w, const Instruction& in, Mask m) {
  using R = std::conditional_t<sizeof(D) == 1, std::conditional_t<std::is_signed_v<D>, int16_t, uint16_t>, D>;
  const auto* a = w.lanes<typename Source::Register>(in.slots[1]);
  const float smallest = std::bit_cast<float>(static_cast<uint32_t>(in.immediate));
  for_lanes(w.lanes<R>(in.slots[0]), m, [=](int l) {
    auto x = Source::load(a[l]);
    if constexpr (std::is_same_v<Source, FromF32>) x = std::fabs(x) < smallest ? 0.0F : x;
    return static_cast<R>(to_integer<D>(integral<kHow>(x)));
  });
}

/// f.operator()<Source>() for a floating type.
template <class F>
Handler with_source(DataType type, F f) {
  switch (type) {
    case DataType::kF16:
      return f.template operator()<FromF16>();
    case DataType::kBf16:
      return f.template operator()<FromBf16>();
    case DataType::kF32:
      return f.template operator()<FromF32>();
    case DataType::kF64:
      return f.template operator()<FromF64>();
    default:
      return nullptr;
  }
}

void lower_to_integer(Lowering& l, DataType to, DataType from, const Modifiers& modifiers) {
  if (modifiers.integral == Integral::kNone || modifiers.relu || modifiers.satfinite) l.unknown();
  if (modifiers.ftz && from != DataType::kF32) l.unknown();
  const Handler handler = with_source(from, [&]<class Source>() {
    return with_integral(modifiers.integral, [&]<Integral kHow>() {
      return with_integer(to, []<class D>() { return Handler{float_to_integer<Source, kHow, D>}; });
    });
  });
  if (handler == nullptr) l.unknown();
  const auto natural = std::max<uint32_t>(16, bits_of(to));
  const uint32_t to_bits = width_of(l, l.operand(0), to);
  if (to_bits < natural) l.fail("the destination has {} bits", to_bits);
  const Slot a = l.read(1, bits_of(from));
  const Slot value = to_bits == natural ? l.write(0, natural) : l.temporary(natural);
  l.emit(handler, {value, a}).immediate =
      modifiers.ftz ? std::bit_cast<uint32_t>(std::numeric_limits<float>::min()) : 0;
  if (to_bits == natural) return;
  emit_extend(l, l.write(0, to_bits), to_bits, to, value, natural, to);
  l.hide();
}

// --- integer to floating ---------------------------------------------------------------------------------------------

/// A 64-bit magnitude with only so many significant bits, as a double.
template <int kSignificant, Rounding kRounding>
double round_magnitude(uint64_t magnitude, bool negative) {
  const int bits = 64 - std::countl_zero(magnitude);
  if (bits <= kSignificant) return static_cast<double>(magnitude);
  const auto cut = static_cast<unsigned __int128>(bits - kSignificant);
  const unsigned __int128 wide = magnitude;
  const auto kept = static_cast<uint64_t>((wide + rounding_bias<kRounding>(wide, cut, negative)) >> cut);
  return std::ldexp(static_cast<double>(kept), static_cast<int>(cut));
}

template <class To, Rounding kRounding, class S>
[[gnu::always_inline]] inline typename To::Bits from_integer(S value) {
  using Bits = typename To::Bits;
  constexpr bool kNearest = kRounding == Rounding::kNearest;
  if constexpr (kNearest && std::is_same_v<To, F32>) {
    return std::bit_cast<Bits>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, F64> && (kNearest || sizeof(S) <= 4)) {
    return std::bit_cast<Bits>(static_cast<double>(value));
  } else if constexpr (sizeof(S) <= 4) {
    return narrow<To, F64, kRounding>(std::bit_cast<uint64_t>(static_cast<double>(value)));
  } else {
    const bool negative = value < 0;
    const uint64_t magnitude = negative ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    const double rounded = round_magnitude<To::kMantissa + 1, kRounding>(magnitude, negative);
    const auto bits = std::bit_cast<uint64_t>(negative ? -rounded : rounded);
    if constexpr (std::is_same_v<To, F64>) {
      return bits;
    } else {
      return narrow<To, F64, kRounding>(bits);
    }
  }
}

template <class To, Rounding kRounding>
constexpr auto kFromInteger = [](auto value) { return from_integer<To, kRounding>(value); };

/// f.operator()<kRounding>() for the four IEEE roundings.
template <class F>
Handler with_rounding(Rounding rounding, F f) {
  switch (rounding) {
    case Rounding::kNearest:
      return f.template operator()<Rounding::kNearest>();
    case Rounding::kZero:
      return f.template operator()<Rounding::kZero>();
    case Rounding::kDown:
      return f.template operator()<Rounding::kDown>();
    case Rounding::kUp:
      return f.template operator()<Rounding::kUp>();
    case Rounding::kNearestAway:
      break;
  }
  return nullptr;
}

template <class To>
Handler integer_to(DataType from, Rounding rounding) {
  return with_rounding(rounding, [&]<Rounding kRounding>() {
    return with_integer(from, []<class S>() {
      if constexpr (sizeof(S) == 1) {
        return Handler{nullptr};
      } else {
        return Handler{lanewise<kFromInteger<To, kRounding>, typename To::Bits, S>};
      }
    });
  });
}

// --- floating to floating --------------------------------------------------------------------------------------------

// The flags of the general handler.
constexpr int kFrom = 0, kTo = 1, kRound = 2, kIntegral = 3, kWhat = 4;
constexpr uint8_t kFtz = 1, kSat = 2, kRelu = 4, kSatfinite = 8;

double flush_f32(double x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0, x) : x; }

template <class To, Overflow kOverflow>
uint64_t narrow_double(double x, Rounding rounding) {
  const auto bits = std::bit_cast<uint64_t>(x);
  switch (rounding) {
    case Rounding::kNearest:
      return narrow<To, F64, Rounding::kNearest, kOverflow>(bits);
    case Rounding::kZero:
      return narrow<To, F64, Rounding::kZero, kOverflow>(bits);
    case Rounding::kDown:
      return narrow<To, F64, Rounding::kDown, kOverflow>(bits);
    case Rounding::kUp:
      return narrow<To, F64, Rounding::kUp, kOverflow>(bits);
    case Rounding::kNearestAway:
      return narrow<To, F64, Rounding::kNearestAway, kOverflow>(bits);
  }
  return 0;
}

template <class To>
uint64_t narrow_double(double x, Rounding rounding, bool satfinite) {
  return satfinite ? narrow_double<To, Overflow::kFinite>(x, rounding)
                   : narrow_double<To, Overflow::kIeee>(x, rounding);
}

/// Every type and modifier, by way of double, which holds all of them. slots: d, a.
void convert_any(Warp& w, const Instruction& in, Mask m) {
  const auto from = static_cast<DataType>(in.flags[kFrom]), to = static_cast<DataType>(in.flags[kTo]);
  const auto rounding = static_cast<Rounding>(in.flags[kRound]);
  const auto how = static_cast<Integral>(in.flags[kIntegral]);
  const bool ftz = (in.flags[kWhat] & kFtz) != 0, sat = (in.flags[kWhat] & kSat) != 0,
             relu = (in.flags[kWhat] & kRelu) != 0, satfinite = (in.flags[kWhat] & kSatfinite) != 0;
  each_lane(m, [&](int l) {
    double x = 0;
    switch (from) {
      case DataType::kF16:
        x = f16_to_f32(w.lanes<uint16_t>(in.slots[1])[l]);
        break;
      case DataType::kBf16:
        x = bf16_to_f32(w.lanes<uint16_t>(in.slots[1])[l]);
        break;
      case DataType::kF32:
        x = w.lanes<float>(in.slots[1])[l];
        if (ftz) x = flush_f32(x);
        break;
      default:
        x = w.lanes<double>(in.slots[1])[l];
        break;
    }
    switch (how) {
      case Integral::kNone:
        break;
      case Integral::kNearest:
        x = integral<Integral::kNearest>(x);
        break;
      case Integral::kZero:
        x = integral<Integral::kZero>(x);
        break;
      case Integral::kDown:
        x = integral<Integral::kDown>(x);
        break;
      case Integral::kUp:
        x = integral<Integral::kUp>(x);
        break;
    }
    if (sat) x = x > 0 ? std::min(x, 1.0) : 0.0;  // NaN too becomes +0
    if (relu) x = x > 0 || std::isnan(x) ? x : 0.0;
    switch (to) {
      case DataType::kF16:
        w.lanes<uint16_t>(in.slots[0])[l] = static_cast<uint16_t>(narrow_double<F16>(x, rounding, satfinite));
        break;
      case DataType::kBf16:
        w.lanes<uint16_t>(in.slots[0])[l] = static_cast<uint16_t>(narrow_double<Bf16>(x, rounding, satfinite));
        break;
      case DataType::kTf32: {
        const auto packed = static_cast<uint32_t>(narrow_double<Tf32Packed>(x, rounding, satfinite));
        w.lanes<uint32_t>(in.slots[0])[l] = std::isnan(x) ? F32::kNan : packed << 13;
        break;
      }
      case DataType::kF32: {
        auto bits = static_cast<uint32_t>(narrow_double<F32>(x, rounding, satfinite));
        if (ftz && (bits & F32::kTopExponent) == 0) bits &= F32::kSign;
        w.lanes<uint32_t>(in.slots[0])[l] = bits;
        break;
      }
      default:
        w.lanes<double>(in.slots[0])[l] = x;
        break;
    }
  });
}

/// cvt.rni.f32.f32 and the like. immediate: as for float_to_integer, of the type's own width.
template <class T, Integral kHow>
void round_to_integral(Warp& w, const Instruction& in, Mask m) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  const T* a = w.lanes<T>(in.slots[1]);
  const T smallest = std::bit_cast<T>(static_cast<Bits>(in.immediate));
  for_lanes(w.lanes<T>(in.slots[0]), m, [=](int l) {
    const T x = std::fabs(a[l]) < smallest ? std::copysign(T{0}, a[l]) : a[l];
    const T rounded = integral<kHow>(x);
    // f32's results have but one NaN; f64's keep what theirs says.
    if constexpr (sizeof(T) == 4) return std::isnan(x) ? std::bit_cast<float>(F32::kNan) : rounded;
    return rounded;
  });
}

constexpr auto kWidenF16 = [](uint16_t a) { return widen<F32, F16>(a); };
constexpr auto kWidenBf16 = [](uint16_t a) { return uint32_t{a} << 16; };
constexpr auto kWidenF32 = [](float a) { return static_cast<double>(a); };
constexpr auto kNarrowF64 = [](double a) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(a));
  return std::isnan(a) ? F32::kNan : bits;
};
template <class To, Rounding kRounding>
constexpr auto kNarrowF32 = [](uint32_t a) { return narrow<To, F32, kRounding>(a); };
constexpr auto kSaturateF32 = [](float a) {
  const float positive = a > 0.0F ? a : 0.0F;
  return positive < 1.0F ? positive : 1.0F;
};
constexpr auto kRoundTf32 = [](uint32_t a) { return f32_to_tf32(std::bit_cast<float>(a)); };

/// The frequent conversions, which have loops of their own; null for the others.
Handler frequent(DataType to, DataType from, const Modifiers& modifiers) {
  using D = DataType;
  if (modifiers.relu || modifiers.satfinite) return nullptr;
  if (modifiers.integral != Integral::kNone) {
    if (modifiers.sat || to != from) return nullptr;
    return with_integral(modifiers.integral, [&]<Integral kHow>() {
      if (to == D::kF32) return Handler{round_to_integral<float, kHow>};
      if (to == D::kF64) return Handler{round_to_integral<double, kHow>};
      return Handler{nullptr};
    });
  }
  if (to == D::kF32 && from == D::kF32 && modifiers.sat && !modifiers.ftz) return lanewise<kSaturateF32, float, float>;
  if (modifiers.sat) return nullptr;
  // Their results are no subnormals, or ftz has no business with them.
  if (to == D::kF32 && from == D::kF16) return lanewise<kWidenF16, uint32_t, uint16_t>;
  if (modifiers.ftz) return nullptr;
  if (to == D::kF32 && from == D::kBf16) return lanewise<kWidenBf16, uint32_t, uint16_t>;
  if (to == D::kF64 && from == D::kF32) return lanewise<kWidenF32, double, float>;
  if (to == D::kTf32 && modifiers.rounds() == Rounding::kNearestAway) return lanewise<kRoundTf32, uint32_t, uint32_t>;
  if (modifiers.rounds() == Rounding::kNearest && from == D::kF64 && to == D::kF32) {
    return lanewise<kNarrowF64, uint32_t, double>;
  }
  if (from != D::kF32 || (to != D::kF16 && to != D::kBf16)) return nullptr;
  return with_rounding(modifiers.rounds(), [&]<Rounding kRounding>() {
    return to == D::kF16 ? Handler{lanewise<kNarrowF32<F16, kRounding>, uint16_t, uint32_t>}
                         : Handler{lanewise<kNarrowF32<Bf16, kRounding>, uint16_t, uint32_t>};
  });
}

/// How many bits of mantissa a type keeps: a conversion to fewer rounds.
int precision(DataType type) {
  switch (type) {
    case DataType::kBf16:
      return 7;
    case DataType::kF16:
    case DataType::kTf32:
      return 10;
    case DataType::kF32:
      return 23;
    case DataType::kF64:
      return 52;
    default:
      return 0;
  }
}

void emit_any(Lowering& l, Slot d, DataType to, Slot a, DataType from, const Modifiers& modifiers) {
  Instruction& in = l.emit(convert_any, {d, a});
  in.flags[kFrom] = static_cast<uint8_t>(from);
  in.flags[kTo] = static_cast<uint8_t>(to);
  in.flags[kRound] = static_cast<uint8_t>(modifiers.rounds());
  in.flags[kIntegral] = static_cast<uint8_t>(modifiers.integral);
  in.flags[kWhat] = static_cast<uint8_t>((modifiers.ftz ? kFtz : 0) | (modifiers.sat ? kSat : 0) |
                                         (modifiers.relu ? kRelu : 0) | (modifiers.satfinite ? kSatfinite : 0));
}

void lower_floats(Lowering& l, DataType to, DataType from, const Modifiers& modifiers) {
  if (precision(to) == 0 || precision(from) == 0 || from == DataType::kTf32) l.unknown();
  // f16's exponent is smaller than bf16's: neither holds all of the other.
  const bool loses = precision(to) < precision(from) || (to == DataType::kF16 && from == DataType::kBf16);
  if (loses != modifiers.rounding.has_value()) l.unknown();
  if (modifiers.integral != Integral::kNone && to != from) l.unknown();
  const bool away = modifiers.rounds() == Rounding::kNearestAway;
  if (to == DataType::kTf32 ? from != DataType::kF32 : away) l.unknown();
  if (modifiers.ftz && to != DataType::kF32 && from != DataType::kF32) l.unknown();
  const bool half_like = to == DataType::kF16 || to == DataType::kBf16 || to == DataType::kTf32;
  if ((modifiers.relu || modifiers.satfinite) && (!half_like || from != DataType::kF32 || modifiers.sat)) l.unknown();
  const Slot a = l.read(1, bits_of(from));
  const Slot d = l.write(0, bits_of(to));
  if (const Handler handler = frequent(to, from, modifiers); handler != nullptr) {
    l.emit(handler, {d, a}).immediate = modifiers.ftz ? std::bit_cast<uint32_t>(std::numeric_limits<float>::min()) : 0;
    return;
  }
  emit_any(l, d, to, a, from, modifiers);
}

void lower_from_integer(Lowering& l, DataType to, DataType from, const Modifiers& modifiers) {
  if (!modifiers.rounding || modifiers.relu || modifiers.satfinite) l.unknown();
  if (modifiers.ftz && to != DataType::kF32) l.unknown();  // no result is subnormal
  const auto natural = std::max<uint32_t>(16, bits_of(from));
  const uint32_t from_bits = width_of(l, l.operand(1), from);
  Slot a = l.read(1, from_bits);
  DataType source = from;
  bool first = true;
  if (from_bits < natural) l.fail("the source has {} bits", from_bits);
  if (from_bits != natural || bits_of(from) == 8) {
    if (bits_of(from) == 8) source = is_signed(from) ? DataType::kS16 : DataType::kU16;
    const Slot extended = l.temporary(natural);
    emit_extend(l, extended, natural, source, a, from_bits, from);
    a = extended;
    first = false;
  }
  Handler handler = nullptr;
  switch (to) {
    case DataType::kF16:
      handler = integer_to<F16>(source, *modifiers.rounding);
      break;
    case DataType::kBf16:
      handler = integer_to<Bf16>(source, *modifiers.rounding);
      break;
    case DataType::kF32:
      handler = integer_to<F32>(source, *modifiers.rounding);
      break;
    case DataType::kF64:
      handler = integer_to<F64>(source, *modifiers.rounding);
      break;
    default:
      break;
  }
  if (handler == nullptr) l.unknown();
  const Slot d = l.write(0, bits_of(to));
  l.emit(handler, {d, a});
  if (!first) l.hide();
  if (!modifiers.sat) return;
  Modifiers saturate;
  saturate.sat = true;
  emit_any(l, d, to, d, to, saturate);
  l.hide();
}

// --- pairs -----------------------------------------------------------------------------------------------------------

/// A negative number becomes +0; a NaN stays.
template <class To>
uint32_t relu(uint32_t v) {
  return (v & To::kSign) != 0 && !To::is_nan(static_cast<typename To::Bits>(v)) ? 0 : v;
}

/// d = {low: b, high: a}. slots: d, a, b.
template <class To, Rounding kRounding, Overflow kOverflow, bool kRelu>
constexpr auto kPair = [](uint32_t a, uint32_t b) {
  uint32_t high = narrow<To, F32, kRounding, kOverflow>(a);
  uint32_t low = narrow<To, F32, kRounding, kOverflow>(b);
  if (kRelu) {
    high = relu<To>(high);
    low = relu<To>(low);
  }
  return high << (8 * sizeof(typename To::Bits)) | low;
};

template <class To>
using PairRegister = std::conditional_t<sizeof(typename To::Bits) == 1, uint16_t, uint32_t>;

template <class To, Rounding kRounding>
Handler pair(bool satfinite, bool relu_wanted) {
  const auto pick = []<Overflow kOverflow, bool kRelu>() {
    return Handler{lanewise<kPair<To, kRounding, kOverflow, kRelu>, PairRegister<To>, uint32_t, uint32_t>};
  };
  if (satfinite) {
    return relu_wanted ? pick.template operator()<Overflow::kFinite, true>()
                       : pick.template operator()<Overflow::kFinite, false>();
  }
  return relu_wanted ? pick.template operator()<Overflow::kIeee, true>()
                     : pick.template operator()<Overflow::kIeee, false>();
}

/// Two f32 into one register.
void lower_pair(Lowering& l, DataType to, DataType from, const Modifiers& modifiers) {
  if (from != DataType::kF32 || modifiers.ftz || modifiers.sat || !modifiers.rounding) l.unknown();
  const bool eight = to == DataType::kE4m3x2 || to == DataType::kE5m2x2;
  if (eight && !modifiers.satfinite) l.unknown();
  const bool zero = *modifiers.rounding == Rounding::kZero && !eight;
  if (!zero && *modifiers.rounding != Rounding::kNearest) l.unknown();
  const bool satfinite = modifiers.satfinite, relu_wanted = modifiers.relu;
  Handler handler = nullptr;
  switch (to) {
    case DataType::kF16x2:
      handler = zero ? pair<F16, Rounding::kZero>(satfinite, relu_wanted)
                     : pair<F16, Rounding::kNearest>(satfinite, relu_wanted);
      break;
    case DataType::kBf16x2:
      handler = zero ? pair<Bf16, Rounding::kZero>(satfinite, relu_wanted)
                     : pair<Bf16, Rounding::kNearest>(satfinite, relu_wanted);
      break;
    case DataType::kE4m3x2:
      handler = pair<E4m3, Rounding::kNearest>(true, relu_wanted);
      break;
    case DataType::kE5m2x2:
      handler = pair<E5m2, Rounding::kNearest>(true, relu_wanted);
      break;
    default:
      l.unknown();
  }
  const Slot a = l.read(1, 32), b = l.read(2, 32);
  l.emit(handler, {l.write(0, bits_of(to)), a, b});
}

/// f16x2 -> two 8-bit numbers.
template <class To, bool kRelu>
constexpr auto kNarrowHalves = [](uint32_t a) {
  const auto one = [](uint16_t v) {
    const uint32_t n = narrow<To, F32, Rounding::kNearest, Overflow::kFinite>(widen<F32, F16>(v));
    return kRelu ? relu<To>(n) : n;
  };
  return static_cast<uint16_t>(one(static_cast<uint16_t>(a >> 16)) << 8 | one(static_cast<uint16_t>(a)));
};

/// Two 8-bit numbers -> f16x2: exact.
template <class From, bool kRelu>
constexpr auto kWidenBytes = [](uint16_t a) {
  const auto one = [](uint8_t v) {
    const uint32_t n = narrow<F16, F32, Rounding::kZero>(widen<F32, From>(v));
    return kRelu ? relu<F16>(n) : n;
  };
  return one(static_cast<uint8_t>(a >> 8)) << 16 | one(static_cast<uint8_t>(a));
};

void lower_bytes(Lowering& l, DataType to, DataType from, const Modifiers& modifiers) {
  if (modifiers.rounding != Rounding::kNearest || modifiers.ftz || modifiers.sat) l.unknown();
  Handler handler = nullptr;
  const bool relu_wanted = modifiers.relu;
  if (from == DataType::kF16x2 && modifiers.satfinite) {
    const auto pick = [&]<class To>() {
      return relu_wanted ? Handler{lanewise<kNarrowHalves<To, true>, uint16_t, uint32_t>}
                         : Handler{lanewise<kNarrowHalves<To, false>, uint16_t, uint32_t>};
    };
    if (to == DataType::kE4m3x2) handler = pick.template operator()<E4m3>();
    if (to == DataType::kE5m2x2) handler = pick.template operator()<E5m2>();
  }
  if (to == DataType::kF16x2 && !modifiers.satfinite) {
    const auto pick = [&]<class From>() {
      return relu_wanted ? Handler{lanewise<kWidenBytes<From, true>, uint32_t, uint16_t>}
                         : Handler{lanewise<kWidenBytes<From, false>, uint32_t, uint16_t>};
    };
    if (from == DataType::kE4m3x2) handler = pick.template operator()<E4m3>();
    if (from == DataType::kE5m2x2) handler = pick.template operator()<E5m2>();
  }
  if (handler == nullptr) l.unknown();
  const Slot a = l.read(1, bits_of(from));
  l.emit(handler, {l.write(0, bits_of(to)), a});
}

// --- cvt.pack --------------------------------------------------------------------------------------------------------

/// d = {low: b, then a, then what c has}, a and b clamped to `size` bits. slots: d, a, b, c. flags: [0] size, [1]
/// signed.
void pack_integers(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<int32_t>(in.slots[1]);
  const auto* b = w.lanes<int32_t>(in.slots[2]);
  const auto* c = w.lanes<uint32_t>(in.slots[3]);
  const uint32_t size = in.flags[0];
  const bool is_signed_type = in.flags[1] != 0;
  const auto highest = static_cast<int32_t>((uint32_t{1} << (is_signed_type ? size - 1 : size)) - 1);
  const int32_t lowest = is_signed_type ? -highest - 1 : 0;
  const uint32_t field = (uint32_t{1} << size) - 1;
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [=](int l) {
    const uint32_t high = static_cast<uint32_t>(std::clamp(a[l], lowest, highest)) & field;
    const uint32_t low = static_cast<uint32_t>(std::clamp(b[l], lowest, highest)) & field;
    const uint32_t rest = size == 16 ? 0 : c[l] << (2 * size & 31);
    return rest | high << size | low;
  });
}

void lower_pack(Lowering& l) {
  // cvt.pack.sat.TYPE.s32; u2 and s2 are types here only.
  const auto& words = l.text().modifiers;
  if (words.size() != 4 || words[0] != "pack" || words[1] != "sat" || words[3] != "s32") l.unknown();
  const std::string& type = words[2];
  const bool is_signed_type = type[0] == 's';
  const std::string size_text = type.substr(1);
  if ((type[0] != 'u' && type[0] != 's') ||
      (size_text != "2" && size_text != "4" && size_text != "8" && size_text != "16")) {
    l.unknown();
  }
  const auto size = static_cast<uint8_t>(std::stoi(size_text));
  if (l.operand_count() != (size == 16 ? 3 : 4)) l.unknown();
  const Slot a = l.read(1, 32), b = l.read(2, 32);
  const Slot c = size == 16 ? l.constant(0, 32) : l.read(3, 32);
  Instruction& in = l.emit(pack_integers, {l.write(0, 32), a, b, c});
  in.flags[0] = size;
  in.flags[1] = is_signed_type ? 1 : 0;
}

/// By what ptxas makes of it for sm_80 and later, so that an estimate is not longer than the truth: f16 widens by an
/// addition of zero (HADD2.F32), bf16 by a shift; f32 narrows to either (F2FP), integers become each other and f32 (for
/// sm_90, I2FP) where integers are computed. What is left is the special functions' unit's: F2I, FRND, F2F.
Kind kind_of(DataType to, DataType from, const Modifiers& modifiers) {
  const bool to_half =
      to == DataType::kF16 || to == DataType::kBf16 || to == DataType::kF16x2 || to == DataType::kBf16x2;
  if (is_integer(from)) {
    return is_integer(to) || (to == DataType::kF32 && bits_of(from) <= 32) ? Kind::kInteger : Kind::kConversion;
  }
  if (to == DataType::kF32 && from == DataType::kF16) return Kind::kFp16;
  if (to == DataType::kF32 && from == DataType::kBf16) return Kind::kInteger;
  if (to_half && from == DataType::kF32) return Kind::kInteger;
  const bool clamps = to == DataType::kF32 && from == DataType::kF32 && modifiers.integral == Integral::kNone;
  return clamps ? Kind::kFp32 : Kind::kConversion;
}

void lower_cvt(Lowering& l) {
  if (l.has("pack")) return lower_pack(l);
  const Modifiers modifiers = modifiers_of(l);
  if (l.type_count() != 2) l.unknown();
  const DataType to = l.type(0), from = l.type(1);
  l.set_kind(kind_of(to, from, modifiers));
  if (l.operand_count() == 3) return lower_pair(l, to, from, modifiers);
  if (l.operand_count() != 2) l.unknown();
  if (is_integer(to) && is_integer(from)) return lower_integers(l, to, from, modifiers);
  if (is_integer(to)) return lower_to_integer(l, to, from, modifiers);
  if (is_integer(from)) return lower_from_integer(l, to, from, modifiers);
  if (to == DataType::kF16x2 || from == DataType::kF16x2) return lower_bytes(l, to, from, modifiers);
  lower_floats(l, to, from, modifiers);
}

}  // namespace

void add_conversion(OpcodeTable& t) { t.add("cvt", Kind::kInteger, lower_cvt); }

}  // namespace ptxsim
