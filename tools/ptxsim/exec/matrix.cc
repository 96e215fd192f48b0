#include <array>
#include <cstdio>
#include <cstring>

#include "tools/ptxsim/exec/formats.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

/// Tensor cores: mma.sync and wmma, and the loads and stores of their fragments.
namespace ptxsim {

namespace {

// --- ldmatrix, stmatrix, movmatrix: 8×8 matrices of 16 bits, a row of 16 bytes each
// ------------------------------------------

/// Lane l holds elements (l / 4, 2 (l mod 4)) and the next one of a matrix; transposed, the same of its transpose.
void ldmatrix(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const int count = in.flags[1];
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in, in.slots[count], in.flags[0] != 0, static_cast<int64_t>(in.immediate), m, address);
  const Mask rows = count == 4 ? kAllLanes : (Mask{1} << (8 * count)) - 1;
  Located at;
  if (!locate(w, in, rows, address, in.memory.space, 16, 16, Access::Kind::kLoad, false, nullptr, at)) return;
  for (int i = 0; i < count; ++i) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; ++r) std::memcpy(matrix[r], at.pointer[8 * i + r], 16);
    auto* d = w.lanes<uint32_t>(in.slots[i]);
    for (int l = 0; l < kLanes; ++l) {
      const int r = l / 4, c = l % 4 * 2;
      d[l] = in.flags[2] != 0 ? matrix[c][r] | uint32_t{matrix[c + 1][r]} << 16
                              : matrix[r][c] | uint32_t{matrix[r][c + 1]} << 16;
    }
  }
}

void stmatrix(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const int count = in.flags[1];
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in, in.slots[0], in.flags[0] != 0, static_cast<int64_t>(in.immediate), m, address);
  const Mask rows = count == 4 ? kAllLanes : (Mask{1} << (8 * count)) - 1;
  alignas(64) uint16_t value[kLanes][8] = {};
  for (int i = 0; i < count; ++i) {
    const auto* v = w.lanes<uint32_t>(in.slots[1 + i]);
    for (int l = 0; l < kLanes; ++l) {
      for (int half = 0; half < 2; ++half) {
        const int r = l / 4, c = l % 4 * 2 + half;
        const auto element = static_cast<uint16_t>(v[l] >> (16 * half));
        value[8 * i + (in.flags[2] != 0 ? c : r)][in.flags[2] != 0 ? r : c] = element;
      }
    }
  }
  Located at;
  if (!locate(w, in, rows, address, in.memory.space, 16, 16, Access::Kind::kStore, false,
              reinterpret_cast<const std::byte*>(value), at)) {
    return;
  }
  each_lane(rows, [&](int l) { std::memcpy(at.pointer[l], value[l], 16); });
}

void movmatrix(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const auto* a = w.lanes<uint32_t>(in.slots[1]);
  uint16_t matrix[8][8];
  for (int l = 0; l < kLanes; ++l) {
    matrix[l / 4][l % 4 * 2] = static_cast<uint16_t>(a[l]);
    matrix[l / 4][l % 4 * 2 + 1] = static_cast<uint16_t>(a[l] >> 16);
  }
  auto* d = w.lanes<uint32_t>(in.slots[0]);
  for (int l = 0; l < kLanes; ++l) d[l] = matrix[l % 4 * 2][l / 4] | uint32_t{matrix[l % 4 * 2 + 1][l / 4]} << 16;
}

std::vector<const ptx::Operand*> parts_of(const ptx::Operand& operand) {
  std::vector<const ptx::Operand*> parts;
  if (operand.kind == ptx::Operand::Kind::kVector) {
    for (const ptx::Operand& p : operand.parts) parts.push_back(&p);
  } else {
    parts.push_back(&operand);
  }
  return parts;
}

