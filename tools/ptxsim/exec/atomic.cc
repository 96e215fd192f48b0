#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tools/ptxsim/exec/bulk_copy.h"
#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/formats.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

/// atom and red in every space, and the fences membar and fence.
namespace ptxsim {

namespace {

// flags of an atomic operation.
constexpr int kBase32 = 0;   // the base has 32 bits
constexpr int kReturns = 1;  // atom: there are destinations
constexpr int kOrder = 2;    // bits below
constexpr uint8_t kRelease = 1, kAcquire = 2, kProxy = 4;

// --- operations
// ------------------------------------------------------------------------------------------------------- An operation
// works on the bits U of an element in memory: apply(old, b, c, flush) is the new element. `fetch`, where there is one,
// is the same as a single instruction of this machine.

template <class U>
struct Add {
  static U apply(U old, U b, U, bool) { return static_cast<U>(old + b); }
  static U fetch(std::atomic_ref<U> at, U b, U) { return at.fetch_add(b); }
};

template <class U>
struct And {
  static U apply(U old, U b, U, bool) { return old & b; }
  static U fetch(std::atomic_ref<U> at, U b, U) { return at.fetch_and(b); }
};

template <class U>
struct Or {
  static U apply(U old, U b, U, bool) { return old | b; }
  static U fetch(std::atomic_ref<U> at, U b, U) { return at.fetch_or(b); }
};

template <class U>
struct Xor {
  static U apply(U old, U b, U, bool) { return old ^ b; }
  static U fetch(std::atomic_ref<U> at, U b, U) { return at.fetch_xor(b); }
};

template <class U>
struct Exchange {
  static U apply(U, U b, U, bool) { return b; }
  static U fetch(std::atomic_ref<U> at, U b, U) { return at.exchange(b); }
};

template <class U>
struct CompareExchange {
  static constexpr bool kTakesC = true;
  static U apply(U old, U b, U c, bool) { return old == b ? c : old; }
  static U fetch(std::atomic_ref<U> at, U b, U c) {
    at.compare_exchange_strong(b, c);
    return b;
  }
};

/// T: the element as a number, signed or unsigned.
template <class T>
struct Min {
  using U = std::make_unsigned_t<T>;
  static U apply(U old, U b, U, bool) { return static_cast<U>(std::min(static_cast<T>(old), static_cast<T>(b))); }
};

template <class T>
struct Max {
  using U = std::make_unsigned_t<T>;
  static U apply(U old, U b, U, bool) { return static_cast<U>(std::max(static_cast<T>(old), static_cast<T>(b))); }
};

struct Increment {
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool) { return old >= b ? 0 : old + 1; }
};

struct Decrement {
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool) { return old == 0 || old > b ? b : old - 1; }
};

struct AddF32 {
  static constexpr uint32_t kNan = 0x7fffffff;
  static uint32_t flushed(uint32_t x) { return (x & 0x7f800000) == 0 ? x & 0x80000000 : x; }
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool flush) {
    if (flush) {
      old = flushed(old);
      b = flushed(b);
    }
    const float sum = std::bit_cast<float>(old) + std::bit_cast<float>(b);
    if (sum != sum) return kNan;
    const auto bits = std::bit_cast<uint32_t>(sum);
    return flush ? flushed(bits) : bits;
  }
};

struct AddF64 {
  static uint64_t apply(uint64_t old, uint64_t b, uint64_t, bool) {
    return std::bit_cast<uint64_t>(std::bit_cast<double>(old) + std::bit_cast<double>(b));
  }
};

/// Arithmetic on f16 and bf16 in float: the sum of two has, once rounded to float and then again, the value of one
/// rounding (24 bits are at least 2 · 11 + 2).
struct HalfFormat {
  static float widen(uint16_t x) { return f16_to_f32(x); }
  static uint16_t narrow(float x) { return f32_to_f16(x); }
};

struct Bfloat16Format {
  static float widen(uint16_t x) { return bf16_to_f32(x); }
  static uint16_t narrow(float x) { return f32_to_bf16(x); }
};

