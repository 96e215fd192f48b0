#include <bit>
#include <chrono>
#include <limits>
#include <string>
#include <vector>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/lanewise.h"

/// Moves: registers, vectors, special registers, addresses and their conversion, selections, permutations.
namespace ptxsim {

namespace {

constexpr auto kSame = []<class T>(T a) { return a; };

// --- mov -------------------------------------------------------------------------------------------------------------

template <class D, class A>
Handler copy() {
  return lanewise<kSame, D, A>;
}

Handler copy(uint32_t bits) {
  return bits == 64 ? copy<uint64_t, uint64_t>() : bits == 32 ? copy<uint32_t, uint32_t>() : copy<uint16_t, uint16_t>();
}

/// Halves of 128 bits lie one after the other.
void copy_b128(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<uint64_t>(in.slots[1]);
  auto* d = w.lanes<uint64_t>(in.slots[0]);
  for (size_t half = 0; half < 2; ++half) {
    for_lanes(d + half * kLanes, m, [&](int l) { return a[half * kLanes + static_cast<size_t>(l)]; });
  }
}

void copy_predicate(Warp& w, const Instruction& in, Mask m) {
  set_predicate(w.predicate(in.slots[0]), m, w.predicate(in.slots[1]) ^ (in.flags[0] != 0 ? kAllLanes : 0));
}

/// slots: d, parts from the low bits up. P: a part's register; kBits: of a part.
template <class D, class P, int kBits>
void pack(Warp& w, const Instruction& in, Mask m) {
  const int parts = in.slot_count - 1;
  alignas(64) D value[kLanes] = {};
  for (int i = 0; i < parts; ++i) {
    const P* part = w.lanes<P>(in.slots[1 + i]);
    const int shift = i * kBits;
    for (int l = 0; l < kLanes; ++l) {
      const auto low = static_cast<D>(static_cast<D>(part[l]) & static_cast<D>((uint64_t{1} << kBits) - 1));
      value[l] = static_cast<D>(value[l] | static_cast<D>(low << shift));
    }
  }
  for_lanes(w.lanes<D>(in.slots[0]), m, [&](int l) { return value[l]; });
}

/// slots: parts from the low bits up, source.
template <class S, class P, int kBits>
void unpack(Warp& w, const Instruction& in, Mask m) {
  const int parts = in.slot_count - 1;
  const S* source = w.lanes<S>(in.slots[parts]);
  alignas(64) S value[kLanes];
  for (int l = 0; l < kLanes; ++l) value[l] = source[l];  // a part may take the source's register
  for (int i = 0; i < parts; ++i) {
    const int shift = i * kBits;
    constexpr auto kMask = static_cast<S>((uint64_t{1} << kBits) - 1);
    for_lanes(w.lanes<P>(in.slots[i]), m,
              [&](int l) { return static_cast<P>(static_cast<S>(value[l] >> shift) & kMask); });
  }
}

void pack_b128(Warp& w, const Instruction& in, Mask m) {
  auto* d = w.lanes<uint64_t>(in.slots[0]);
  for (size_t half = 0; half < 2; ++half) {
    const auto* part = w.lanes<uint64_t>(in.slots[1 + half]);
    for_lanes(d + half * kLanes, m, [&](int l) { return part[l]; });
  }
}

void unpack_b128(Warp& w, const Instruction& in, Mask m) {
  const auto* source = w.lanes<uint64_t>(in.slots[2]);
  for (size_t half = 0; half < 2; ++half) {
    for_lanes(w.lanes<uint64_t>(in.slots[half]), m,
              [&](int l) { return source[half * kLanes + static_cast<size_t>(l)]; });
  }
}

struct Packing {
  uint32_t whole, part;
  Handler pack, unpack;
};

constexpr Packing kPackings[] = {
    {16, 8, pack<uint16_t, uint16_t, 8>, unpack<uint16_t, uint16_t, 8>},
    {32, 16, pack<uint32_t, uint16_t, 16>, unpack<uint32_t, uint16_t, 16>},
    {32, 8, pack<uint32_t, uint16_t, 8>, unpack<uint32_t, uint16_t, 8>},
    {64, 32, pack<uint64_t, uint32_t, 32>, unpack<uint64_t, uint32_t, 32>},
    {64, 16, pack<uint64_t, uint16_t, 16>, unpack<uint64_t, uint16_t, 16>},
    {64, 8, pack<uint64_t, uint16_t, 8>, unpack<uint64_t, uint16_t, 8>},
    {128, 64, pack_b128, unpack_b128},
};

void lower_packing(Lowering& l, bool packs) {
  const ptx::Operand& vector = l.operand(packs ? 1 : 0);
  const uint32_t whole = bits_of(l.type());
  const auto parts = static_cast<uint32_t>(vector.parts.size());
  if (parts == 0) l.unknown();
  for (const Packing& p : kPackings) {
    if (p.whole != whole || p.part * parts != whole) continue;
    std::vector<Slot> slots;
    if (packs) {
      for (const ptx::Operand& part : vector.parts) slots.push_back(l.read(part, p.part));
      slots.insert(slots.begin(), l.write(0, whole));
    } else {
      const Slot source = l.read(1, whole);
      for (const ptx::Operand& part : vector.parts) slots.push_back(l.write(part, p.part));
      slots.push_back(source);
    }
    l.emit(packs ? p.pack : p.unpack, slots);
    return;
  }
  l.fail("{} parts of {} bits", parts, whole);
}

/// Instructions that the warp has executed, as a clock: what takes longer counts more, and every run the same.
constexpr uint64_t kCyclesPerInstruction = 4;

/// Makes the scheduler look, which brings Warp::executed up to date for the instruction that follows.
void update_clock(Warp& w, const Instruction&, Mask) { w.switch_pc = 0; }

/// slots: d. immediate: the bit from which on.
template <class D>
void clock(Warp& w, const Instruction& in, Mask m) {
  const auto value = static_cast<D>(w.executed * kCyclesPerInstruction >> in.immediate);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int) { return value; });
}