void lower_matrix_access(Lowering& l, bool load) {
  if (!l.has("m8n8") || l.type() != DataType::kB16) l.unknown();
  const uint8_t count = l.has("x4") ? 4 : l.has("x2") ? 2 : l.has("x1") ? 1 : 0;
  const auto parts = parts_of(l.operand(load ? 0 : 1));
  if (count == 0 || parts.size() != count) l.unknown();
  std::vector<Slot> values;
  for (const ptx::Operand* p : parts) values.push_back(load ? l.write(*p, 32) : l.read(*p, 32));
  const Space space = l.space();
  const Lowering::Address address = l.address(l.operand(load ? 1 : 0), space);
  std::vector<Slot> slots = values;
  slots.insert(load ? slots.end() : slots.begin(), address.base);
  Instruction& in = l.emit(load ? ldmatrix : stmatrix, slots);
  in.memory.space = space;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.flags[0] = address.base_bits == 32 ? 1 : 0;
  in.flags[1] = count;
  in.flags[2] = l.has("trans") ? 1 : 0;
}

void lower_ldmatrix(Lowering& l) { lower_matrix_access(l, true); }
void lower_stmatrix(Lowering& l) { lower_matrix_access(l, false); }
void lower_movmatrix(Lowering& l) {
  if (!l.has("m8n8") || !l.has("trans")) l.unknown();
  l.emit(movmatrix, {l.write(0, 32), l.read(1, 32)});
}

// --- element types of fragments
// ------------------------------------------------------------------------------------------

struct F16Elements {
  using Number = float;
  static constexpr int kPerRegister = 2;
  static float get(uint32_t r, int e) { return f16_to_f32(static_cast<uint16_t>(r >> (16 * e))); }
};
struct Bf16Elements {
  using Number = float;
  static constexpr int kPerRegister = 2;
  static float get(uint32_t r, int e) { return bf16_to_f32(static_cast<uint16_t>(r >> (16 * e))); }
};
/// The tensor core looks at the upper 19 bits of an f32 only.
struct Tf32Elements {
  using Number = float;
  static constexpr int kPerRegister = 1;
  static float get(uint32_t r, int) { return std::bit_cast<float>(r & 0xffffe000U); }
};
struct E4m3Elements {
  using Number = float;
  static constexpr int kPerRegister = 4;
  static float get(uint32_t r, int e) { return e4m3_to_f32(static_cast<uint8_t>(r >> (8 * e))); }
};
struct E5m2Elements {
  using Number = float;
  static constexpr int kPerRegister = 4;
  static float get(uint32_t r, int e) { return e5m2_to_f32(static_cast<uint8_t>(r >> (8 * e))); }
};
struct S8Elements {
  using Number = int32_t;
  static constexpr int kPerRegister = 4;
  static int32_t get(uint32_t r, int e) { return static_cast<int8_t>(r >> (8 * e)); }
};
struct U8Elements {
  using Number = int32_t;
  static constexpr int kPerRegister = 4;
  static int32_t get(uint32_t r, int e) { return static_cast<uint8_t>(r >> (8 * e)); }
};
struct S4Elements {
  using Number = int32_t;
  static constexpr int kPerRegister = 8;
  static int32_t get(uint32_t r, int e) { return static_cast<int32_t>(r << (28 - 4 * e)) >> 28; }
};
struct U4Elements {
  using Number = int32_t;
  static constexpr int kPerRegister = 8;
  static int32_t get(uint32_t r, int e) { return static_cast<int32_t>(r >> (4 * e) & 15); }
};

/// d + a b, as the accumulator's type has it. f32 sums go over k from 0 up with a fused multiply-add each (products of
/// 16-bit factors are exact); integers wrap or, with .satfinite, saturate at the end.
inline float accumulate(float a, float b, float d) { return __builtin_fmaf(a, b, d); }
inline double accumulate(double a, double b, double d) { return __builtin_fma(a, b, d); }
inline int64_t accumulate(int32_t a, int32_t b, int64_t d) { return d + int64_t{a} * b; }

template <class Number>
using Sum = std::conditional_t<std::is_same_v<Number, int32_t>, int64_t, Number>;

/// c[16][8] += a[16][k] b[k][8].
template <class Number, int kRows, int kColumns>
void multiply(const Number* a, const Number* b, Sum<Number> (&c)[kRows][kColumns], int k) {
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < k; ++i) {
      const Number x = a[r * k + i];
#pragma GCC ivdep
      for (int n = 0; n < kColumns; ++n) c[r][n] = accumulate(x, b[i * kColumns + n], c[r][n]);
    }
  }
}

