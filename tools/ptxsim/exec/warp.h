#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tools/ptxsim/exec/observer.h"
#include "tools/ptxsim/machine/machine.h"
#include "tools/ptxsim/program/program.h"

namespace ptxsim {

class Cta;
struct Worker;

/// Special registers that are the same for a whole warp or known per lane, as slots of 32 lanes each.
enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kNwarpid,
  kSmid,
  kNsmid,
  kLanemaskEq,
  kLanemaskLt,
  kLanemaskLe,
  kLanemaskGt,
  kLanemaskGe,
  kDynamicSmemSize,
  kTotalSmemSize,
  kAggrSmemSize,
  kZero,
  kClusteridX,
  kClusteridY,
  kClusteridZ,
  kNclusteridX,
  kNclusteridY,
  kNclusteridZ,
  kClusterCtaidX,
  kClusterCtaidY,
  kClusterCtaidZ,
  kClusterNctaidX,
  kClusterNctaidY,
  kClusterNctaidZ,
  kClusterCtarank,
  kClusterNctarank,
  kIsExplicitCluster,
  kEnvreg1,
  kEnvreg2,
  kGridid,  // 64 bits: two slots
  kGrididHigh,
  kCount
};

/// Who called a function: what its `ret` goes back to. Shared by the lanes that called together.
struct CallRecord {
  uint32_t return_pc;
  uint32_t frame, local;    // the caller's
  uint32_t function;        // the caller's: index in Program::functions
  const Instruction* call;  // for the places of its results
  std::shared_ptr<const CallRecord> caller;

  static bool same(const CallRecord* a, const CallRecord* b) {
    for (; a != b; a = a->caller.get(), b = b->caller.get()) {
      if (a == nullptr || b == nullptr || a->return_pc != b->return_pc || a->frame != b->frame) return false;
    }
    return true;
  }
};

/// Lanes that stand at the same instruction with the same callers. A warp is a set of disjoint groups; the one with the
/// smallest pc runs, so that groups meet again where their paths do (compile.cc lays the blocks out for that).
struct Group {
  enum class State : uint8_t {
    kReady,
    kConverge,     // at an instruction that needs other lanes too (shfl.sync, mma…): pc is that instruction
    kWarpBarrier,  // in bar.warp.sync: pc is behind it
    kBarrier,      // in bar.sync: pc is behind it
  };
  uint32_t pc = 0;
  Mask mask = 0;
  uint32_t frame = 0, local = 0;  // offsets of the running function's frame and local memory
  uint32_t depth = 0;             // of calls
  uint32_t function = 0;          // index in Program::functions
  bool forced = false;            // to go on though lanes are missing that an aligned barrier wants
  uint32_t turn = 0;              // groups that spin go behind those that may end their wait
  State state = State::kReady;
  bool anywhere = false;  // kConverge: lanes at other places that execute the same operation count as well
  int barrier = -1;       // kBarrier: which; kConverge: of an aligned barrier
  uint32_t wait_pc = 0;   // kBarrier, kWarpBarrier: the instruction, for messages
  Mask wanted = 0;        // kWarpBarrier, kConverge: the lanes waited for
  std::shared_ptr<const CallRecord> caller;
};

/// A copy to shared memory that is under way (cp.async): read when issued, landed when waited for.
struct PendingCopy {
  Mask mask;
  uint32_t bytes;                // 4, 8, 16
  uint32_t destination[kLanes];  // shared offsets
  uint32_t group[kLanes];        // which of the lane's commit groups; ~0 before its commit
  const Instruction* instruction;
  alignas(64) std::byte data[kLanes * 16];  // lane after lane, `bytes` each
};

/// 32 lanes and their registers. Handlers work on `lanes<T>(slot)`; everything that changes who is active goes through
/// the functions below (exec/control.cc).
class Warp {
 public:
  // What handlers read at every instruction.
  std::byte* base[4] = {};  // by Slot::Base: the frame, constants, special registers
  uint32_t pc = 0;          // of the next instruction
  /// When pc reaches this, or was set to anything by a handler that set this to 0, the scheduler looks again.
  uint32_t switch_pc = ~uint32_t{0};
  Mask active = 0;  // of the running group
  Observer* observer = nullptr;
  Observer* observer2 = nullptr;
  Cta* cta = nullptr;
  Worker* worker = nullptr;
  uint32_t index = 0;  // in the block

  template <class T>
  T* lanes(Slot slot) const {
    return reinterpret_cast<T*>(base[slot.reference >> 30] + (slot.reference & 0x3fffffff));
  }
  Mask& predicate(Slot slot) const { return *lanes<Mask>(slot); }

  const Program& program() const;

  // --- who runs -------------------------------------------------------------------------------------------------
  Mask alive() const { return alive_; }
  /// Sends lanes of the running group elsewhere; the rest falls through.
  void branch(Mask taken, uint32_t target);
  void exit(Mask lanes);
  bool call(const Instruction& instruction, Mask lanes, uint32_t function);  ///< false after a fault (stack overflow)
  std::byte* frame_at(uint32_t offset) const { return frames_ + offset; }
  void ret(Mask lanes);