template <class F>
struct AddHalf {
  static uint16_t apply(uint16_t old, uint16_t b, uint16_t, bool) { return F::narrow(F::widen(old) + F::widen(b)); }
};

/// min and max as the instructions of that name: the number where one side is NaN; -0 below +0.
template <class F, bool kMin>
struct ExtremeHalf {
  static uint16_t apply(uint16_t old, uint16_t b, uint16_t, bool) {
    const float x = F::widen(old), y = F::widen(b);
    if (x != x) return y != y ? F16::kNan : b;
    if (y != y) return old;
    if (x == y) return kMin ? old | b : old & b;  // differ in the sign of zero if at all
    return (x < y) == kMin ? old : b;
  }
};

/// Both halves of a register.
template <class Op>
struct Packed {
  static uint32_t apply(uint32_t old, uint32_t b, uint32_t, bool flush) {
    const auto half = [&](int shift) {
      return uint32_t{Op::apply(static_cast<uint16_t>(old >> shift), static_cast<uint16_t>(b >> shift), 0, flush)}
             << shift;
    };
    return half(0) | half(16);
  }
};

template <class Op>
constexpr bool takes_c() {
  return requires { Op::kTakesC; };
}

/// One element. `concurrent`: others than this operating-system thread may access it.
template <class U, class Op>
U update(std::byte* place, U b, U c, bool concurrent, bool flush) {
  if (!concurrent) {
    U old;
    std::memcpy(&old, place, sizeof(U));
    const U fresh = Op::apply(old, b, c, flush);
    std::memcpy(place, &fresh, sizeof(U));
    return old;
  }
  const std::atomic_ref<U> at(*reinterpret_cast<U*>(place));
  if constexpr (requires { Op::fetch(at, b, c); }) {
    return Op::fetch(at, b, c);
  } else {
    U old = at.load();
    while (!at.compare_exchange_weak(old, Op::apply(old, b, c, flush))) {
    }
    return old;
  }
}

void tell_release(Warp& w, Mask m) {
  if (w.observer != nullptr) w.observer->release(w, m, Space::kGlobal, 0);
  if (w.observer2 != nullptr) w.observer2->release(w, m, Space::kGlobal, 0);
}

void tell_acquire(Warp& w, Mask m) {
  if (w.observer != nullptr) w.observer->acquire(w, m, Space::kGlobal, 0);
  if (w.observer2 != nullptr) w.observer2->acquire(w, m, Space::kGlobal, 0);
}

bool locate_atomic(Warp& w, const Instruction& in, Mask m, uint64_t* address, Located& at) {
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  if ((in.flags[kOrder] & kRelease) != 0) tell_release(w, m);
  return locate(w, in, m, address, in.memory.space, in.memory.total(), in.memory.total(), Access::Kind::kAtomic, true,
                nullptr, at);
}

void finish_atomic(Warp& w, const Instruction& in, Mask m) {
  if ((in.flags[kOrder] & kAcquire) != 0) tell_acquire(w, m);
  w.spin();
}

constexpr uint32_t kMostElements = 8;

/// slots: base, b of each element, c (cas), destinations (atom). Lanes go in ascending order. Shared memory belongs to
/// blocks that one operating-system thread runs at a time, so that it needs no atomic operation of this machine.
template <class U, class Op>
void atomic(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  Located at;
  if (!locate_atomic(w, in, m, address, at)) return;
  const uint32_t n = in.memory.elements;
  const Space space = in.memory.space;
  const Slot* const b = in.slots + 1;
  const Slot* const c = b + (takes_c<Op>() ? n : 0);
  const Slot* const d = c + n;
  each_lane(m, [&](int l) {
    const bool global = space == Space::kGlobal || (space == Space::kGeneric && (address[l] & kWindowMask) == 0);
    // A destination may be the register of another element's source.
    U sources[kMostElements], thirds[kMostElements] = {}, old[kMostElements];
    for (uint32_t e = 0; e < n; ++e) {
      sources[e] = w.lanes<U>(b[e])[l];
      if constexpr (takes_c<Op>()) thirds[e] = w.lanes<U>(c[e])[l];
    }
    for (uint32_t e = 0; e < n; ++e) {
      old[e] = update<U, Op>(at.pointer[l] + e * sizeof(U), sources[e], thirds[e], global, global);
      if (Op::apply(old[e], sources[e], thirds[e], global) != old[e]) w.changed_memory = true;
    }
    if (in.flags[kReturns] == 0) return;
    for (uint32_t e = 0; e < n; ++e) w.lanes<U>(d[e])[l] = old[e];
  });
  finish_atomic(w, in, m);
}

