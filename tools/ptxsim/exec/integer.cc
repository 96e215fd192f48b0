#include <bit>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "tools/ptxsim/exec/float_ops.h"
#include "tools/ptxsim/exec/lanewise.h"

/// Arithmetic, logic, shifts, bit fields and comparisons of integers. Opcodes that floating types share are theirs too
/// (float_ops.h).
namespace ptxsim {

namespace {

// --- arithmetic in C++ without its undefined corners -----------------------------------------------------------------

template <class T>
struct Wider;
template <>
struct Wider<int16_t> {
  using Type = int32_t;
};
template <>
struct Wider<uint16_t> {
  using Type = uint32_t;
};
template <>
struct Wider<int32_t> {
  using Type = int64_t;
};
template <>
struct Wider<uint32_t> {
  using Type = uint64_t;
};
template <>
struct Wider<int64_t> {
  using Type = __int128;
};
template <>
struct Wider<uint64_t> {
  using Type = unsigned __int128;
};
template <class T>
using WiderOf = typename Wider<T>::Type;

template <class T>
constexpr int kBits = static_cast<int>(sizeof(T)) * 8;

/// T without sign, and at least 32 bits wide so that C++ does not promote it to int.
template <class T>
using Word = std::conditional_t<(sizeof(T) < 4), uint32_t, std::make_unsigned_t<T>>;

constexpr auto kAdd = []<class T>(T a, T b) { return static_cast<T>(Word<T>(a) + Word<T>(b)); };
constexpr auto kSubtract = []<class T>(T a, T b) { return static_cast<T>(Word<T>(a) - Word<T>(b)); };
constexpr auto kLow = []<class T>(T a, T b) { return static_cast<T>(Word<T>(a) * Word<T>(b)); };
constexpr auto kHigh = []<class T>(T a, T b) { return static_cast<T>((WiderOf<T>(a) * WiderOf<T>(b)) >> kBits<T>); };
constexpr auto kWide = []<class T>(T a, T b) { return static_cast<WiderOf<T>>(WiderOf<T>(a) * WiderOf<T>(b)); };
constexpr auto kMinimum = []<class T>(T a, T b) { return a < b ? a : b; };
constexpr auto kMaximum = []<class T>(T a, T b) { return a > b ? a : b; };
constexpr auto kNegate = []<class T>(T a) { return static_cast<T>(Word<T>{0} - Word<T>(a)); };
constexpr auto kAbsolute = []<class T>(T a) { return a < 0 ? kNegate(a) : a; };

template <class T>
T saturate(WiderOf<T> value) {
  constexpr WiderOf<T> kLowest = std::numeric_limits<T>::min(), kHighest = std::numeric_limits<T>::max();
  value = value < kLowest ? kLowest : value;
  return static_cast<T>(value > kHighest ? kHighest : value);
}

/// Division by zero gives all ones, quotient and remainder, as the device's code does.
constexpr auto kDivide = []<class T>(T a, T b) {
  if constexpr (sizeof(T) <= 4) {
    // Exact: quotients of 32-bit numbers are further from the next integer than doubles are from each other.
    const double divisor = b == 0 ? 1.0 : static_cast<double>(b);
    const auto quotient = static_cast<T>(static_cast<int64_t>(static_cast<double>(a) / divisor));
    return b == 0 ? static_cast<T>(-1) : quotient;
  } else {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return kNegate(a);
    return static_cast<T>(a / b);
  }
};
constexpr auto kRemainder = []<class T>(T a, T b) {
  return b == 0 ? static_cast<T>(-1) : kSubtract(a, kLow(kDivide(a, b), b));
};

/// The operation on both halves of 32 bits. E: of a half.
template <auto F, class E>
constexpr auto kHalves = [](uint32_t a, uint32_t b) {
  const auto low = static_cast<uint16_t>(F(static_cast<E>(a), static_cast<E>(b)));
  const auto high = static_cast<uint16_t>(F(static_cast<E>(a >> 16), static_cast<E>(b >> 16)));
  return uint32_t{high} << 16 | low;
};

template <auto F>
constexpr auto kRelu = []<class T>(T a, T b) {
  const T value = F(a, b);
  return value < T{0} ? T{0} : value;
};

// --- handlers by type ------------------------------------------------------------------------------------------------

/// Calls f with a zero of the C++ type of an integer type; null for others.
template <class F>
Handler with_integer(DataType type, F f) {
  switch (type) {
    case DataType::kU16:
      return f(uint16_t{});
    case DataType::kS16:
      return f(int16_t{});
    case DataType::kU32:
      return f(uint32_t{});
    case DataType::kS32:
      return f(int32_t{});
    case DataType::kU64:
      return f(uint64_t{});
    case DataType::kS64:
      return f(int64_t{});
    default:
      return nullptr;
  }
}

/// The same for untyped bits.
template <class F>
Handler with_bits(DataType type, F f) {
  switch (type) {
    case DataType::kB16:
      return f(uint16_t{});
    case DataType::kB32:
      return f(uint32_t{});
    case DataType::kB64:
      return f(uint64_t{});
    default:
      return nullptr;
  }
}

template <auto F>
Handler unary(DataType type) {
  return with_integer(type, []<class T>(T) { return Handler{lanewise<F, T, T>}; });
}

template <auto F>
Handler binary(DataType type) {
  return with_integer(type, []<class T>(T) { return Handler{lanewise<F, T, T, T>}; });
}

template <auto F>
Handler binary_halves(DataType type) {
  if (type == DataType::kU16x2) return lanewise<kHalves<F, uint16_t>, uint32_t, uint32_t, uint32_t>;
  if (type == DataType::kS16x2) return lanewise<kHalves<F, int16_t>, uint32_t, uint32_t, uint32_t>;
  return binary<F>(type);
}

void set_integer_kind(Lowering& l, DataType type) {
  if (bits_of(type) == 64) l.set_kind(Kind::kInteger64);
}

/// d and its sources, all of the type's width.
Instruction& emit_uniform(Lowering& l, Handler handler, size_t sources) {
  const DataType type = l.type();
  expect_shape(l, 1, sources + 1);
  if (handler == nullptr) l.unknown();
  set_integer_kind(l, type);
  std::vector<Slot> slots;
  for (size_t i = 1; i <= sources; ++i) slots.push_back(l.read(i, bits_of(type)));
  slots.insert(slots.begin(), l.write(0, bits_of(type)));
  return l.emit(handler, slots);
}

/// Floating types have their own file. True when that did it.
bool lowered_as_float(Lowering& l, DataType type) {
  switch (type) {
    case DataType::kF32:
    case DataType::kF64:
    case DataType::kF32x2:
      lower_float(l);
      return true;
    case DataType::kF16:
    case DataType::kF16x2:
    case DataType::kBf16:
    case DataType::kBf16x2:
      lower_half(l);
      return true;
    default:
      return false;
  }
}

bool lowered_as_float(Lowering& l) { return lowered_as_float(l, l.type()); }

// --- add, sub, and chains of carries ---------------------------------------------------------------------------------

/// slots: d, a, b. kSub: a - b, where the carry is a borrow. flags[0]: takes the carry; flags[1]: leaves one.
template <class T, bool kSub>
void add_carry(Warp& w, const Instruction& in, Mask m) {
  const T* a = w.lanes<T>(in.slots[1]);
  const T* b = w.lanes<T>(in.slots[2]);
  T* d = w.lanes<T>(in.slots[0]);
  const Mask carry = in.flags[0] != 0 ? w.carry : 0;
  alignas(64) T result[kLanes];
  alignas(64) uint8_t out[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const T c = carry >> l & 1;
    const T first = kSub ? a[l] - b[l] : a[l] + b[l];
    result[l] = kSub ? first - c : first + c;
    out[l] = kSub ? (a[l] < b[l]) | (first < c) : (first < a[l]) | (result[l] < first);
  }
  if (in.flags[1] != 0) set_predicate(w.carry, m, lane_mask([&](int l) { return out[l] != 0; }));
  for_lanes(d, m, [&](int l) { return result[l]; });
}

void emit_carry(Lowering& l, Handler narrow, Handler wide, Slot d, Slot a, Slot b, bool takes, bool leaves) {
  Instruction& in = l.emit(bits_of(l.type()) == 64 ? wide : narrow, {d, a, b});
  in.flags[0] = takes ? 1 : 0;
  in.flags[1] = leaves ? 1 : 0;
}

void check_carry_type(const Lowering& l) {
  if (is_float(l.type()) || (bits_of(l.type()) != 32 && bits_of(l.type()) != 64) || l.type() == DataType::kU16x2 ||
      l.type() == DataType::kS16x2) {
    l.unknown();
  }
}

template <bool kSub>
void lower_carry(Lowering& l) {
  const bool takes = l.text().opcode.back() == 'c';  // addc, subc
  allow_modifiers(l, {"cc"});
  check_carry_type(l);
  expect_shape(l, 1, 3);
  const uint32_t bits = bits_of(l.type());
  set_integer_kind(l, l.type());
  const Slot a = l.read(1, bits), b = l.read(2, bits);
  emit_carry(l, add_carry<uint32_t, kSub>, add_carry<uint64_t, kSub>, l.write(0, bits), a, b, takes, l.has("cc"));
}

constexpr auto kAddSaturating = [](int32_t a, int32_t b) { return saturate<int32_t>(int64_t{a} + b); };
constexpr auto kSubtractSaturating = [](int32_t a, int32_t b) { return saturate<int32_t>(int64_t{a} - b); };

template <bool kSub>
void lower_add(Lowering& l) {
  if (lowered_as_float(l)) return;
  if (l.has("cc")) return lower_carry<kSub>(l);
  allow_modifiers(l, {"sat"});
  if (l.has("sat")) {
    if (l.type() != DataType::kS32) l.unknown();
    emit_uniform(l, lanewise < kSub ? +kSubtractSaturating : +kAddSaturating, int32_t, int32_t, int32_t >, 2);
  } else if (kSub) {
    emit_uniform(l, binary<kSubtract>(l.type()), 2);
  } else {
    emit_uniform(l, binary_halves<kAdd>(l.type()), 2);
  }
}

// --- mul, mad, sad ---------------------------------------------------------------------------------------------------

constexpr auto kMadLow = []<class T>(T a, T b, T c) { return kAdd(kLow(a, b), c); };
constexpr auto kMadHigh = []<class T>(T a, T b, T c) { return kAdd(kHigh(a, b), c); };
constexpr auto kMadHighSaturating = [](int32_t a, int32_t b, int32_t c) {
  return saturate<int32_t>(int64_t{kHigh(a, b)} + c);
};
constexpr auto kMadWide = []<class T>(T a, T b, WiderOf<T> c) { return kAdd(kWide(a, b), c); };
constexpr auto kSad = []<class T>(T a, T b, T c) { return kAdd(c, a < b ? kSubtract(b, a) : kSubtract(a, b)); };

/// The 48-bit product of the sources' low 24 bits: its bits 0…31 or 16…47.
template <bool kHighPart>
constexpr auto kMul24 = []<class T>(T a, T b) {
  const auto low24 = [](T v) { return static_cast<T>(static_cast<T>(uint32_t(v) << 8) >> 8); };
  const WiderOf<T> product = WiderOf<T>(low24(a)) * low24(b);
  return static_cast<T>(product >> (kHighPart ? 16 : 0));
};
template <bool kHighPart>
constexpr auto kMad24 = []<class T>(T a, T b, T c) { return kAdd(kMul24<kHighPart>(a, b), c); };
constexpr auto kMad24Saturating = [](int32_t a, int32_t b, int32_t c) {
  return saturate<int32_t>(int64_t{kMul24<true>(a, b)} + c);
};

/// .lo, .hi or .wide: exactly one.
enum class Part { kLow, kHigh, kWide };
Part part_of(const Lowering& l) {
  const int named = l.has("lo") + l.has("hi") + l.has("wide");
  if (named != 1) l.unknown();
  return l.has("lo") ? Part::kLow : l.has("hi") ? Part::kHigh : Part::kWide;
}

template <auto F>
Handler ternary(DataType type) {
  return with_integer(type, []<class T>(T) { return Handler{lanewise<F, T, T, T, T>}; });
}

void lower_mul(Lowering& l) {
  if (lowered_as_float(l)) return;
  allow_modifiers(l, {"lo", "hi", "wide"});
  const DataType type = l.type();
  switch (part_of(l)) {
    case Part::kLow:
      emit_uniform(l, binary<kLow>(type), 2);
      break;
    case Part::kHigh:
      emit_uniform(l, binary<kHigh>(type), 2);
      break;
    case Part::kWide: {
      expect_shape(l, 1, 3);
      const Handler handler = with_integer(type, []<class T>(T) {
        if constexpr (sizeof(T) == 8) {
          return Handler{nullptr};
        } else {
          return Handler{lanewise<kWide, WiderOf<T>, T, T>};
        }
      });
      if (handler == nullptr) l.unknown();
      const uint32_t bits = bits_of(type);
      const Slot a = l.read(1, bits), b = l.read(2, bits);
      l.emit(handler, {l.write(0, 2 * bits), a, b});
    }
  }
}

/// mad.cc, madc: the product into a temporary, then an addition that counts as part of it.
void lower_mad_carry(Lowering& l) {
  allow_modifiers(l, {"lo", "hi", "cc"});
  check_carry_type(l);
  expect_shape(l, 1, 4);
  const DataType type = l.type();
  const uint32_t bits = bits_of(type);
  set_integer_kind(l, type);
  const Handler multiply = part_of(l) == Part::kLow ? binary<kLow>(type) : binary<kHigh>(type);
  if (multiply == nullptr) l.unknown();
  const Slot a = l.read(1, bits), b = l.read(2, bits), c = l.read(3, bits);
  const Slot product = l.temporary(bits);
  l.emit(multiply, {product, a, b});
  emit_carry(l, add_carry<uint32_t, false>, add_carry<uint64_t, false>, l.write(0, bits), product, c,
             l.text().opcode == "madc", l.has("cc"));
  l.hide();
}

void lower_mad(Lowering& l) {
  if (lowered_as_float(l)) return;
  if (l.has("cc")) return lower_mad_carry(l);
  allow_modifiers(l, {"lo", "hi", "wide", "sat"});
  const DataType type = l.type();
  const Part part = part_of(l);
  if (l.has("sat") && (part != Part::kHigh || type != DataType::kS32)) l.unknown();
  switch (part) {
    case Part::kLow:
      emit_uniform(l, ternary<kMadLow>(type), 3);
      break;
    case Part::kHigh:
      emit_uniform(
          l, l.has("sat") ? lanewise<kMadHighSaturating, int32_t, int32_t, int32_t, int32_t> : ternary<kMadHigh>(type),
          3);
      break;
    case Part::kWide: {
      expect_shape(l, 1, 4);
      const Handler handler = with_integer(type, []<class T>(T) {
        if constexpr (sizeof(T) == 8) {
          return Handler{nullptr};
        } else {
          return Handler{lanewise<kMadWide, WiderOf<T>, T, T, WiderOf<T>>};
        }
      });
      if (handler == nullptr) l.unknown();
      const uint32_t bits = bits_of(type);
      const Slot a = l.read(1, bits), b = l.read(2, bits), c = l.read(3, 2 * bits);
      l.emit(handler, {l.write(0, 2 * bits), a, b, c});
    }
  }
}

void lower_mul24(Lowering& l) {
  const bool mad = l.text().opcode == "mad24";
  allow_modifiers(l, {"lo", "hi", "sat"});
  if (bits_of(l.type()) != 32) l.unknown();
  const DataType type = l.type();
  const bool high = part_of(l) == Part::kHigh;
  if (l.has("sat")) {
    if (!mad || !high || type != DataType::kS32) l.unknown();
    emit_uniform(l, lanewise<kMad24Saturating, int32_t, int32_t, int32_t, int32_t>, 3);
    return;
  }
  const auto pick = [&]<class T>(T) {
    if (mad) return high ? Handler{lanewise<kMad24<true>, T, T, T, T>} : Handler{lanewise<kMad24<false>, T, T, T, T>};
    return high ? Handler{lanewise<kMul24<true>, T, T, T>} : Handler{lanewise<kMul24<false>, T, T, T>};
  };
  Handler handler = nullptr;
  if (type == DataType::kU32) handler = pick(uint32_t{});
  if (type == DataType::kS32) handler = pick(int32_t{});
  emit_uniform(l, handler, mad ? 3 : 2);
}

void lower_sad(Lowering& l) {
  allow_modifiers(l, {});
  emit_uniform(l, ternary<kSad>(l.type()), 3);
}

// --- div, rem, abs, neg, min, max ------------------------------------------------------------------------------------

template <auto F>
void lower_binary(Lowering& l) {
  if (lowered_as_float(l)) return;
  allow_modifiers(l, {});
  emit_uniform(l, binary<F>(l.type()), 2);
}

template <auto F>
void lower_signed_unary(Lowering& l) {
  if (lowered_as_float(l)) return;
  allow_modifiers(l, {});
  if (!is_signed(l.type())) l.unknown();
  emit_uniform(l, unary<F>(l.type()), 1);
}

template <auto F>
void lower_extremum(Lowering& l) {
  if (lowered_as_float(l)) return;
  allow_modifiers(l, {"relu"});
  Handler handler = binary_halves<F>(l.type());
  if (l.has("relu")) {
    if (l.type() != DataType::kS32 && l.type() != DataType::kS16x2) l.unknown();
    handler = binary_halves<kRelu<F>>(l.type());
  }
  emit_uniform(l, handler, 2);
}

// --- bits ------------------------------------------------------------------------------------------------------------

constexpr auto kCountOnes = []<class T>(T a) { return static_cast<uint32_t>(std::popcount(a)); };
constexpr auto kCountLeadingZeros = []<class T>(T a) { return static_cast<uint32_t>(std::countl_zero(a)); };

constexpr auto kReverse = []<class T>(T a) {
  const auto swap = [](T v, T mask, int by) { return static_cast<T>((v >> by & mask) | (v & mask) << by); };
  a = swap(a, static_cast<T>(0x5555555555555555), 1);
  a = swap(a, static_cast<T>(0x3333333333333333), 2);
  a = swap(a, static_cast<T>(0x0f0f0f0f0f0f0f0f), 4);
  return sizeof(T) == 8 ? static_cast<T>(__builtin_bswap64(a))
                        : static_cast<T>(__builtin_bswap32(static_cast<uint32_t>(a)));
};

/// The place of the highest bit that is no sign; ~0 when there is none.
template <bool kShift>
constexpr auto kFindBit = []<class T>(T a) {
  using U = std::make_unsigned_t<T>;
  const auto bits = static_cast<U>(a < T{0} ? ~a : a);
  if (bits == 0) return ~uint32_t{0};
  const auto zeros = static_cast<uint32_t>(std::countl_zero(bits));
  return kShift ? zeros : kBits<T> - 1 - zeros;
};

constexpr auto kExtract = []<class T>(T a, uint32_t position, uint32_t length) {
  using U = std::make_unsigned_t<T>;
  constexpr uint32_t kTop = kBits<T> - 1;
  position &= 0xff;
  length &= 0xff;
  const uint32_t last = std::min(position + length - 1, kTop);  // length 0 does not look at it
  const bool fill = std::is_signed_v<T> && length != 0 && (U(a) >> last & 1) != 0;
  const U value = position > kTop ? U{0} : static_cast<U>(U(a) >> position);
  const uint32_t taken = std::min(length, position > kTop ? 0 : kTop + 1 - position);
  const U mask = taken > kTop ? static_cast<U>(~U{0}) : static_cast<U>((U{1} << taken) - 1);
  return static_cast<T>((value & mask) | (fill ? ~mask : U{0}));
};

/// slots: d, a (inserted), b, position, length.
template <class T>
void insert_bits(Warp& w, const Instruction& in, Mask m) {
  const T* a = w.lanes<T>(in.slots[1]);
  const T* b = w.lanes<T>(in.slots[2]);
  const auto* position = w.lanes<uint32_t>(in.slots[3]);
  const auto* length = w.lanes<uint32_t>(in.slots[4]);
  constexpr uint32_t kTop = kBits<T> - 1;
  for_lanes(w.lanes<T>(in.slots[0]), m, [=](int l) {
    const uint32_t p = position[l] & 0xff, n = length[l] & 0xff;
    const T field = n > kTop ? ~T{0} : static_cast<T>((T{1} << (n & kTop)) - 1);
    const T mask = p > kTop ? T{0} : static_cast<T>(field << (p & kTop));
    return static_cast<T>((b[l] & ~mask) | (static_cast<T>(a[l] << (p & kTop)) & mask));
  });
}

constexpr auto kFindNth = [](uint32_t mask, uint32_t base, int32_t offset) {
  if (offset == 0) return base < 32 && (mask >> base & 1) != 0 ? base : ~uint32_t{0};
  int64_t left = (offset > 0 ? int64_t{offset} : -int64_t{offset}) - 1;
  const int64_t step = offset > 0 ? 1 : -1;
  for (int64_t at = base; at >= 0 && at < 32; at += step) {
    if ((mask >> at & 1) == 0) continue;
    if (left-- == 0) return static_cast<uint32_t>(at);
  }
  return ~uint32_t{0};
};

template <bool kClamp, bool kSignedType>
constexpr auto kExtend = [](uint32_t a, uint32_t width) {
  const uint32_t n = width & 31;
  const bool too_large = kClamp && width >= 32;
  const uint32_t mask = too_large ? 0 : ~uint32_t{0} << n;
  const bool sign = kSignedType && n != 0 && !too_large && (a >> ((n - 1) & 31) & 1) != 0;
  return (a & ~mask) | (sign ? mask : 0);
};

template <bool kClamp>
constexpr auto kBitMask = [](uint32_t position, uint32_t width) {
  const uint32_t first = position & 31, n = width & 31;
  const bool outside = kClamp && position >= 32;
  const bool open = first + n >= 32 || (kClamp && (position >= 32 || width >= 32));  // nothing above is cut off
  const uint32_t from = outside ? 0 : ~uint32_t{0} << first;
  const uint32_t above = open ? 0 : ~uint32_t{0} << ((first + n) & 31);
  return from & ~above;
};

template <auto F>
void lower_bit_count(Lowering& l) {  // popc, clz
  allow_modifiers(l, {});
  expect_shape(l, 1, 2);
  Handler handler = nullptr;
  if (l.type() == DataType::kB32) handler = lanewise<F, uint32_t, uint32_t>;
  if (l.type() == DataType::kB64) handler = lanewise<F, uint32_t, uint64_t>;
  if (handler == nullptr) l.unknown();
  const Slot a = l.read(1, bits_of(l.type()));
  l.emit(handler, {l.write(0, 32), a});
}

void lower_brev(Lowering& l) {
  allow_modifiers(l, {});
  Handler handler = nullptr;
  if (l.type() == DataType::kB32) handler = lanewise<kReverse, uint32_t, uint32_t>;
  if (l.type() == DataType::kB64) handler = lanewise<kReverse, uint64_t, uint64_t>;
  emit_uniform(l, handler, 1);
}

void lower_bfind(Lowering& l) {
  allow_modifiers(l, {"shiftamt"});
  expect_shape(l, 1, 2);
  if (bits_of(l.type()) < 32) l.unknown();
  const bool shift = l.has("shiftamt");
  const Handler handler = with_integer(l.type(), [&]<class T>(T) {
    return shift ? Handler{lanewise<kFindBit<true>, uint32_t, T>} : Handler{lanewise<kFindBit<false>, uint32_t, T>};
  });
  if (handler == nullptr) l.unknown();
  const Slot a = l.read(1, bits_of(l.type()));
  l.emit(handler, {l.write(0, 32), a});
}

void lower_bfe(Lowering& l) {
  allow_modifiers(l, {});
  expect_shape(l, 1, 4);
  const uint32_t bits = bits_of(l.type());
  if (bits < 32) l.unknown();
  const Handler handler =
      with_integer(l.type(), []<class T>(T) { return Handler{lanewise<kExtract, T, T, uint32_t, uint32_t>}; });
  if (handler == nullptr) l.unknown();
  const Slot a = l.read(1, bits), position = l.read(2, 32), length = l.read(3, 32);
  l.emit(handler, {l.write(0, bits), a, position, length});
}

void lower_bfi(Lowering& l) {
  allow_modifiers(l, {});
  expect_shape(l, 1, 5);
  Handler handler = nullptr;
  if (l.type() == DataType::kB32) handler = insert_bits<uint32_t>;
  if (l.type() == DataType::kB64) handler = insert_bits<uint64_t>;
  if (handler == nullptr) l.unknown();
  const uint32_t bits = bits_of(l.type());
  const Slot a = l.read(1, bits), b = l.read(2, bits), position = l.read(3, 32), length = l.read(4, 32);
  l.emit(handler, {l.write(0, bits), a, b, position, length});
}

void lower_fns(Lowering& l) {
  allow_modifiers(l, {});
  if (l.type() != DataType::kB32) l.unknown();
  emit_uniform(l, lanewise<kFindNth, uint32_t, uint32_t, uint32_t, int32_t>, 3);
}

/// szext and bmsk say what happens with widths of 32 and more.
bool clamps(const Lowering& l) {
  allow_modifiers(l, {"clamp", "wrap"});
  if (l.has("clamp") == l.has("wrap")) l.unknown();
  return l.has("clamp");
}

template <auto F>
constexpr Handler kOnWords = lanewise<F, uint32_t, uint32_t, uint32_t>;

void lower_szext(Lowering& l) {
  const bool clamp = clamps(l);
  Handler handler = nullptr;
  if (l.type() == DataType::kU32) handler = clamp ? kOnWords<kExtend<true, false>> : kOnWords<kExtend<false, false>>;
  if (l.type() == DataType::kS32) handler = clamp ? kOnWords<kExtend<true, true>> : kOnWords<kExtend<false, true>>;
  emit_uniform(l, handler, 2);
}

void lower_bmsk(Lowering& l) {
  const bool clamp = clamps(l);
  if (l.type() != DataType::kB32) l.unknown();
  emit_uniform(l, clamp ? kOnWords<kBitMask<true>> : kOnWords<kBitMask<false>>, 2);
}

// --- dp4a, dp2a ------------------------------------------------------------------------------------------------------

template <class T>
int32_t field(uint32_t word, int index) {
  return static_cast<T>(word >> (index * kBits<T>));
}

template <class A, class B>
constexpr auto kDot4 = [](uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; ++i) c += static_cast<uint32_t>(field<A>(a, i) * field<B>(b, i));
  return c;
};

template <class A, class B, int kFirst>
constexpr auto kDot2 = [](uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 2; ++i)
    c += static_cast<uint32_t>(field<A>(a, i)) * static_cast<uint32_t>(field<B>(b, kFirst + i));
  return c;
};

