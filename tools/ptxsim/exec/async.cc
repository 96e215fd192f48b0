#include <cstring>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

/// Copies that go on while the warp does, and the barriers in shared memory that tell of their end.
namespace ptxsim {

namespace {

// --- cp.async
// ------------------------------------------------------------------------------------------------------------- Data
// are read when the copy is issued, and land when its group is waited for: who reads too early finds the old ones.

constexpr uint32_t kOpen = ~uint32_t{0};  // not yet in a group

/// slots: destination, source, source bytes (32). flags: [0] destination has 32 bits, [1] bytes, [2] has source bytes,
/// [3] ignore-src predicate in slot 3. immediate: the destination's offset; target: the source's.
void copy(Warp& w, const Instruction& in, Mask m) {
  const uint32_t bytes = in.flags[1];
  alignas(64) uint64_t to[kLanes], from[kLanes];
  form_addresses(w, in, in.slots[0], in.flags[0] != 0, static_cast<int64_t>(in.immediate), m, to);
  form_addresses(w, in, in.slots[1], false, static_cast<int32_t>(in.target), m, from);
  if (in.flags[0] == 0) {  // generic addresses of shared memory
    for (uint64_t& a : to) a &= ~kWindowMask;
  }
  auto pending = std::make_unique<PendingCopy>();
  pending->mask = m;
  pending->bytes = bytes;
  pending->instruction = &in;
  std::memset(pending->data, 0, sizeof pending->data);
  const auto* given = w.lanes<uint32_t>(in.slots[2]);
  const Mask ignored = in.flags[3] != 0 ? w.predicate(in.slots[3]) : 0;
  Located at;
  // What the copy writes must be there, though it writes later.
  if (!locate(w, in, m, to, Space::kShared, bytes, bytes, Access::Kind::kAsyncIssue, false, nullptr, at)) return;
  // Lanes that read all, and those that read a part, are accesses of their own.
  Mask left = m;
  while (left != 0) {
    const auto size_of = [&](int l) {
      return (ignored >> l & 1) != 0 ? 0U : in.flags[2] != 0 ? std::min(given[l], bytes) : bytes;
    };
    const uint32_t size = size_of(std::countr_zero(left));
    Mask same = 0;
    each_lane(left, [&](int l) { same |= Mask{size_of(l) == size} << l; });
    left &= ~same;
    if (size == 0) continue;
    if (!locate(w, in, same, from, Space::kGlobal, size, size == bytes ? bytes : 1, Access::Kind::kAsyncRead, false,
                nullptr, at))
      return;
    each_lane(same, [&](int l) { std::memcpy(pending->data[l], at.pointer[l], size); });
  }
  for (int l = 0; l < kLanes; ++l) {
    pending->destination[l] = static_cast<uint32_t>(to[l]);
    pending->group[l] = kOpen;
  }
  w.pending_copies.push_back(std::move(pending));
}

/// Lands those copies of the lanes whose group is older than `keep` groups; all of them when keep is -1 (open ones
/// too).
void land(Warp& w, Mask m, int keep) {
  for (const auto& pending : w.pending_copies) {
    Mask due = 0;
    each_lane(pending->mask & m, [&](int l) {
      const uint32_t group = pending->group[l];
      const bool is_due = keep < 0 || (group != kOpen && group + static_cast<uint32_t>(keep) < w.commits[l]);
      due |= Mask{is_due} << l;
    });
    if (due == 0) continue;
    alignas(64) uint64_t address[kLanes];
    alignas(64) std::byte value[kLanes * 16];
    for (int l = 0; l < kLanes; ++l) {
      address[l] = pending->destination[l];
      std::memcpy(value + static_cast<uint32_t>(l) * pending->bytes, pending->data[l], pending->bytes);
    }
    Located at;
    if (!locate(w, *pending->instruction, due, address, Space::kShared, pending->bytes, pending->bytes,
                Access::Kind::kAsyncLand, false, value, at)) {
      return;
    }
    each_lane(due, [&](int l) { std::memcpy(at.pointer[l], pending->data[l], pending->bytes); });
    pending->mask &= ~due;
  }
  std::erase_if(w.pending_copies, [](const auto& p) { return p->mask == 0; });
}

void commit(Warp& w, const Instruction&, Mask m) {
  for (const auto& pending : w.pending_copies) {
    each_lane(pending->mask & m, [&](int l) {
      if (pending->group[l] == kOpen) pending->group[l] = w.commits[l];
    });
  }
  each_lane(m, [&](int l) { ++w.commits[l]; });
}

void wait(Warp& w, const Instruction& in, Mask m) { land(w, m, static_cast<int>(in.immediate)); }
void wait_all(Warp& w, const Instruction&, Mask m) { land(w, m, -1); }

void nothing(Warp&, const Instruction&, Mask) {}

// --- mbarrier
// --------------------------------------------------------------------------------------------------------------- The
// object's 8 bytes: arrivals still pending (20 bits), arrivals of a phase (20), bytes still to come (23, signed), phase
// (1).

struct Barrier {
  uint32_t pending = 0, expected = 0;
  int32_t bytes = 0;
  bool phase = false;

