#pragma once

#include <cstdint>

#include "tools/ptxsim/machine/address_space.h"
#include "tools/ptxsim/program/program.h"

namespace ptxsim {

class Cta;

/// One warp's access to memory, as its instruction makes it: what checks and counters see.
struct Access {
  enum class Kind : uint8_t {
    kLoad,
    kStore,
    kAtomic,      // read and write as one
    kAsyncRead,   // the source of cp.async or a bulk copy
    kAsyncIssue,  // the destination of cp.async, when asked for: its bytes are in flight from here on
    kAsyncLand,   // the same destination, when the data are there for the waiting lane
  };
  Kind kind;
  // kGlobal, kShared, kLocal, kParam, kConst: generic addresses are resolved. kSharedCluster: only of other blocks.
  Space space;
  bool synchronising;
  Mask mask;
  uint32_t bytes;  // per lane
  const uint64_t*
      address;  // per lane: global addresses; offsets into the block's shared memory; into the thread's local
  Allocation* allocation;  // global: of all lanes; null where they differ
  const std::byte* value;  // kStore: what each lane writes, `bytes` each, lane after lane; else null
};

/// All lanes are on, and each one's bytes begin where those of the lane before end: the common case, which is one
/// range.
inline bool in_row(Mask mask, const uint64_t* address, uint32_t bytes) {
  if (mask != kAllLanes) return false;
  uint64_t different = 0;
  for (int l = 1; l < kLanes; ++l) different |= address[l] - address[l - 1] - bytes;
  return different == 0;
}

/// What reads shared memory on its own, in groups that are waited for.
enum class AsyncReader : uint8_t { kBulkCopy, kProduct };

/// Watches what one worker executes. A worker calls only its own observer; the observers of a launch are joined after
/// it. Sees every event before it takes effect.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void begin_cta(Cta&) {}
  virtual void end_cta(Cta&) {}
  virtual void access(Warp&, const Instruction&, const Access&) {}
  /// Lanes met at a warp-level synchronisation (bar.warp.sync, shfl.sync…).
  virtual void warp_sync(Warp&, Mask) {}
  /// Lanes arrive at a block barrier; with `waits` they go on only after it completed.
  virtual void barrier_arrive(Warp&, Mask, int /*barrier*/, bool /*waits*/) {}
  /// The barrier completed: everything before the arrivals happened before everything after the waits.
  virtual void barrier_complete(Cta&, int /*barrier*/) {}
  /// The lanes that waited go on.
  virtual void barrier_leave(Warp&, Mask, int /*barrier*/) {}
  /// An aligned barrier is reached by some of a warp's lanes, and the others will not come to it.
  virtual void barrier_diverged(Warp&, const Instruction&, Mask /*here*/, Mask /*missing*/) {}
  virtual void lanes_exit(Warp&, Mask) {}
  /// A release or an acquire through a synchronisation object: an mbarrier (by its offset in shared memory, or its
  /// address in shared::cluster), a warpgroup's products (kShared, beyond all offsets), or all of global memory.
  virtual void release(Warp&, Mask, Space, uint64_t /*object*/) {}
  virtual void acquire(Warp&, Mask, Space, uint64_t /*object*/) {}
  /// fence.proxy.async for shared memory.
  virtual void proxy_fence(Warp&, Mask) {}
  /// The lanes make a group of what they have issued; all their groups but the `pending` latest have ended.
  virtual void async_commit(Warp&, Mask, AsyncReader) {}
  virtual void async_wait(Warp&, Mask, AsyncReader, uint64_t /*pending*/) {}
  /// wgmma.mma_async, whose registers belong to it until it is waited for.
  virtual void product_issued(Warp&, const Instruction&) {}
  /// Before each instruction of a warp whose `watched` is set: the running lanes, and those whose guard holds.
  virtual void step(Warp&, const Instruction&, Mask /*active*/, Mask /*mask*/) {}
};

}  // namespace ptxsim