template <class A, class B>
Handler dot(bool four, bool high) {
  if (four) {
    using A8 = std::conditional_t<std::is_signed_v<A>, int8_t, uint8_t>;
    return lanewise<kDot4<A8, B>, uint32_t, uint32_t, uint32_t, uint32_t>;
  }
  return high ? lanewise<kDot2<A, B, 2>, uint32_t, uint32_t, uint32_t, uint32_t>
              : lanewise<kDot2<A, B, 0>, uint32_t, uint32_t, uint32_t, uint32_t>;
}

void lower_dot(Lowering& l) {
  const bool four = l.text().opcode == "dp4a";
  if (four) {
    allow_modifiers(l, {});
  } else {
    allow_modifiers(l, {"lo", "hi"});
    if (l.has("lo") == l.has("hi")) l.unknown();
  }
  expect_shape(l, 2, 4);
  for (size_t i = 0; i < 2; ++i) {
    if (l.type(i) != DataType::kU32 && l.type(i) != DataType::kS32) l.unknown();
  }
  const bool high = l.has("hi"), a_signed = is_signed(l.type(0)), b_signed = is_signed(l.type(1));
  const Handler handler = a_signed
                              ? (b_signed ? dot<int16_t, int8_t>(four, high) : dot<int16_t, uint8_t>(four, high))
                              : (b_signed ? dot<uint16_t, int8_t>(four, high) : dot<uint16_t, uint8_t>(four, high));
  const Slot a = l.read(1, 32), b = l.read(2, 32), c = l.read(3, 32);
  l.emit(handler, {l.write(0, 32), a, b, c});
}