  static Barrier load(const std::byte* p) {
    uint64_t v = 0;
    std::memcpy(&v, p, 8);
    Barrier b;
    b.pending = v & 0xfffff;
    b.expected = v >> 20 & 0xfffff;
    b.bytes = static_cast<int32_t>(static_cast<uint32_t>(v >> 40 & 0x7fffff) << 9) >> 9;
    b.phase = (v >> 63) != 0;
    return b;
  }
  void store(std::byte* p) const {
    const uint64_t v = uint64_t{pending} | uint64_t{expected} << 20 |
                       uint64_t{static_cast<uint32_t>(bytes) & 0x7fffff} << 40 | uint64_t{phase} << 63;
    std::memcpy(p, &v, 8);
  }
  void complete() {
    if (pending != 0 || bytes != 0) return;
    phase = !phase;
    pending = expected;
  }
};

constexpr uint32_t kMostArrivals = (1 << 20) - 1;

enum Operation : uint8_t { kInit, kInvalidate, kArrive, kArriveDrop, kExpect, kArriveExpect, kComplete, kTest };

/// slots: destination (state 64 or a predicate), address, count (32), state or parity. flags: [0] address has 32 bits,
/// [1] Operation, [2] has a destination, [3] by parity, [4] may wait (try_wait), [5] no completion.
void mbarrier(Warp& w, const Instruction& in, Mask m) {
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in, in.slots[1], in.flags[0] != 0, static_cast<int64_t>(in.immediate), m, address);
  Located at;
  const auto operation = static_cast<Operation>(in.flags[1]);
  const auto kind = operation == kInit ? Access::Kind::kStore : Access::Kind::kAtomic;
  alignas(64) std::byte initial[kLanes * 8] = {};
  if (!locate(w, in, m, address, in.memory.space, 8, 8, kind, true, kind == Access::Kind::kStore ? initial : nullptr,
              at))
    return;
  const auto* count = w.lanes<uint32_t>(in.slots[2]);
  const auto tell = [&](int l, bool release) {
    for (Observer* o : {w.observer, w.observer2}) {
      if (o == nullptr) continue;
      const uint64_t object = address[l] & ~kWindowMask;
      if (release) {
        o->release(w, Mask{1} << l, Space::kShared, object);
      } else {
        o->acquire(w, Mask{1} << l, Space::kShared, object);
      }
    }
  };
  Mask result = 0;
  bool failed = false;
  each_lane(m, [&](int l) {
    if (failed) return;
    Barrier b = Barrier::load(at.pointer[l]);
    const bool before = b.phase;
    switch (operation) {
      case kInit:
        if (count[l] == 0 || count[l] > kMostArrivals) {
          w.fault(Status::kIllegalInstruction, in, l,
                  fmt::format("mbarrier.init with {} arrivals, expected 1 to {}", count[l], kMostArrivals));
          failed = true;
          return;
        }
        b = {count[l], count[l], 0, false};
        break;
      case kInvalidate:
        b = {};
        break;
      case kExpect:
      case kArriveExpect:
        b.bytes += static_cast<int32_t>(count[l]);
        if (operation == kExpect) break;
        [[fallthrough]];
      case kArrive:
      case kArriveDrop: {
        const uint32_t arrivals = operation == kArriveExpect ? 1 : count[l];
        tell(l, true);
        if (arrivals > b.pending) {
          w.fault(Status::kIllegalInstruction, in, l,
                  fmt::format("mbarrier: {} arrivals where {} are pending", arrivals, b.pending));
          failed = true;
          return;
        }
        b.pending -= arrivals;
        if (operation == kArriveDrop) b.expected -= arrivals;
        b.complete();
        break;
      }
      case kComplete:
        b.bytes -= static_cast<int32_t>(count[l]);
        b.complete();
        break;
      case kTest: {
        // The phase asked for is over when the barrier is in another.
        const bool asked = in.flags[3] != 0 ? (w.lanes<uint32_t>(in.slots[3])[l] & 1) != 0
                                            : (w.lanes<uint64_t>(in.slots[3])[l] >> 63) != 0;
        const bool done = b.phase != asked;
        if (done) tell(l, false);
        result |= Mask{done} << l;
        return;
      }
    }
    b.store(at.pointer[l]);
    if (in.flags[2] != 0 && operation != kTest) {
      // The state: the phase in which the arrival was counted.
      uint64_t state = 0;
      Barrier counted = b;
      counted.phase = before;
      std::byte bytes[8];
      counted.store(bytes);
      std::memcpy(&state, bytes, 8);
      w.lanes<uint64_t>(in.slots[0])[l] = state;
    }
  });
  if (failed) return;
  if (operation == kTest) {
    Mask& p = w.predicate(in.slots[0]);
    p = (p & ~m) | (result & m);
    if (result != m) {
      w.yield();  // until others arrive
    }
  }
}

void pending_count(Warp& w, const Instruction& in, Mask m) {
  const auto* state = w.lanes<uint64_t>(in.slots[1]);
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [&](int l) { return static_cast<uint32_t>(state[l] & 0xfffff); });
}