template <class D>
void global_timer(Warp& w, const Instruction& in, Mask m) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto ns = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  const auto value = static_cast<D>(ns >> in.immediate);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int) { return value; });
}

/// A special register into a register of any width.
void lower_special(Lowering& l, const std::string& name, uint32_t bits) {
  struct Timer {
    std::string_view name;
    uint64_t shift;
    uint32_t bits;
    bool counts;
    Handler narrow, wide;
  };
  static constexpr Timer kTimers[] = {
      {"clock", 0, 32, true, clock<uint32_t>, clock<uint64_t>},
      {"clock_hi", 32, 32, true, clock<uint32_t>, clock<uint64_t>},
      {"clock64", 0, 64, true, clock<uint32_t>, clock<uint64_t>},
      {"globaltimer", 0, 64, false, global_timer<uint32_t>, global_timer<uint64_t>},
      {"globaltimer_lo", 0, 32, false, global_timer<uint32_t>, global_timer<uint64_t>},
      {"globaltimer_hi", 32, 32, false, global_timer<uint32_t>, global_timer<uint64_t>},
  };
  for (const Timer& t : kTimers) {
    if (t.name != name) continue;
    if (bits != t.bits) l.fail("%{} has {} bits, {} wanted", name, t.bits, bits);
    if (t.counts) {
      l.emit(update_clock, {});
      l.hide();
    }
    l.emit(bits == 64 ? t.wide : t.narrow, {l.write(0, bits)}).immediate = t.shift;
    return;
  }
  // The manual lets 32-bit special registers be read narrower (%tid in .u16) and %gridid as it once was, in 32 bits.
  const bool wide = name == "gridid";
  const Slot source = l.special(name, wide ? 64 : 32);
  Handler handler = nullptr;
  if (bits == 64) handler = wide ? copy<uint64_t, uint64_t>() : copy<uint64_t, uint32_t>();
  if (bits == 32) handler = wide ? copy<uint32_t, uint64_t>() : copy<uint32_t, uint32_t>();
  if (bits == 16) handler = wide ? copy<uint16_t, uint64_t>() : copy<uint16_t, uint32_t>();
  if (handler == nullptr) l.unknown();
  l.emit(handler, {l.write(0, bits), source});
}