// --- logic -----------------------------------------------------------------------------------------------------------

constexpr auto kAnd = []<class T>(T a, T b) { return static_cast<T>(a & b); };
constexpr auto kOr = []<class T>(T a, T b) { return static_cast<T>(a | b); };
constexpr auto kXor = []<class T>(T a, T b) { return static_cast<T>(a ^ b); };
constexpr auto kNot = []<class T>(T a) { return static_cast<T>(~a); };
constexpr auto kLogicalNot = []<class T>(T a) { return static_cast<T>(a == 0 ? 1 : 0); };

/// slots: p, q[, r]. flags[0], [1]: q, r are negated.
template <auto F>
void predicate_binary(Warp& w, const Instruction& in, Mask m) {
  const Mask a = w.predicate(in.slots[1]) ^ (in.flags[0] != 0 ? kAllLanes : 0);
  const Mask b = w.predicate(in.slots[2]) ^ (in.flags[1] != 0 ? kAllLanes : 0);
  set_predicate(w.predicate(in.slots[0]), m, F(a, b));
}

void predicate_not(Warp& w, const Instruction& in, Mask m) {
  const Mask a = w.predicate(in.slots[1]) ^ (in.flags[0] != 0 ? kAllLanes : 0);
  set_predicate(w.predicate(in.slots[0]), m, ~a);
}