// --- mma.sync m16n8kK
// ------------------------------------------------------------------------------------------------------

/// The accumulator in registers. Register i of lane l: row l/4 + 8 (i/2), column 2 (l mod 4) + i mod 2.
enum Accumulator : uint8_t { kF32, kF16, kS32, kF64 };

template <class T>
void read_accumulator(Warp& w, const Slot* slots, uint8_t kind, T (&c)[16][8]) {
  for (int i = 0; i < 4; ++i) {
    for (int l = 0; l < kLanes; ++l) {
      T v = 0;
      if (kind == kF16)
        v = static_cast<T>(f16_to_f32(static_cast<uint16_t>(w.lanes<uint32_t>(slots[i / 2])[l] >> (16 * (i % 2)))));
      if (kind == kF32) v = static_cast<T>(w.lanes<float>(slots[i])[l]);
      if (kind == kS32) v = static_cast<T>(w.lanes<int32_t>(slots[i])[l]);
      if (kind == kF64) v = static_cast<T>(w.lanes<double>(slots[i])[l]);
      c[l / 4 + 8 * (i / 2)][l % 4 * 2 + i % 2] = v;
    }
  }
}

inline int32_t to_s32(int64_t v, bool saturate) {
  if (!saturate) return static_cast<int32_t>(v);
  return static_cast<int32_t>(v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v);
}

inline float canonical(float v) { return v == v ? v : std::bit_cast<float>(F32::kNan); }

template <class T>
void write_accumulator(Warp& w, const Slot* slots, uint8_t kind, bool saturate, const T (&c)[16][8]) {
  for (int i = 0; i < 4; ++i) {
    for (int l = 0; l < kLanes; ++l) {
      const T v = c[l / 4 + 8 * (i / 2)][l % 4 * 2 + i % 2];
      if (kind == kF32) w.lanes<float>(slots[i])[l] = canonical(static_cast<float>(v));
      if (kind == kS32) w.lanes<int32_t>(slots[i])[l] = to_s32(static_cast<int64_t>(v), saturate);
      if (kind == kF64) w.lanes<double>(slots[i])[l] = static_cast<double>(v);
      if (kind == kF16) {
        uint32_t& d = w.lanes<uint32_t>(slots[i / 2])[l];
        const uint32_t h = f32_to_f16(static_cast<float>(v));
        d = i % 2 == 0 ? h : (d & 0xffff) | h << 16;
      }
    }
  }
}

/// slots: d, a, b, c. flags: [0] k, [1] d's kind, [2] c's kind, [3] saturate, [4] registers of d, [5] of c.
template <class A, class B>
void mma(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  using Number = typename A::Number;
  constexpr int kPer = A::kPerRegister;
  const int k = in.flags[0], a_registers = k / (2 * kPer), b_registers = k / (4 * kPer);
  const Slot* d = in.slots;
  const Slot* a = d + in.flags[4];
  const Slot* b = a + a_registers;
  const Slot* c = b + b_registers;
  alignas(64) Number a_matrix[16 * 64], b_matrix[64 * 8];
  for (int i = 0; i < a_registers; ++i) {
    const auto* r = w.lanes<uint32_t>(a[i]);
    alignas(64) Number unpacked[kPer][kLanes];
    for (int e = 0; e < kPer; ++e) {
      for (int l = 0; l < kLanes; ++l) unpacked[e][l] = A::get(r[l], e);
    }
    for (int l = 0; l < kLanes; ++l) {
      for (int e = 0; e < kPer; ++e)
        a_matrix[(l / 4 + 8 * (i % 2)) * k + kPer * (l % 4) + e + 4 * kPer * (i / 2)] = unpacked[e][l];
    }
  }
  for (int i = 0; i < b_registers; ++i) {
    const auto* r = w.lanes<uint32_t>(b[i]);
    alignas(64) Number unpacked[kPer][kLanes];
    for (int e = 0; e < kPer; ++e) {
      for (int l = 0; l < kLanes; ++l) unpacked[e][l] = B::get(r[l], e);
    }
    for (int l = 0; l < kLanes; ++l) {
      for (int e = 0; e < kPer; ++e) b_matrix[(kPer * (l % 4) + e + 4 * kPer * i) * 8 + l / 4] = unpacked[e][l];
    }
  }
  alignas(64) Sum<Number> sum[16][8];
  read_accumulator(w, c, in.flags[2], sum);
  multiply<Number, 16, 8>(a_matrix, b_matrix, sum, k);
  write_accumulator(w, d, in.flags[1], in.flags[3] != 0, sum);
}

