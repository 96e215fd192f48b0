#include "tools/ptxsim/exec/mbarrier.h"

#include <algorithm>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

namespace ptxsim {

std::string describe_mbarrier(uint64_t address, const std::byte* object) {
  const Mbarrier b = Mbarrier::load(object);
  return fmt::format(
      "waits for the mbarrier at {:#x} of shared memory, whose phase {} lacks {} of {} arrivals and {} bytes",
      address & ~kWindowMask, b.phase ? 1 : 0, b.pending, b.expected, b.bytes);
}

SharedPlace shared_place(const Warp& w, uint64_t address) {
  address &= ~kWindowMask;
  const uint64_t upper = address >> kClusterRankShift;
  return {upper == 0 ? w.cta : w.cta->cluster->blocks[upper - 1].get(),
          static_cast<uint32_t>(address & ((uint64_t{1} << kClusterRankShift) - 1))};
}

void tell_release(Warp& w, int lane, uint64_t address) {
  w.each_observer([&](Observer& o) { o.release(w, Mask{1} << lane, Space::kShared, address & ~kWindowMask); });
}

void tell_acquire(Warp& w, int lane, uint64_t address) {
  w.each_observer([&](Observer& o) { o.acquire(w, Mask{1} << lane, Space::kShared, address & ~kWindowMask); });
}

namespace {

enum class Operation : uint8_t { kInit, kInvalidate, kArrive, kArriveDrop, kExpect, kComplete, kTest };

// flags.
constexpr int kBase32 = 0;  // the base has 32 bits
constexpr int kOperation = 1;
constexpr int kReturnsState = 2;
constexpr int kByParity = 3;
constexpr int kExpects = 4;  // an arrival that first expects bytes

/// One lane's operation; an empty text, or why it cannot be.
std::string operate(Operation operation, Mbarrier& b, uint32_t count, uint32_t bytes) {
  switch (operation) {
    case Operation::kInit:
      if (count == 0 || count > Mbarrier::kMostArrivals) {
        return fmt::format("an mbarrier for {} arrivals, expected 1 to {}", count, Mbarrier::kMostArrivals);
      }
      b = {count, count, 0, false};
      break;
    case Operation::kInvalidate:
      b = {};
      break;
    case Operation::kArrive:
    case Operation::kArriveDrop:
      b.bytes += static_cast<int32_t>(bytes);
      if (count > b.pending) {
        return fmt::format("{} more arrivals at an mbarrier whose phase lacks {} of {}, and {} bytes", count, b.pending,
                           b.expected, b.bytes);
      }
      b.pending -= count;
      if (operation == Operation::kArriveDrop) b.expected -= std::min(count, b.expected);
      b.complete_if_done();
      break;
    case Operation::kExpect:
      b.bytes += static_cast<int32_t>(bytes);
      break;
    case Operation::kComplete:
      b.bytes -= static_cast<int32_t>(bytes);
      b.complete_if_done();
      break;
    case Operation::kTest:
      break;
  }
  if (b.bytes > Mbarrier::kMostBytes || b.bytes < -Mbarrier::kMostBytes) {
    return fmt::format("an mbarrier that waits for {} bytes, more than the {} it can count", b.bytes,
                       Mbarrier::kMostBytes);
  }
  return {};
}

/// slots: state (64), base, arrivals (32), bytes (32).
void change(Warp& w, const Instruction& in, Mask m) {
  const auto operation = static_cast<Operation>(in.flags[kOperation]);
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[1], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  const auto* count = w.lanes<uint32_t>(in.slots[2]);
  const auto* bytes = w.lanes<uint32_t>(in.slots[3]);
  const bool sets = operation == Operation::kInit || operation == Operation::kInvalidate;
  const bool arrives = operation == Operation::kArrive || operation == Operation::kArriveDrop;
  alignas(64) uint64_t value[kLanes] = {};
  if (operation == Operation::kInit) {
    for (int l = 0; l < kLanes; ++l) value[l] = Mbarrier{count[l], count[l], 0, false}.pack();
  }
  Located at;
  if (!locate(w, in, m, address, in.memory.space, 8, 8, sets ? Access::Kind::kStore : Access::Kind::kAtomic, !sets,
              sets ? reinterpret_cast<const std::byte*>(value) : nullptr, at)) {
    return;
  }
  for (Mask left = m; left != 0; left &= left - 1) {
    const int l = std::countr_zero(left);
    if (arrives) tell_release(w, l, address[l]);
    Mbarrier b = Mbarrier::load(at.pointer[l]);
    const uint64_t before = b.pack();
    const std::string wrong = operate(operation, b, count[l], bytes[l]);
    if (!wrong.empty()) {
      w.fault(Status::kIllegalInstruction, in, l, wrong);
      return;
    }
    b.store(at.pointer[l]);
    if (b.pack() != before) w.changed_memory = true;
    if (in.flags[kReturnsState] != 0) w.lanes<uint64_t>(in.slots[0])[l] = before;
  }
}

/// slots: predicate, base, state (64) or parity (32): whether the phase is over, for the barrier is in another. Who
/// finds that it is not lets others run.
void test(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[1], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  Located at;
  if (!locate(w, in, m, address, in.memory.space, 8, 8, Access::Kind::kLoad, true, nullptr, at)) return;
  Mask done = 0;
  for (Mask left = m; left != 0; left &= left - 1) {
    const int l = std::countr_zero(left);
    const SharedPlace place = shared_place(w, address[l]);
    if (place.block == w.cta && !land_bulk_copies(w, l, place.offset)) return;
    const bool asked = in.flags[kByParity] != 0 ? (w.lanes<uint32_t>(in.slots[2])[l] & 1) != 0
                                                : Mbarrier::unpack(w.lanes<uint64_t>(in.slots[2])[l]).phase;
    if (Mbarrier::load(at.pointer[l]).phase == asked) continue;
    tell_acquire(w, l, address[l]);
    done |= Mask{1} << l;
  }
  set_predicate(w.predicate(in.slots[0]), m, done);
  if (done != m) {
    const int l = std::countr_zero(m & ~done);
    w.await({&in, l, address[l], at.pointer[l]});
  }
}

void pending_count(Warp& w, const Instruction& in, Mask m) {
  const auto* state = w.lanes<uint64_t>(in.slots[1]);
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [&](int l) { return static_cast<uint32_t>(state[l] & 0xfffff); });
}

/// cp.async.mbarrier.arrive.noinc, when the lane's copies have landed.
void arrive_after_copies(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), address);
  Located at;
  if (!locate(w, in, m, address, in.memory.space, 8, 8, Access::Kind::kAtomic, true, nullptr, at)) return;
  for (Mask left = m; left != 0; left &= left - 1) {
    const int l = std::countr_zero(left);
    tell_release(w, l, address[l]);
    // Without .noinc one more arrival is expected first, which this one then is: nothing changes.
    if (in.flags[kExpects] != 0) continue;
    Mbarrier b = Mbarrier::load(at.pointer[l]);
    const std::string wrong = operate(Operation::kArrive, b, 1, 0);
    if (!wrong.empty()) {
      w.fault(Status::kIllegalInstruction, in, l, wrong);
      return;
    }
    b.store(at.pointer[l]);
    w.changed_memory = true;
  }
}

