#pragma once

#include <immintrin.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/warp.h"
#include "tools/ptxsim/program/lowering.h"

/// setp and set of floating types: what float.cc and half.cc share.
namespace ptxsim {

/// What a comparison says of each lane; `second` is the upper half of packed operands, else the opposite of `first`.
struct Comparison {
  Mask first, second;
};

/// A comparison by PTX's name and as AVX's predicate, which are the same set.
struct Relation {
  std::string_view name;
  int predicate;
};
constexpr Relation kRelations[] = {
    {"eq", _CMP_EQ_OQ},   {"ne", _CMP_NEQ_OQ},  {"lt", _CMP_LT_OQ},   {"le", _CMP_LE_OQ},    {"gt", _CMP_GT_OQ},
    {"ge", _CMP_GE_OQ},   {"equ", _CMP_EQ_UQ},  {"neu", _CMP_NEQ_UQ}, {"ltu", _CMP_NGE_UQ},  {"leu", _CMP_NGT_UQ},
    {"gtu", _CMP_NLE_UQ}, {"geu", _CMP_NLT_UQ}, {"num", _CMP_ORD_Q},  {"nan", _CMP_UNORD_Q},
};

/// Bit i: a[i] stands in this relation to b[i], for 32 or 64 numbers.
template <int kPredicate, int kCount>
uint64_t compare_numbers(const float* a, const float* b) {
  uint64_t result = 0;
#ifdef __AVX512F__
  for (int i = 0; i < kCount; i += 16) {
    const __mmask16 bits = _mm512_cmp_ps_mask(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), kPredicate);
    result |= uint64_t{bits} << i;
  }
#else
  for (int i = 0; i < kCount; i += 8) {
    const __m256 bits = _mm256_cmp_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), kPredicate);
    result |= uint64_t{static_cast<uint32_t>(_mm256_movemask_ps(bits))} << i;
  }
#endif
  return result;
}

template <int kPredicate, int kCount>
uint64_t compare_numbers(const double* a, const double* b) {
  uint64_t result = 0;
#ifdef __AVX512F__
  for (int i = 0; i < kCount; i += 8) {
    const __mmask8 bits = _mm512_cmp_pd_mask(_mm512_loadu_pd(a + i), _mm512_loadu_pd(b + i), kPredicate);
    result |= uint64_t{bits} << i;
  }
#else
  for (int i = 0; i < kCount; i += 4) {
    const __m256d bits = _mm256_cmp_pd(_mm256_loadu_pd(a + i), _mm256_loadu_pd(b + i), kPredicate);
    result |= uint64_t{static_cast<uint32_t>(_mm256_movemask_pd(bits))} << i;
  }
#endif
  return result;
}

enum class Combine : uint8_t { kNone, kAnd, kOr, kXor };

constexpr int kCombine = 0, kNegated = 1;  // flags of setp and set: Combine; the third source's `!`

inline Comparison combine(const Warp& w, const Instruction& in, int third, Comparison compared) {
  const auto how = static_cast<Combine>(in.flags[kCombine]);
  if (how == Combine::kNone) return compared;
  const Mask c = w.predicate(in.slots[third]) ^ (in.flags[kNegated] != 0 ? kAllLanes : Mask{0});
  switch (how) {
    case Combine::kAnd:
      return {compared.first & c, compared.second & c};
    case Combine::kOr:
      return {compared.first | c, compared.second | c};
    default:
      return {compared.first ^ c, compared.second ^ c};
  }
}

/// slots: p, q, two sources, a predicate when the result is combined with one. Compare::of(warp, source, source).
template <class Compare>
void setp(Warp& w, const Instruction& in, Mask m) {
  const Comparison c = combine(w, in, 4, Compare::of(w, in.slots[2], in.slots[3]));
  set_predicate(w.predicate(in.slots[0]), m, c.first);
  set_predicate(w.predicate(in.slots[1]), m, c.second);
}

/// slots: destination, two sources, perhaps a predicate. immediate: what is written where `first` holds, and above it
/// what is added where `second` does (0 unless packed).
template <class Compare, class D>
void set(Warp& w, const Instruction& in, Mask m) {
  const Comparison c = combine(w, in, 3, Compare::of(w, in.slots[1], in.slots[2]));
  const auto first = static_cast<D>(in.immediate), second = static_cast<D>(in.immediate >> 32);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int l) {
    const D low = (c.first >> l & 1) != 0 ? first : D{0};
    const D high = (c.second >> l & 1) != 0 ? second : D{0};
    return static_cast<D>(low | high);
  });
}

