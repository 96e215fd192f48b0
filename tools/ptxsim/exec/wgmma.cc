#include <algorithm>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/fragments.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/matrix.h"
#include "tools/ptxsim/exec/memory_access.h"

/// wgmma: products of four warps together, of operands in shared memory.
///
/// Each warp computes its own sixteen rows when it comes to the instruction, and writes its results at once; PTX allows
/// that at any time until the wait. Shared memory has to stay as it is until all four have: wait_group therefore holds
/// a warp until the others have issued the groups in question as well, so that whoever says after it that the operands
/// may be overwritten speaks for all four.
namespace ptxsim {

namespace {

constexpr int kBlocks = 2;     // along k: all shapes have 32 bytes of it
constexpr uint32_t kRow = 16;  // bytes of a row of a block of eight
constexpr uint32_t kWarps = 4;
constexpr int kGroups = 2;

// flags.
constexpr int kTiles = 0;  // n / 8
constexpr int kAccumulator = 1;
constexpr int kForm = 2;  // bits below
constexpr uint8_t kRegistersA = 1, kTransposeA = 2, kTransposeB = 4, kNegateA = 8, kNegateB = 16, kSaturate = 32,
                  kScaleNegated = 64;

/// A matrix in shared memory as its descriptor has it: blocks of eight rows of 16 bytes.
struct Descriptor {
  uint32_t start, leading, stride, swizzle_lines;
  uint32_t base_offset;
  bool across;  // rows go along m or n: the matrix has to be transposed

  Descriptor(uint64_t bits, bool transposed)
      : start(static_cast<uint32_t>(bits & 0x3fff) << 4),
        leading(static_cast<uint32_t>(bits >> 16 & 0x3fff) << 4),
        stride(static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4),
        swizzle_lines(std::array<uint32_t, 4>{1, 8, 4, 2}[bits >> 62]),
        base_offset(static_cast<uint32_t>(bits >> 49 & 7)),
        across(transposed) {}