/// f64: registers of one element. flags as above.
void mma_f64(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const int k = in.flags[0], a_registers = k / 2, b_registers = k / 4;
  const Slot* a = in.slots + 4;
  const Slot* b = a + a_registers;
  const Slot* c = b + b_registers;
  double a_matrix[16 * 16], b_matrix[16 * 8];
  for (int i = 0; i < a_registers; ++i) {
    const auto* r = w.lanes<double>(a[i]);
    for (int l = 0; l < kLanes; ++l) a_matrix[(l / 4 + 8 * (i % 2)) * k + l % 4 + 4 * (i / 2)] = r[l];
  }
  for (int i = 0; i < b_registers; ++i) {
    const auto* r = w.lanes<double>(b[i]);
    for (int l = 0; l < kLanes; ++l) b_matrix[(l % 4 + 4 * i) * 8 + l / 4] = r[l];
  }
  double sum[16][8];
  read_accumulator(w, c, kF64, sum);
  multiply<double, 16, 8>(a_matrix, b_matrix, sum, k);
  write_accumulator(w, in.slots, kF64, false, sum);
}

/// m8n8k4 of f64: a (l/4, l mod 4), b (l mod 4, l/4), c (l/4, 2 (l mod 4) + i).
void mma_f64_small(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const auto* a = w.lanes<double>(in.slots[2]);
  const auto* b = w.lanes<double>(in.slots[3]);
  double result[2][kLanes];
  for (int i = 0; i < 2; ++i) {
    const auto* c = w.lanes<double>(in.slots[4 + i]);
    for (int l = 0; l < kLanes; ++l) {
      double sum = c[l];
      for (int k = 0; k < 4; ++k) sum = accumulate(a[l / 4 * 4 + k], b[(l % 4 * 2 + i) * 4 + k], sum);
      result[i][l] = sum;
    }
  }
  for (int i = 0; i < 2; ++i) std::memcpy(w.lanes<double>(in.slots[i]), result[i], sizeof result[i]);
}

Handler mma_of(Lowering& l, DataType a, DataType b) {
  if (a == b) {
    switch (a) {
      case DataType::kF16:
        return mma<F16Elements, F16Elements>;
      case DataType::kBf16:
        return mma<Bf16Elements, Bf16Elements>;
      case DataType::kTf32:
        return mma<Tf32Elements, Tf32Elements>;
      case DataType::kE4m3:
        return mma<E4m3Elements, E4m3Elements>;
      case DataType::kE5m2:
        return mma<E5m2Elements, E5m2Elements>;
      case DataType::kS8:
        return mma<S8Elements, S8Elements>;
      case DataType::kU8:
        return mma<U8Elements, U8Elements>;
      case DataType::kS4:
        return mma<S4Elements, S4Elements>;
      case DataType::kU4:
        return mma<U4Elements, U4Elements>;
      default:
        l.unknown();
    }
  }
  if (a == DataType::kS8 && b == DataType::kU8) return mma<S8Elements, U8Elements>;
  if (a == DataType::kU8 && b == DataType::kS8) return mma<U8Elements, S8Elements>;
  if (a == DataType::kS4 && b == DataType::kU4) return mma<S4Elements, U4Elements>;
  if (a == DataType::kU4 && b == DataType::kS4) return mma<U4Elements, S4Elements>;
  if (a == DataType::kE4m3 && b == DataType::kE5m2) return mma<E4m3Elements, E5m2Elements>;
  if (a == DataType::kE5m2 && b == DataType::kE4m3) return mma<E5m2Elements, E4m3Elements>;
  l.unknown();
}

struct Shape {
  unsigned m = 0, n = 0, k = 0;
};