template <auto F>
void lower_logic(Lowering& l) {
  allow_modifiers(l, {});
  if (l.type() == DataType::kPred) {
    expect_shape(l, 1, 3);
    l.set_kind(Kind::kPredicate);
    bool a_negated = false, b_negated = false;
    const Slot a = l.read_predicate(l.operand(1), a_negated), b = l.read_predicate(l.operand(2), b_negated);
    Instruction& in = l.emit(predicate_binary<F>, {l.write_predicate(l.operand(0)), a, b});
    in.flags[0] = a_negated ? 1 : 0;
    in.flags[1] = b_negated ? 1 : 0;
    return;
  }
  emit_uniform(l, with_bits(l.type(), []<class T>(T) { return Handler{lanewise<F, T, T, T>}; }), 2);
}

template <auto F>
void lower_not(Lowering& l) {
  allow_modifiers(l, {});
  if (l.type() == DataType::kPred && l.text().opcode == "not") {
    expect_shape(l, 1, 2);
    l.set_kind(Kind::kPredicate);
    bool negated = false;
    const Slot a = l.read_predicate(l.operand(1), negated);
    Instruction& in = l.emit(predicate_not, {l.write_predicate(l.operand(0)), a});
    in.flags[0] = negated ? 1 : 0;
    return;
  }
  emit_uniform(l, with_bits(l.type(), []<class T>(T) { return Handler{lanewise<F, T, T>}; }), 1);
}