  /// Row i of the block with the t-th eight rows (of A) or columns (of B), and the j-th 16 bytes of k (or, transposed,
  /// the j-th eight values of k). `swizzle_lines` rows' chunks, 1, 2, 4 or 8, share a row of the swizzling pattern.
  uint32_t row(uint32_t t, uint32_t j, uint32_t i) const {
    uint32_t at = start + i * kRow * swizzle_lines;
    if (!across) {
      at += t * stride + j * (swizzle_lines == 1 ? leading : kRow);
    } else if (swizzle_lines == 1) {
      at += t * stride + j * leading;
    } else {
      at += t % swizzle_lines * kRow + t / swizzle_lines * leading + j * stride;
    }
    return at ^ ((at >> 7 & (swizzle_lines - 1)) << 4);
  }
};

/// Blocks of a matrix in shared memory as registers: [t][j].
bool load_blocks(Warp& w, const Instruction& in, const Descriptor& d, uint32_t first, uint32_t count, bool tell,
                 uint32_t (*out)[kLanes]) {
  alignas(64) uint64_t address[kLanes] = {};
  Mask mask = 0;
  for (uint32_t t = 0; t < count; ++t) {
    for (uint32_t j = 0; j < kBlocks; ++j) {
      for (uint32_t i = 0; i < 8; ++i) {
        const uint32_t lane = (t * kBlocks + j) * 8 + i;
        address[lane] = d.row(first + t, j, i);
        mask |= Mask{1} << lane;
      }
    }
  }
  Located at;
  const uint64_t limit = w.cta->grid.shared_extent;
  bool inside = true;
  each_lane(mask, [&](int l) { inside = inside && address[l] + kRow <= limit; });
  if (tell || !inside) {
    if (!locate(w, in, mask, address, Space::kShared, kRow, kRow, Access::Kind::kAsyncRead, false, nullptr, at))
      return false;
  } else {
    each_lane(mask, [&](int l) { at.pointer[l] = w.cta->shared + address[l]; });
  }
  for (uint32_t block = 0; block < count * kBlocks; ++block) {
    const std::byte* rows[8];
    for (uint32_t i = 0; i < 8; ++i) rows[i] = at.pointer[8 * block + i];
    if (d.across) {
      block_of_columns(rows, out[block]);
    } else {
      block_of_rows(rows, out[block]);
    }
  }
  return true;
}

template <class E>
void negate(uint32_t (*registers)[kLanes], int count) {
  if constexpr (requires { E::kSigns; }) {
    for (int i = 0; i < count; ++i) {
      for (int l = 0; l < kLanes; ++l) registers[i][l] ^= E::kSigns;
    }
  }
}

/// slots: d, four registers of A or its descriptor, B's descriptor, whether d is added to.
template <class A, class B>
void multiply_async(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const uint32_t tiles = in.flags[kTiles];
  const uint8_t form = in.flags[kForm];
  const auto kind = static_cast<Accumulator>(in.flags[kAccumulator]);
  const auto d_registers = static_cast<uint32_t>(accumulator_registers(kind, kGroups));
  const Slot* d = in.slots;
  const Slot* next = d + size_t{tiles} * d_registers;
  const int first_lane = std::countr_zero(m);
  const uint32_t warp = w.index % kWarps;

  alignas(64) uint32_t a_blocks[kGroups * kBlocks][kLanes];
  const uint32_t* a_registers[kGroups * kBlocks];
  if ((form & kRegistersA) != 0) {
    for (int i = 0; i < kGroups * kBlocks; ++i, ++next) {
      std::copy_n(w.lanes<uint32_t>(*next), kLanes, a_blocks[i]);
      a_registers[i] = a_blocks[i];
    }
  } else {
    const Descriptor a(w.lanes<uint64_t>(*next++)[first_lane], (form & kTransposeA) != 0);
    if (a.base_offset != 0) {
      w.fault(Status::kIllegalInstruction, in, first_lane, "descriptors with a base offset are not supported");
      return;
    }
    if (!load_blocks(w, in, a, kGroups * warp, kGroups, true, a_blocks)) return;
    // From [group][block] to the order of a fragment.
    for (int j = 0; j < kBlocks; ++j) {
      for (int g = 0; g < kGroups; ++g) a_registers[j * kGroups + g] = a_blocks[g * kBlocks + j];
    }
  }
  if ((form & kNegateA) != 0) negate<A>(a_blocks, kGroups * kBlocks);
  FloatsOfA<A, kGroups> a_floats;
  a_floats.fill(a_registers, kBlocks);

  const Descriptor b(w.lanes<uint64_t>(next[0])[first_lane], (form & kTransposeB) != 0);
  if (b.base_offset != 0) {
    w.fault(Status::kIllegalInstruction, in, first_lane, "descriptors with a base offset are not supported");
    return;
  }
  const bool adds = ((w.predicate(next[1]) >> first_lane & 1) != 0) != ((form & kScaleNegated) != 0);
  for (uint32_t t = 0; t < tiles; ++t) {
    alignas(64) uint32_t b_blocks[kBlocks][kLanes];
    // The device reads B once for all four warps.
    if (!load_blocks(w, in, b, t, 1, warp == 0, b_blocks)) return;
    if ((form & kNegateB) != 0) negate<B>(b_blocks, kBlocks);
    const uint32_t* b_registers[kBlocks] = {b_blocks[0], b_blocks[1]};
    FloatsOfB<B> b_floats;
    b_floats.fill(b_registers, kBlocks);
    alignas(64) float sums[2 * kGroups][kLanes] = {};
    alignas(64) int32_t integers[2 * kGroups][kLanes] = {};
    const Slot* tile = d + size_t{t} * d_registers;
    if (adds) {
      load_accumulator(w, tile, kind, kGroups, sums);
      if (kind == Accumulator::kS32) {
        for (uint32_t i = 0; i < d_registers; ++i) std::copy_n(w.lanes<int32_t>(tile[i]), kLanes, integers[i]);
      }
    }
    multiply(a_floats, b_floats, kBlocks, sums);
    if (kind == Accumulator::kS32) {
      add_integers(integers, sums, w, tile, kGroups, (form & kSaturate) != 0);
    } else {
      store_accumulator(w, tile, kind, kGroups, sums);
    }
  }
  w.each_observer([&](Observer& o) { o.product_issued(w, in); });
}

void fence(Warp& w, const Instruction& in, Mask m) { static_cast<void>(w.converge_all(in, m)); }

/// For observers a warpgroup's groups are an object, beyond all shared memory: committing releases to it, and who has
/// waited knows that the four warps' products have read their operands.
uint64_t object_of(const Warp& w) { return (uint64_t{1} << (kClusterRankShift - 1)) + w.index / kWarps; }

void commit_group(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  ++w.wgmma_commits;
  w.tell_warp_sync(m);
  w.each_observer([&](Observer& o) {
    o.release(w, m, Space::kShared, object_of(w));
    o.async_commit(w, m, AsyncReader::kProduct);
  });
}

/// immediate: how many of the latest groups may be under way.
void wait_group(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  if (w.wgmma_commits <= in.immediate) return;
  const uint64_t needed = w.wgmma_commits - in.immediate;
  auto& warps = w.cta->warps;
  const uint32_t first = w.index / kWarps * kWarps, end = std::min(first + kWarps, static_cast<uint32_t>(warps.size()));
  for (uint32_t i = first; i < end; ++i) {
    if (warps[i].alive() == 0 || warps[i].wgmma_commits >= needed) continue;
    // Again later; it has not been executed yet.
    w.pc = in.index;
    if (w.counting) {
      --w.worker->executed[in.index];
      w.worker->threads[in.index] -= static_cast<uint64_t>(std::popcount(m));
    }
    w.await({&in, std::countr_zero(m)});
    return;
  }
  w.each_observer([&](Observer& o) {
    o.acquire(w, m, Space::kShared, object_of(w));
    o.async_wait(w, m, AsyncReader::kProduct, in.immediate);
  });
}

void lower_group(Lowering& l, Handler handler, std::string_view name, bool counts) {
  allow_modifiers(l, {name, "sync", "aligned"});
  expect_shape(l, 0, counts ? 1 : 0);
  const uint64_t count = counts ? l.literal(0) : 0;
  l.set_kind(Kind::kBarrier);
  l.emit(handler, {}).immediate = count;
}

/// An operand that says 1 or -1, or 0 or 1.
bool one_of(const Lowering& l, size_t operand, int64_t no, int64_t yes) {
  const auto value = static_cast<int64_t>(l.literal(operand));
  // A negative literal may have been cut to 32 bits.
  const int64_t v = value == 0xffffffff ? -1 : value;
  if (v != no && v != yes) l.fail("operand {} is {}, expected {} or {}", operand + 1, v, no, yes);
  return v == yes;
}

void lower_multiply(Lowering& l) {
  for (const std::string& m : l.text().modifiers) {
    if (m == "sp") l.fail("sparse matrices are not supported");
  }
  const MatrixShape shape = matrix_shape(l);
  const std::string shape_text = fmt::format("m{}n{}k{}", shape.m, shape.n, shape.k);
  allow_modifiers(l, {"mma_async", "sync", "aligned", "satfinite", shape_text});
  if (l.type_count() != 3) l.unknown();
  const DataType d = l.type(0), a = l.type(1), b = l.type(2);
  const bool halves = a == DataType::kF16 || a == DataType::kBf16;
  const bool integers = d == DataType::kS32;
  if (shape.m != 64 || shape.n % 8 != 0 || shape.n == 0 || shape.n > 256 || !fits(a, d)) l.unknown();
  if (integers && shape.n > 32 && shape.n % 16 != 0) l.unknown();
  if (shape.k != 4 * elements_per_register(a) * kBlocks || (l.has("satfinite") && !integers)) l.unknown();
  const Handler handler = for_formats(a, b, [&]<class A, class B>() -> Handler {
    if constexpr (A::kPer <= 4) {
      return multiply_async<A, B>;
    } else {
      return nullptr;
    }
  });
  if (handler == nullptr) l.unknown();

  const auto d_registers = registers_of(l.operand(0));
  const Accumulator kind = accumulator_of(l, d);
  const size_t expected = shape.n / 8 * static_cast<size_t>(accumulator_registers(kind, kGroups));
  if (d_registers.size() != expected) l.fail("expected {} registers of d, found {}", expected, d_registers.size());
  std::vector<Slot> slots;
  for (const ptx::Operand* r : d_registers) slots.push_back(l.read_write(*r, 32));
  const auto a_registers = registers_of(l.operand(1));
  uint8_t form = l.has("satfinite") ? kSaturate : 0;
  const bool in_registers = l.operand(1).kind == ptx::Operand::Kind::kVector;
  if (in_registers) {
    form |= kRegistersA;
    if (a_registers.size() != size_t{kGroups} * kBlocks)
      l.fail("expected 4 registers of a, found {}", a_registers.size());
    for (const ptx::Operand* r : a_registers) slots.push_back(l.read(*r, 32));
  } else {
    slots.push_back(l.read(1, 64));
  }
  slots.push_back(l.read(2, 64));
  bool negated = false;
  slots.push_back(l.read_predicate(l.operand(3), negated));
  if (negated) form |= kScaleNegated;
  size_t next = 4;
  if (!integers) {
    if (one_of(l, next++, 1, -1)) form |= kNegateA;
    if (one_of(l, next++, 1, -1)) form |= kNegateB;
    if (halves && !in_registers && one_of(l, next++, 0, 1)) form |= kTransposeA;
    if (halves && one_of(l, next++, 0, 1)) form |= kTransposeB;
  }
  if (next != l.operand_count()) l.unknown();
  Instruction& in = l.emit(handler, slots);
  in.memory.space = Space::kShared;
  in.memory.bytes = kRow;
  in.flags[kTiles] = static_cast<uint8_t>(shape.n / 8);
  in.flags[kAccumulator] = static_cast<uint8_t>(kind);
  in.flags[kForm] = form;
}

}  // namespace

void lower_wgmma(Lowering& l) {
  if (l.has("mma_async")) return lower_multiply(l);
  if (l.has("fence")) return lower_group(l, fence, "fence", false);
  if (l.has("commit_group")) return lower_group(l, commit_group, "commit_group", false);
  if (l.has("wait_group")) return lower_group(l, wait_group, "wait_group", true);
  l.unknown();
}

}  // namespace ptxsim