void lower_mbarrier(Lowering& l) {
  if (l.has("pending_count")) {
    l.emit(pending_count, {l.write(0, 32), l.read(1, 64)});
    return;
  }
  Space space = l.space();
  Operation operation = kInit;
  size_t next = 0;  // operand
  bool has_destination = false;
  const bool test = l.has("test_wait") || l.has("try_wait");
  if (l.has("init"))
    operation = kInit;
  else if (l.has("inval"))
    operation = kInvalidate;
  else if (l.has("arrive_drop"))
    operation = kArriveDrop;
  else if (l.has("arrive"))
    operation = l.has("expect_tx") ? kArriveExpect : kArrive;
  else if (l.has("expect_tx"))
    operation = kExpect;
  else if (l.has("complete_tx"))
    operation = kComplete;
  else if (test)
    operation = kTest;
  else
    l.unknown();
  if (operation == kArriveDrop && l.has("expect_tx")) l.unknown();
  Slot destination = l.constant(0, 64);
  if (operation == kArrive || operation == kArriveDrop || operation == kArriveExpect) {
    // The state is left out for other blocks' barriers.
    if (l.operand(0).kind != ptx::Operand::Kind::kAddress) {
      has_destination = l.operand(0).kind != ptx::Operand::Kind::kSink;
      if (has_destination) destination = l.write(0, 64);
      next = 1;
    }
  } else if (test) {
    destination = l.write_predicate(l.operand(0));
    has_destination = true;
    next = 1;
  }
  const Lowering::Address address = l.address(l.operand(next++), space);
  Slot count = l.constant(operation == kArrive || operation == kArriveDrop ? 1 : 0, 32);
  Slot state = l.constant(0, 64);
  if (test) {
    state = l.has("parity") ? l.read(next++, 32) : l.read(next++, 64);
  } else if (next < l.operand_count()) {
    count = l.read(next++, 32);
  }
  Instruction& in = l.emit(mbarrier, {destination, address.base, count, state});
  in.memory.space = space;
  in.immediate = static_cast<uint64_t>(address.offset);
  in.flags[0] = address.base_bits == 32 ? 1 : 0;
  in.flags[1] = operation;
  in.flags[2] = has_destination ? 1 : 0;
  in.flags[3] = l.has("parity") ? 1 : 0;
}

