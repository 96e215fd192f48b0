#pragma once

#include <optional>
#include <vector>

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

}  // namespace ptxsim
