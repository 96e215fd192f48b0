#include <cstring>
#include <type_traits>

#include "tools/ptxsim/exec/fragments.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/matrix.h"
#include "tools/ptxsim/exec/memory_access.h"

/// wmma.load, wmma.store, wmma.mma. Which lane holds which element is left to the implementation: here fragments are
/// those of mma.sync, tile after tile. A product of 8 rows by 32 columns is computed as its transpose. Where PTX has
/// more registers than elements (f16), they are repeated.
namespace ptxsim {

namespace {

enum class Matrix : uint8_t { kA, kB, kC };

/// How a matrix of a wmma shape is made of fragments.
struct Fragment {
  Matrix matrix;    // as which it enters the product: A and B change places in a transposed one
  bool transposed;  // the product is
  uint32_t m_tiles, n_tiles, groups, blocks, per_register;

  uint32_t registers() const {
    switch (matrix) {
      case Matrix::kA:
        return m_tiles * blocks * groups;
      case Matrix::kB:
        return n_tiles * blocks;
      default:
        return m_tiles * n_tiles * groups * 2 / per_register;
    }
  }
};

struct Product {
  bool transposed;
  uint32_t m_tiles, n_tiles, groups, k;
};

/// The product of a wmma shape.
Product product_of(const Lowering& l, const MatrixShape& s) {
  if (s.m == 16 && s.n == 16) return {false, 1, 2, 2, s.k};
  if (s.m == 32 && s.n == 8) return {false, 2, 1, 2, s.k};
  if (s.m == 8 && s.n == 32) return {true, 2, 1, 2, s.k};
  if (s.m == 8 && s.n == 8) return {false, 1, 1, 1, s.k};
  l.unknown();
}

/// The shapes that there are for elements of a type.
void expect_known(const Lowering& l, const MatrixShape& s, DataType element) {
  const bool halves = (s.m == 16 && s.n == 16) || (s.m == 32 && s.n == 8) || (s.m == 8 && s.n == 32);
  const bool small = s.m == 8 && s.n == 8;
  bool known = false;
  switch (element) {
    case DataType::kF16:
    case DataType::kBf16:
    case DataType::kS8:
    case DataType::kU8:
      known = halves && s.k == 16;
      break;
    case DataType::kTf32:
      known = s.m == 16 && s.n == 16 && s.k == 8;
      break;
    case DataType::kF64:
      known = small && s.k == 4;
      break;
    case DataType::kS4:
    case DataType::kU4:
      known = small && s.k == 32;
      break;
    case DataType::kB1:
      known = small && s.k == 128;
      break;
    default:
      break;
  }
  if (!known) l.unknown();
}

Fragment fragment_of(const Product& p, Matrix matrix, DataType type) {
  Fragment f{matrix, p.transposed, p.m_tiles, p.n_tiles, p.groups, 0, 1};
  if (matrix == Matrix::kC) {
    f.per_register = type == DataType::kF16 ? 2 : 1;
    return f;
  }
  f.per_register = elements_per_register(type);
  f.blocks = p.k / (4 * f.per_register);
  if (p.transposed) f.matrix = matrix == Matrix::kA ? Matrix::kB : Matrix::kA;
  return f;
}

// --- loads and stores -----------------------------------------------------------------------------------------------

// flags.
constexpr int kBase32 = 0;  // the base has 32 bits
constexpr int kWhat = 1;    // bits below, and Fragment::matrix << 4
constexpr uint8_t kStores = 1, kAlong = 2, kWide = 4;
constexpr int kTiles = 2;      // n_tiles, groups << 4
constexpr int kRegisters = 3;  // of the fragment
constexpr int kGiven = 4;      // as many in the instruction
constexpr int kPerRegister = 5;

/// Where element e of lane 0's register lies: along k (or, of C, a row of the product), and across. Lane l's lies l / 4
/// further across, and l % 4 steps of lane_step() further along.
struct Place {
  uint32_t across, along;
};

Place place_of(Matrix matrix, uint32_t n_tiles, uint32_t groups, uint32_t tile_registers, uint32_t per_register,
               uint32_t i, uint32_t e) {
  const uint32_t tile = i / tile_registers, in_tile = i % tile_registers;
  switch (matrix) {
    case Matrix::kA:
      return {16 * tile + 8 * (in_tile % groups), 4 * per_register * (in_tile / groups) + e};
    case Matrix::kB:
      return {8 * tile, 4 * per_register * in_tile + e};
    default: {
      const uint32_t element = in_tile * per_register + e;
      return {16 * (tile / n_tiles) + 8 * (element / 2), 8 * (tile % n_tiles) + element % 2};
    }
  }
}

uint32_t lane_step(Matrix matrix, uint32_t per_register) { return matrix == Matrix::kC ? 2 : per_register; }

/// f(size) for a size known to the compiler, so that each lane's copy is a single move.
template <class F>
void with_size(uint32_t bytes, F f) {
  switch (bytes) {
    case 1:
      return f(std::integral_constant<size_t, 1>());
    case 2:
      return f(std::integral_constant<size_t, 2>());
    case 4:
      return f(std::integral_constant<size_t, 4>());
    default:
      return f(std::integral_constant<size_t, 8>());
  }
}

/// Elements of `bits` bits that lie one after the other move as one register; others one by one.
/// slots: base, stride in elements, registers. flags[kWhat] & kAlong: memory goes along rather than across.
void access(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const bool stores = (in.flags[kWhat] & kStores) != 0, along = (in.flags[kWhat] & kAlong) != 0,
             wide = (in.flags[kWhat] & kWide) != 0;
  const auto matrix = static_cast<Matrix>(in.flags[kWhat] >> 4);
  const uint32_t n_tiles = in.flags[kTiles] & 15, groups = in.flags[kTiles] >> 4, registers = in.flags[kRegisters],
                 per_register = in.flags[kPerRegister], register_bytes = wide ? 8 : 4;
  const uint32_t tile_registers = in.target;
  // Once a register where its elements are neighbours.
  const uint32_t pieces = along ? 1 : per_register, bytes = register_bytes / pieces,
                 bits = 8 * register_bytes / per_register;
  alignas(64) uint64_t start[kLanes], address[kLanes], own[kLanes];
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), start);
  const auto* stride = w.lanes<uint32_t>(in.slots[1]);
  const auto element_at = [&](uint64_t across, uint64_t along_it, uint32_t l) {
    return along ? across * stride[l] + along_it : along_it * stride[l] + across;
  };
  for (uint32_t l = 0; l < kLanes; ++l) own[l] = element_at(l / 4, lane_step(matrix, per_register) * (l % 4), l);
  const Slot* slots = in.slots + 2;
  for (uint32_t i = 0; i < registers; ++i) {
    auto* const lanes = w.lanes<std::byte>(slots[i]);
    for (uint32_t e = 0; e < pieces; ++e) {
      const Place p = place_of(matrix, n_tiles, groups, tile_registers, per_register, i, e);
      for (uint32_t l = 0; l < kLanes; ++l) {
        address[l] = start[l] + (own[l] + element_at(p.across, p.along, l)) * bits / 8;
      }
      alignas(64) std::byte value[kLanes * 8];
      std::byte* const piece = lanes + size_t{e} * bytes;
      if (stores) {
        with_size(bytes, [&](auto size) {
          for (size_t l = 0; l < kLanes; ++l) std::memcpy(value + l * size, piece + l * register_bytes, size);
        });
      }
      Located at;
      if (!locate(w, in, m, address, in.memory.space, bytes, bytes, stores ? Access::Kind::kStore : Access::Kind::kLoad,
                  false, stores ? value : nullptr, at)) {
        return;
      }
      with_size(bytes, [&](auto size) {
        each_lane(m, [&](int lane) {
          const auto l = static_cast<size_t>(lane);
          if (stores) {
            std::memcpy(at.pointer[l], value + l * size, size);
          } else {
            std::memcpy(piece + l * register_bytes, at.pointer[l], size);
          }
        });
      });
    }
  }
  if (stores) return;
  for (uint32_t i = registers; i < in.flags[kGiven]; ++i) {
    std::memcpy(w.lanes<std::byte>(slots[i]), w.lanes<std::byte>(slots[i % registers]),
                size_t{kLanes} * register_bytes);
  }
}

