#include <immintrin.h>

#include <cstring>

#include "tools/ptxsim/exec/comparison.h"
#include "tools/ptxsim/exec/float_math.h"
#include "tools/ptxsim/exec/float_ops.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/program/lowering.h"

/// Arithmetic and comparisons of f16, bf16 and their packed pairs: computed as f32 and rounded once.
///
/// Sums, differences and products in f32 (24 bits) and then rounded to 11 or 8 bits are the same as rounded once, for
/// 24 >= 2 * 11 + 2; products are exact unless below 2^-149, where no bf16 is near enough to matter. fma rounds its sum
/// to odd first, see odd_sum. A NaN result is 0x7fff.
namespace ptxsim {

namespace {

/// The nearest T above or below p + c whose last bit is one, or p + c itself when a T holds it: rounding that to at
/// least two bits less gives what rounding p + c would. ("Round to odd": Boldo and Melquiond, "Emulation of FMA and
/// correctly rounded sums", IEEE Transactions on Computers 57(4), 2008.)
template <class F, class T>
T odd_sum(T p, T c) {
  using Bits = typename F::Bits;
  const T sum = p + c;
  const T second = sum - p;
  const T error = (p - (sum - second)) + (c - second);  // Knuth's: exactly what `sum` lacks
  const Bits bits = std::bit_cast<Bits>(sum);
  const bool inexact = (error < 0) | (error > 0);  // false for infinities, whose error is NaN
  const bool outwards = ((std::bit_cast<Bits>(error) ^ bits) & F::kSign) == 0;
  const Bits odd = outwards ? bits + 1 : bits - 1;
  return std::bit_cast<T>(inexact & ((bits & 1) == 0) ? odd : bits);
}

/// The f32 next to a double, again with an odd last bit unless they are equal.
inline float narrow_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  const uint32_t bits = bits_of_f32(nearest) - (std::fabs(static_cast<double>(nearest)) > std::fabs(x) ? 1 : 0);
  return static_cast<double>(nearest) == x ? nearest : f32_of_bits(bits | 1);
}

/// The formats, lanes at a time. kNormal is the smallest normal number; what lies below kTiny is rounded to less.
struct Half {
  static constexpr bool kBrain = false;
  static constexpr float kNormal = 0x1p-14F, kTiny = 0x1.ffep-15F;

#ifdef __AVX512F__
  static constexpr __mmask16 kAll = 0xffff;  // the forms without a mask make GCC 12 warn of its own headers
#endif

  template <int kCount>
  static void widen(const uint16_t* from, float* to) {
#ifdef __AVX512F__
    for (int i = 0; i < kCount; i += 16) {
      const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
      _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(kAll, halves));
    }
#else
    for (int i = 0; i < kCount; i += 8) {
      const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(halves));
    }
#endif
  }

  template <int kCount>
  static void narrow(const float* from, uint16_t* to) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#ifdef __AVX512F__
    for (int i = 0; i < kCount; i += 16) {
      const __m256i halves = _mm512_maskz_cvtps_ph(kAll, _mm512_loadu_ps(from + i), kNearest);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), halves);
    }
#else
    for (int i = 0; i < kCount; i += 8) {
      const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), kNearest);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), halves);
    }
#endif
  }

  /// Products of two f16 are exact in f32.
  static float fma(float a, float b, float c) { return odd_sum<F32>(a * b, c); }
};

struct Brain {
  static constexpr bool kBrain = true;
  static constexpr float kNormal = 0x1p-126F, kTiny = 0x1.ff8p-127F;

  template <int kCount>
  static void widen(const uint16_t* from, float* to) {
    for (int i = 0; i < kCount; ++i) to[i] = bf16_to_f32(from[i]);
  }

  template <int kCount>
  static void narrow(const float* from, uint16_t* to) {
    for (int i = 0; i < kCount; ++i) {
      const uint32_t bits = bits_of_f32(from[i]);
      const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
      to[i] = static_cast<uint16_t>((bits & (F32::kSign - 1)) > F32::kTopExponent ? Bf16::kNan : rounded);
    }
  }

  /// Products of two bf16 leave f32's exponents, not f64's.
  static float fma(float a, float b, float c) {
    return narrow_to_odd(odd_sum<F64>(static_cast<double>(a) * static_cast<double>(b), static_cast<double>(c)));
  }
};

constexpr auto kAdd = [](float a, float b) { return a + b; };
constexpr auto kSubtract = [](float a, float b) { return a - b; };
constexpr auto kMultiply = [](float a, float b) { return a * b; };
template <class H>
constexpr auto kFma = [](float a, float b, float c) { return H::fma(a, b, c); };
constexpr auto kNegate = [](float a) { return -a; };
constexpr auto kMagnitude = [](float a) { return std::fabs(a); };
constexpr auto kEx2 = [](float a) { return ex2(a); };
constexpr auto kTanh = [](float a) { return tanh_approximate(a); };
template <Pick kPick, bool kNan>
constexpr auto kExtreme = [](float a, float b) { return extreme<F32, kPick, kNan>(a, b); };
template <Pick kPick, bool kNan>
constexpr auto kExtremeXorsign = [](float a, float b) { return extreme_xorsign<F32, kPick, kNan>(a, b); };