Shape shape_of(Lowering& l) {
  for (const std::string& text : l.text().modifiers) {
    Shape s;
    if (std::sscanf(text.c_str(), "m%un%uk%u", &s.m, &s.n, &s.k) == 3) return s;
  }
  l.fail("expected a shape like m16n8k16");
}

Accumulator accumulator_of(Lowering& l, DataType type) {
  switch (type) {
    case DataType::kF32:
      return kF32;
    case DataType::kF16:
      return kF16;
    case DataType::kS32:
      return kS32;
    case DataType::kF64:
      return kF64;
    default:
      l.unknown();
  }
}

void lower_mma(Lowering& l) {
  if (!l.has("sync") || !l.has("row") || !l.has("col") || l.has("sp") || l.has("block_scale") || l.has("xor") ||
      l.has("and"))
    l.unknown();
  const Shape shape = shape_of(l);
  const DataType d = l.type(0), a = l.type(1), b = l.type(2), c = l.type(3);
  const auto parts = [&](size_t i) { return parts_of(l.operand(i)); };
  const uint32_t d_bits = d == DataType::kF64 ? 64 : 32, a_bits = a == DataType::kF64 ? 64 : 32;
  std::vector<Slot> slots;
  for (const ptx::Operand* p : parts(0)) slots.push_back(l.write(*p, d_bits));
  for (const ptx::Operand* p : parts(1)) slots.push_back(l.read(*p, a_bits));
  for (const ptx::Operand* p : parts(2)) slots.push_back(l.read(*p, a_bits));
  for (const ptx::Operand* p : parts(3)) slots.push_back(l.read(*p, d_bits));
  if (shape.n != 8) l.unknown();
  if (shape.m == 8 && shape.k == 4 && a == DataType::kF64) {
    if (slots.size() != 6) l.unknown();
    l.emit(mma_f64_small, slots);
    return;
  }
  if (shape.m != 16) l.unknown();
  const uint8_t d_registers = d == DataType::kF16 ? 2 : 4, c_registers = c == DataType::kF16 ? 2 : 4;
  const unsigned per = a == DataType::kF64 ? 1 : 32 / (a == DataType::kTf32 ? 32 : bits_of(a));
  if (shape.k > 64 || slots.size() != d_registers + shape.k / (2 * per) + shape.k / (4 * per) + c_registers)
    l.unknown();
  Instruction& in = l.emit(a == DataType::kF64 ? mma_f64 : mma_of(l, a, b), slots);
  in.flags[0] = static_cast<uint8_t>(shape.k);
  in.flags[1] = accumulator_of(l, d);
  in.flags[2] = accumulator_of(l, c);
  in.flags[3] = l.has("satfinite") ? 1 : 0;
  in.flags[4] = d_registers;
  in.flags[5] = c_registers;
}

// --- wmma: fragments whose layout is the implementation's own
// --------------------------------------------------------------- Element e of lane l of a fragment with n elements per
// lane is element (l n + e) mod (rows · columns) of the matrix, row after row: fragments of A and B may hold each
// element more than once.

struct Wmma {
  int rows, columns, per_lane, per_register;
  int index(int lane, int e) const { return (lane * per_lane + e) % (rows * columns); }
};

uint32_t element_bytes(DataType type) { return type == DataType::kTf32 ? 4 : bits_of(type) / 8; }

/// What a wmma memory instruction needs beyond an Instruction's few bytes; lives as long as the process.
struct WmmaAccess {
  Wmma fragment;
  uint32_t bytes;
  bool column_major, store;
};

const WmmaAccess* keep(const WmmaAccess& access) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<WmmaAccess>> all;
  const std::lock_guard lock(mutex);
  all.push_back(std::make_unique<WmmaAccess>(access));
  return all.back().get();
}