void lower_mov(Lowering& l) {
  allow_modifiers(l, {});
  expect_shape(l, 1, 2);
  const DataType type = l.type();
  const ptx::Operand& source = l.operand(1);
  if (type == DataType::kPred) {
    l.set_kind(Kind::kPredicate);
    bool negated = false;
    const Slot from = l.read_predicate(source, negated);
    l.emit(copy_predicate, {l.write_predicate(l.operand(0)), from}).flags[0] = negated ? 1 : 0;
    return;
  }
  using K = ptx::Operand::Kind;
  if (source.kind == K::kVector || l.operand(0).kind == K::kVector) {
    lower_packing(l, source.kind == K::kVector);
    return;
  }
  const uint32_t bits = bits_of(type);
  if (source.kind == K::kSpecial && source.name != "WARP_SZ") {
    lower_special(l, source.name, bits);
    return;
  }
  if (source.kind == K::kSymbol) {
    const Lowering::Address a = l.address(source, Space::kGeneric);
    if (bits != 32 && bits != 64) l.fail("an address in {} bits", bits);
    if (a.base_bits == 0) {
      const Slot value = l.constant(static_cast<uint64_t>(a.offset), bits);
      l.emit(copy(bits), {l.write(0, bits), value});
    } else {
      l.emit(bits == 64 ? copy<uint64_t, uint64_t>() : copy<uint32_t, uint64_t>(), {l.write(0, bits), a.base});
    }
    return;
  }
  const Slot from = l.read(1, bits);
  l.emit(bits == 128 ? copy_b128 : copy(bits), {l.write(0, bits), from});
}

// --- addresses -------------------------------------------------------------------------------------------------------

/// Which window the addresses of a space have among generic ones; global and constant memory need none.
uint64_t window_of(const Lowering& l) {
  switch (l.space()) {
    case Space::kShared:
    case Space::kSharedCluster:
      return kWindowShared;
    case Space::kLocal:
      return kWindowLocal;
    case Space::kParam:
      return kWindowParam;
    case Space::kGlobal:
    case Space::kConst:
      return 0;
    case Space::kGeneric:
      break;
  }
  l.unknown();
}

const std::initializer_list<std::string_view> kSpaces = {"global",       "const",  "local",       "param",
                                                         "param::entry", "shared", "shared::cta", "shared::cluster"};

/// slots: d, a. immediate: the window to put on.
void to_generic(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<uint64_t>(in.slots[1]);
  const uint64_t window = in.immediate;
  for_lanes(w.lanes<uint64_t>(in.slots[0]), m, [=](int l) { return a[l] | window; });
}

/// slots: d, a. An address of another space than the one named is the program's mistake; the result then stays outside
/// of every space, so that its use is found. immediate: the window to take off.
void from_generic(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<uint64_t>(in.slots[1]);
  const uint64_t window = in.immediate;
  for_lanes(w.lanes<uint64_t>(in.slots[0]), m, [=](int l) { return a[l] ^ window; });
}

/// A variable's address, or a register's value.
Slot read_address(Lowering& l, size_t i, uint32_t bits) {
  const ptx::Operand& source = l.operand(i);
  if (source.kind == ptx::Operand::Kind::kSymbol) {
    const Lowering::Address a = l.address(source, Space::kGeneric);
    if (a.base_bits == 0) return l.constant(static_cast<uint64_t>(a.offset), bits);
    if (bits == 64) return a.base;
    l.unknown();
  }
  return l.read(i, bits);
}

void lower_cvta(Lowering& l) {
  for (const std::string& m : l.text().modifiers) {
    if (m != "to" && !data_type(m) && std::find(kSpaces.begin(), kSpaces.end(), m) == kSpaces.end()) l.unknown();
  }
  expect_shape(l, 1, 2);
  if (l.type() != DataType::kU64) l.unknown();
  const uint64_t window = window_of(l);
  const Slot from = read_address(l, 1, 64);
  l.emit(window == 0 ? copy(64) : l.has("to") ? from_generic : to_generic, {l.write(0, 64), from}).immediate = window;
}