enum class Finish : uint8_t { kNone, kSaturate, kRectify };

inline float flush_below(float x, float limit) {
  return std::fabs(x) < limit ? f32_of_bits(bits_of_f32(x) & F32::kSign) : x;
}

template <class H, int kCount, bool kFtz>
void sources(const Warp& w, Slot slot, float* to) {
  H::template widen<kCount>(w.lanes<uint16_t>(slot), to);
  if constexpr (kFtz) {
    for (int i = 0; i < kCount; ++i) to[i] = flush_below(to[i], H::kNormal);
  }
}

/// slots: destination, kSources sources; kCount: 32 or, for pairs, 64.
template <class H, int kCount, auto F, int kSources, bool kFtz, Finish kFinish>
void arithmetic(Warp& w, const Instruction& in, Mask m) {
  alignas(64) float x[kSources][kCount];
  alignas(64) float result[kCount];
  alignas(64) uint16_t halves[kCount];
  for (int s = 0; s < kSources; ++s) sources<H, kCount, kFtz>(w, in.slots[1 + s], x[s]);
  for (int i = 0; i < kCount; ++i) {
    float r = 0;
    if constexpr (kSources == 1) r = F(x[0][i]);
    if constexpr (kSources == 2) r = F(x[0][i], x[1][i]);
    if constexpr (kSources == 3) r = F(x[0][i], x[1][i], x[2][i]);
    if constexpr (kFtz) r = flush_below(r, H::kTiny);
    if constexpr (kFinish == Finish::kSaturate) r = saturate(r);
    if constexpr (kFinish == Finish::kRectify) r = rectify(r);
    result[i] = canonical(r);
  }
  H::template narrow<kCount>(result, halves);
  using Register = std::conditional_t<kCount == kLanes, uint16_t, uint32_t>;
  alignas(64) Register registers[kLanes];
  std::memcpy(registers, halves, sizeof(registers));
  for_lanes(w.lanes<Register>(in.slots[0]), m, [&](int l) { return registers[l]; });
}

template <int kPredicate, class H, int kCount, bool kFtz>
struct Compare {
  static Comparison of(const Warp& w, Slot a, Slot b) {
    alignas(64) float x[2][kCount];
    sources<H, kCount, kFtz>(w, a, x[0]);
    sources<H, kCount, kFtz>(w, b, x[1]);
    const uint64_t bits = compare_numbers<kPredicate, kCount>(x[0], x[1]);
    if constexpr (kCount == kLanes) return {static_cast<Mask>(bits), ~static_cast<Mask>(bits)};
    constexpr uint64_t kLower = 0x5555555555555555;
    return {static_cast<Mask>(_pext_u64(bits, kLower)), static_cast<Mask>(_pext_u64(bits, kLower << 1))};
  }
};

// --- lowering -------------------------------------------------------------------------------------------------------

bool is_brain(DataType type) { return type == DataType::kBf16 || type == DataType::kBf16x2; }

/// f.operator()<H, kCount>() for the type.
template <class F>
Handler with_format(DataType type, F f) {
  switch (type) {
    case DataType::kF16:
      return f.template operator()<Half, kLanes>();
    case DataType::kF16x2:
      return f.template operator()<Half, 2 * kLanes>();
    case DataType::kBf16:
      return f.template operator()<Brain, kLanes>();
    default:
      return f.template operator()<Brain, 2 * kLanes>();
  }
}

void emit_halves(Lowering& l, Handler handler, size_t sources, Kind kind) {
  expect_shape(l, 1, sources + 1);
  const uint32_t bits = bits_of(l.type());
  std::vector<Slot> slots = {l.write(0, bits)};
  for (size_t i = 1; i <= sources; ++i) slots.push_back(float_source(l, i, bits));
  l.set_kind(kind);
  l.emit(handler, slots);
}

/// F for one format and width, with .ftz for f16 and what follows it.
template <class H, int kCount, auto F, int kSources, Finish kFinish>
Handler with_ftz(bool ftz) {
  if constexpr (!H::kBrain) {
    if (ftz) return arithmetic<H, kCount, F, kSources, true, kFinish>;
  }
  return arithmetic<H, kCount, F, kSources, false, kFinish>;
}

/// .ftz and .sat are f16's alone.
void check_flags(const Lowering& l) {
  if (is_brain(l.type()) && (l.has("ftz") || l.has("sat"))) l.unknown();
}

enum class Operation : uint8_t { kAdd, kSubtract, kMultiply, kFma };

template <Operation kOperation, class H>
constexpr auto operation() {
  if constexpr (kOperation == Operation::kAdd) {
    return kAdd;
  } else if constexpr (kOperation == Operation::kSubtract) {
    return kSubtract;
  } else if constexpr (kOperation == Operation::kMultiply) {
    return kMultiply;
  } else {
    return kFma<H>;
  }
}