inline uint32_t lookup(uint32_t a, uint32_t b, uint32_t c, const uint32_t* rows) {
  // Row i of the table, spread to 32 bits, applies where (a, b, c) spell i.
  const uint32_t low = (~a & ((~b & ((~c & rows[0]) | (c & rows[1]))) | (b & ((~c & rows[2]) | (c & rows[3])))));
  const uint32_t high = (a & ((~b & ((~c & rows[4]) | (c & rows[5]))) | (b & ((~c & rows[6]) | (c & rows[7])))));
  return low | high;
}

/// slots: d, a, b, c. immediate: the table.
void lop3(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<uint32_t>(in.slots[1]);
  const auto* b = w.lanes<uint32_t>(in.slots[2]);
  const auto* c = w.lanes<uint32_t>(in.slots[3]);
  uint32_t rows[8];
  for (int i = 0; i < 8; ++i) rows[i] = (in.immediate >> i & 1) != 0 ? ~uint32_t{0} : 0;
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [&](int l) { return lookup(a[l], b[l], c[l], rows); });
}

/// slots: p, d, q. p = (d != 0) op q. flags[0]: q is negated.
template <auto F>
void nonzero_combined(Warp& w, const Instruction& in, Mask m) {
  const auto* d = w.lanes<uint32_t>(in.slots[1]);
  const Mask q = w.predicate(in.slots[2]) ^ (in.flags[0] != 0 ? kAllLanes : 0);
  set_predicate(w.predicate(in.slots[0]), m, F(lane_mask([&](int l) { return d[l] != 0; }), q));
}

