#include "tools/ptxsim/exec/matrix.h"

#include <cstring>

#include "tools/ptxsim/exec/fragments.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

/// ldmatrix, stmatrix, movmatrix: 8 × 8 matrices of 16 bits, in memory a row of 16 bytes each.
namespace ptxsim {

std::vector<const ptx::Operand*> registers_of(const ptx::Operand& operand) {
  std::vector<const ptx::Operand*> parts;
  if (operand.kind == ptx::Operand::Kind::kVector) {
    for (const ptx::Operand& p : operand.parts) parts.push_back(&p);
  } else {
    parts.push_back(&operand);
  }
  return parts;
}

namespace {

constexpr int kBase32 = 0;    // the base has 32 bits
constexpr int kMatrices = 1;  // 1, 2, 4
constexpr int kTransposed = 2;

/// Lanes 8 i to 8 i + 7 have the addresses of the rows of matrix i.
Mask row_lanes(const Instruction& in, Mask m) {
  const int rows = 8 * in.flags[kMatrices];
  return rows == kLanes ? m : m & ((Mask{1} << rows) - 1);
}

/// slots: registers, base.
void ldmatrix(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const int count = in.flags[kMatrices];
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[count], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  const Mask rows = row_lanes(in, m);
  Located at;
  if (!locate(w, in, rows, address, in.memory.space, 16, 16, Access::Kind::kLoad, false, nullptr, at)) return;
  static constexpr std::byte kAbsent[16] = {};
  const std::byte* row[kLanes];
  for (int l = 0; l < kLanes; ++l) row[l] = (rows >> l & 1) != 0 ? at.pointer[l] : kAbsent;
  for (int i = 0; i < count; ++i) {
    auto* d = w.lanes<uint32_t>(in.slots[i]);
    const std::byte* const* rows_of_matrix = &row[8 * i];
    if (in.flags[kTransposed] != 0) {
      block_of_columns(rows_of_matrix, d);
    } else {
      block_of_rows(rows_of_matrix, d);
    }
  }
}

void transpose(const uint32_t* block, uint32_t* out) {
  const std::byte* rows[8];
  for (size_t r = 0; r < 8; ++r) rows[r] = reinterpret_cast<const std::byte*>(block + 4 * r);
  block_of_columns(rows, out);
}

/// slots: base, registers.
void stmatrix(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const int count = in.flags[kMatrices];
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  alignas(64) uint32_t value[4][kLanes] = {};  // row after row
  for (int i = 0; i < count; ++i) {
    const auto* v = w.lanes<uint32_t>(in.slots[1 + i]);
    if (in.flags[kTransposed] != 0) {
      transpose(v, value[i]);
    } else {
      std::copy_n(v, kLanes, value[i]);
    }
  }
  const Mask rows = row_lanes(in, m);
  const auto* bytes = reinterpret_cast<const std::byte*>(value);
  Located at;
  if (!locate(w, in, rows, address, in.memory.space, 16, 16, Access::Kind::kStore, false, bytes, at)) return;
  each_lane(rows, [&](int l) { std::memcpy(at.pointer[l], bytes + size_t{16} * static_cast<uint32_t>(l), 16); });
}

void movmatrix(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  alignas(64) uint32_t result[kLanes];
  transpose(w.lanes<uint32_t>(in.slots[1]), result);
  std::copy_n(result, kLanes, w.lanes<uint32_t>(in.slots[0]));
}

void lower_matrix_access(Lowering& l, bool load) {
  allow_modifiers(l, {"sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"});
  if (!l.has("m8n8") || l.type_count() != 1 || l.type() != DataType::kB16 || l.operand_count() != 2) l.unknown();
  const uint8_t count = l.has("x4") ? 4 : l.has("x2") ? 2 : l.has("x1") ? 1 : 0;
  const auto registers = registers_of(l.operand(load ? 0 : 1));
  if (registers.size() != count) l.fail("expected {} registers, found {}", count, registers.size());
  const Space space = l.space();
  const Lowering::Address address = l.address(l.operand(load ? 1 : 0), space);
  std::vector<Slot> slots;
  if (!load) slots.push_back(address.base);
  for (const ptx::Operand* r : registers) slots.push_back(load ? l.write(*r, 32) : l.read(*r, 32));
  if (load) slots.push_back(address.base);
  Instruction& in = l.emit(load ? ldmatrix : stmatrix, slots);
  in.memory.space = space;
  in.memory.bytes = 16;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.flags[kBase32] = address.base_bits == 32 ? 1 : 0;
  in.flags[kMatrices] = count;
  in.flags[kTransposed] = l.has("trans") ? 1 : 0;
}

void lower_ldmatrix(Lowering& l) { lower_matrix_access(l, true); }
void lower_stmatrix(Lowering& l) { lower_matrix_access(l, false); }
void lower_movmatrix(Lowering& l) {
  allow_modifiers(l, {"sync", "aligned", "m8n8", "trans"});
  if (!l.has("m8n8") || !l.has("trans") || l.type() != DataType::kB16) l.unknown();
  expect_shape(l, 1, 2);
  l.emit(movmatrix, {l.write(0, 32), l.read(1, 32)});
}

}  // namespace

void add_matrix(OpcodeTable& t) {
  t.add("ldmatrix", Kind::kMatrix, lower_ldmatrix);
  t.add("stmatrix", Kind::kMatrix, lower_stmatrix);
  t.add("movmatrix", Kind::kMatrix, lower_movmatrix);
  t.add("mma", Kind::kTensor, lower_mma);
  t.add("wmma", Kind::kTensor, lower_wmma);
  t.add("wgmma", Kind::kTensor, lower_wgmma);
}

}  // namespace ptxsim