template <class Raw>
void wmma_move(Warp& w, const Instruction& in, Mask m, const WmmaAccess& a, Slot base, Slot stride_slot,
               const Slot* registers) {
  alignas(64) uint64_t start[kLanes], address[kLanes];
  form_addresses(w, in, base, in.flags[0] != 0, static_cast<int64_t>(in.target), m, start);
  const auto* stride = w.lanes<uint32_t>(stride_slot);
  constexpr int kBits = 8 * sizeof(Raw);
  for (int e = 0; e < a.fragment.per_lane; ++e) {
    for (int l = 0; l < kLanes; ++l) {
      const int i = a.fragment.index(l, e), r = i / a.fragment.columns, c = i % a.fragment.columns;
      address[l] =
          start[l] + (a.column_major ? uint64_t{stride[l]} * static_cast<uint64_t>(c) + static_cast<uint64_t>(r)
                                     : uint64_t{stride[l]} * static_cast<uint64_t>(r) + static_cast<uint64_t>(c)) *
                         sizeof(Raw);
    }
    alignas(64) Raw value[kLanes];
    const int part = e % a.fragment.per_register;
    const Slot slot = registers[e / a.fragment.per_register];
    using Register = std::conditional_t<sizeof(Raw) == 8, uint64_t, uint32_t>;
    auto* r = w.lanes<Register>(slot);
    if (a.store) {
      for (int l = 0; l < kLanes; ++l) value[l] = static_cast<Raw>(r[l] >> (part * kBits % (8 * sizeof(Register))));
    }
    Located at;
    if (!locate(w, in, m, address, in.memory.space, sizeof(Raw), sizeof(Raw),
                a.store ? Access::Kind::kStore : Access::Kind::kLoad, false,
                a.store ? reinterpret_cast<const std::byte*>(value) : nullptr, at)) {
      return;
    }
    each_lane(m, [&](int l) {
      if (a.store) {
        std::memcpy(at.pointer[l], &value[l], sizeof(Raw));
        return;
      }
      Raw v = 0;
      std::memcpy(&v, at.pointer[l], sizeof(Raw));
      const Register shifted =
          static_cast<Register>(static_cast<Register>(v) << (part * kBits % (8 * sizeof(Register))));
      r[l] = part == 0 ? shifted : r[l] | shifted;
    });
  }
}

/// slots: load: registers, base, stride; store: base, stride, registers. immediate: the WmmaAccess; target: the offset.
void wmma_access(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  const auto& a = *reinterpret_cast<const WmmaAccess*>(in.immediate);
  const int registers = a.fragment.per_lane / a.fragment.per_register;
  const Slot base = a.store ? in.slots[0] : in.slots[registers],
             stride = a.store ? in.slots[1] : in.slots[registers + 1];
  const Slot* first = a.store ? in.slots + 2 : in.slots;
  switch (a.bytes) {
    case 1:
      wmma_move<uint8_t>(w, in, m, a, base, stride, first);
      break;
    case 2:
      wmma_move<uint16_t>(w, in, m, a, base, stride, first);
      break;
    case 4:
      wmma_move<uint32_t>(w, in, m, a, base, stride, first);
      break;
    default:
      wmma_move<uint64_t>(w, in, m, a, base, stride, first);
  }
}

Wmma fragment_of(const Shape& s, char which, size_t registers, int per_register) {
  const int rows = static_cast<int>(which == 'b' ? s.k : s.m), columns = static_cast<int>(which == 'a' ? s.k : s.n);
  return {rows, columns, static_cast<int>(registers) * per_register, per_register};
}

int per_register(DataType type) {
  return type == DataType::kF64 || type == DataType::kF32 || type == DataType::kS32 || type == DataType::kTf32
             ? 1
             : static_cast<int>(32 / bits_of(type));
}

