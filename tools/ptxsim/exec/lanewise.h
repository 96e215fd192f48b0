#pragma once

#include <immintrin.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "tools/ptxsim/exec/warp.h"
#include "tools/ptxsim/program/lowering.h"

/// Handlers of instructions that compute each lane from the same lane of their sources.
namespace ptxsim {

/// slots: destination, source. F: D(A), a lambda without state.
template <auto F, class D, class A>
void lanewise(Warp& w, const Instruction& in, Mask m) {
  const A* a = w.lanes<A>(in.slots[1]);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int l) { return static_cast<D>(F(a[l])); });
}

/// slots: destination, two sources.
template <auto F, class D, class A, class B>
void lanewise(Warp& w, const Instruction& in, Mask m) {
  const A* a = w.lanes<A>(in.slots[1]);
  const B* b = w.lanes<B>(in.slots[2]);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int l) { return static_cast<D>(F(a[l], b[l])); });
}

/// slots: destination, three sources.
template <auto F, class D, class A, class B, class C>
void lanewise(Warp& w, const Instruction& in, Mask m) {
  const A* a = w.lanes<A>(in.slots[1]);
  const B* b = w.lanes<B>(in.slots[2]);
  const C* c = w.lanes<C>(in.slots[3]);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int l) { return static_cast<D>(F(a[l], b[l], c[l])); });
}

/// Bit l: f(l), for all 32 lanes.
template <class F>
inline __attribute__((always_inline)) Mask lane_mask(F f) {
  alignas(32) uint8_t byte[kLanes];
  for (int l = 0; l < kLanes; ++l) byte[l] = f(l) ? 0xff : 0;
  return static_cast<Mask>(_mm256_movemask_epi8(_mm256_load_si256(reinterpret_cast<const __m256i*>(byte))));
}

/// The lanes of m of a predicate become value's.
inline void set_predicate(Mask& predicate, Mask m, Mask value) { predicate = (predicate & ~m) | (value & m); }

/// Fails unless every modifier is a type or one of these.
inline void allow_modifiers(const Lowering& l, std::initializer_list<std::string_view> allowed) {
  for (const std::string& m : l.text().modifiers) {
    if (!data_type(m) && std::find(allowed.begin(), allowed.end(), m) == allowed.end()) l.unknown();
  }
}

/// Fails unless the instruction has this many types and operands.
inline void expect_shape(const Lowering& l, size_t types, size_t operands) {
  if (l.type_count() != types || l.operand_count() != operands) l.unknown();
}

}  // namespace ptxsim