template <Operation kOperation>
void lower_operation(Lowering& l) {
  constexpr bool kFused = kOperation == Operation::kFma;
  constexpr int kSources = kFused ? 3 : 2;
  if (l.has("oob")) l.fail(".oob is not supported");
  allow_modifiers(l, {"rn", "ftz", "sat", "relu"});
  check_flags(l);
  const bool saturates = l.has("sat"), rectifies = l.has("relu"), ftz = l.has("ftz");
  if (kFused && !l.has("rn")) l.fail("a rounding is missing");
  if (rectifies && (!kFused || saturates)) l.unknown();
  const Handler handler = with_format(l.type(), [&]<class H, int kCount>() {
    constexpr auto kOp = operation<kOperation, H>();
    if constexpr (kFused) {
      if (rectifies) return with_ftz<H, kCount, kOp, kSources, Finish::kRectify>(ftz);
    }
    if constexpr (!H::kBrain) {
      if (saturates) return with_ftz<H, kCount, kOp, kSources, Finish::kSaturate>(ftz);
    }
    return with_ftz<H, kCount, kOp, kSources, Finish::kNone>(ftz);
  });
  emit_halves(l, handler, kSources, kFused ? Kind::kFp16Fma : Kind::kFp16);
}

template <auto F, int kSources>
Handler plain(DataType type, bool ftz) {
  return with_format(type, [&]<class H, int kCount>() { return with_ftz<H, kCount, F, kSources, Finish::kNone>(ftz); });
}

template <auto F>
void lower_sign(Lowering& l) {
  allow_modifiers(l, {"ftz"});
  check_flags(l);
  emit_halves(l, plain<F, 1>(l.type(), l.has("ftz")), 1, Kind::kFp16);
}

template <Pick kPick>
void lower_extreme(Lowering& l) {
  allow_modifiers(l, {"ftz", "NaN", "xorsign", "abs"});
  check_flags(l);
  if (l.has("xorsign") != l.has("abs")) l.unknown();
  if (l.operand_count() == 4) l.fail("three sources are not supported");
  const auto pick = [&]<bool kNan>() {
    return l.has("xorsign") ? plain<kExtremeXorsign<kPick, kNan>, 2>(l.type(), l.has("ftz"))
                            : plain<kExtreme<kPick, kNan>, 2>(l.type(), l.has("ftz"));
  };
  emit_halves(l, l.has("NaN") ? pick.template operator()<true>() : pick.template operator()<false>(), 2, Kind::kFp16);
}

/// ex2 knows f16 without .ftz and bf16 with it.
void lower_ex2(Lowering& l) {
  allow_modifiers(l, {"approx", "ftz"});
  if (!l.has("approx") || is_brain(l.type()) != l.has("ftz")) l.unknown();
  const Handler handler = with_format(l.type(), [&]<class H, int kCount>() {
    return Handler{arithmetic<H, kCount, kEx2, 1, H::kBrain, Finish::kNone>};
  });
  emit_halves(l, handler, 1, Kind::kSpecial);
}

void lower_tanh(Lowering& l) {
  allow_modifiers(l, {"approx"});
  if (!l.has("approx")) l.unknown();
  emit_halves(l, plain<kTanh, 1>(l.type(), false), 1, Kind::kSpecial);
}

void lower_compare(Lowering& l) {
  const DataType source = l.type(l.type_count() - 1);
  const bool ftz = l.has("ftz");
  if (!is_float(source) || bits_of(source) > 32 || source == DataType::kF32) l.unknown();
  lower_comparison(l, source, !is_brain(source), [&]<int kPredicate>(uint32_t set_bits) {
    return with_format(source, [&]<class H, int kCount>() {
      if constexpr (!H::kBrain) {
        if (ftz) return comparison_handler<Compare<kPredicate, H, kCount, true>>(set_bits);
      }
      return comparison_handler<Compare<kPredicate, H, kCount, false>>(set_bits);
    });
  });
}

struct SharedOpcode {
  std::string_view opcode;
  Lower lower;
};
constexpr SharedOpcode kShared[] = {
    {"add", lower_operation<Operation::kAdd>},
    {"sub", lower_operation<Operation::kSubtract>},
    {"mul", lower_operation<Operation::kMultiply>},
    {"fma", lower_operation<Operation::kFma>},
    {"abs", lower_sign<kMagnitude>},
    {"neg", lower_sign<kNegate>},
    {"min", lower_extreme<Pick::kMin>},
    {"max", lower_extreme<Pick::kMax>},
    {"ex2", lower_ex2},
    {"tanh", lower_tanh},
    {"setp", lower_compare},
    {"set", lower_compare},
};

}  // namespace

void lower_half(Lowering& l) {
  for (const SharedOpcode& s : kShared) {
    if (s.opcode == l.text().opcode) return s.lower(l);
  }
  l.unknown();
}

/// Every opcode that halves have, other types have too: they come here through lower_half.
void add_half(OpcodeTable&) {}

}  // namespace ptxsim
