#include <algorithm>
#include <charconv>
#include <cstring>

#include "tools/ptxsim/exec/fragments.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/matrix.h"

/// mma.sync, and the products of fragments that wmma.mma shares with it.
namespace ptxsim {

std::optional<MatrixShape> matrix_shape(std::string_view modifier) {
  MatrixShape shape;
  const char* at = modifier.data();
  const char* const end = at + modifier.size();
  for (const auto& [letter, extent] : {std::pair('m', &shape.m), std::pair('n', &shape.n), std::pair('k', &shape.k)}) {
    if (at == end || *at != letter) return {};
    const auto [next, error] = std::from_chars(at + 1, end, *extent);
    if (error != std::errc()) return {};
    at = next;
  }
  if (at != end) return {};
  return shape;
}

MatrixShape matrix_shape(const Lowering& l) {
  for (const std::string& m : l.text().modifiers) {
    if (const auto shape = matrix_shape(m)) return *shape;
  }
  l.fail("expected a shape like m16n8k16");
}

uint32_t elements_per_register(DataType type) {
  switch (type) {
    case DataType::kTf32:
    case DataType::kF64:
      return 1;
    default:
      return 32 / bits_of(type);
  }
}

namespace {

// flags of a product.
constexpr int kBlocks = 0;  // of 4 · kPer values of k
constexpr int kAccumulatorD = 1, kAccumulatorC = 2;
constexpr int kSaturate = 3;      // of b1: exclusive or
constexpr int kTiles = 4;         // of m, and of n << 4
constexpr int kGroupsOfBits = 5;  // f64 and b1: groups of rows

constexpr int kMostTiles = 2;

/// slots: d, a, b, c; each tile after tile (of c and d n's innermost), each in the order of its fragment.
template <class A, class B, int kGroups>
void product(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const std::ptrdiff_t blocks = in.flags[kBlocks], m_tiles = in.flags[kTiles] & 15, n_tiles = in.flags[kTiles] >> 4;
  const auto d_kind = static_cast<Accumulator>(in.flags[kAccumulatorD]),
             c_kind = static_cast<Accumulator>(in.flags[kAccumulatorC]);
  const std::ptrdiff_t d_registers = accumulator_registers(d_kind, kGroups),
                       c_registers = accumulator_registers(c_kind, kGroups);
  const std::ptrdiff_t tiles = m_tiles * n_tiles;
  const Slot* d = in.slots;
  const Slot* a = d + tiles * d_registers;
  const Slot* b = a + m_tiles * blocks * kGroups;
  const Slot* c = b + n_tiles * blocks;
  // All is read before anything is written: a destination may lie where a source did.
  FloatsOfA<A, kGroups> a_floats[kMostTiles];
  FloatsOfB<B> b_floats[kMostTiles];
  const uint32_t* registers[kMostBlocks * kGroups];
  for (std::ptrdiff_t t = 0; t < m_tiles; ++t) {
    for (std::ptrdiff_t i = 0; i < blocks * kGroups; ++i) registers[i] = w.lanes<uint32_t>(*a++);
    a_floats[t].fill(registers, blocks);
  }
  for (std::ptrdiff_t t = 0; t < n_tiles; ++t) {
    for (std::ptrdiff_t i = 0; i < blocks; ++i) registers[i] = w.lanes<uint32_t>(*b++);
    b_floats[t].fill(registers, blocks);
  }
  alignas(64) float sums[kMostTiles][2 * kGroups][kLanes];
  alignas(64) int32_t integers[kMostTiles][2 * kGroups][kLanes];
  for (std::ptrdiff_t t = 0; t < tiles; ++t, c += c_registers) {
    load_accumulator(w, c, c_kind, kGroups, sums[t]);
    if (c_kind != Accumulator::kS32) continue;
    for (std::ptrdiff_t i = 0; i < c_registers; ++i) std::copy_n(w.lanes<int32_t>(c[i]), kLanes, integers[t][i]);
  }
  for (std::ptrdiff_t t = 0; t < tiles; ++t, d += d_registers) {
    multiply(a_floats[t / n_tiles], b_floats[t % n_tiles], blocks, sums[t]);
    if (d_kind == Accumulator::kS32) {
      add_integers(integers[t], sums[t], w, d, kGroups, in.flags[kSaturate] != 0);
    } else {
      store_accumulator(w, d, d_kind, kGroups, sums[t]);
    }
  }
}

/// Elements of 64 bits, of one tile.
void product_f64(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  constexpr int kMostK = 16;
  const std::ptrdiff_t blocks = in.flags[kBlocks], groups = in.flags[kGroupsOfBits], rows = 8 * groups, k = 4 * blocks;
  const Slot* d = in.slots;
  const Slot* a = d + 2 * groups;
  const Slot* b = a + blocks * groups;
  const Slot* c = b + blocks;
  double a_matrix[16][kMostK], b_matrix[kMostK][8], sum[16][8];
  for (std::ptrdiff_t i = 0; i < blocks * groups; ++i) {
    const auto* r = w.lanes<double>(a[i]);
    for (int l = 0; l < kLanes; ++l) a_matrix[8 * (i % groups) + l / 4][4 * (i / groups) + l % 4] = r[l];
  }
  for (std::ptrdiff_t i = 0; i < blocks; ++i) {
    const auto* r = w.lanes<double>(b[i]);
    for (int l = 0; l < kLanes; ++l) b_matrix[4 * i + l % 4][l / 4] = r[l];
  }
  for (std::ptrdiff_t i = 0; i < 2 * groups; ++i) {
    const auto* r = w.lanes<double>(c[i]);
    for (int l = 0; l < kLanes; ++l) sum[8 * (i / 2) + l / 4][2 * (l % 4) + i % 2] = r[l];
  }
  for (std::ptrdiff_t row = 0; row < rows; ++row) {
    for (std::ptrdiff_t i = 0; i < k; ++i) {
      for (int n = 0; n < 8; ++n) sum[row][n] = __builtin_fma(a_matrix[row][i], b_matrix[i][n], sum[row][n]);
    }
  }
  for (std::ptrdiff_t i = 0; i < 2 * groups; ++i) {
    auto* r = w.lanes<double>(d[i]);
    for (int l = 0; l < kLanes; ++l) r[l] = sum[8 * (i / 2) + l / 4][2 * (l % 4) + i % 2];
  }
}

/// Elements of one bit, of one tile: counts of the ones that a and b have in common, or apart.
void product_b1(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const std::ptrdiff_t blocks = in.flags[kBlocks], groups = in.flags[kGroupsOfBits];
  const Slot* d = in.slots;
  const Slot* a = d + 2 * groups;
  const Slot* b = a + blocks * groups;
  const Slot* c = b + blocks;
  alignas(64) uint32_t sums[4][kLanes];
  for (std::ptrdiff_t i = 0; i < 2 * groups; ++i) {
    std::copy_n(w.lanes<uint32_t>(c[i]), kLanes, sums[i]);
    for (std::ptrdiff_t j = 0; j < blocks; ++j) {
      const auto* x = w.lanes<uint32_t>(a[j * groups + i / 2]);
      const auto* y = w.lanes<uint32_t>(b[j]);
      for (int l = 0; l < kLanes; ++l) {
        const int row = l / 4 * 4, column = (2 * (l % 4) + i % 2) * 4;
        for (int q = 0; q < 4; ++q) {
          const uint32_t bits = in.flags[kSaturate] != 0 ? x[row + q] ^ y[column + q] : x[row + q] & y[column + q];
          sums[i][l] += static_cast<uint32_t>(std::popcount(bits));
        }
      }
    }
  }
  for (std::ptrdiff_t i = 0; i < 2 * groups; ++i) std::copy_n(sums[i], kLanes, w.lanes<uint32_t>(d[i]));
}

Handler handler_of(const Lowering& l, const TiledProduct& p) {
  if (p.a == DataType::kF64 && p.b == DataType::kF64) return product_f64;
  if (p.a == DataType::kB1 && p.b == DataType::kB1) return product_b1;
  const Handler handler = for_formats(
      p.a, p.b, [&]<class A, class B>() -> Handler { return p.groups == 1 ? product<A, B, 1> : product<A, B, 2>; });
  if (handler == nullptr) l.unknown();
  return handler;
}

}  // namespace

Accumulator accumulator_of(const Lowering& l, DataType type) {
  switch (type) {
    case DataType::kF16:
      return Accumulator::kF16;
    case DataType::kF32:
    case DataType::kF64:
      return Accumulator::kF32;  // one element per register
    case DataType::kS32:
      return Accumulator::kS32;
    default:
      l.unknown();
  }
}

bool fits(DataType element, DataType accumulator) {
  switch (element) {
    case DataType::kF16:
    case DataType::kE4m3:
    case DataType::kE5m2:
      return accumulator == DataType::kF16 || accumulator == DataType::kF32;
    case DataType::kBf16:
    case DataType::kTf32:
      return accumulator == DataType::kF32;
    case DataType::kF64:
      return accumulator == DataType::kF64;
    default:
      return accumulator == DataType::kS32;
  }
}

void lower_tiled_product(Lowering& l, const TiledProduct& p) {
  const Handler handler = handler_of(l, p);
  if (!fits(p.a, p.c) || !fits(p.a, p.d)) l.unknown();
  const bool integers = p.d == DataType::kS32;
  if (p.saturate && (!integers || p.a == DataType::kB1)) l.unknown();
  const bool single = p.a == DataType::kF64 || p.a == DataType::kB1;
  const uint32_t per_block = 4 * elements_per_register(p.a), blocks = p.k / per_block;
  const uint32_t most = p.a == DataType::kF64 ? 4 : kMostBlocks;
  if (p.k % per_block != 0 || blocks == 0 || blocks > most || (single && p.m_tiles * p.n_tiles != 1)) l.unknown();

  std::vector<Slot> slots;
  const auto place = [&](const std::vector<const ptx::Operand*>& registers, uint32_t count, uint32_t bits, bool write,
                         const char* what) {
    if (registers.size() != count) l.fail("expected {} registers of {}, found {}", count, what, registers.size());
    for (const ptx::Operand* r : registers) slots.push_back(write ? l.write(*r, bits) : l.read(*r, bits));
  };
  const auto accumulator_count = [&](DataType type) {
    return p.m_tiles * p.n_tiles *
           static_cast<uint32_t>(accumulator_registers(accumulator_of(l, type), static_cast<int>(p.groups)));
  };
  const uint32_t bits = p.a == DataType::kF64 ? 64 : 32;
  place(p.d_registers, accumulator_count(p.d), bits, true, "d");
  place(p.a_registers, p.m_tiles * blocks * p.groups, bits, false, "a");
  place(p.b_registers, p.n_tiles * blocks, bits, false, "b");
  place(p.c_registers, accumulator_count(p.c), bits, false, "c");
  Instruction& in = l.emit(handler, slots);
  in.flags[kBlocks] = static_cast<uint8_t>(blocks);
  in.flags[kAccumulatorD] = static_cast<uint8_t>(accumulator_of(l, p.d));
  in.flags[kAccumulatorC] = static_cast<uint8_t>(accumulator_of(l, p.c));
  in.flags[kSaturate] = p.saturate || p.bits_xor ? 1 : 0;
  in.flags[kTiles] = static_cast<uint8_t>(p.m_tiles | p.n_tiles << 4);
  in.flags[kGroupsOfBits] = static_cast<uint8_t>(p.groups);
}

void lower_mma(Lowering& l) {
  const MatrixShape shape = matrix_shape(l);
  for (const std::string& m : l.text().modifiers) {
    if (!matrix_shape(m)) {
      if (m == "sp" || m.starts_with("sp::")) l.fail("sparse matrices are not supported");
      if (m == "block_scale" || m.starts_with("kind::")) l.fail("this form needs a newer device than sm_90");
    }
  }
  const std::string shape_text = fmt::format("m{}n{}k{}", shape.m, shape.n, shape.k);
  allow_modifiers(l, {"sync", "aligned", "row", "col", "satfinite", "xor", "and", "popc", "rn", shape_text});
  if (!l.has("sync") || !l.has("row") || !l.has("col")) l.unknown();
  expect_shape(l, 4, 4);
  TiledProduct p;
  p.d = l.type(0);
  p.a = l.type(1);
  p.b = l.type(2);
  p.c = l.type(3);
  if (shape.m == 8 && shape.k == 4 && p.a == DataType::kF16) {
    l.fail("m8n8k4 of f16, which sm_70 was made for, is not supported");
  }
  const bool bits = p.a == DataType::kB1;
  if (bits != l.has("popc") || bits != (l.has("xor") || l.has("and"))) l.unknown();
  if (l.has("rn") && p.a != DataType::kF64) l.unknown();
  if (shape.n != 8 || (shape.m != 8 && shape.m != 16)) l.unknown();
  // Eight rows: only of integers and f64, and one block.
  if (shape.m == 8 && (p.d == DataType::kF16 || p.d == DataType::kF32 || shape.k != 4 * elements_per_register(p.a)))
    l.unknown();
  p.groups = shape.m / 8;
  p.k = shape.k;
  p.saturate = l.has("satfinite");
  p.bits_xor = l.has("xor");
  p.d_registers = registers_of(l.operand(0));
  p.a_registers = registers_of(l.operand(1));
  p.b_registers = registers_of(l.operand(2));
  p.c_registers = registers_of(l.operand(3));
  lower_tiled_product(l, p);
}

}  // namespace ptxsim