/// Whose shared memory a shared::cluster address means.
uint32_t rank_of(const Warp& w, uint32_t address) {
  const uint32_t upper = address >> kClusterRankShift;
  return upper == 0 ? w.cta->cluster_rank : upper - 1;
}

/// slots: p, a. flags[0]: the Space; flags[1]: only the block's own shared memory.
void is_space(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<uint64_t>(in.slots[1]);
  Mask result = 0;
  each_lane(m, [&](int l) {
    const uint64_t window = a[l] & kWindowMask;
    bool yes = false;
    switch (static_cast<Space>(in.flags[0])) {
      case Space::kShared:
        yes = window == kWindowShared && rank_of(w, static_cast<uint32_t>(a[l])) == w.cta->cluster_rank;
        break;
      case Space::kSharedCluster:
        yes = window == kWindowShared;
        break;
      case Space::kLocal:
        yes = window == kWindowLocal;
        break;
      case Space::kParam:
        yes = window == kWindowParam;
        break;
      case Space::kConst:
      case Space::kGlobal: {
        // Constant variables lie among the module's own memory, read-only. Parameters lie in the global window.
        const Allocation* at = window == 0 ? w.cta->grid.machine->memory().find(a[l]) : nullptr;
        const bool constant = at != nullptr && at->read_only;
        yes = static_cast<Space>(in.flags[0]) == Space::kConst ? constant
                                                               : (window == 0 && !constant) || window == kWindowParam;
        break;
      }
      case Space::kGeneric:
        break;
    }
    result |= Mask{yes} << l;
  });
  set_predicate(w.predicate(in.slots[0]), m, result);
}

void lower_isspacep(Lowering& l) {
  allow_modifiers(l, kSpaces);
  expect_shape(l, 0, 2);
  if (l.space() == Space::kGeneric || l.register_bits(l.operand(1)) == 32) l.unknown();
  const Slot a = read_address(l, 1, 64);
  l.emit(is_space, {l.write_predicate(l.operand(0)), a}).flags[0] = static_cast<uint8_t>(l.space());
}

/// slots: d, address, rank. immediate: the window of generic addresses, or 0 for shared::cluster.
template <class T>
void map_address(Warp& w, const Instruction& in, Mask m) {
  const T* a = w.lanes<T>(in.slots[1]);
  const auto* rank = w.lanes<uint32_t>(in.slots[2]);
  constexpr uint32_t kOffset = (uint32_t{1} << kClusterRankShift) - 1;
  const uint64_t window = in.immediate;
  for_lanes(w.lanes<T>(in.slots[0]), m, [=](int l) {
    const uint32_t inside = (static_cast<uint32_t>(a[l]) & kOffset) | (rank[l] + 1) << kClusterRankShift;
    return static_cast<T>(inside | window);
  });
}

/// slots: d, address.
template <class T>
void rank_of_address(Warp& w, const Instruction& in, Mask m) {
  const T* a = w.lanes<T>(in.slots[1]);
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [&](int l) { return rank_of(w, static_cast<uint32_t>(a[l])); });
}

/// mapa and getctarank take generic addresses, or such of shared::cluster.
uint32_t check_cluster_address(const Lowering& l) {
  allow_modifiers(l, {"shared::cluster"});
  const DataType type = l.type();
  if (type != DataType::kU32 && type != DataType::kU64) l.unknown();
  return bits_of(type);
}

void lower_mapa(Lowering& l) {
  const uint32_t bits = check_cluster_address(l);
  expect_shape(l, 1, 3);
  const Slot a = read_address(l, 1, bits), rank = l.read(2, 32);
  l.emit(bits == 64 ? map_address<uint64_t> : map_address<uint32_t>, {l.write(0, bits), a, rank}).immediate =
      l.has("shared::cluster") ? 0 : kWindowShared;
}