void lower_wmma_access(Lowering& l, bool store) {
  l.set_kind(store ? Kind::kStore : Kind::kLoad);
  const char which = l.has("a") ? 'a' : l.has("b") ? 'b' : l.has("c") ? 'c' : l.has("d") ? 'd' : 0;
  if (which == 0) l.unknown();
  const Shape shape = shape_of(l);
  const DataType type = l.type();
  if (bits_of(type) < 8) l.unknown();
  const auto parts = parts_of(l.operand(store ? 1 : 0));
  WmmaAccess access{fragment_of(shape, which, parts.size(), per_register(type)), element_bytes(type), l.has("col"),
                    store};
  if (access.fragment.per_lane * kLanes % (access.fragment.rows * access.fragment.columns) != 0) l.unknown();
  const uint32_t bits = type == DataType::kF64 ? 64 : 32;
  std::vector<Slot> values;
  for (const ptx::Operand* p : parts) values.push_back(store ? l.read(*p, bits) : l.write(*p, bits));
  const Space space = l.space();
  const Lowering::Address address = l.address(l.operand(store ? 0 : 1), space);
  // Without a stride the matrix is dense.
  const Slot stride =
      l.operand_count() > 2
          ? l.read(2, 32)
          : l.constant(static_cast<uint64_t>(access.column_major ? access.fragment.rows : access.fragment.columns), 32);
  std::vector<Slot> slots = values;
  slots.insert(store ? slots.begin() : slots.end(), {address.base, stride});
  Instruction& in = l.emit(wmma_access, slots);
  in.memory.space = space;
  in.immediate = reinterpret_cast<uint64_t>(keep(access));
  in.target = static_cast<uint32_t>(address.offset);
  in.flags[0] = address.base_bits == 32 ? 1 : 0;
}

struct WmmaProduct {
  Shape shape;
  Wmma a, b, c, d;
  uint8_t c_kind, d_kind;
  bool saturate;
};

const WmmaProduct* keep(const WmmaProduct& product) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<WmmaProduct>> all;
  const std::lock_guard lock(mutex);
  all.push_back(std::make_unique<WmmaProduct>(product));
  return all.back().get();
}

template <class T>
T accumulator_element(Warp& w, const Slot* slots, const Wmma& f, uint8_t kind, int lane, int e) {
  const Slot slot = slots[e / f.per_register];
  switch (kind) {
    case kF32:
      return static_cast<T>(w.lanes<float>(slot)[lane]);
    case kS32:
      return static_cast<T>(w.lanes<int32_t>(slot)[lane]);
    case kF64:
      return static_cast<T>(w.lanes<double>(slot)[lane]);
    default:
      return static_cast<T>(f16_to_f32(static_cast<uint16_t>(w.lanes<uint32_t>(slot)[lane] >> (16 * (e % 2)))));
  }
}

template <class Number, class Get>
void wmma_product(Warp& w, const Instruction& in, const WmmaProduct& p, Get get) {
  const Slot* d = in.slots;
  const Slot* a = d + p.d.per_lane / p.d.per_register;
  const Slot* b = a + p.a.per_lane / p.a.per_register;
  const Slot* c = b + p.b.per_lane / p.b.per_register;
  std::vector<Number> a_matrix(static_cast<size_t>(p.a.rows * p.a.columns)),
      b_matrix(static_cast<size_t>(p.b.rows * p.b.columns));
  std::vector<Sum<Number>> sum(static_cast<size_t>(p.c.rows * p.c.columns));
  for (int l = 0; l < kLanes; ++l) {
    for (int e = 0; e < p.a.per_lane; ++e)
      a_matrix[static_cast<size_t>(p.a.index(l, e))] = get(a[e / p.a.per_register], l, e % p.a.per_register);
    for (int e = 0; e < p.b.per_lane; ++e)
      b_matrix[static_cast<size_t>(p.b.index(l, e))] = get(b[e / p.b.per_register], l, e % p.b.per_register);
    for (int e = 0; e < p.c.per_lane; ++e)
      sum[static_cast<size_t>(p.c.index(l, e))] = accumulator_element<Sum<Number>>(w, c, p.c, p.c_kind, l, e);
  }
  const auto n = static_cast<size_t>(p.c.columns), depth = static_cast<size_t>(p.a.columns);
  for (size_t r = 0; r < static_cast<size_t>(p.c.rows); ++r) {
    for (size_t i = 0; i < depth; ++i) {
      const Number x = a_matrix[r * depth + i];
      for (size_t s = 0; s < n; ++s) sum[r * n + s] = accumulate(x, b_matrix[i * n + s], sum[r * n + s]);
    }
  }
  for (int l = 0; l < kLanes; ++l) {
    for (int e = 0; e < p.d.per_lane; ++e) {
      const Sum<Number> v = sum[static_cast<size_t>(p.d.index(l, e))];
      const Slot slot = d[e / p.d.per_register];
      if (p.d_kind == kF32) w.lanes<float>(slot)[l] = canonical(static_cast<float>(v));
      if (p.d_kind == kS32) w.lanes<int32_t>(slot)[l] = to_s32(static_cast<int64_t>(v), p.saturate);
      if (p.d_kind == kF64) w.lanes<double>(slot)[l] = static_cast<double>(v);
      if (p.d_kind == kF16) {
        uint32_t& r = w.lanes<uint32_t>(slot)[l];
        const uint32_t h = f32_to_f16(static_cast<float>(v));
        r = e % 2 == 0 ? h : (r & 0xffff) | h << 16;
      }
    }
  }
}

