#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "tools/ptxsim/exec/formats.h"
#include "tools/ptxsim/exec/warp.h"

/// How tensor-core instructions spread matrices over the lanes of a warp, and the product of such fragments.
///
/// A register of a fragment of A (m × k) or B (k × n) holds kPer neighbours along k. Eight rows (of A, or columns of B)
/// and 4 · kPer values of k make a block: lane l has row l / 4, and k from kPer · (l mod 4) on. A's blocks follow each
/// other first over its one or two groups of eight rows, then over k; B's over k. The accumulator (m × n) has 32 bits
/// and more per element: per group of rows two elements, row l / 4, columns 2 (l mod 4) and the next.
namespace ptxsim {

// --- formats of elements
// ---------------------------------------------------------------------------------------------- get(r, e): element e
// of register r as a float, exactly. Products of two are exact in a fused multiply-add.

struct F16Elements {
  static constexpr int kPer = 2;
  static constexpr uint32_t kSigns = 0x80008000;
  static float get(uint32_t r, int e) { return f16_to_f32(static_cast<uint16_t>(r >> (16 * e))); }
};
struct Bf16Elements {
  static constexpr int kPer = 2;
  static constexpr uint32_t kSigns = 0x80008000;
  static float get(uint32_t r, int e) { return std::bit_cast<float>(e == 0 ? r << 16 : r & 0xffff0000); }
};
/// The tensor core looks at the upper 19 bits of an f32 only.
struct Tf32Elements {
  static constexpr int kPer = 1;
  static constexpr uint32_t kSigns = 0x80000000;
  static float get(uint32_t r, int) { return std::bit_cast<float>(r & 0xffffe000); }
};
struct E4m3Elements {
  static constexpr int kPer = 4;
  static constexpr uint32_t kSigns = 0x80808080;
  static float get(uint32_t r, int e) { return e4m3_to_f32(static_cast<uint8_t>(r >> (8 * e))); }
};
struct E5m2Elements {
  static constexpr int kPer = 4;
  static constexpr uint32_t kSigns = 0x80808080;
  static float get(uint32_t r, int e) { return e5m2_to_f32(static_cast<uint8_t>(r >> (8 * e))); }
};
// Sums of up to 64 products of integers stay below 2^24: floats hold them exactly.
struct S8Elements {
  static constexpr int kPer = 4;
  static float get(uint32_t r, int e) { return static_cast<float>(static_cast<int32_t>(r << (24 - 8 * e)) >> 24); }
};
struct U8Elements {
  static constexpr int kPer = 4;
  static float get(uint32_t r, int e) { return static_cast<float>(static_cast<int32_t>(r >> (8 * e) & 255)); }
};
struct S4Elements {
  static constexpr int kPer = 8;
  static float get(uint32_t r, int e) { return static_cast<float>(static_cast<int32_t>(r << (28 - 4 * e)) >> 28); }
};
struct U4Elements {
  static constexpr int kPer = 8;
  static float get(uint32_t r, int e) { return static_cast<float>(static_cast<int32_t>(r >> (4 * e) & 15)); }
};

// --- vectors --------------------------------------------------------------------------------------------------------

/// As many floats as a register of this machine holds, in quads of four.
struct Floats {
#ifdef __AVX512F__
  static constexpr int kWidth = 16;
  static constexpr __mmask16 kAll =
      0xffff;  // GCC 12 takes the intrinsics without masks for uses of uninitialised values
  __m512 v;
  static Floats load(const float* p) { return {_mm512_load_ps(p)}; }
  static Floats repeat(const float* quad) { return {_mm512_maskz_broadcast_f32x4(kAll, _mm_load_ps(quad))}; }
  void store(float* p) const { _mm512_store_ps(p, v); }
  /// Each quad's element kElement, four times.
  template <int kElement>
  Floats spread() const {
    return {_mm512_maskz_permute_ps(kAll, v, kElement * 0x55)};
  }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
#else
  static constexpr int kWidth = 8;
  __m256 v;
  static Floats load(const float* p) { return {_mm256_load_ps(p)}; }
  static Floats repeat(const float* quad) { return {_mm256_broadcast_ps(reinterpret_cast<const __m128*>(quad))}; }
  void store(float* p) const { _mm256_store_ps(p, v); }
  template <int kElement>
  Floats spread() const {
    return {_mm256_permute_ps(v, kElement * 0x55)};
  }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
#endif
};

/// Element e of lane l's register to out[e · 32 + l].
template <class E>
inline void unpack(const uint32_t* r, float* out) {
  for (int e = 0; e < E::kPer; ++e) {
    for (int l = 0; l < kLanes; ++l) out[e * kLanes + l] = E::get(r[l], e);
  }
}

/// The machine's own conversion.
template <>
inline void unpack<F16Elements>(const uint32_t* r, float* out) {
#ifdef __AVX512F__
  for (int l = 0; l < kLanes; l += 16) {
    const __m512i both = _mm512_load_si512(r + l);
    const __m512i upper = _mm512_maskz_srli_epi32(Floats::kAll, both, 16);
    for (const auto& [halves, to] : {std::pair(both, out + l), std::pair(upper, out + kLanes + l)}) {
      const __m256i packed = _mm512_maskz_cvtepi32_epi16(Floats::kAll, halves);
      _mm512_store_ps(to, _mm512_maskz_cvtph_ps(Floats::kAll, packed));
    }
  }
#else
  for (int l = 0; l < kLanes; l += 8) {
    const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(r + l));
    const __m256i halves =
        _mm256_packus_epi32(_mm256_and_si256(both, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32(both, 16));
    const __m256i sorted = _mm256_permute4x64_epi64(halves, 0xd8);
    _mm256_store_ps(out + l, _mm256_cvtph_ps(_mm256_castsi256_si128(sorted)));
    _mm256_store_ps(out + kLanes + l, _mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1)));
  }