void allow_wmma_modifiers(const Lowering& l, std::initializer_list<std::string_view> more) {
  for (const std::string& m : l.text().modifiers) {
    const bool known = data_type(m) || matrix_shape(m) || m == "sync" || m == "aligned" || m == "row" || m == "col" ||
                       std::find(more.begin(), more.end(), m) != more.end();
    if (!known) l.unknown();
  }
}

void lower_access(Lowering& l, bool store) {
  allow_wmma_modifiers(l, {store ? "store" : "load", "a", "b", "c", "d", "global", "shared", "shared::cta"});
  l.set_kind(Kind::kMatrix);
  const bool is_c = store ? l.has("d") : l.has("c");
  const bool named = is_c || (!store && (l.has("a") || l.has("b")));
  if (!named || l.type_count() != 1 || l.has("row") == l.has("col")) l.unknown();
  const Matrix matrix = is_c ? Matrix::kC : l.has("a") ? Matrix::kA : Matrix::kB;
  const DataType type = l.type();
  const MatrixShape shape = matrix_shape(l);
  if (is_c) {
    if (type != DataType::kF16 && type != DataType::kF32 && type != DataType::kS32 && type != DataType::kF64)
      l.unknown();
  } else {
    expect_known(l, shape, type);
  }
  const Fragment f = fragment_of(product_of(l, shape), matrix, type);
  const bool column_major = l.has("col");
  // Of A a row goes along k, of B a column; of C a row goes along the product's rows, unless that is transposed.
  const bool along = matrix == Matrix::kA   ? !column_major
                     : matrix == Matrix::kB ? column_major
                                            : column_major == f.transposed;
  if (!along && f.per_register > 4) l.fail("elements of less than a byte have to follow each other along k");

  const auto registers = registers_of(l.operand(store ? 1 : 0));
  const uint32_t needed = f.registers();
  const bool repeats = !is_c && registers.size() > needed && registers.size() % needed == 0;
  if (registers.size() != needed && !repeats) l.fail("expected {} registers, found {}", needed, registers.size());
  if (l.operand_count() != 2 && l.operand_count() != 3) l.unknown();
  const bool wide = type == DataType::kF64;
  const Space space = l.space();
  const Lowering::Address address = l.address(l.operand(store ? 0 : 1), space);
  // Without a stride the matrix is dense.
  const uint32_t columns = matrix == Matrix::kA ? shape.k : shape.n, rows = matrix == Matrix::kB ? shape.k : shape.m;
  const Slot stride = l.operand_count() == 3 ? l.read(2, 32) : l.constant(column_major ? rows : columns, 32);
  std::vector<Slot> slots = {address.base, stride};
  for (const ptx::Operand* r : registers)
    slots.push_back(store ? l.read(*r, wide ? 64 : 32) : l.write(*r, wide ? 64 : 32));
  Instruction& in = l.emit(access, slots);
  in.memory.space = space;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.target = needed / (f.matrix == Matrix::kA   ? f.m_tiles
                        : f.matrix == Matrix::kB ? f.n_tiles
                                                 : f.m_tiles * f.n_tiles);
  in.flags[kBase32] = address.base_bits == 32 ? 1 : 0;
  in.flags[kWhat] = static_cast<uint8_t>((store ? kStores : 0) | (along ? kAlong : 0) | (wide ? kWide : 0) |
                                         static_cast<uint8_t>(f.matrix) << 4);
  in.flags[kTiles] = static_cast<uint8_t>(f.n_tiles | f.groups << 4);
  in.flags[kRegisters] = static_cast<uint8_t>(needed);
  in.flags[kGiven] = static_cast<uint8_t>(registers.size());
  in.flags[kPerRegister] = static_cast<uint8_t>(f.per_register);
}