template <class E>
void wmma_mma(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  wmma_product<typename E::Number>(
      w, in, *reinterpret_cast<const WmmaProduct*>(in.immediate),
      [&](Slot slot, int lane, int part) { return E::get(w.lanes<uint32_t>(slot)[lane], part); });
}

void wmma_mma_f64(Warp& w, const Instruction& in, Mask m) {
  if (!w.converge_all(in, m)) return;
  wmma_product<double>(w, in, *reinterpret_cast<const WmmaProduct*>(in.immediate),
                       [&](Slot slot, int lane, int) { return w.lanes<double>(slot)[lane]; });
}

void lower_wmma_mma(Lowering& l) {
  l.set_kind(Kind::kTensor);
  if (l.has("xor") || l.has("and")) l.unknown();
  // .f32.f16: d and c, of products of f16; .f32.bf16.bf16.f32: d, a, b, c.
  const bool four = l.type_count() == 4;
  const DataType d_type = l.type(0), a_type = four ? l.type(1) : DataType::kF16, c_type = l.type(four ? 3 : 1);
  if (four && l.type(2) != a_type) l.unknown();
  const Shape shape = shape_of(l);
  WmmaProduct p;
  p.shape = shape;
  std::array<std::vector<const ptx::Operand*>, 4> parts;
  for (size_t i = 0; i < 4; ++i) parts[i] = parts_of(l.operand(i));
  p.d = fragment_of(shape, 'd', parts[0].size(), per_register(d_type));
  p.a = fragment_of(shape, 'a', parts[1].size(), per_register(a_type));
  p.b = fragment_of(shape, 'b', parts[2].size(), per_register(a_type));
  p.c = fragment_of(shape, 'c', parts[3].size(), per_register(c_type));
  p.c_kind = accumulator_of(l, c_type);
  p.d_kind = accumulator_of(l, d_type);
  p.saturate = l.has("satfinite");
  const uint32_t bits = a_type == DataType::kF64 ? 64 : 32;
  std::vector<Slot> slots;
  for (size_t i = 0; i < 4; ++i) {
    for (const ptx::Operand* op : parts[i]) slots.push_back(i == 0 ? l.write(*op, bits) : l.read(*op, bits));
  }
  Handler h = nullptr;
  switch (a_type) {
    case DataType::kF16:
      h = wmma_mma<F16Elements>;
      break;
    case DataType::kBf16:
      h = wmma_mma<Bf16Elements>;
      break;
    case DataType::kTf32:
      h = wmma_mma<Tf32Elements>;
      break;
    case DataType::kS8:
      h = wmma_mma<S8Elements>;
      break;
    case DataType::kU8:
      h = wmma_mma<U8Elements>;
      break;
    case DataType::kF64:
      h = wmma_mma_f64;
      break;
    default:
      l.unknown();
  }
  l.emit(h, slots).immediate = reinterpret_cast<uint64_t>(keep(p));
}

void lower_wmma(Lowering& l) {
  if (l.has("load")) return lower_wmma_access(l, false);
  if (l.has("store")) return lower_wmma_access(l, true);
  if (l.has("mma")) return lower_wmma_mma(l);
  l.unknown();
}

}  // namespace

void add_matrix(OpcodeTable& t) {
  t.add("ldmatrix", Kind::kMatrix, lower_ldmatrix);
  t.add("stmatrix", Kind::kMatrix, lower_stmatrix);
  t.add("movmatrix", Kind::kMatrix, lower_movmatrix);
  t.add("mma", Kind::kTensor, lower_mma);
  t.add("wmma", Kind::kTensor, lower_wmma);
}

}  // namespace ptxsim