void lower_getctarank(Lowering& l) {
  const uint32_t bits = check_cluster_address(l);
  expect_shape(l, 1, 2);
  const Slot a = read_address(l, 1, bits);
  l.emit(bits == 64 ? rank_of_address<uint64_t> : rank_of_address<uint32_t>, {l.write(0, 32), a});
}

// --- selections ------------------------------------------------------------------------------------------------------

/// slots: d, a, b, p. flags[0]: p is negated.
template <class T>
void select(Warp& w, const Instruction& in, Mask m) {
  const T* a = w.lanes<T>(in.slots[1]);
  const T* b = w.lanes<T>(in.slots[2]);
  const Mask p = w.predicate(in.slots[3]) ^ (in.flags[0] != 0 ? kAllLanes : 0);
  for_lanes(w.lanes<T>(in.slots[0]), m, [=](int l) { return (p >> l & 1) != 0 ? a[l] : b[l]; });
}

template <template <class> class H>
Handler by_width(uint32_t bits) {
  return bits == 64 ? H<uint64_t>::handler : bits == 32 ? H<uint32_t>::handler : H<uint16_t>::handler;
}

template <class T>
struct Select {
  static constexpr Handler handler = select<T>;
};

/// selp and slct take every type of 16, 32 and 64 bits but the packed and alternate floating ones.
uint32_t check_selected_type(const Lowering& l) {
  const DataType type = l.type();
  const uint32_t bits = bits_of(type);
  const bool plain = !is_float(type) || type == DataType::kF32 || type == DataType::kF64 || type == DataType::kF16 ||
                     type == DataType::kBf16;
  if (!plain || type == DataType::kU16x2 || type == DataType::kS16x2) l.unknown();
  if (bits != 16 && bits != 32 && bits != 64) l.unknown();
  return bits;
}

void lower_selp(Lowering& l) {
  allow_modifiers(l, {});
  expect_shape(l, 1, 4);
  const uint32_t bits = check_selected_type(l);
  const Slot a = l.read(1, bits), b = l.read(2, bits);
  bool negated = false;
  const Slot p = l.read_predicate(l.operand(3), negated);
  l.emit(by_width<Select>(bits), {l.write(0, bits), a, b, p}).flags[0] = negated ? 1 : 0;
}

constexpr auto kSelectSign = []<class T>(T a, T b, int32_t c) { return c >= 0 ? a : b; };
/// NaN selects the second; with ftz a negative subnormal counts as zero.
template <bool kFlush>
constexpr auto kSelectSignFloat =
    []<class T>(T a, T b, float c) { return c >= 0.0F || (kFlush && c > -std::numeric_limits<float>::min()) ? a : b; };

template <class T>
struct SelectSign {
  static constexpr Handler handler = lanewise<kSelectSign, T, T, T, int32_t>;
};
template <class T>
struct SelectSignFloat {
  static constexpr Handler handler = lanewise<kSelectSignFloat<false>, T, T, T, float>;
};
template <class T>
struct SelectSignFlush {
  static constexpr Handler handler = lanewise<kSelectSignFloat<true>, T, T, T, float>;
};

void lower_slct(Lowering& l) {
  allow_modifiers(l, {"ftz"});
  expect_shape(l, 2, 4);
  const uint32_t bits = check_selected_type(l);
  const bool by_float = l.type(1) == DataType::kF32;
  if (!by_float && (l.type(1) != DataType::kS32 || l.has("ftz"))) l.unknown();
  const Slot a = l.read(1, bits), b = l.read(2, bits), c = l.read(3, 32);
  const Handler handler = !by_float      ? by_width<SelectSign>(bits)
                          : l.has("ftz") ? by_width<SelectSignFlush>(bits)
                                         : by_width<SelectSignFloat>(bits);
  l.emit(handler, {l.write(0, bits), a, b, c});
}

// --- prmt ------------------------------------------------------------------------------------------------------------

