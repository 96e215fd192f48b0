#include <cmath>
#include <type_traits>

#include "tools/ptxsim/exec/comparison.h"
#include "tools/ptxsim/exec/float_math.h"
#include "tools/ptxsim/exec/float_ops.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/program/lowering.h"

/// Arithmetic, comparisons and approximations of f32, f64 and f32x2.
///
/// NaNs: an f32 result that is one is 0x7fffffff; f64 keeps the payload of a source, as the device does. Rounding and
/// .ftz are the processor's own (ArithmeticMode), so one handler serves both instruction sets.
namespace ptxsim {

namespace {

// --- what is computed -----------------------------------------------------------------------------------------------

constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kSubtract = [](auto a, auto b) { return a - b; };
constexpr auto kMultiply = [](auto a, auto b) { return a * b; };
constexpr auto kDivide = [](auto a, auto b) { return a / b; };
constexpr auto kReciprocal = []<class T>(T a) { return T{1} / a; };
constexpr auto kSqrt = [](auto a) { return std::sqrt(a); };
constexpr auto kRsqrt = []<class T>(T a) { return T{1} / std::sqrt(a); };
constexpr auto kFma = [](auto a, auto b, auto c) { return fused(a, b, c); };
/// Beyond 2^126 the device's reciprocal of the divisor is zero.
constexpr auto kDivideApproximate = [](float a, float b) {
  const float zero = a * std::copysign(0.0F, b);
  return (std::fabs(b) > 0x1p126F) & (std::fabs(b) <= 0x1.fffffep127F) ? zero : a / b;
};

template <class T>
using FormatOf = std::conditional_t<std::is_same_v<T, float>, F32, F64>;

constexpr auto kNegate = []<class T>(T a) {
  using Bits = typename FormatOf<T>::Bits;
  return std::bit_cast<T>(static_cast<Bits>(std::bit_cast<Bits>(a) ^ FormatOf<T>::kSign));
};
constexpr auto kMagnitude = []<class T>(T a) { return std::fabs(a); };

/// The operations whose f64 NaNs are not chosen_nan's.
template <auto F>
constexpr bool kOwnNan = false;
template <>
constexpr bool kOwnNan<kNegate> = true;
template <>
constexpr bool kOwnNan<kMagnitude> = true;

template <Pick kPick, bool kNan>
constexpr auto kExtreme = []<class T>(T a, T b) { return extreme<FormatOf<T>, kPick, kNan>(a, b); };
template <Pick kPick, bool kNan>
constexpr auto kExtremeXorsign = []<class T>(T a, T b) { return extreme_xorsign<FormatOf<T>, kPick, kNan>(a, b); };

constexpr auto kEx2 = [](float a) { return ex2(a); };
constexpr auto kLg2 = [](float a) { return lg2(a); };
constexpr auto kSin = [](float a) { return sin_approximate(a); };
constexpr auto kCos = [](float a) { return cos_approximate(a); };
constexpr auto kTanh = [](float a) { return tanh_approximate(a); };

template <auto F>
constexpr auto kFlushed = [](auto... a) { return F(flush(a)...); };

/// rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64: of the upper word alone, to the upper word alone.
template <auto F>
constexpr auto kUpperWord = [](double a) {
  constexpr uint64_t kUpper = ~uint64_t{0xffffffff};
  const auto upper = std::bit_cast<double>(std::bit_cast<uint64_t>(a) & kUpper);
  return std::bit_cast<double>(std::bit_cast<uint64_t>(F(upper)) & kUpper);
};

template <>
constexpr bool kOwnNan<kUpperWord<kReciprocal>> = true;
template <>
constexpr bool kOwnNan<kUpperWord<kRsqrt>> = true;

// --- handlers -------------------------------------------------------------------------------------------------------

/// An f64 result that is a NaN: the first source that is one, made quiet, or the processor's own.
template <class... T>
double chosen_nan(double result, T... source) {
  constexpr auto kOwn = std::bit_cast<double>(uint64_t{0xfff8} << 48);
  double nan = kOwn;
  bool found = false;
  ((nan = !found & (source != source) ? source : nan, found = found | (source != source)), ...);
  const auto quiet = std::bit_cast<double>(std::bit_cast<uint64_t>(nan) | uint64_t{1} << 51);
  return result == result ? result : quiet;
}

/// d[i] = f(i) for the elements of the mask's lanes, kWidth of them in each.
template <int kWidth, class T, class F>
inline __attribute__((always_inline)) void for_elements(T* d, Mask mask, F f) {
  if constexpr (kWidth == 1) {
    for_lanes(d, mask, f);
  } else {
#pragma GCC ivdep
    for (int i = 0; i < kLanes * kWidth; ++i) {
      const T value = f(i);
      d[i] = (mask >> (i / kWidth) & 1) != 0 ? value : d[i];
    }
  }
}

/// slots: destination, kSources sources, all of T (kWidth of them in a register).
template <auto F, int kSources, class T, int kWidth, Rounding kRounding, bool kFtz, bool kSaturate>
void arithmetic(Warp& w, const Instruction& in, Mask m) {
  const ArithmeticMode<kRounding, kFtz> mode;
  const T* a = w.lanes<T>(in.slots[1]);
  const T* b = w.lanes<T>(in.slots[kSources > 1 ? 2 : 1]);
  const T* c = w.lanes<T>(in.slots[kSources > 2 ? 3 : 1]);
  for_elements<kWidth>(w.lanes<T>(in.slots[0]), m, [=](int i) {
    const auto compute = [](auto... source) {
      const T result = F(source...);
      if constexpr (kSaturate) return saturate(result);
      if constexpr (std::is_same_v<T, float>) return canonical(result);
      if constexpr (std::is_same_v<T, double> && !kOwnNan<F>) return chosen_nan(result, source...);
      return result;
    };
    if constexpr (kSources == 1) return compute(a[i]);
    if constexpr (kSources == 2) return compute(a[i], b[i]);
    if constexpr (kSources == 3) return compute(a[i], b[i], c[i]);
  });
}

/// An operation on one type and in one rounding, by whether it flushes and saturates.
template <auto F, int kSources, class T, int kWidth, Rounding kRounding>
Handler with_flags(bool ftz, bool saturate) {
  if constexpr (std::is_same_v<T, float>) {
    if (ftz && saturate) return arithmetic<F, kSources, T, kWidth, kRounding, true, true>;
    if (saturate) return arithmetic<F, kSources, T, kWidth, kRounding, false, true>;
    if (ftz) return arithmetic<F, kSources, T, kWidth, kRounding, true, false>;
  }
  return arithmetic<F, kSources, T, kWidth, kRounding, false, false>;
}

/// An operation of every rounding, by type.
template <auto F, int kSources>
Handler rounded(DataType type, Rounding rounding, bool ftz, bool saturate) {
  const auto of_type = [&]<class T, int kWidth>() {
    switch (rounding) {
      case Rounding::kZero:
        return with_flags<F, kSources, T, kWidth, Rounding::kZero>(ftz, saturate);
      case Rounding::kDown:
        return with_flags<F, kSources, T, kWidth, Rounding::kDown>(ftz, saturate);
      case Rounding::kUp:
        return with_flags<F, kSources, T, kWidth, Rounding::kUp>(ftz, saturate);
      default:
        return with_flags<F, kSources, T, kWidth, Rounding::kNearest>(ftz, saturate);
    }
  };
  if (type == DataType::kF64) return of_type.template operator()<double, 1>();
  if (type == DataType::kF32x2) return of_type.template operator()<float, 2>();
  return of_type.template operator()<float, 1>();
}

/// An operation that knows no rounding, of f32, with .ftz or without.
template <auto F, int kSources>
Handler plain_f32(bool ftz) {
  return ftz ? arithmetic<F, kSources, float, 1, Rounding::kNearest, true, false>
             : arithmetic<F, kSources, float, 1, Rounding::kNearest, false, false>;
}

template <auto F, int kSources>
Handler plain(DataType type, bool ftz) {
  if (type == DataType::kF64) return arithmetic<F, kSources, double, 1, Rounding::kNearest, false, false>;
  return plain_f32<F, kSources>(ftz);
}

/// An operation on bits, which the processor does not flush; its results are subnormal only when a source is.
template <auto F, int kSources>
Handler of_bits(DataType type, bool ftz) {
  return ftz ? plain_f32<kFlushed<F>, kSources>(false) : plain<F, kSources>(type, false);
}

/// rcp.approx.ftz.f64, rsqrt.approx.ftz.f64.
template <auto F>
Handler upper_word() {
  return arithmetic<kUpperWord<F>, 1, double, 1, Rounding::kNearest, true, false>;
}

template <int kPredicate, class T, bool kFtz>
struct Compare {
  static Comparison of(const Warp& w, Slot a, Slot b) {
    const T *x = w.lanes<T>(a), *y = w.lanes<T>(b);
    alignas(64) T flushed[2][kLanes];
    if constexpr (kFtz) {
      for (int l = 0; l < kLanes; ++l) flushed[0][l] = flush(x[l]);
      for (int l = 0; l < kLanes; ++l) flushed[1][l] = flush(y[l]);
      x = flushed[0];
      y = flushed[1];
    }
    const auto first = static_cast<Mask>(compare_numbers<kPredicate, kLanes>(x, y));
    return {first, ~first};
  }
};

template <class F>
void copysign(Warp& w, const Instruction& in, Mask m) {
  using Bits = typename F::Bits;
  const Bits *sign = w.lanes<Bits>(in.slots[1]), *value = w.lanes<Bits>(in.slots[2]);
  for_lanes(w.lanes<Bits>(in.slots[0]), m, [=](int l) { return (sign[l] & F::kSign) | (value[l] & (F::kSign - 1)); });
}

enum class Test : uint8_t { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };

template <class F, Test kTest>
void testp(Warp& w, const Instruction& in, Mask m) {
  using Bits = typename F::Bits;
  const Bits* a = w.lanes<Bits>(in.slots[1]);
  const Mask result = lane_mask([=](int l) -> bool {
    const Bits magnitude = a[l] & (F::kSign - 1);
    const bool subnormal = magnitude - 1 < (Bits{1} << F::kMantissa) - 1;  // zeros count as normal
    switch (kTest) {
      case Test::kFinite:
        return magnitude < F::kTopExponent;
      case Test::kInfinite:
        return magnitude == F::kTopExponent;
      case Test::kNumber:
        return magnitude <= F::kTopExponent;
      case Test::kNotANumber:
        return magnitude > F::kTopExponent;
      case Test::kNormal:
        return (magnitude < F::kTopExponent) & !subnormal;
      default:
        return subnormal;
    }
  });
  set_predicate(w.predicate(in.slots[0]), m, result);
}

// --- lowering -------------------------------------------------------------------------------------------------------

/// The rounding named, at most one; fails without one where it is `required`.
Rounding rounding_of(const Lowering& l, bool required) {
  if (l.has("rn") + l.has("rz") + l.has("rm") + l.has("rp") > 1) l.unknown();
  if (l.has("rz")) return Rounding::kZero;
  if (l.has("rm")) return Rounding::kDown;
  if (l.has("rp")) return Rounding::kUp;
  if (required && !l.has("rn")) l.fail("a rounding is missing");
  return Rounding::kNearest;
}

bool is_f32(const Lowering& l) { return l.type() == DataType::kF32; }

void expect_type(const Lowering& l, std::initializer_list<DataType> types) {
  if (std::find(types.begin(), types.end(), l.type()) == types.end()) l.unknown();
}

/// Fails for modifiers that only f32 has (and, of .ftz, f32x2).
void check_flags(const Lowering& l) {
  if (l.has("sat") && !is_f32(l)) l.unknown();
  if (l.has("ftz") && l.type() == DataType::kF64) l.unknown();
}

void emit_floats(Lowering& l, Handler handler, size_t sources, Kind kind) {
  expect_shape(l, 1, sources + 1);
  const uint32_t bits = bits_of(l.type());
  std::vector<Slot> slots = {l.write(0, bits)};
  for (size_t i = 1; i <= sources; ++i) slots.push_back(float_source(l, i, bits));
  l.set_kind(kind);
  l.emit(handler, slots);
}

Kind kind_of(const Lowering& l) { return l.type() == DataType::kF64 ? Kind::kFp64 : Kind::kFp32; }
Kind fma_kind_of(const Lowering& l) { return l.type() == DataType::kF64 ? Kind::kFp64Fma : Kind::kFp32Fma; }
Kind special_kind_of(const Lowering& l) { return l.type() == DataType::kF64 ? Kind::kFp64 : Kind::kSpecial; }

template <auto F>
void lower_rounded_binary(Lowering& l) {
  allow_modifiers(l, {"rn", "rz", "rm", "rp", "ftz", "sat"});
  check_flags(l);
  emit_floats(l, rounded<F, 2>(l.type(), rounding_of(l, false), l.has("ftz"), l.has("sat")), 2, kind_of(l));
}

/// fma, and mad of floating types, which is the same.
void lower_fused(Lowering& l) {
  allow_modifiers(l, {"rn", "rz", "rm", "rp", "ftz", "sat"});
  expect_type(l, {DataType::kF32, DataType::kF64, DataType::kF32x2});
  if (l.text().opcode == "mad") expect_type(l, {DataType::kF32, DataType::kF64});
  check_flags(l);
  emit_floats(l, rounded<kFma, 3>(l.type(), rounding_of(l, true), l.has("ftz"), l.has("sat")), 3, fma_kind_of(l));
}

void lower_div(Lowering& l) {
  allow_modifiers(l, {"rn", "rz", "rm", "rp", "ftz", "approx", "full"});
  expect_type(l, {DataType::kF32, DataType::kF64});
  check_flags(l);
  const bool approximate = l.has("approx"), full = l.has("full");
  const Rounding rounding = rounding_of(l, !approximate && !full);
  if (approximate || full) {
    if (!is_f32(l) || (approximate && full) || l.has("rn") || rounding != Rounding::kNearest) l.unknown();
  }
  // .full may be two ulps off; the right quotient is within.
  const Handler handler = approximate ? plain_f32<kDivideApproximate, 2>(l.has("ftz"))
                                      : rounded<kDivide, 2>(l.type(), rounding, l.has("ftz"), false);
  emit_floats(l, handler, 2, special_kind_of(l));
}

/// rcp and sqrt: rounded, or approximations, for which the right result is good enough.
template <auto F>
void lower_rounded_unary(Lowering& l) {
  allow_modifiers(l, {"rn", "rz", "rm", "rp", "ftz", "approx"});
  expect_type(l, {DataType::kF32, DataType::kF64});
  const bool approximate = l.has("approx");
  const Rounding rounding = rounding_of(l, !approximate);
  if (approximate && (l.has("rn") || rounding != Rounding::kNearest)) l.unknown();
  if (approximate && !is_f32(l)) {
    if (l.text().opcode != "rcp" || !l.has("ftz")) l.unknown();
    emit_floats(l, upper_word<kReciprocal>(), 1, Kind::kFp64);
    return;
  }
  check_flags(l);
  emit_floats(l, rounded<F, 1>(l.type(), rounding, l.has("ftz"), false), 1, special_kind_of(l));
}

void lower_rsqrt(Lowering& l) {
  allow_modifiers(l, {"approx", "ftz"});
  expect_type(l, {DataType::kF32, DataType::kF64});
  if (!l.has("approx")) l.unknown();
  const bool upper = !is_f32(l) && l.has("ftz");
  emit_floats(l, upper ? upper_word<kRsqrt>() : plain<kRsqrt, 1>(l.type(), l.has("ftz")), 1, special_kind_of(l));
}

/// sin, cos, lg2, ex2 and tanh of f32.
template <auto F>
void lower_approximation(Lowering& l) {
  const bool tanh = l.text().opcode == "tanh";
  allow_modifiers(l, {"approx", "ftz"});
  expect_type(l, {DataType::kF32});
  if (!l.has("approx") || (tanh && l.has("ftz"))) l.unknown();
  emit_floats(l, plain_f32<F, 1>(l.has("ftz")), 1, Kind::kSpecial);
}

/// ex2, tanh and fma exist for halves too.
template <Lower kLower>
void lower_or_half(Lowering& l) {
  switch (l.type()) {
    case DataType::kF16:
    case DataType::kF16x2:
    case DataType::kBf16:
    case DataType::kBf16x2:
      lower_half(l);
      break;
    default:
      kLower(l);
  }
}

template <auto F>
void lower_sign(Lowering& l) {
  allow_modifiers(l, {"ftz"});
  expect_type(l, {DataType::kF32, DataType::kF64});
  check_flags(l);
  emit_floats(l, of_bits<F, 1>(l.type(), l.has("ftz")), 1, kind_of(l));
}

template <Pick kPick>
void lower_extreme(Lowering& l) {
  allow_modifiers(l, {"ftz", "NaN", "xorsign", "abs"});
  expect_type(l, {DataType::kF32, DataType::kF64});
  check_flags(l);
  const bool nan = l.has("NaN"), xorsign = l.has("xorsign"), ftz = l.has("ftz");
  if (xorsign != l.has("abs") || ((nan || xorsign) && !is_f32(l))) l.unknown();
  if (l.operand_count() == 4) l.fail("three sources are not supported");
  const auto pick = [&]<bool kNan>() {
    if (!xorsign) return of_bits<kExtreme<kPick, kNan>, 2>(l.type(), ftz);
    return of_bits<kExtremeXorsign<kPick, kNan>, 2>(l.type(), ftz);
  };
  const Handler handler = nan ? pick.template operator()<true>() : pick.template operator()<false>();
  emit_floats(l, handler, 2, kind_of(l));
}

void lower_compare(Lowering& l) {
  const DataType source = l.type(l.type_count() - 1);
  const bool f32 = source == DataType::kF32, ftz = l.has("ftz");
  if (!f32 && source != DataType::kF64) l.unknown();
  lower_comparison(l, source, f32, [&]<int kPredicate>(uint32_t set_bits) {
    if (!f32) return comparison_handler<Compare<kPredicate, double, false>>(set_bits);
    return ftz ? comparison_handler<Compare<kPredicate, float, true>>(set_bits)
               : comparison_handler<Compare<kPredicate, float, false>>(set_bits);
  });
}

void lower_copysign(Lowering& l) {
  allow_modifiers(l, {});
  expect_type(l, {DataType::kF32, DataType::kF64});
  emit_floats(l, is_f32(l) ? copysign<F32> : copysign<F64>, 2, kind_of(l));
}

void lower_testp(Lowering& l) {
  allow_modifiers(l, {"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  expect_type(l, {DataType::kF32, DataType::kF64});
  expect_shape(l, 1, 2);
  if (l.text().modifiers.size() != 2) l.unknown();
  const auto pick = [&]<Test kTest>() { return is_f32(l) ? Handler{testp<F32, kTest>} : Handler{testp<F64, kTest>}; };
  const Handler handler = l.has("finite")       ? pick.operator()<Test::kFinite>()
                          : l.has("infinite")   ? pick.operator()<Test::kInfinite>()
                          : l.has("number")     ? pick.operator()<Test::kNumber>()
                          : l.has("notanumber") ? pick.operator()<Test::kNotANumber>()
                          : l.has("normal")     ? pick.operator()<Test::kNormal>()
                                                : pick.operator()<Test::kSubnormal>();
  const Slot a = float_source(l, 1, bits_of(l.type()));
  l.emit(handler, {l.write_predicate(l.operand(0)), a});
}

/// What lower_float does for the opcodes that integer.cc owns.
struct SharedOpcode {
  std::string_view opcode;
  Lower lower;
};
constexpr SharedOpcode kShared[] = {
    {"add", lower_rounded_binary<kAdd>},
    {"sub", lower_rounded_binary<kSubtract>},
    {"mul", lower_rounded_binary<kMultiply>},
    {"mad", lower_fused},
    {"div", lower_div},
    {"abs", lower_sign<kMagnitude>},
    {"neg", lower_sign<kNegate>},
    {"min", lower_extreme<Pick::kMin>},
    {"max", lower_extreme<Pick::kMax>},
    {"setp", lower_compare},
    {"set", lower_compare},
};

}  // namespace

void lower_float(Lowering& l) {
  for (const SharedOpcode& s : kShared) {
    if (s.opcode == l.text().opcode) return s.lower(l);
  }
  l.unknown();
}

void add_float(OpcodeTable& t) {
  t.add("fma", Kind::kFp32Fma, lower_or_half<lower_fused>);
  t.add("rcp", Kind::kSpecial, lower_rounded_unary<kReciprocal>);
  t.add("sqrt", Kind::kSpecial, lower_rounded_unary<kSqrt>);
  t.add("rsqrt", Kind::kSpecial, lower_rsqrt);
  t.add("sin", Kind::kSpecial, lower_approximation<kSin>);
  t.add("cos", Kind::kSpecial, lower_approximation<kCos>);
  t.add("lg2", Kind::kSpecial, lower_approximation<kLg2>);
  t.add("ex2", Kind::kSpecial, lower_or_half<lower_approximation<kEx2>>);
  t.add("tanh", Kind::kSpecial, lower_or_half<lower_approximation<kTanh>>);
  t.add("copysign", Kind::kFp32, lower_copysign);
  t.add("testp", Kind::kPredicate, lower_testp);
}

}  // namespace ptxsim