template <class Compare>
Handler comparison_handler(uint32_t set_bits) {
  if (set_bits == 0) return setp<Compare>;
  return set_bits == 16 ? Handler{set<Compare, uint16_t>} : Handler{set<Compare, uint32_t>};
}

/// A source of floating type: a register, or for f32 and f64 a number written as one.
inline Slot float_source(Lowering& l, size_t i, uint32_t bits) {
  const ptx::Operand& o = l.operand(i);
  const bool number = o.kind == ptx::Operand::Kind::kFloat && bits != 16;
  if ((o.kind != ptx::Operand::Kind::kRegister && !number) || o.negated) {
    l.fail("operand {} is neither a register nor a floating-point number", i + 1);
  }
  return l.read(o, bits);
}

/// Lowers setp and set. pick(Relation's index as a constant, bits that set writes or 0 for setp) returns the handler;
/// `source`: the type compared.
template <class PickHandler>
void lower_comparison(Lowering& l, DataType source, bool ftz, PickHandler pick) {
  const bool is_set = l.text().opcode == "set";
  const bool packed = source == DataType::kF16x2 || source == DataType::kBf16x2;
  if (l.type_count() != (is_set ? 2 : 1)) l.unknown();

  Combine how = Combine::kNone;
  size_t relation = std::size(kRelations);
  for (const std::string& m : l.text().modifiers) {
    const auto* r = std::find_if(std::begin(kRelations), std::end(kRelations), [&](auto& x) { return x.name == m; });
    const bool boolean = m == "and" || m == "or" || m == "xor";
    if (r != std::end(kRelations) && relation == std::size(kRelations)) {
      relation = static_cast<size_t>(r - std::begin(kRelations));
    } else if (boolean && how == Combine::kNone) {
      how = m == "and" ? Combine::kAnd : m == "or" ? Combine::kOr : Combine::kXor;
    } else if (!data_type(m) && !(ftz && m == "ftz")) {
      l.unknown();
    }
  }
  if (relation == std::size(kRelations) || l.operand_count() != (how == Combine::kNone ? 3 : 4)) l.unknown();

  std::vector<Slot> slots;
  uint64_t value = 0;
  uint32_t set_bits = 0;
  if (is_set) {
    const DataType to = l.type(0);
    set_bits = bits_of(to);
    const bool word = to == DataType::kU32 || to == DataType::kS32;
    const bool short_word = to == DataType::kU16 || to == DataType::kS16;
    const bool half = to == DataType::kF16 || to == DataType::kBf16;
    const bool of_half = bits_of(source) == 16;
    const uint64_t one = to == DataType::kF16 || to == DataType::kF16x2     ? 0x3c00
                         : to == DataType::kBf16 || to == DataType::kBf16x2 ? 0x3f80
                                                                            : 0xffff;
    if (packed && (word || to == source)) {
      value = one | one << 48;
    } else if (!packed && word) {
      value = 0xffffffff;
    } else if (!packed && !of_half && to == DataType::kF32) {
      value = 0x3f800000;
    } else if (!packed && (half || (of_half && short_word))) {
      value = one;
    } else {
      l.unknown();
    }
    slots.push_back(l.write(0, set_bits));
  } else {
    const ptx::Operand& d = l.operand(0);
    const bool pair = d.kind == ptx::Operand::Kind::kPair;
    if (pair && d.parts.size() != 2) l.unknown();
    slots.push_back(l.write_predicate(pair ? d.parts[0] : d));
    slots.push_back(l.write_predicate(pair ? d.parts[1] : ptx::Operand{}));
  }
  for (size_t i = 1; i <= 2; ++i) slots.push_back(float_source(l, i, bits_of(source)));
  bool negated = false;
  if (how != Combine::kNone) slots.push_back(l.read_predicate(l.operand(3), negated));

  Handler handler = nullptr;
  [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    static_cast<void>(
        ((kIndex == relation && (handler = pick.template operator()<kRelations[kIndex].predicate>(set_bits))) || ...));
  }
  (std::make_index_sequence<std::size(kRelations)>{});
  l.set_kind(Kind::kPredicate);
  Instruction& in = l.emit(handler, slots);
  in.immediate = value;
  in.flags[kCombine] = static_cast<uint8_t>(how);
  in.flags[kNegated] = negated ? 1 : 0;
}

}  // namespace ptxsim