#endif
}

/// Registers of a block of B in the order in which the product reads them: [l mod 4][column mod 2][column / 2].
inline void reorder(const uint32_t* r, uint32_t* out) {
  static constexpr auto kFrom = [] {
    std::array<uint32_t, kLanes> from{};
    for (uint32_t q = 0; q < 4; ++q) {
      for (uint32_t p = 0; p < 2; ++p) {
        for (uint32_t c = 0; c < 4; ++c) from[8 * q + 4 * p + c] = 8 * c + 4 * p + q;
      }
    }
    return from;
  }();
#ifdef __AVX512F__
  const __m512i low = _mm512_load_si512(r), high = _mm512_load_si512(r + 16);
  for (int l = 0; l < kLanes; l += 16) {
    _mm512_store_si512(out + l, _mm512_permutex2var_epi32(low, _mm512_loadu_si512(kFrom.data() + l), high));
  }
#else
  for (size_t l = 0; l < kLanes; ++l) out[l] = r[kFrom[l]];
#endif
}

// --- the product ----------------------------------------------------------------------------------------------------

constexpr int kMostBlocks = 2;  // along k

/// A's blocks as floats: [block][element][group][lane].
template <class E, int kGroups>
struct FloatsOfA {
  alignas(64) float values[kMostBlocks][E::kPer][kGroups][kLanes];

  /// registers[block · kGroups + group].
  void fill(const uint32_t* const* registers, std::ptrdiff_t blocks) {
    for (std::ptrdiff_t j = 0; j < blocks; ++j) {
      for (int g = 0; g < kGroups; ++g) {
        alignas(64) float unpacked[E::kPer * kLanes];
        unpack<E>(registers[j * kGroups + g], unpacked);
        for (int e = 0; e < E::kPer; ++e) {
          for (int l = 0; l < kLanes; l += Floats::kWidth) {
            Floats::load(unpacked + e * kLanes + l).store(&values[j][e][g][l]);
          }
        }
      }
    }
  }
};

/// B's blocks as floats, reordered: [block][element][lane].
template <class E>
struct FloatsOfB {
  alignas(64) float values[kMostBlocks][E::kPer][kLanes];

  void fill(const uint32_t* const* registers, std::ptrdiff_t blocks) {
    for (std::ptrdiff_t j = 0; j < blocks; ++j) {
      alignas(64) uint32_t ordered[kLanes];
      reorder(registers[j], ordered);
      unpack<E>(ordered, &values[j][0][0]);
    }
  }
};

/// One group of eight rows: the accumulator's two registers, and a step over one value of k for each of its vectors.
template <class A, class B, int kGroups, int kElement>
inline __attribute__((always_inline)) void multiply_quad(const FloatsOfA<A, kGroups>& a, const FloatsOfB<B>& b,
                                                         std::ptrdiff_t j, int g,
                                                         Floats (&sum)[2][kLanes / Floats::kWidth]) {
#pragma GCC unroll 8
  for (int e = 0; e < A::kPer; ++e) {
    const Floats even = Floats::repeat(&b.values[j][e][8 * kElement]);
    const Floats odd = Floats::repeat(&b.values[j][e][8 * kElement + 4]);
#pragma GCC unroll 4
    for (int c = 0; c < kLanes / Floats::kWidth; ++c) {
      const Floats x = Floats::load(&a.values[j][e][g][c * Floats::kWidth]).template spread<kElement>();
      sum[0][c] = Floats::multiply_add(x, even, sum[0][c]);
      sum[1][c] = Floats::multiply_add(x, odd, sum[1][c]);
    }
  }
}