__extension__ using Wide = unsigned __int128;

/// exch and cas of 128 bits. slots: base, b, [c], destination.
template <bool kCompare>
void atomic_b128(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  Located at;
  if (!locate_atomic(w, in, m, address, at)) return;
  const auto value = [&](Slot slot, int l) {
    const auto* lanes = w.lanes<uint64_t>(slot);
    return Wide{lanes[l + kLanes]} << 64 | lanes[l];
  };
  auto* d = w.lanes<uint64_t>(in.slots[kCompare ? 3 : 2]);
  each_lane(m, [&](int l) {
    auto* place = reinterpret_cast<Wide*>(at.pointer[l]);
    const Wide b = value(in.slots[1], l);
    Wide old;
    if constexpr (kCompare) {
      old = __sync_val_compare_and_swap(place, b, value(in.slots[2], l));
    } else {
      Wide seen = 0;
      do {
        old = seen;
        seen = __sync_val_compare_and_swap(place, old, b);
      } while (seen != old);
    }
    w.changed_memory = true;
    d[l] = static_cast<uint64_t>(old);
    d[l + kLanes] = static_cast<uint64_t>(old >> 64);
  });
  finish_atomic(w, in, m);
}

// --- which handler ---------------------------------------------------------------------------------------------------

template <class U>
Handler bitwise(std::string_view op) {
  if (op == "and") return atomic<U, And<U>>;
  if (op == "or") return atomic<U, Or<U>>;
  if (op == "xor") return atomic<U, Xor<U>>;
  if (op == "exch") return atomic<U, Exchange<U>>;
  if (op == "cas") return atomic<U, CompareExchange<U>>;
  return nullptr;
}

template <class T>
Handler arithmetic(std::string_view op) {
  using U = std::make_unsigned_t<T>;
  if (op == "add") return atomic<U, Add<U>>;
  if (op == "min") return atomic<U, Min<T>>;
  if (op == "max") return atomic<U, Max<T>>;
  if constexpr (std::is_same_v<T, uint32_t>) {
    if (op == "inc") return atomic<U, Increment>;
    if (op == "dec") return atomic<U, Decrement>;
  }
  return nullptr;
}

template <class F>
Handler half(std::string_view op, bool packed) {
  if (op == "add") return packed ? atomic<uint32_t, Packed<AddHalf<F>>> : atomic<uint16_t, AddHalf<F>>;
  if (op == "min") {
    return packed ? atomic<uint32_t, Packed<ExtremeHalf<F, true>>> : atomic<uint16_t, ExtremeHalf<F, true>>;
  }
  if (op == "max") {
    return packed ? atomic<uint32_t, Packed<ExtremeHalf<F, false>>> : atomic<uint16_t, ExtremeHalf<F, false>>;
  }
  return nullptr;
}

