#include <algorithm>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/program/compile.h"

/// Which lanes of a warp run: groups of equal place, split by branches, joined where they meet, waiting for each other.
namespace ptxsim {

namespace {

bool together(const Group& a, const Group& b) {
  return a.pc == b.pc && a.frame == b.frame && CallRecord::same(a.caller.get(), b.caller.get());
}

}  // namespace

void Warp::start(uint32_t warp_index, Mask lanes, uint32_t start_pc) {
  index = warp_index;
  alive_ = lanes;
  groups_.clear();
  Group all;
  all.pc = start_pc;
  all.mask = lanes;
  groups_.push_back(all);
  load(0);
}

void Warp::load(size_t group) {
  current_ = group;
  const Group& g = groups_[group];
  pc = g.pc;
  active = g.mask;
  base[Slot::kFrame] = frames_ + g.frame;
  // The nearest place where another group stands that could go on together with this one.
  switch_pc = ~uint32_t{0};
  for (const Group& other : groups_) {
    if (&other != &g && other.state == Group::State::kReady && other.depth == g.depth && other.pc > g.pc) {
      switch_pc = std::min(switch_pc, other.pc);
    }
  }
}

void Warp::save() {
  Group& g = groups_[current_];
  if (g.state == Group::State::kReady) g.pc = pc;
  g.mask = active;
}

void Warp::merge() {
  std::erase_if(groups_, [](const Group& g) { return g.mask == 0; });
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group& a = groups_[i];
    if (a.state != Group::State::kReady) continue;
    for (size_t j = groups_.size(); j-- > i + 1;) {
      Group& b = groups_[j];
      if (b.state != Group::State::kReady || !together(a, b) || a.forced != b.forced) continue;
      a.mask |= b.mask;
      a.turn = std::max(a.turn, b.turn);
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(j));
    }
  }
}

bool Warp::pick() {
  merge();
  // Lanes that have exited are waited for no longer.
  for (Group& g : groups_) {
    if (g.state == Group::State::kConverge) {
      Mask here = 0;
      for (const Group& other : groups_) {
        if (other.state != g.state) continue;
        const bool same =
            g.anywhere && other.anywhere && program().code[g.pc].execute == program().code[other.pc].execute;
        if (same || together(g, other)) here |= other.mask;
      }
      if ((g.wanted & alive_ & ~here) == 0) g.state = Group::State::kReady;
    } else if (g.state == Group::State::kWarpBarrier) {
      Mask here = 0;
      for (const Group& other : groups_) {
        if (other.state == g.state && other.wanted == g.wanted) here |= other.mask;
      }
      if ((g.wanted & alive_ & ~here) == 0) {
        const Mask wanted = g.wanted;
        for (Group& other : groups_) {
          if (other.state == Group::State::kWarpBarrier && other.wanted == wanted) other.state = Group::State::kReady;
        }
      }
    }
  }
  merge();
  for (int attempt = 0; attempt < 2; ++attempt) {
    size_t best = groups_.size();
    std::array<size_t, kLanes> ready;
    size_t ready_count = 0;
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& g = groups_[i];
      if (g.state != Group::State::kReady) continue;
      ready[ready_count++] = i;
      if (best == groups_.size()) {
        best = i;
        continue;
      }
      const Group& b = groups_[best];
      if (std::tuple(g.turn, ~g.depth, g.pc) < std::tuple(b.turn, ~b.depth, b.pc)) best = i;
    }
    if (ready_count != 0) {
      if (cta->grid.machine->options().adversarial) best = ready[cta->worker->random() % ready_count];
      load(best);
      return true;
    }
    // Nobody can go on. Lanes that wait for others at an aligned barrier go through it without them, as on the device;
    // the checker is told.
    bool forced = false;
    for (Group& g : groups_) {
      if (g.state != Group::State::kConverge || g.barrier < 0) continue;
      if (observer != nullptr) {
        observer->barrier_diverged(*this, program().code[g.pc], g.mask, alive_ & ~g.mask);
      }
      if (observer2 != nullptr) {
        observer2->barrier_diverged(*this, program().code[g.pc], g.mask, alive_ & ~g.mask);
      }
      g.state = Group::State::kReady;
      g.forced = true;
      forced = true;
    }
    if (!forced) break;
  }
  return false;
}

void Warp::branch(Mask taken, uint32_t target) {
  const Mask rest = active & ~taken;
  if (rest == 0) {
    if (target < pc && ++backward_ > kPatience && groups_.size() > 1) {
      backward_ = 0;
      yield();
    }
    pc = target;
    return;
  }
  if (counting) ++worker->divergent[pc - 1];
  Group away = groups_[current_];
  away.state = Group::State::kReady;
  away.pc = target;
  away.mask = taken;
  active = rest;
  groups_.push_back(away);
  switch_pc = 0;
}

void Warp::exit(Mask lanes) {
  if (observer != nullptr) observer->lanes_exit(*this, lanes);
  if (observer2 != nullptr) observer2->lanes_exit(*this, lanes);
  active &= ~lanes;
  alive_ &= ~lanes;
  switch_pc = 0;
  cta->lanes_exited(*this);
}