void lower_lop3(Lowering& l) {
  allow_modifiers(l, {"and", "or"});
  if (l.type() != DataType::kB32 || l.type_count() != 1) l.unknown();
  const bool combined = l.has("and") || l.has("or");
  if (l.operand_count() != (combined ? 6 : 5) || (l.has("and") && l.has("or"))) l.unknown();
  const ptx::Operand& destination = l.operand(0);
  if (combined != (destination.kind == ptx::Operand::Kind::kPair)) l.unknown();
  if (l.literal(4) > 255) l.fail("a table of lop3 has 8 bits, found {}", l.literal(4));
  const Slot a = l.read(1, 32), b = l.read(2, 32), c = l.read(3, 32);
  bool negated = false;
  const Slot q = combined ? l.read_predicate(l.operand(5), negated) : Slot{};
  const Slot d = l.write(combined ? destination.parts.at(0) : destination, 32);
  l.emit(lop3, {d, a, b, c}).immediate = l.literal(4);
  if (!combined) return;
  // What lop3 left in d is read again: also when d is `_`.
  const Slot p = l.write_predicate(destination.parts.at(1));
  Instruction& in = l.emit(l.has("and") ? nonzero_combined<kAnd> : nonzero_combined<kOr>, {p, d, q});
  in.flags[0] = negated ? 1 : 0;
  l.hide();
}

// --- shifts ----------------------------------------------------------------------------------------------------------

constexpr auto kShiftLeft = []<class T>(T a, uint32_t by) {
  return by >= kBits<T> ? T{0} : static_cast<T>(Word<T>(a) << (by & (kBits<Word<T>> - 1)));
};
constexpr auto kShiftRight = []<class T>(T a, uint32_t by) {
  const uint32_t last = kBits<T> - 1;
  const T shifted = static_cast<T>(a >> std::min(by, last));
  return std::is_signed_v<T> || by <= last ? shifted : T{0};
};

template <bool kLeft>
constexpr auto kFunnel = [](uint32_t a, uint32_t b, uint32_t by) {
  const uint64_t both = uint64_t{b} << 32 | a;  // by is at most 32
  return static_cast<uint32_t>(kLeft ? both << by >> 32 : both >> by);
};
template <bool kLeft>
constexpr auto kFunnelClamp =
    [](uint32_t a, uint32_t b, uint32_t c) { return kFunnel<kLeft>(a, b, std::min(c, uint32_t{32})); };
template <bool kLeft>
constexpr auto kFunnelWrap = [](uint32_t a, uint32_t b, uint32_t c) { return kFunnel<kLeft>(a, b, c & 31); };

template <auto F>
void lower_shift(Lowering& l) {
  allow_modifiers(l, {});
  expect_shape(l, 1, 3);
  const auto pick = []<class T>(T) { return Handler{lanewise<F, T, T, uint32_t>}; };
  Handler handler = with_bits(l.type(), pick);
  if (handler == nullptr && l.text().opcode == "shr") handler = with_integer(l.type(), pick);
  if (handler == nullptr) l.unknown();
  set_integer_kind(l, l.type());
  const uint32_t bits = bits_of(l.type());
  const Slot a = l.read(1, bits), by = l.read(2, 32);
  l.emit(handler, {l.write(0, bits), a, by});
}