Handler handler_of(std::string_view op, DataType type) {
  switch (type) {
    case DataType::kB16:
      return op == "cas" ? bitwise<uint16_t>(op) : nullptr;
    case DataType::kB32:
      return bitwise<uint32_t>(op);
    case DataType::kB64:
      return bitwise<uint64_t>(op);
    case DataType::kB128:
      return op == "cas" ? atomic_b128<true> : op == "exch" ? atomic_b128<false> : nullptr;
    case DataType::kU32:
      return arithmetic<uint32_t>(op);
    case DataType::kS32:
      return arithmetic<int32_t>(op);
    case DataType::kU64:
      return arithmetic<uint64_t>(op);
    case DataType::kS64:
      return arithmetic<int64_t>(op);
    case DataType::kF32:
      return op == "add" ? atomic<uint32_t, AddF32> : nullptr;
    case DataType::kF64:
      return op == "add" ? atomic<uint64_t, AddF64> : nullptr;
    case DataType::kF16:
    case DataType::kF16x2:
      return half<HalfFormat>(op, type == DataType::kF16x2);
    case DataType::kBf16:
    case DataType::kBf16x2:
      return half<Bfloat16Format>(op, type == DataType::kBf16x2);
    default:
      return nullptr;
  }
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// What the modifiers of atom or red say.
struct Form {
  std::string_view op;
  std::optional<DataType> type;
  uint32_t elements = 1;
  bool vector = false, noftz = false, hint = false;
  uint8_t order = 0;
};

Form form_of(const Lowering& l) {
  Form f;
  bool space = false, scope = false, sem = false;
  const auto once = [&](bool& seen) {
    if (seen) l.unknown();
    seen = true;
  };
  for (const std::string& m : l.text().modifiers) {
    if (one_of(m, {"relaxed", "acquire", "release", "acq_rel"})) {
      once(sem);
      if (m == "acquire" || m == "acq_rel") f.order |= kAcquire;
      if (m == "release" || m == "acq_rel") f.order |= kRelease;
    } else if (one_of(m, {"cta", "cluster", "gpu", "sys"})) {
      once(scope);
    } else if (one_of(m, {"global", "shared", "shared::cta", "shared::cluster"})) {
      once(space);
    } else if (one_of(m, {"add", "inc", "dec", "min", "max", "and", "or", "xor", "exch", "cas"})) {
      if (!f.op.empty()) l.unknown();
      f.op = m;
    } else if (one_of(m, {"v2", "v4", "v8"})) {
      once(f.vector);
      f.elements = static_cast<uint32_t>(m[1] - '0');
    } else if (m == "noftz") {
      once(f.noftz);
    } else if (m == "L2::cache_hint") {
      once(f.hint);
    } else if (const auto type = data_type(m); type && !f.type) {
      f.type = type;
    } else {
      l.unknown();
    }
  }
  if (f.op.empty() || !f.type) l.unknown();
  return f;
}

void check(const Lowering& l, const Form& f) {
  const bool is_half =
      one_of(f.op, {"add", "min", "max"}) && (*f.type == DataType::kF16 || *f.type == DataType::kF16x2 ||
                                              *f.type == DataType::kBf16 || *f.type == DataType::kBf16x2);
  if (f.noftz != is_half) l.unknown();
  if (is_half && f.op != "add" && !f.vector) l.unknown();
  if (!f.vector) return;
  // Vectors: .f32 add of up to 16 bytes; halves and packed halves likewise; in global memory only.
  if (!is_half && *f.type != DataType::kF32) l.unknown();
  if (f.elements * bits_of(*f.type) > 128) l.unknown();
  if (l.space() != Space::kGlobal && l.space() != Space::kGeneric) l.unknown();
}

/// The registers of an operand: a vector's parts or the operand itself.
std::vector<const ptx::Operand*> elements_of(const Lowering& l, const ptx::Operand& operand, const Form& f) {
  if (!f.vector) return {&operand};
  if (operand.kind != ptx::Operand::Kind::kVector || operand.parts.size() != f.elements) l.unknown();
  std::vector<const ptx::Operand*> parts;
  for (const ptx::Operand& p : operand.parts) parts.push_back(&p);
  return parts;
}

void lower_atomic(Lowering& l, bool returns) {
  const Form f = form_of(l);
  check(l, f);
  const Handler handler = handler_of(f.op, *f.type);
  const bool compares = f.op == "cas";
  // There is no red of what would be useless without its result.
  if (handler == nullptr || (!returns && (compares || f.op == "exch"))) l.unknown();
  const size_t place = returns ? 1 : 0;
  const size_t operands = place + 2 + (compares ? 1 : 0) + (f.hint ? 1 : 0);
  if (l.operand_count() != operands) l.fail("expected {} operands, found {}", operands, l.operand_count());
  const uint32_t bits = bits_of(*f.type);
  const Space space = l.space();
  const Lowering::Address address = l.address(l.operand(place), space);
  std::vector<Slot> slots = {address.base};
  for (const ptx::Operand* p : elements_of(l, l.operand(place + 1), f)) slots.push_back(l.read(*p, bits));
  if (compares) slots.push_back(l.read(place + 2, bits));
  if (returns) {
    for (const ptx::Operand* p : elements_of(l, l.operand(0), f)) slots.push_back(l.write(*p, bits));
  }
  Instruction& in = l.emit(handler, slots);
  in.memory.space = space;
  in.memory.bytes = static_cast<uint8_t>(bits / 8);
  in.memory.elements = static_cast<uint8_t>(f.elements);
  in.memory.synchronising = true;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.flags[kBase32] = address.base_bits == 32 ? 1 : 0;
  in.flags[kReturns] = returns ? 1 : 0;
  in.flags[kOrder] = f.order;
}

void lower_atom(Lowering& l) { lower_atomic(l, true); }
void lower_red(Lowering& l) {
  if (l.has("async")) return lower_store_async(l);
  lower_atomic(l, false);
}

// --- fences ----------------------------------------------------------------------------------------------------------

/// Memory here is always in order; fences matter to those who watch. flags[kOrder]: what the fence does.
void fence(Warp& w, const Instruction& in, Mask m) {
  if ((in.flags[kOrder] & kRelease) != 0) tell_release(w, m);
  if ((in.flags[kOrder] & kAcquire) != 0) tell_acquire(w, m);
  if ((in.flags[kOrder] & kProxy) != 0) w.each_observer([&](Observer& o) { o.proxy_fence(w, m); });
}

std::string joined_modifiers(const Lowering& l) {
  std::string text;
  for (const std::string& m : l.text().modifiers) text += (text.empty() ? "" : ".") + m;
  return text;
}

void lower_fence(Lowering& l) {
  const std::string form = joined_modifiers(l);
  std::vector<std::string> known;
  size_t operands = 0;
  if (l.text().opcode == "membar") {
    known = {"cta", "gl", "sys"};
  } else {
    for (const char* scope : {"cta", "cluster", "gpu", "sys"}) {
      known.emplace_back(scope);
      for (const char* sem : {"sc", "acq_rel", "acquire", "release"}) known.push_back(fmt::format("{}.{}", sem, scope));
      known.push_back(fmt::format("proxy.tensormap::generic.release.{}", scope));
      known.push_back(fmt::format("proxy.tensormap::generic.acquire.{}", scope));
    }
    known.insert(known.end(), {"acquire.sync_restrict::shared::cluster.cluster",
                               "release.sync_restrict::shared::cta.cluster", "mbarrier_init.release.cluster",
                               "proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster",
                               "proxy.async::generic.release.sync_restrict::shared::cta.cluster"});
    if (l.has("tensormap::generic") && l.has("acquire")) operands = 2;  // [address], size
  }
  known.insert(known.end(), {"proxy.alias", "proxy.async", "proxy.async.global", "proxy.async.shared::cta",
                             "proxy.async.shared::cluster"});
  if (std::find(known.begin(), known.end(), form) == known.end() || l.operand_count() != operands) l.unknown();
  if (operands == 2 && l.literal(1) != 128) l.unknown();
  Instruction& in = l.emit(fence, {});
  in.flags[kOrder] = l.has("acquire") ? kAcquire : l.has("release") ? kRelease : kRelease | kAcquire;
  const bool to_async = l.has("async") || (l.has("async::generic") && l.has("release"));
  if (l.has("proxy") && to_async && !l.has("global")) in.flags[kOrder] |= kProxy;
}

}  // namespace

void add_atomic(OpcodeTable& t) {
  t.add("atom", Kind::kAtomic, lower_atom);
  t.add("red", Kind::kAtomic, lower_red);
  t.add("membar", Kind::kBarrier, lower_fence);
  t.add("fence", Kind::kBarrier, lower_fence);
}

}  // namespace ptxsim