bool Warp::call(const Instruction& instruction, Mask lanes, uint32_t function) {
  const FunctionEntry& callee = program().functions[function];
  const Group& g = groups_[current_];
  const FunctionEntry& caller = program().functions[g.function];
  Group inside;
  inside.pc = callee.pc;
  inside.mask = lanes;
  inside.frame = g.frame + caller.frame_bytes;
  inside.local = g.local + caller.local_bytes;
  inside.depth = g.depth + 1;
  inside.function = function;
  inside.turn = g.turn;
  inside.caller = std::make_shared<CallRecord>(CallRecord{pc, g.frame, g.local, g.function, &instruction, g.caller});
  if (inside.frame + callee.frame_bytes > program().frame_bytes ||
      inside.local + callee.local_bytes > program().local_bytes) {
    fault(Status::kStackOverflow, instruction, std::countr_zero(lanes), "stack overflow");
    return false;
  }
  active &= ~lanes;
  groups_.push_back(std::move(inside));
  switch_pc = 0;
  return true;
}

void Warp::ret(Mask lanes) {
  const std::shared_ptr<const CallRecord> record = groups_[current_].caller;
  if (record == nullptr) {
    exit(lanes);
    return;
  }
  Group back;
  back.pc = record->return_pc;
  back.mask = lanes;
  back.frame = record->frame;
  back.local = record->local;
  back.depth = groups_[current_].depth - 1;
  back.function = record->function;
  back.turn = groups_[current_].turn;
  back.caller = record->caller;
  active &= ~lanes;
  groups_.push_back(std::move(back));
  switch_pc = 0;
}

bool Warp::converge_all(const Instruction& instruction, Mask& mask) {
  if (mask == alive_) return true;
  alignas(64) uint32_t wanted[kLanes];
  std::fill(std::begin(wanted), std::end(wanted), alive_);
  return converge(instruction, mask, wanted);
}

bool Warp::waits_elsewhere(const Instruction& instruction) const {
  return std::any_of(groups_.begin(), groups_.end(), [&](const Group& g) {
    return g.state == Group::State::kConverge && g.anywhere && g.pc != instruction.index &&
           program().code[g.pc].execute == instruction.execute;
  });
}

void Warp::hold(const Instruction& instruction, Mask lanes, Mask wanted, bool anywhere) {
  Group waiting = groups_[current_];
  waiting.pc = instruction.index;
  waiting.mask = lanes;
  waiting.state = Group::State::kConverge;
  waiting.wanted = wanted;
  waiting.anywhere = anywhere;
  waiting.barrier = -1;
  groups_.push_back(waiting);
  active &= ~lanes;
  switch_pc = 0;
}

bool Warp::converge(const Instruction& instruction, Mask& mask, const uint32_t* wanted, bool anywhere) {
  if (mask == alive_) return true;
  Group self = groups_[current_];
  self.pc = instruction.index;
  Mask here = mask;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Group& g = groups_[i];
    if (i != current_ && g.state == Group::State::kConverge && together(g, self)) here |= g.mask;
  }
  Mask ready = 0, missing = 0;
  each_lane(here, [&](int l) {
    const Mask want = wanted[l] & alive_;
    if ((want & ~here) == 0) ready |= Mask{1} << l;
    if ((mask >> l & 1) != 0) missing |= want;
  });
  if (self.forced) {
    groups_[current_].forced = false;
    return true;
  }
  if (ready == mask) return true;
  // Lanes that were waiting and are complete now join; those that are not complete wait.
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group& g = groups_[i];
    if (i != current_ && g.state == Group::State::kConverge && together(g, self)) g.mask &= ~ready;
  }
  if (const Mask wait = mask & ~ready; wait != 0) hold(instruction, wait, missing, anywhere);
  if (counting) {  // who waits has not executed it yet
    worker->executed[instruction.index] -= ready == 0 ? 1 : 0;
    worker->threads[instruction.index] += static_cast<uint64_t>(std::popcount(ready));
    worker->threads[instruction.index] -= static_cast<uint64_t>(std::popcount(mask));
  }
  active = (active & ~mask) | ready;
  mask = ready;
  switch_pc = 0;
  return ready != 0;
}

void Warp::tell_warp_sync(Mask lanes) {
  if (observer != nullptr) observer->warp_sync(*this, lanes);
  if (observer2 != nullptr) observer2->warp_sync(*this, lanes);
}

bool Warp::named_itself(const Instruction& instruction, Mask lanes, Mask members) {
  const Mask strangers = lanes & ~members;
  if (strangers == 0 || !cta->grid.machine->options().check) return true;
  fault(Status::kIllegalInstruction, instruction, std::countr_zero(strangers),
        fmt::format("its own lane is not in the member mask {:#010x}", members));
  return false;
}