void lower_shf(Lowering& l) {
  allow_modifiers(l, {"l", "r", "clamp", "wrap"});
  if (l.type() != DataType::kB32 || l.has("l") == l.has("r") || l.has("clamp") == l.has("wrap")) l.unknown();
  const auto pick = [&]<auto kLeft, auto kRight>() {
    return l.has("l") ? lanewise<kLeft, uint32_t, uint32_t, uint32_t, uint32_t>
                      : lanewise<kRight, uint32_t, uint32_t, uint32_t, uint32_t>;
  };
  emit_uniform(l,
               l.has("clamp") ? pick.template operator()<kFunnelClamp<true>, kFunnelClamp<false>>()
                              : pick.template operator()<kFunnelWrap<true>, kFunnelWrap<false>>(),
               3);
}

// --- setp, set -------------------------------------------------------------------------------------------------------

enum class Combine : uint8_t { kNone, kAnd, kOr, kXor };

Mask combined(Combine how, Mask a, Mask b) {
  switch (how) {
    case Combine::kNone:
      return a;
    case Combine::kAnd:
      return a & b;
    case Combine::kOr:
      return a | b;
    case Combine::kXor:
      return a ^ b;
  }
  return a;
}

constexpr auto kEqual = []<class T>(T a, T b) { return a == b; };
constexpr auto kLess = []<class T>(T a, T b) { return a < b; };
constexpr auto kLessEqual = []<class T>(T a, T b) { return a <= b; };

// The handlers' flags: [0] Combine, [1] the third predicate is negated, [2] the comparison is (ne, gt, ge).
constexpr int kCombine = 0, kNegatedThird = 1, kNegatedComparison = 2;

/// The comparison of slots a and b.
template <auto F, class T>
Mask compare(const Warp& w, const Instruction& in, size_t first) {
  const T* a = w.lanes<T>(in.slots[first]);
  const T* b = w.lanes<T>(in.slots[first + 1]);
  const Mask holds = lane_mask([=](int l) { return F(a[l], b[l]); });
  return in.flags[kNegatedComparison] != 0 ? ~holds : holds;
}

Mask third_predicate(const Warp& w, const Instruction& in, size_t slot) {
  return w.predicate(in.slots[slot]) ^ (in.flags[kNegatedThird] != 0 ? kAllLanes : 0);
}

/// slots: p, a, b: the frequent form.
template <auto F, class T>
void setp(Warp& w, const Instruction& in, Mask m) {
  set_predicate(w.predicate(in.slots[0]), m, compare<F, T>(w, in, 1));
}

/// slots: p, q, a, b, c.
template <auto F, class T>
void setp_combined(Warp& w, const Instruction& in, Mask m) {
  const Mask holds = compare<F, T>(w, in, 2);
  const Mask c = third_predicate(w, in, 4);
  const auto how = static_cast<Combine>(in.flags[kCombine]);
  set_predicate(w.predicate(in.slots[0]), m, combined(how, holds, c));
  set_predicate(w.predicate(in.slots[1]), m, combined(how, ~holds, c));
}

/// slots: d (D), a, b, c. immediate: d where the result is true.
template <auto F, class T, class D>
void set(Warp& w, const Instruction& in, Mask m) {
  const Mask value =
      combined(static_cast<Combine>(in.flags[kCombine]), compare<F, T>(w, in, 1), third_predicate(w, in, 3));
  const D yes = static_cast<D>(in.immediate);
  for_lanes(w.lanes<D>(in.slots[0]), m, [=](int l) { return (value >> l & 1) != 0 ? yes : D{0}; });
}

struct Comparison {
  enum class Basic { kEqual, kLess, kLessEqual } basic;
  bool negated;
};

/// The comparison and the combination that the modifiers name.
Comparison comparison_of(const Lowering& l, DataType type, Combine& combine) {
  std::optional<Comparison> found;
  const bool ordered = bits_of(type) != 8 && with_bits(type, [](auto) { return Handler{lop3}; }) == nullptr;
  combine = Combine::kNone;
  for (const std::string& m : l.text().modifiers) {
    if (data_type(m)) continue;
    std::optional<Comparison> here;
    using B = Comparison::Basic;
    if (m == "eq") here = {B::kEqual, false};
    if (m == "ne") here = {B::kEqual, true};
    if (ordered) {
      const bool is_unsigned = !is_signed(type);
      if (m == "lt" || (is_unsigned && m == "lo")) here = {B::kLess, false};
      if (m == "le" || (is_unsigned && m == "ls")) here = {B::kLessEqual, false};
      if (m == "gt" || (is_unsigned && m == "hi")) here = {B::kLessEqual, true};
      if (m == "ge" || (is_unsigned && m == "hs")) here = {B::kLess, true};
    }
    if (here) {
      if (found) l.unknown();
      found = here;
      continue;
    }
    if (combine != Combine::kNone) l.unknown();
    if (m == "and") {
      combine = Combine::kAnd;
    } else if (m == "or") {
      combine = Combine::kOr;
    } else if (m == "xor") {
      combine = Combine::kXor;
    } else {
      l.unknown();
    }
  }
  if (!found) l.unknown();
  return *found;
}

/// f.operator()<F>(T{}) for the comparison and the type.
template <class F>
Handler with_comparison(Comparison::Basic basic, DataType type, F f) {
  const auto typed = [&]<class T>(T zero) -> Handler {
    switch (basic) {
      case Comparison::Basic::kEqual:
        return f.template operator()<kEqual>(zero);
      case Comparison::Basic::kLess:
        return f.template operator()<kLess>(zero);
      case Comparison::Basic::kLessEqual:
        return f.template operator()<kLessEqual>(zero);
    }
    return nullptr;
  };
  const Handler handler = with_integer(type, typed);
  return handler != nullptr ? handler : with_bits(type, typed);
}

void set_comparison_flags(Instruction& in, const Comparison& comparison, Combine combine, bool negated) {
  in.flags[kCombine] = static_cast<uint8_t>(combine);
  in.flags[kNegatedThird] = negated ? 1 : 0;
  in.flags[kNegatedComparison] = comparison.negated ? 1 : 0;
}