  /// For instructions that need certain lanes together: true when they are all here, with `mask` grown or shrunk to the
  /// lanes to execute for now; otherwise these lanes wait and the handler returns at once. `wanted`: per lane the lanes
  /// that it names, itself among them. Lanes that have exited are not waited for.
  bool converge(const Instruction& instruction, Mask& mask, const uint32_t* wanted, bool anywhere = false);
  bool converge_all(const Instruction& instruction, Mask& mask);  // all lanes of the warp that are alive
  /// Whether other lanes wait at an instruction of the same operation that is not this one. They meet: what is waited
  /// for is the operation, wherever a lane executes it (warp_ops.cc brings their operands together).
  bool waits_elsewhere(const Instruction& instruction) const;
  /// Lanes of the running group wait at the instruction, which they have not executed, for those wanted.
  void hold(const Instruction& instruction, Mask lanes, Mask wanted, bool anywhere);
  void warp_barrier(const Instruction& instruction, Mask mask, const uint32_t* wanted);
  template <class F>
  void each_observer(F f) const {
    if (observer != nullptr) f(*observer);
    if (observer2 != nullptr) f(*observer2);
  }
  /// Tells the observers that these lanes met at a warp-level synchronisation.
  void tell_warp_sync(Mask lanes);
  /// Whether these lanes are among the members that they name. If not, what happens is undefined, but harmless on the
  /// device as long as nobody uses the result: only a checked run ends with a fault.
  bool named_itself(const Instruction& instruction, Mask lanes, Mask members);
  void barrier(const Instruction& instruction, Mask mask, int id, uint32_t threads, bool aligned, bool waits);
  /// The parts of a barrier: converge_all with word to the checker where lanes never come; then leaving the running
  /// group until release_barrier(id).
  bool converge_aligned(const Instruction& instruction, Mask& mask, int id);
  void wait_at_barrier(const Instruction& instruction, Mask mask, int id);

  /// Says that the running lanes look at something that others must change (a failed try_wait, an atomic in a loop, a
  /// volatile load): after some of these in a row others get their turn.
  void spin() {
    if (++spins_ > kSpins) yield();
  }
  void yield();
  /// The same at once, for a wait that only others of the cluster can end: for an mbarrier's phase, or for the other
  /// warps of a warpgroup (no mbarrier then).
  struct Awaited {
    const Instruction* instruction = nullptr;
    int lane = 0;
    uint64_t address = 0;
    const std::byte* mbarrier = nullptr;
  };
  void await(const Awaited& awaited) {
    awaited_ = awaited;
    yield();
  }
  const Awaited& awaited() const { return awaited_; }  // what ended the last turn; without an instruction none
  bool blocked() const { return blocked_; }            // every lane waits for others

  // --- barrier.cluster ------------------------------------------------------------------------------------------
  Mask cluster_arrived = 0;  // lanes that have arrived in the cluster's phase, which is not complete
  Mask cluster_owed = 0;     // lanes that have arrived and not yet waited

  // --- for those who look on ------------------------------------------------------------------------------------
  bool watched = false;           // observer->step sees every instruction: it follows what is in the registers
  bool changed_memory = false;    // since the block last asked: a store, or an atomic that left another value
  bool looked_at_global = false;  // since the cluster last asked: at memory that others can write
  bool looked_at_host = false;    // since the cluster last asked: at memory that the host can write at any time

  // --- faults ---------------------------------------------------------------------------------------------------
  /// Ends the launch: the message gets kernel, block, thread and place. Returns; the handler must return at once too.
  void fault(Status status, const Instruction& instruction, int lane, const std::string& what);

  // --- cp.async -------------------------------------------------------------------------------------------------
  std::vector<std::unique_ptr<PendingCopy>> pending_copies;
  uint32_t commits[kLanes] = {};  // groups committed by each lane

  // --- wgmma ----------------------------------------------------------------------------------------------------
  uint64_t wgmma_commits = 0;  // groups committed by the warp

  std::array<uint32_t, 3> thread_of(int lane) const;  // threadIdx

  uint64_t executed = 0;  // instructions so far: the clock
  Mask carry = 0;         // CC.CF of each lane (add.cc, addc…)

  // Used by the scheduler (interpreter.cc) and the block (cta.h).
  void start(uint32_t index, Mask lanes, uint32_t pc);
  /// Runs until all lanes wait or have exited, or the budget is used up, or a spin lets others run. Returns false when
  /// no lane is left.
  bool run(uint64_t budget);
  std::vector<Group>& groups() { return groups_; }
  const Group& running() const { return groups_[current_]; }
  bool spinning() const { return spinning_; }
  void release_barrier(int id);
  bool counting = false;

 private:
  static constexpr uint32_t kSpins = 64;
  static constexpr uint32_t kPatience = 1 << 20;  // loops of a group while others are ready

  template <bool kCounting, bool kWatched>
  void loop(uint64_t& budget);
  void save();
  bool pick();  // the next group to run; false when none can
  void load(size_t group);
  void merge();

  std::vector<Group> groups_;
  size_t current_ = 0;
  Mask alive_ = 0;
  uint32_t spins_ = 0, backward_ = 0;
  uint32_t turn_ = 0;
  bool spinning_ = false;
  bool blocked_ = false;
  Awaited awaited_;
  std::byte* frames_ = nullptr;  // start of the warp's frames
  friend class Cta;
};

/// d[l] = f(l) for the lanes of the mask, in loops that the compiler turns into vectors.
template <class D, class F>
inline __attribute__((always_inline)) void for_lanes(D* d, Mask mask, F f) {
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) d[l] = f(l);
  } else {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) {
      const D value = f(l);
      d[l] = (mask >> l & 1) != 0 ? value : d[l];
    }
  }
}

/// f(l) for each lane of the mask, in order.
template <class F>
inline void each_lane(Mask mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(std::countr_zero(mask));
}

}  // namespace ptxsim
