#include <cstring>

#include "tools/ptxsim/exec/bulk_copy.h"
#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

/// ld and st in every space.
namespace ptxsim {

namespace {

// flags: [0] the base has 32 bits.
constexpr int kBase32 = 0;

template <class E>
E load_as(const std::byte* p) {
  E value;
  std::memcpy(&value, p, sizeof(E));
  return value;
}

/// slots: destinations, base. E: in memory (signed for sign extension), R: in a register.
template <class E, class R>
void load(Warp& w, const Instruction& in, Mask m) {
  const uint32_t n = in.memory.elements;
  const uint32_t bytes = n * sizeof(E);
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[n], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  Located at;
  if (!locate(w, in, m, address, in.memory.space, bytes, bytes, Access::Kind::kLoad, in.memory.synchronising, nullptr,
              at)) {
    return;
  }
  if (in.memory.synchronising) w.spin();
  if (n == 1) {
    R* d = w.lanes<R>(in.slots[0]);
    if (sizeof(E) == sizeof(R) && at.row) {
      std::memcpy(d, at.pointer[0], kLanes * sizeof(E));
      return;
    }
    each_lane(m, [&](int l) { d[l] = static_cast<R>(load_as<E>(at.pointer[l])); });
    return;
  }
  for (uint32_t e = 0; e < n; ++e) {
    R* d = w.lanes<R>(in.slots[e]);
    if (m == kAllLanes) {
      for (int l = 0; l < kLanes; ++l) d[l] = static_cast<R>(load_as<E>(at.pointer[l] + e * sizeof(E)));
    } else {
      each_lane(m, [&](int l) { d[l] = static_cast<R>(load_as<E>(at.pointer[l] + e * sizeof(E))); });
    }
  }
}

/// slots: base, values.
template <class E, class R>
void store(Warp& w, const Instruction& in, Mask m) {
  const uint32_t n = in.memory.elements;
  const uint32_t bytes = n * sizeof(E);
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  alignas(64) std::byte value[kLanes * 32];
  for (uint32_t e = 0; e < n; ++e) {
    const R* v = w.lanes<R>(in.slots[1 + e]);
    for (uint32_t l = 0; l < kLanes; ++l) {
      const auto element = static_cast<E>(v[l]);
      std::memcpy(value + l * bytes + e * sizeof(E), &element, sizeof(E));
    }
  }
  Located at;
  if (!locate(w, in, m, address, in.memory.space, bytes, bytes, Access::Kind::kStore, in.memory.synchronising, value,
              at)) {
    return;
  }
  if (at.row) {
    std::memcpy(at.pointer[0], value, size_t{kLanes} * bytes);
    return;
  }
  each_lane(m, [&](int l) { std::memcpy(at.pointer[l], value + static_cast<uint32_t>(l) * bytes, bytes); });
}

/// Kernel parameters at a known place: the same for all lanes.
template <class E, class R>
void load_parameter(Warp& w, const Instruction& in, Mask m) {
  const std::byte* from = w.cta->grid.launch->parameters.data() + in.immediate;
  for (uint32_t e = 0; e < in.memory.elements; ++e) {
    const auto value = static_cast<R>(load_as<E>(from + e * sizeof(E)));
    for_lanes(w.lanes<R>(in.slots[e]), m, [&](int) { return value; });
  }
}

/// A call's or device function's parameter: bytes in the frame. slots: destinations; target: its offset in the frame;
/// immediate: the offset within; flags[1]: bytes per lane / 16.
template <class E, class R>
void load_frame(Warp& w, const Instruction& in, Mask m) {
  const uint32_t stride = in.flags[1] * 16U + in.flags[2] * 4096U;
  const std::byte* from = w.base[Slot::kFrame] + in.target + in.immediate;
  for (uint32_t e = 0; e < in.memory.elements; ++e) {
    R* d = w.lanes<R>(in.slots[e]);
    each_lane(
        m, [&](int l) { d[l] = static_cast<R>(load_as<E>(from + static_cast<uint32_t>(l) * stride + e * sizeof(E))); });
  }
}

template <class E, class R>
void store_frame(Warp& w, const Instruction& in, Mask m) {
  const uint32_t stride = in.flags[1] * 16U + in.flags[2] * 4096U;
  std::byte* to = w.base[Slot::kFrame] + in.target + in.immediate;
  for (uint32_t e = 0; e < in.memory.elements; ++e) {
    const R* v = w.lanes<R>(in.slots[e]);
    each_lane(m, [&](int l) {
      const auto element = static_cast<E>(v[l]);
      std::memcpy(to + static_cast<uint32_t>(l) * stride + e * sizeof(E), &element, sizeof(E));
    });
  }
}

enum class Form { kLoad, kStore, kLoadParameter, kLoadFrame, kStoreFrame };

template <class E, class R>
Handler handler_of(Form form) {
  switch (form) {
    case Form::kLoad:
      return load<E, R>;
    case Form::kStore:
      return store<E, R>;
    case Form::kLoadParameter:
      return load_parameter<E, R>;
    case Form::kLoadFrame:
      return load_frame<E, R>;
    case Form::kStoreFrame:
      return store_frame<E, R>;
  }
  return nullptr;
}

template <class E>
Handler handler_of(Form form, uint32_t register_bits) {
  switch (register_bits) {
    case 16:
      return handler_of<E, uint16_t>(form);
    case 32:
      return handler_of<E, uint32_t>(form);
    default:
      return handler_of<E, uint64_t>(form);
  }
}

Handler handler_of(Form form, DataType type, uint32_t register_bits) {
  const bool negative = is_signed(type);
  switch (bits_of(type)) {
    case 8:
      return negative ? handler_of<int8_t>(form, register_bits) : handler_of<uint8_t>(form, register_bits);
    case 16:
      return negative ? handler_of<int16_t>(form, register_bits) : handler_of<uint16_t>(form, register_bits);
    case 32:
      return negative ? handler_of<int32_t>(form, register_bits) : handler_of<uint32_t>(form, register_bits);
    default:
      return handler_of<uint64_t>(form, register_bits);
  }
}

/// 128-bit elements: slots and memory as two halves.
void load_b128(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[1], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  Located at;
  if (!locate(w, in, m, address, in.memory.space, 16, 16, Access::Kind::kLoad, in.memory.synchronising, nullptr, at))
    return;
  auto* d = w.lanes<uint64_t>(in.slots[0]);
  each_lane(m, [&](int l) {
    d[l] = load_as<uint64_t>(at.pointer[l]);
    d[l + kLanes] = load_as<uint64_t>(at.pointer[l] + 8);
  });
}

void store_b128(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  const auto* v = w.lanes<uint64_t>(in.slots[1]);
  alignas(64) uint64_t value[2 * kLanes];
  for (int l = 0; l < kLanes; ++l) {
    value[2 * l] = v[l];
    value[2 * l + 1] = v[l + kLanes];
  }
  Located at;
  if (!locate(w, in, m, address, in.memory.space, 16, 16, Access::Kind::kStore, in.memory.synchronising,
              reinterpret_cast<const std::byte*>(value), at)) {
    return;
  }
  each_lane(m, [&](int l) { std::memcpy(at.pointer[l], value + 2 * l, 16); });
}

bool synchronising(const Lowering& l) {
  for (const char* m : {"volatile", "relaxed", "acquire", "release", "mmio"}) {
    if (l.has(m)) return true;
  }
  return false;
}

/// The value registers of an operand: a vector's parts or the operand itself.
std::vector<const ptx::Operand*> elements_of(const ptx::Operand& operand) {
  std::vector<const ptx::Operand*> parts;
  if (operand.kind == ptx::Operand::Kind::kVector) {
    for (const ptx::Operand& p : operand.parts) parts.push_back(&p);
  } else {
    parts.push_back(&operand);
  }
  return parts;
}

void lower_access(Lowering& l, bool is_load) {
  const DataType type = l.type();
  const uint32_t bits = bits_of(type);
  const ptx::Operand& place = l.operand(is_load ? 1 : 0);
  const std::vector<const ptx::Operand*> parts = elements_of(l.operand(is_load ? 0 : 1));
  Space space = l.space();

  // All parts have registers of one width; immediates and `_` take the type's.
  uint32_t register_bits = 0;
  for (const ptx::Operand* p : parts) register_bits = std::max(register_bits, l.register_bits(*p));
  if (register_bits == 0 || register_bits == 8) register_bits = std::max<uint32_t>(bits, 16);
  if (register_bits < bits) l.fail("registers of {} bits for elements of {}", register_bits, bits);
  std::vector<Slot> values;
  for (const ptx::Operand* p : parts) {
    values.push_back(is_load ? l.write(*p, register_bits) : l.read(*p, register_bits));
  }
  MemoryTraits traits;
  traits.bytes = static_cast<uint8_t>(bits / 8);
  traits.elements = static_cast<uint8_t>(values.size());
  traits.synchronising = synchronising(l);

  if (place.of_symbol || place.kind == ptx::Operand::Kind::kSymbol) {
    if (const auto p = l.frame_parameter(place.name)) {
      if (bits == 128) l.unknown();
      Instruction& in = l.emit(handler_of(is_load ? Form::kLoadFrame : Form::kStoreFrame, type, register_bits), values);
      in.memory = traits;
      in.memory.space = Space::kParam;
      in.target = p->offset;
      in.immediate = static_cast<uint64_t>(place.offset);
      in.flags[1] = static_cast<uint8_t>(p->bytes / 16 % 256);
      in.flags[2] = static_cast<uint8_t>(p->bytes / 4096);
      if (place.offset < 0 || static_cast<uint64_t>(place.offset) + traits.total() > p->bytes)
        l.fail("outside of {}", place.name);
      l.set_kind(Kind::kMove);
      return;
    }
  }
  const Lowering::Address address = l.address(place, space);
  if (space == Space::kParam && is_load && address.base_bits == 0) {
    if (bits == 128) l.unknown();
    if (address.offset < 0 || static_cast<uint64_t>(address.offset) + traits.total() > l.parameter_bytes()) {
      l.fail("kernel parameter at {}: there are {} bytes", address.offset, l.parameter_bytes());
    }
    Instruction& in = l.emit(handler_of(Form::kLoadParameter, type, register_bits), values);
    in.memory = traits;
    in.memory.space = Space::kParam;
    in.immediate = static_cast<uint64_t>(address.offset);
    return;
  }
  const Handler handler = bits == 128 ? (is_load ? load_b128 : store_b128)
                                      : handler_of(is_load ? Form::kLoad : Form::kStore, type, register_bits);
  if (bits == 128 && values.size() != 1) l.unknown();
  std::vector<Slot> slots;
  if (is_load) {
    slots = values;
    slots.push_back(address.base);
  } else {
    slots.push_back(address.base);
    slots.insert(slots.end(), values.begin(), values.end());
  }
  Instruction& in = l.emit(handler, slots);
  in.memory = traits;
  in.memory.space = space;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.flags[kBase32] = address.base_bits == 32 ? 1 : 0;
}

void lower_ld(Lowering& l) { lower_access(l, true); }
void lower_st(Lowering& l) {
  if (l.has("async")) return lower_store_async(l);
  if (l.has("bulk")) l.fail("st.bulk needs a newer device than sm_90");
  lower_access(l, false);
}

void hint(Warp&, const Instruction&, Mask) {}
void lower_hint(Lowering& l) { l.emit(hint, {}); }

}  // namespace

void add_memory(OpcodeTable& t) {
  t.add("ld", Kind::kLoad, lower_ld);
  t.add("ldu", Kind::kLoad, lower_ld);
  t.add("st", Kind::kStore, lower_st);
  // Hints to caches change no result.
  t.add("prefetch", Kind::kOther, lower_hint);
  t.add("prefetchu", Kind::kOther, lower_hint);
  t.add("discard", Kind::kOther, lower_hint);
  t.add("applypriority", Kind::kOther, lower_hint);
}

}  // namespace ptxsim