void lower_setp(Lowering& l) {
  const DataType type = l.type();
  if (lowered_as_float(l)) return;
  Combine combine = Combine::kNone;
  const Comparison comparison = comparison_of(l, type, combine);
  expect_shape(l, 1, combine == Combine::kNone ? 3 : 4);
  const uint32_t bits = bits_of(type);
  const ptx::Operand& destination = l.operand(0);
  const bool pair = destination.kind == ptx::Operand::Kind::kPair;
  const Slot a = l.read(1, bits), b = l.read(2, bits);
  if (!pair && combine == Combine::kNone) {
    const Handler handler = with_comparison(
        comparison.basic, type, []<auto F, class T>(T) { return Handler{setp<F, T>}; });
    if (handler == nullptr) l.unknown();
    set_comparison_flags(l.emit(handler, {l.write_predicate(destination), a, b}), comparison, combine, false);
    return;
  }
  bool negated = false;
  const Slot c = combine == Combine::kNone ? l.constant(0, 32) : l.read_predicate(l.operand(3), negated);
  const Handler handler = with_comparison(
      comparison.basic, type, []<auto F, class T>(T) { return Handler{setp_combined<F, T>}; });
  if (handler == nullptr) l.unknown();
  ptx::Operand nobody;  // the second destination when only one is named
  const Slot p = l.write_predicate(pair ? destination.parts.at(0) : destination);
  const Slot q = l.write_predicate(pair ? destination.parts.at(1) : nobody);
  set_comparison_flags(l.emit(handler, {p, q, a, b, c}), comparison, combine, negated);
}

void lower_set(Lowering& l) {
  if (l.type_count() != 2) l.unknown();
  const DataType to = l.type(0), type = l.type(1);
  if (lowered_as_float(l, type)) return;
  Combine combine = Combine::kNone;
  const Comparison comparison = comparison_of(l, type, combine);
  expect_shape(l, 2, combine == Combine::kNone ? 3 : 4);
  uint64_t yes = 0;
  switch (to) {
    case DataType::kU32:
    case DataType::kS32:
      yes = ~uint32_t{0};
      break;
    case DataType::kF32:
      yes = std::bit_cast<uint32_t>(1.0F);
      break;
    case DataType::kU16:
    case DataType::kS16:
      yes = 0xffff;
      break;
    case DataType::kF16:
      yes = 0x3c00;
      break;
    case DataType::kBf16:
      yes = 0x3f80;
      break;
    default:
      l.unknown();
  }
  const bool half = bits_of(to) == 16;
  const Handler handler = with_comparison(
      comparison.basic,
      type, [&]<auto F, class T>(T) { return half ? Handler{set<F, T, uint16_t>} : Handler{set<F, T, uint32_t>}; });
  if (handler == nullptr) l.unknown();
  bool negated = false;
  const uint32_t bits = bits_of(type);
  const Slot a = l.read(1, bits), b = l.read(2, bits);
  const Slot c = combine == Combine::kNone ? l.constant(0, 32) : l.read_predicate(l.operand(3), negated);
  Instruction& in = l.emit(handler, {l.write(0, bits_of(to)), a, b, c});
  in.immediate = yes;
  set_comparison_flags(in, comparison, combine, negated);
}

}  // namespace

void add_integer(OpcodeTable& t) {
  t.add("add", Kind::kInteger, lower_add<false>);
  t.add("sub", Kind::kInteger, lower_add<true>);
  t.add("addc", Kind::kInteger, lower_carry<false>);
  t.add("subc", Kind::kInteger, lower_carry<true>);
  t.add("mul", Kind::kInteger, lower_mul);
  t.add("mad", Kind::kInteger, lower_mad);
  t.add("madc", Kind::kInteger, lower_mad_carry);
  t.add("mul24", Kind::kInteger, lower_mul24);
  t.add("mad24", Kind::kInteger, lower_mul24);
  t.add("sad", Kind::kInteger, lower_sad);
  t.add("div", Kind::kInteger, lower_binary<kDivide>);
  t.add("rem", Kind::kInteger, lower_binary<kRemainder>);
  t.add("abs", Kind::kInteger, lower_signed_unary<kAbsolute>);
  t.add("neg", Kind::kInteger, lower_signed_unary<kNegate>);
  t.add("min", Kind::kInteger, lower_extremum<kMinimum>);
  t.add("max", Kind::kInteger, lower_extremum<kMaximum>);
  t.add("popc", Kind::kInteger, lower_bit_count<kCountOnes>);
  t.add("clz", Kind::kInteger, lower_bit_count<kCountLeadingZeros>);
  t.add("brev", Kind::kInteger, lower_brev);
  t.add("bfind", Kind::kInteger, lower_bfind);
  t.add("bfe", Kind::kInteger, lower_bfe);
  t.add("bfi", Kind::kInteger, lower_bfi);
  t.add("fns", Kind::kInteger, lower_fns);
  t.add("szext", Kind::kInteger, lower_szext);
  t.add("bmsk", Kind::kInteger, lower_bmsk);
  t.add("dp4a", Kind::kInteger, lower_dot);
  t.add("dp2a", Kind::kInteger, lower_dot);
  t.add("and", Kind::kInteger, lower_logic<kAnd>);
  t.add("or", Kind::kInteger, lower_logic<kOr>);
  t.add("xor", Kind::kInteger, lower_logic<kXor>);
  t.add("not", Kind::kInteger, lower_not<kNot>);
  t.add("cnot", Kind::kInteger, lower_not<kLogicalNot>);
  t.add("lop3", Kind::kInteger, lower_lop3);
  t.add("shl", Kind::kInteger, lower_shift<kShiftLeft>);
  t.add("shr", Kind::kInteger, lower_shift<kShiftRight>);
  t.add("shf", Kind::kInteger, lower_shf);
  t.add("setp", Kind::kPredicate, lower_setp);
  t.add("set", Kind::kPredicate, lower_set);
}

}  // namespace ptxsim