/// The generic mode: each nibble of the selector picks one of eight bytes, or its sign eight times.
constexpr auto kPermute = [](uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t nibble = selector >> (4 * i) & 15;
    const auto byte = static_cast<uint32_t>(bytes >> (8 * (nibble & 7)) & 0xff);
    const uint32_t sign = (byte >> 7) * 0xff;
    result |= ((nibble & 8) != 0 ? sign : byte) << (8 * i);
  }
  return result;
};

// The other modes by the low two bits of the selector, as selectors of the generic one: most significant byte first.
constexpr uint32_t kForwardExtract[4] = {0x3210, 0x4321, 0x5432, 0x6543};
constexpr uint32_t kBackwardExtract[4] = {0x5670, 0x6701, 0x7012, 0x0123};
constexpr uint32_t kReplicate8[4] = {0x0000, 0x1111, 0x2222, 0x3333};
constexpr uint32_t kEdgeClampLeft[4] = {0x3210, 0x3211, 0x3222, 0x3333};
constexpr uint32_t kEdgeClampRight[4] = {0x0000, 0x1110, 0x2210, 0x3210};
constexpr uint32_t kReplicate16[4] = {0x1010, 0x3232, 0x1010, 0x3232};

template <auto& kTable>
constexpr auto kPermuteMode = [](uint32_t a, uint32_t b, uint32_t c) { return kPermute(a, b, kTable[c & 3]); };

template <auto F>
constexpr Handler kOnWords = lanewise<F, uint32_t, uint32_t, uint32_t, uint32_t>;

void lower_prmt(Lowering& l) {
  struct Mode {
    std::string_view name;
    Handler handler;
  };
  static constexpr Mode kModes[] = {
      {"f4e", kOnWords<kPermuteMode<kForwardExtract>>}, {"b4e", kOnWords<kPermuteMode<kBackwardExtract>>},
      {"rc8", kOnWords<kPermuteMode<kReplicate8>>},     {"ecl", kOnWords<kPermuteMode<kEdgeClampLeft>>},
      {"ecr", kOnWords<kPermuteMode<kEdgeClampRight>>}, {"rc16", kOnWords<kPermuteMode<kReplicate16>>},
  };
  expect_shape(l, 1, 4);
  if (l.type() != DataType::kB32) l.unknown();
  Handler handler = kOnWords<kPermute>;
  bool named = false;
  for (const std::string& m : l.text().modifiers) {
    if (data_type(m)) continue;
    const auto* mode = std::find_if(std::begin(kModes), std::end(kModes), [&](const Mode& k) { return k.name == m; });
    if (named || mode == std::end(kModes)) l.unknown();
    named = true;
    handler = mode->handler;
  }
  const Slot a = l.read(1, 32), b = l.read(2, 32), c = l.read(3, 32);
  l.emit(handler, {l.write(0, 32), a, b, c});
}

// --- activemask ------------------------------------------------------------------------------------------------------

void active_mask(Warp& w, const Instruction& in, Mask m) {
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [=](int) { return m; });
}

void lower_activemask(Lowering& l) {
  allow_modifiers(l, {});
  expect_shape(l, 1, 1);
  if (l.type() != DataType::kB32) l.unknown();
  l.emit(active_mask, {l.write(0, 32)});
}

void lower_stack(Lowering& l) { l.fail("allocation on the stack at run time is not supported"); }

}  // namespace

void add_move(OpcodeTable& t) {
  t.add("mov", Kind::kMove, lower_mov);
  t.add("cvta", Kind::kMove, lower_cvta);
  t.add("isspacep", Kind::kPredicate, lower_isspacep);
  t.add("mapa", Kind::kMove, lower_mapa);
  t.add("getctarank", Kind::kMove, lower_getctarank);
  t.add("selp", Kind::kMove, lower_selp);
  t.add("slct", Kind::kMove, lower_slct);
  t.add("prmt", Kind::kMove, lower_prmt);
  t.add("activemask", Kind::kWarp, lower_activemask);
  t.add("alloca", Kind::kOther, lower_stack);
  t.add("stacksave", Kind::kOther, lower_stack);
  t.add("stackrestore", Kind::kOther, lower_stack);
}

}  // namespace ptxsim