void Warp::warp_barrier(const Instruction& instruction, Mask mask, const uint32_t* wanted) {
  Mask left = mask;
  while (left != 0) {
    const Mask want = wanted[std::countr_zero(left)];
    Mask same = 0;
    each_lane(left, [&](int l) { same |= Mask{wanted[l] == want} << l; });
    left &= ~same;
    if (!named_itself(instruction, same, want)) return;
    Mask here = same;
    for (const Group& g : groups_) {
      if (g.state == Group::State::kWarpBarrier && g.wanted == want) here |= g.mask;
    }
    if ((want & alive_ & ~here) == 0) {
      tell_warp_sync(here);
      for (Group& g : groups_) {
        if (g.state == Group::State::kWarpBarrier && g.wanted == want) {
          g.state = Group::State::kReady;
          switch_pc = 0;
        }
      }
      continue;
    }
    Group waiting = groups_[current_];
    waiting.pc = pc;
    waiting.mask = same;
    waiting.state = Group::State::kWarpBarrier;
    waiting.wanted = want;
    waiting.wait_pc = instruction.index;
    groups_.push_back(waiting);
    active &= ~same;
    switch_pc = 0;
  }
}

bool Warp::converge_aligned(const Instruction& instruction, Mask& mask, int id) {
  const bool forced = groups_[current_].forced;
  if (!converge_all(instruction, mask)) {
    for (Group& g : groups_) {
      if (g.state == Group::State::kConverge && g.pc == instruction.index) g.barrier = id;
    }
    return false;
  }
  if (forced) groups_[current_].forced = false;
  return true;
}

void Warp::wait_at_barrier(const Instruction& instruction, Mask mask, int id) {
  Group waiting = groups_[current_];
  waiting.pc = pc;
  waiting.mask = mask;
  waiting.state = Group::State::kBarrier;
  waiting.barrier = id;
  waiting.wait_pc = instruction.index;
  waiting.forced = false;
  groups_.push_back(waiting);
  active &= ~mask;
  switch_pc = 0;
}

void Warp::barrier(const Instruction& instruction, Mask mask, int id, uint32_t threads, bool aligned, bool waits) {
  if (aligned && !converge_aligned(instruction, mask, id)) return;
  if (waits) wait_at_barrier(instruction, mask, id);
  cta->arrive(*this, mask, id, threads, waits);
}

void Warp::release_barrier(int id) {
  for (Group& g : groups_) {
    if (g.state != Group::State::kBarrier || g.barrier != id) continue;
    g.state = Group::State::kReady;
    if (observer != nullptr) observer->barrier_leave(*this, g.mask, id);
    if (observer2 != nullptr) observer2->barrier_leave(*this, g.mask, id);
  }
  switch_pc = 0;
  blocked_ = false;
}

void Warp::yield() {
  spins_ = 0;
  spinning_ = true;
  groups_[current_].turn = ++turn_;
  switch_pc = 0;
}

void Warp::fault(Status status, const Instruction& instruction, int lane, const std::string& what) {
  const auto t = thread_of(lane);
  cta->grid.fail(status, fmt::format("{}: {}, thread ({}, {}, {}): {}", program().place(instruction.index),
                                     cta->describe(), t[0], t[1], t[2], what));
  active = 0;
  switch_pc = 0;
}

std::array<uint32_t, 3> Warp::thread_of(int lane) const {
  const Dim3& block = cta->grid.launch->block;
  const uint32_t t = index * kLanes + static_cast<uint32_t>(lane);
  return {t % block[0], t / block[0] % block[1], t / block[0] / block[1]};
}

const Program& Warp::program() const { return *cta->grid.program; }

template <bool kCounting, bool kWatched>
void Warp::loop(uint64_t& budget) {
  const Instruction* const code = program().code.data();
  uint64_t left = budget;
  do {
    const Instruction& in = code[pc];
    Mask mask = active;
    if (in.guard != kNoGuard) {
      const Mask guard = *reinterpret_cast<const Mask*>(base[Slot::kFrame] + in.guard);
      mask &= in.guard_negated ? ~guard : guard;
    }
    if constexpr (kCounting) {
      ++worker->executed[pc];
      worker->threads[pc] += static_cast<uint64_t>(std::popcount(mask));
    }
    ++pc;
    if constexpr (kWatched) observer->step(*this, in, active, mask);
    if (mask != 0) in.execute(*this, in, mask);
    --left;
  } while (pc < switch_pc && left != 0);
  executed += budget - left;
  budget = left;
}

bool Warp::run(uint64_t budget) {
  spinning_ = false;
  blocked_ = false;
  awaited_ = {};
  if (!pick()) {
    blocked_ = true;
    return !groups_.empty();
  }
  while (budget != 0) {
    if (watched) {
      counting ? loop<true, true>(budget) : loop<false, true>(budget);
    } else {
      counting ? loop<true, false>(budget) : loop<false, false>(budget);
    }
    if (cta->grid.stopped.load(std::memory_order_relaxed)) return false;
    save();
    if (!pick()) {
      blocked_ = true;
      return !groups_.empty();
    }
    if (spinning_) break;
  }
  save();
  return true;
}

}  // namespace ptxsim