/// cp.async.mbarrier.arrive: the lane's copies so far land, then it arrives. `noinc` counts among the expected
/// arrivals; without it the barrier expects one more first, which this arrival then is.
void arrive_after_copies(Warp& w, const Instruction& in, Mask m) {
  land(w, m, -1);
  alignas(64) uint64_t address[kLanes];
  form_addresses(w, in, in.slots[0], in.flags[0] != 0, static_cast<int64_t>(in.immediate), m, address);
  Located at;
  if (!locate(w, in, m, address, in.memory.space, 8, 8, Access::Kind::kAtomic, true, nullptr, at)) return;
  each_lane(m, [&](int l) {
    for (Observer* o : {w.observer, w.observer2}) {
      if (o != nullptr) o->release(w, Mask{1} << l, Space::kShared, address[l] & ~kWindowMask);
    }
    if (in.flags[1] == 0) return;  // one more expected and one arrived: nothing changes
    Barrier b = Barrier::load(at.pointer[l]);
    if (b.pending > 0) --b.pending;
    b.complete();
    b.store(at.pointer[l]);
  });
}

void lower_cp(Lowering& l) {
  if (l.text().modifiers.empty() || l.text().modifiers[0] != "async") l.unknown();
  if (l.has("bulk")) l.fail("bulk copies are not supported yet");
  if (l.has("commit_group")) {
    l.emit(commit, {});
    return;
  }
  if (l.has("wait_group")) {
    l.emit(wait, {}).immediate = l.literal(0);
    return;
  }
  if (l.has("wait_all")) {
    l.emit(wait_all, {});
    return;
  }
  if (l.has("mbarrier")) {
    const Lowering::Address address = l.address(l.operand(0), l.space());
    Instruction& in = l.emit(arrive_after_copies, {address.base});
    in.memory.space = l.space();
    in.immediate = static_cast<uint64_t>(address.offset);
    in.flags[0] = address.base_bits == 32 ? 1 : 0;
    in.flags[1] = l.has("noinc") ? 1 : 0;
    return;
  }
  if (!l.has("ca") && !l.has("cg")) l.unknown();
  const Lowering::Address to = l.address(l.operand(0), Space::kShared);
  const Lowering::Address from = l.address(l.operand(1), Space::kGlobal);
  const uint64_t bytes = l.literal(2);
  if (bytes != 4 && bytes != 8 && bytes != 16) l.fail("cp.async of {} bytes, expected 4, 8 or 16", bytes);
  bool has_size = false, has_ignore = false, negated = false;
  Slot size = l.constant(bytes, 32), ignore = l.constant(0, 32);
  size_t next = 3;
  if (next < l.operand_count() && l.register_bits(l.operand(next)) == 1) {
    ignore = l.read_predicate(l.operand(next++), negated);
    has_ignore = true;
  } else if (next < l.operand_count() && !(l.has("L2::cache_hint") && next + 1 == l.operand_count())) {
    size = l.read(next++, 32);
    has_size = true;
  }
  if (negated) l.unknown();
  Instruction& in = l.emit(copy, {to.base, from.base, size, ignore});
  in.immediate = static_cast<uint64_t>(to.offset);
  in.target = static_cast<uint32_t>(from.offset);
  in.flags[0] = to.base_bits == 64 ? 0 : 1;
  if (to.base_bits == 0) in.flags[0] = 0;
  in.flags[1] = static_cast<uint8_t>(bytes);
  in.flags[2] = has_size ? 1 : 0;
  in.flags[3] = has_ignore ? 1 : 0;
}

void lower_nothing(Lowering& l) { l.emit(nothing, {}); }

void policy(Warp& w, const Instruction& in, Mask m) {
  for_lanes(w.lanes<uint64_t>(in.slots[0]), m, [&](int) { return uint64_t{0}; });
}
void lower_policy(Lowering& l) { l.emit(policy, {l.write(0, 64)}); }

}  // namespace

void add_async(OpcodeTable& t) {
  t.add("cp", Kind::kAsyncCopy, lower_cp);
  t.add("mbarrier", Kind::kBarrier, lower_mbarrier);
  // Grids run one after the other, so that what they wait for has happened; register counts and cache policies change
  // no result.
  t.add("griddepcontrol", Kind::kOther, lower_nothing);
  t.add("setmaxnreg", Kind::kOther, lower_nothing);
  t.add("createpolicy", Kind::kOther, lower_policy);
}

}  // namespace ptxsim