/// sum += a b. Each element is summed over k from 0 up with one fused multiply-add each, rounded to nearest: a fixed
/// order, where the device's is unspecified.
template <class A, class B, int kGroups>
inline void multiply(const FloatsOfA<A, kGroups>& a, const FloatsOfB<B>& b, std::ptrdiff_t blocks,
                     float (*sums)[kLanes]) {
  static_assert(A::kPer == B::kPer);
  constexpr int kChunks = kLanes / Floats::kWidth;
  for (int g = 0; g < kGroups; ++g) {
    float(*const rows)[kLanes] = sums + std::ptrdiff_t{2} * g;
    Floats sum[2][kChunks];
#pragma GCC unroll 2
    for (size_t p = 0; p < 2; ++p) {
#pragma GCC unroll 4
      for (int c = 0; c < kChunks; ++c) sum[p][c] = Floats::load(&rows[p][c * Floats::kWidth]);
    }
    for (std::ptrdiff_t j = 0; j < blocks; ++j) {
      multiply_quad<A, B, kGroups, 0>(a, b, j, g, sum);
      multiply_quad<A, B, kGroups, 1>(a, b, j, g, sum);
      multiply_quad<A, B, kGroups, 2>(a, b, j, g, sum);
      multiply_quad<A, B, kGroups, 3>(a, b, j, g, sum);
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < 2; ++p) {
#pragma GCC unroll 4
      for (int c = 0; c < kChunks; ++c) sum[p][c].store(&rows[p][c * Floats::kWidth]);
    }
  }
}

// --- accumulators ---------------------------------------------------------------------------------------------------

enum class Accumulator : uint8_t { kF32, kF16, kS32 };

inline int accumulator_registers(Accumulator kind, int groups) {
  return kind == Accumulator::kF16 ? groups : 2 * groups;
}

/// What is added to: sums[2 · group + column mod 2][lane].
inline void load_accumulator(const Warp& w, const Slot* slots, Accumulator kind, int groups, float (*sums)[kLanes]) {
  for (int i = 0; i < 2 * groups; i += 2) {
    if (kind == Accumulator::kF32) {
      std::copy_n(w.lanes<float>(slots[i]), kLanes, sums[i]);
      std::copy_n(w.lanes<float>(slots[i + 1]), kLanes, sums[i + 1]);
    } else if (kind == Accumulator::kF16) {
      unpack<F16Elements>(w.lanes<uint32_t>(slots[i / 2]), sums[i]);
    } else {  // integers are added at the end
      std::fill_n(sums[i], 2 * kLanes, 0.0F);
    }
  }
}

/// Results that are no numbers are the canonical NaN; f16 results are rounded here, once.
inline void store_accumulator(const Warp& w, const Slot* slots, Accumulator kind, int groups,
                              const float (*sums)[kLanes]) {
  for (int i = 0; i < 2 * groups; ++i) {
    const float* sum = sums[i];
    if (kind == Accumulator::kF32) {
      auto* d = w.lanes<uint32_t>(slots[i]);
      for (int l = 0; l < kLanes; ++l) d[l] = sum[l] == sum[l] ? std::bit_cast<uint32_t>(sum[l]) : F32::kNan;
    } else if (i % 2 == 0) {
      const float* odd = sums[i + 1];
      auto* d = w.lanes<uint32_t>(slots[i / 2]);
      for (int l = 0; l < kLanes; ++l) d[l] = f32_to_f16(sum[l]) | uint32_t{f32_to_f16(odd[l])} << 16;
    }
  }
}

/// Integers: c + the products' sum, wrapping around or ending at the largest.
inline void add_integers(const int32_t (*c)[kLanes], const float (*sums)[kLanes], const Warp& w, const Slot* d,
                         int groups, bool saturate) {
  for (int i = 0; i < 2 * groups; ++i) {
    auto* out = w.lanes<int32_t>(d[i]);
    for (int l = 0; l < kLanes; ++l) {
      const auto more = static_cast<int32_t>(sums[i][l]);
      const auto wrapped = static_cast<int32_t>(static_cast<uint32_t>(c[i][l]) + static_cast<uint32_t>(more));
      const bool beyond = ((c[i][l] ^ wrapped) & (more ^ wrapped)) < 0;
      const int32_t end = more < 0 ? INT32_MIN : INT32_MAX;
      out[l] = saturate && beyond ? end : wrapped;
    }
  }
}

// --- rows of shared memory as blocks --------------------------------------------------------------------------------

/// Eight rows of 16 bytes: lane l gets the four bytes l mod 4 of row l / 4.
inline void block_of_rows(const std::byte* const* rows, uint32_t* out) {
  for (size_t r = 0; r < 8; ++r) std::memcpy(out + 4 * r, rows[r], 16);
}

/// The same of the transposed matrix of 8 × 8 halves.
inline void block_of_columns(const std::byte* const* rows, uint32_t* out) {
  using Halves [[gnu::vector_size(16)]] = uint16_t;
  Halves m[8];
  for (int r = 0; r < 8; ++r) std::memcpy(&m[r], rows[r], 16);
  // Three rounds of interleaving with the row four further make columns of rows.
  for (int round = 0; round < 3; ++round) {
    Halves next[8];
    for (size_t r = 0; r < 4; ++r) {
      next[2 * r] = __builtin_shufflevector(m[r], m[r + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      next[2 * r + 1] = __builtin_shufflevector(m[r], m[r + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (size_t r = 0; r < 8; ++r) m[r] = next[r];
  }
  for (size_t c = 0; c < 8; ++c) std::memcpy(out + 4 * c, &m[c], 16);
}

}  // namespace ptxsim