Instruction& emit(Lowering& l, Handler handler, const std::vector<Slot>& slots, const Lowering::Address& address,
                  Space space) {
  Instruction& in = l.emit(handler, slots);
  in.memory.space = space;
  in.memory.bytes = 8;
  in.memory.synchronising = true;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.flags[kBase32] = address.base_bits == 32 ? 1 : 0;
  return in;
}

void lower_test(Lowering& l) {
  allow_modifiers(l,
                  {"test_wait", "try_wait", "parity", "acquire", "relaxed", "cta", "cluster", "shared", "shared::cta"});
  const bool parity = l.has("parity");
  // try_wait may say how long it would wait at most.
  if (l.operand_count() != 3 && !(l.operand_count() == 4 && l.has("try_wait"))) l.unknown();
  const Slot done = l.write_predicate(l.operand(0));
  const Lowering::Address address = l.address(l.operand(1), l.space());
  const Slot phase = l.read(2, parity ? 32 : 64);
  if (l.operand_count() == 4) static_cast<void>(l.read(3, 32));
  Instruction& in = emit(l, test, {done, address.base, phase}, address, l.space());
  in.flags[kByParity] = parity ? 1 : 0;
}

}  // namespace

void lower_mbarrier(Lowering& l) {
  if (l.has("pending_count")) {
    allow_modifiers(l, {"pending_count"});
    expect_shape(l, 1, 2);
    l.emit(pending_count, {l.write(0, 32), l.read(1, 64)});
    return;
  }
  if (l.type_count() != 1 || l.type() != DataType::kB64) l.unknown();
  if (l.has("test_wait") || l.has("try_wait")) return lower_test(l);
  const std::string& name = l.text().modifiers.front();
  struct Row {
    std::string_view name;
    Operation operation;
    bool takes_count, takes_bytes;
  };
  static constexpr Row kRows[] = {
      {"init", Operation::kInit, true, false},        {"inval", Operation::kInvalidate, false, false},
      {"arrive", Operation::kArrive, true, false},    {"arrive_drop", Operation::kArriveDrop, true, false},
      {"expect_tx", Operation::kExpect, false, true}, {"complete_tx", Operation::kComplete, false, true}};
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.name == name; });
  if (row == std::end(kRows)) l.unknown();
  const Operation operation = row->operation;
  const bool arrives = operation == Operation::kArrive || operation == Operation::kArriveDrop;
  const bool expects = arrives && l.has("expect_tx");
  if (arrives) {
    allow_modifiers(l, {name, "expect_tx", "noComplete", "release", "relaxed", "cta", "cluster", "shared",
                        "shared::cta", "shared::cluster"});
    if (expects && l.has("noComplete")) l.unknown();
  } else if (operation == Operation::kExpect || operation == Operation::kComplete) {
    allow_modifiers(l, {name, "relaxed", "cta", "cluster", "shared", "shared::cta", "shared::cluster"});
  } else {
    allow_modifiers(l, {name, "shared", "shared::cta"});
  }
  const Space space = l.space();
  // An arrival at another block's barrier returns no state, or `_`.
  size_t next = 0;
  bool returns = false;
  Slot state = l.constant(0, 64), count = l.constant(1, 32), bytes = l.constant(0, 32);
  if (arrives && l.operand(0).kind != ptx::Operand::Kind::kAddress) {
    returns = l.operand(0).kind != ptx::Operand::Kind::kSink;
    if (returns && space == Space::kSharedCluster) l.unknown();
    if (returns) state = l.write(0, 64);
    next = 1;
  }
  const Lowering::Address address = l.address(l.operand(next++), space);
  if (next < l.operand_count()) {
    if (row->takes_bytes || expects) {
      bytes = l.read(next++, 32);
    } else if (row->takes_count) {
      count = l.read(next++, 32);
    }
  } else if (expects || l.has("noComplete") || (!arrives && operation != Operation::kInvalidate)) {
    l.unknown();
  }
  if (next != l.operand_count()) l.unknown();
  Instruction& in = emit(l, change, {state, address.base, count, bytes}, address, space);
  in.flags[kOperation] = static_cast<uint8_t>(operation);
  in.flags[kReturnsState] = returns ? 1 : 0;
}

void lower_copy_arrival(Lowering& l) {
  allow_modifiers(l, {"async", "mbarrier", "arrive", "noinc", "shared", "shared::cta"});
  if (!l.has("arrive") || l.type_count() != 1 || l.type() != DataType::kB64 || l.operand_count() != 1) l.unknown();
  const Lowering::Address address = l.address(l.operand(0), l.space());
  emit(l, arrive_after_copies, {address.base}, address, l.space()).flags[kExpects] = l.has("noinc") ? 0 : 1;
}

}  // namespace ptxsim
