#include <algorithm>
#include <cstring>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/device_runtime.h"
#include "tools/ptxsim/program/lowering.h"

/// Branches, calls, exits and the barriers of a block.
namespace ptxsim {

namespace {

void branch(Warp& w, const Instruction& in, Mask m) { w.branch(m, in.target); }

void jump(Warp& w, const Instruction& in, Mask) { w.pc = in.target; }

/// slots: index (32). immediate: the table.
void branch_indexed(Warp& w, const Instruction& in, Mask m) {
  const auto& table = w.program().jump_tables[in.immediate];
  const auto* index = w.lanes<uint32_t>(in.slots[0]);
  while (m != 0) {
    const uint32_t i = index[std::countr_zero(m)];
    if (i >= table.size()) {
      w.fault(Status::kIllegalInstruction, in, std::countr_zero(m),
              fmt::format("brx.idx with index {} of {}", i, table.size()));
      return;
    }
    Mask same = 0;
    each_lane(m, [&](int l) { same |= Mask{index[l] == i} << l; });
    m &= ~same;
    w.branch(same, table[i]);
    if (m == 0) return;
    // branch() left the others as the running group.
  }
}

void exit_lanes(Warp& w, const Instruction&, Mask m) { w.exit(m); }
void ret(Warp& w, const Instruction& in, Mask m);

void trap(Warp& w, const Instruction& in, Mask m) { w.fault(Status::kTrap, in, std::countr_zero(m), "trap"); }

/// A call's parameters: bytes from the caller's frame to the callee's and back.
void copy_bytes(std::byte* to, uint32_t to_stride, const std::byte* from, uint32_t from_stride, uint32_t bytes,
                Mask m) {
  each_lane(m, [&](int l) { std::memcpy(to + l * to_stride, from + l * from_stride, bytes); });
}

/// slots of a call: results, then arguments, as places in the caller's frame; flags[0] how many results; for an
/// indirect call then the address (64). target: the function. immediate: 1 when indirect.
void call_function(Warp& w, const Instruction& in, Mask m, uint32_t function) {
  const FunctionEntry& callee = w.program().functions[function];
  const size_t results = in.flags[0];
  const size_t arguments = in.flags[1];
  std::byte* frame = w.base[Slot::kFrame];
  std::byte* inside = frame + w.program().functions[w.running().function].frame_bytes;
  if (arguments != callee.parameters.size() || results > callee.results.size()) {
    w.fault(Status::kIllegalInstruction, in, std::countr_zero(m), "call with other parameters than the function has");
    return;
  }
  if (!w.call(in, m, function)) return;
  for (size_t i = 0; i < arguments; ++i) {
    const auto& p = callee.parameters[i];
    copy_bytes(inside + p.offset, p.bytes, frame + in.slots[results + i].offset(), p.bytes, p.bytes, m);
  }
}

void call_direct(Warp& w, const Instruction& in, Mask m) { call_function(w, in, m, in.target); }

void call_indirect(Warp& w, const Instruction& in, Mask m) {
  const auto* address = w.lanes<uint64_t>(in.slots[in.flags[0] + in.flags[1]]);
  while (m != 0) {
    const int lane = std::countr_zero(m);
    const uint64_t a = address[lane];
    const auto& functions = w.program().functions;
    const auto function = std::find_if(functions.begin() + 1, functions.end(),
                                       [a](const FunctionEntry& f) { return f.address == a && a != 0; });
    if (function == functions.end()) {
      w.fault(Status::kIllegalAddress, in, lane,
              fmt::format("call of {:#x}, which is no function{}", a,
                          (a & kWindowMask) == kWindowFunction ? " of this module" : ""));
      return;
    }
    Mask same = 0;
    each_lane(m, [&](int l) { same |= Mask{address[l] == a} << l; });
    m &= ~same;
    call_function(w, in, same, static_cast<uint32_t>(function - functions.begin()));
  }
}

void ret(Warp& w, const Instruction& in, Mask m) {
  const CallRecord* record = w.running().caller.get();
  if (record != nullptr) {
    const FunctionEntry& callee = w.program().functions[w.running().function];
    const std::byte* inside = w.base[Slot::kFrame];
    std::byte* frame = w.frame_at(record->frame);
    for (size_t i = 0; i < record->call->flags[0]; ++i) {
      const auto& r = callee.results[i];
      copy_bytes(frame + record->call->slots[i].offset(), r.bytes, inside + r.offset, r.bytes, r.bytes, m);
    }
  }
  static_cast<void>(in);
  w.ret(m);
}

void lower_branch(Lowering& l) {
  Instruction& in = l.emit(branch, {});
  l.target(in, l.operand(0).name);
}

void lower_branch_indexed(Lowering& l) {
  if (!l.has("idx")) l.unknown();
  Instruction& in = l.emit(branch_indexed, {l.read(0, 32)});
  l.targets(in, l.operand(1).name);
}

void lower_ret(Lowering& l) { l.ends(l.emit(ret, {})); }
void lower_exit(Lowering& l) { l.ends(l.emit(exit_lanes, {})); }
void lower_trap(Lowering& l) { l.ends(l.emit(trap, {})); }

void lower_call(Lowering& l) {
  // call [(results),] function [, (arguments)] [, prototype]
  std::vector<const ptx::Operand*> results, arguments;
  const ptx::Operand* callee = nullptr;
  const ptx::Operand* prototype = nullptr;
  for (size_t i = 0; i < l.operand_count(); ++i) {
    const ptx::Operand& op = l.operand(i);
    if (op.kind == ptx::Operand::Kind::kGroup) {
      auto& list = callee == nullptr ? results : arguments;
      for (const ptx::Operand& part : op.parts) list.push_back(&part);
    } else if (callee == nullptr) {
      callee = &op;
    } else {
      prototype = &op;
    }
  }
  if (callee == nullptr) l.unknown();
  std::vector<Slot> slots;
  const auto place = [&](const ptx::Operand& op) {
    const auto p = l.frame_parameter(op.name);
    if (!p) l.fail("expected a .param variable in a call, found {}", op.name);
    slots.push_back(Slot::at(Slot::kFrame, p->offset));
  };
  for (const ptx::Operand* op : results) place(*op);
  for (const ptx::Operand* op : arguments) place(*op);
  const auto finish = [&](Instruction& in) {
    in.flags[0] = static_cast<uint8_t>(results.size());
    in.flags[1] = static_cast<uint8_t>(arguments.size());
    l.ends_block();
  };
  if (l.register_bits(*callee) == 64) {
    slots.push_back(l.read(*callee, 64));
    for (uint32_t f = 1; f < l.function_count(); ++f) l.calls(f);
    finish(l.emit(call_indirect, slots));
    static_cast<void>(prototype);
    return;
  }
  if (const auto f = l.function(callee->name)) {
    l.calls(*f);
    Instruction& in = l.emit(call_direct, slots);
    in.target = *f;
    finish(in);
    return;
  }
  const Handler runtime = device_runtime_function(callee->name);
  if (runtime == nullptr) l.fail("call of {}, which has no body in this module", callee->name);
  finish(l.emit(runtime, slots));
}

// --- barriers of a block ---------------------------------------------------------------------------------------------

/// slots: barrier (32), threads (32; zero for all). flags: aligned, waits.
void bar(Warp& w, const Instruction& in, Mask m) {
  const auto* ids = w.lanes<uint32_t>(in.slots[0]);
  const auto* threads = w.lanes<uint32_t>(in.slots[1]);
  const int lane = std::countr_zero(m);
  const uint32_t id = ids[lane], count = threads[lane];
  Mask same = 0;
  each_lane(m, [&](int l) { same |= Mask{ids[l] == id && threads[l] == count} << l; });
  if (same != m) {
    w.fault(Status::kIllegalInstruction, in, lane, "lanes of a warp name different barriers at one instruction");
    return;
  }
  if (id > 15) {
    w.fault(Status::kIllegalInstruction, in, lane, fmt::format("barrier {}, expected 0 to 15", id));
    return;
  }
  if (count % kLanes != 0) {
    w.fault(Status::kIllegalInstruction, in, lane,
            fmt::format("barrier of {} threads, expected a multiple of 32", count));
    return;
  }
  w.barrier(in, m, static_cast<int>(id), count, in.flags[0] != 0, in.flags[1] != 0);
}

/// First half of barrier.red: hands in the predicate. slots: barrier, threads, predicate. flags: …, negated.
void bar_reduce(Warp& w, const Instruction& in, Mask m) {
  if (in.flags[0] != 0 && !w.running().forced && !w.converge_all(in, m)) return;
  const uint32_t id = w.lanes<uint32_t>(in.slots[0])[std::countr_zero(m)];
  if (id > 15) {
    w.fault(Status::kIllegalInstruction, in, std::countr_zero(m), fmt::format("barrier {}, expected 0 to 15", id));
    return;
  }
  Mask p = w.predicate(in.slots[2]);
  if (in.flags[2] != 0) p = ~p;
  auto& reduction = w.cta->reductions[id];
  reduction.count += static_cast<uint32_t>(std::popcount(p & m));
  reduction.all = reduction.all && (p & m) == m;
  reduction.any = reduction.any || (p & m) != 0;
}

/// Last half: what the barrier collected. slots: destination (32 or predicate), barrier. flags[0]: 0 popc, 1 and, 2 or.
void bar_result(Warp& w, const Instruction& in, Mask m) {
  const uint32_t id = w.lanes<uint32_t>(in.slots[1])[std::countr_zero(m)];
  const auto& reduction = w.cta->reduced[id & 15];
  if (in.flags[0] == 0) {
    for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [&](int) { return reduction.count; });
  } else {
    Mask& p = w.predicate(in.slots[0]);
    p = (in.flags[0] == 1 ? reduction.all : reduction.any) ? p | m : p & ~m;
  }
}

void warp_barrier(Warp& w, const Instruction& in, Mask m) { w.warp_barrier(in, m, w.lanes<uint32_t>(in.slots[0])); }

void lower_bar(Lowering& l) {
  if (l.has("warp")) {
    l.emit(warp_barrier, {l.read(0, 32)});
    return;
  }
  if (l.has("cluster")) {
    lower_cluster_barrier(l);
    return;
  }
  const bool aligned = l.text().opcode == "bar" || l.has("aligned");
  const Slot zero = l.constant(0, 32);
  if (l.has("red")) {
    const bool popc = l.has("popc");
    const size_t last = l.operand_count() - 1;
    bool negated = false;
    const Slot p = l.read_predicate(l.operand(last), negated);
    const Slot id = l.read(1, 32);
    const Slot threads = last == 3 ? l.read(2, 32) : zero;
    Instruction& first = l.emit(bar_reduce, {id, threads, p});
    first.flags[0] = aligned ? 1 : 0;
    first.flags[2] = negated ? 1 : 0;
    Instruction& wait = l.emit(bar, {id, threads});
    wait.flags[0] = aligned ? 1 : 0;
    wait.flags[1] = 1;
    l.hide();
    const Slot d = popc ? l.write(0, 32) : l.write_predicate(l.operand(0));
    Instruction& result = l.emit(bar_result, {d, id});
    result.flags[0] = popc ? 0 : l.has("and") ? 1 : 2;
    l.hide();
    return;
  }
  const bool arrive = l.has("arrive");
  if (!arrive && !l.has("sync")) l.unknown();
  Instruction& in =
      l.emit(bar, {l.operand_count() > 0 ? l.read(0, 32) : zero, l.operand_count() > 1 ? l.read(1, 32) : zero});
  in.flags[0] = aligned ? 1 : 0;
  in.flags[1] = arrive ? 0 : 1;
}

void nanosleep(Warp& w, const Instruction&, Mask) { w.yield(); }
void lower_nanosleep(Lowering& l) { l.emit(nanosleep, {}); }

void nothing(Warp&, const Instruction&, Mask) {}
void lower_nothing(Lowering& l) { l.emit(nothing, {}); }

void local_base(Warp& w, const Instruction& in, Mask m) {
  const uint64_t at = w.running().local + in.immediate;
  for_lanes(w.lanes<uint64_t>(in.slots[0]), m, [&](int) { return at; });
}

}  // namespace

Handler jump_handler() { return jump; }
Handler local_base_handler() { return local_base; }

void add_control(OpcodeTable& t) {
  t.add("bra", Kind::kControl, lower_branch);
  t.add("brx", Kind::kControl, lower_branch_indexed);
  t.add("call", Kind::kControl, lower_call);
  t.add("ret", Kind::kControl, lower_ret);
  t.add("exit", Kind::kControl, lower_exit);
  t.add("trap", Kind::kControl, lower_trap);
  t.add("brkpt", Kind::kControl, lower_trap);
  t.add("bar", Kind::kBarrier, lower_bar);
  t.add("barrier", Kind::kBarrier, lower_bar);
  t.add("nanosleep", Kind::kOther, lower_nanosleep);
  t.add("pmevent", Kind::kOther, lower_nothing);
}

}  // namespace ptxsim
