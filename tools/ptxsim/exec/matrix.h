#pragma once

#include <optional>
#include <vector>

#include "tools/ptxsim/exec/fragments.h"
#include "tools/ptxsim/program/lowering.h"

/// What the families of tensor-core instructions share.
namespace ptxsim {

void lower_mma(Lowering& l);    // mma.sync (mma.cc)
void lower_wmma(Lowering& l);   // wmma.load, .store, .mma (wmma.cc)
void lower_wgmma(Lowering& l);  // wgmma.mma_async and its groups (wgmma.cc)

/// The registers of a fragment: a vector's parts, or the operand itself.
std::vector<const ptx::Operand*> registers_of(const ptx::Operand& operand);

/// "m16n8k16".
struct MatrixShape {
  uint32_t m = 0, n = 0, k = 0;
};
std::optional<MatrixShape> matrix_shape(std::string_view modifier);
MatrixShape matrix_shape(const Lowering& l);  ///< fails when no modifier is one

/// Products of `m_tiles` · 16 (or one of 8) rows by `n_tiles` · 8 columns: what mma.sync and wmma.mma come to.
struct TiledProduct {
  DataType a, b, c, d;
  uint32_t groups = 2;  // of eight rows in a tile
  uint32_t k = 0;
  uint32_t m_tiles = 1, n_tiles = 1;
  bool saturate = false;
  bool bits_xor = false;  // of b1: exclusive or, else and
  std::vector<const ptx::Operand*> a_registers, b_registers, c_registers, d_registers;
};
void lower_tiled_product(Lowering& l, const TiledProduct& product);

/// Elements of a register of a fragment of A or B.
uint32_t elements_per_register(DataType type);

Accumulator accumulator_of(const Lowering& l, DataType type);
/// Whether products of such elements are summed in such accumulators.
bool fits(DataType element, DataType accumulator);

/// f.operator()<A, B>() with the formats of elements of these types; a null handler for types that are no such formats.
template <class F>
Handler for_formats(DataType a, DataType b, F f) {
  using T = DataType;
  const auto are = [&](T x, T y) { return a == x && b == y; };
  if (are(T::kF16, T::kF16)) return f.template operator()<F16Elements, F16Elements>();
  if (are(T::kBf16, T::kBf16)) return f.template operator()<Bf16Elements, Bf16Elements>();
  if (are(T::kTf32, T::kTf32)) return f.template operator()<Tf32Elements, Tf32Elements>();
  if (are(T::kE4m3, T::kE4m3)) return f.template operator()<E4m3Elements, E4m3Elements>();
  if (are(T::kE5m2, T::kE5m2)) return f.template operator()<E5m2Elements, E5m2Elements>();
  if (are(T::kE4m3, T::kE5m2)) return f.template operator()<E4m3Elements, E5m2Elements>();
  if (are(T::kE5m2, T::kE4m3)) return f.template operator()<E5m2Elements, E4m3Elements>();
  if (are(T::kS8, T::kS8)) return f.template operator()<S8Elements, S8Elements>();
  if (are(T::kU8, T::kU8)) return f.template operator()<U8Elements, U8Elements>();
  if (are(T::kS8, T::kU8)) return f.template operator()<S8Elements, U8Elements>();
  if (are(T::kU8, T::kS8)) return f.template operator()<U8Elements, S8Elements>();
  if (are(T::kS4, T::kS4)) return f.template operator()<S4Elements, S4Elements>();
  if (are(T::kU4, T::kU4)) return f.template operator()<U4Elements, U4Elements>();
  if (are(T::kS4, T::kU4)) return f.template operator()<S4Elements, U4Elements>();
  if (are(T::kU4, T::kS4)) return f.template operator()<U4Elements, S4Elements>();
  return nullptr;
}

}  // namespace ptxsim