void lower_product(Lowering& l) {
  allow_wmma_modifiers(l, {"mma", "satfinite", "xor", "and", "popc", "rn"});
  // d, a, b, c; of f16 only d and c are named.
  const bool halves = l.type_count() == 2;
  expect_shape(l, halves ? 2 : 4, 4);
  const MatrixShape shape = matrix_shape(l);
  TiledProduct p;
  p.d = l.type(0);
  p.a = halves ? DataType::kF16 : l.type(1);
  p.b = halves ? DataType::kF16 : l.type(2);
  p.c = l.type(halves ? 1 : 3);
  if (p.a != p.b) l.unknown();
  expect_known(l, shape, p.a);
  const bool bits = p.a == DataType::kB1;
  if (bits != l.has("popc") || bits != (l.has("xor") || l.has("and"))) l.unknown();
  if (l.has("rn") && p.a != DataType::kF64) l.unknown();
  const Product product = product_of(l, shape);
  p.groups = product.groups;
  p.k = product.k;
  p.m_tiles = product.m_tiles;
  p.n_tiles = product.n_tiles;
  p.saturate = l.has("satfinite") && !halves;  // f16 has no numbers beyond infinity to stop at
  p.bits_xor = l.has("xor");
  if (halves && l.has("satfinite")) l.fail("saturation of f16 is not supported");
  p.d_registers = registers_of(l.operand(0));
  p.a_registers = registers_of(l.operand(1));
  p.b_registers = registers_of(l.operand(2));
  p.c_registers = registers_of(l.operand(3));
  // Repeated registers need not be looked at.
  const auto without_repeats = [&](std::vector<const ptx::Operand*>& registers, Matrix matrix, DataType type) {
    const uint32_t needed = fragment_of(product, matrix, type).registers();
    if (registers.size() > needed && registers.size() % needed == 0) registers.resize(needed);
  };
  without_repeats(p.a_registers, Matrix::kA, p.a);
  without_repeats(p.b_registers, Matrix::kB, p.b);
  if (product.transposed) std::swap(p.a_registers, p.b_registers);
  lower_tiled_product(l, p);
}

}  // namespace

void lower_wmma(Lowering& l) {
  if (l.has("load")) return lower_access(l, false);
  if (l.has("store")) return lower_access(l, true);
  if (l.has("mma")) return lower_product(l);
  l.unknown();
}

}  // namespace ptxsim
