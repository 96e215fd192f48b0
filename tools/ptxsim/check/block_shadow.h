#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "tools/ptxsim/check/async_proxy.h"
#include "tools/ptxsim/check/checker.h"
#include "tools/ptxsim/check/clock.h"
#include "tools/ptxsim/check/launch_shadow.h"
#include "tools/ptxsim/check/shadow.h"
#include "tools/ptxsim/check/undefined.h"
#include "tools/ptxsim/exec/cta.h"

namespace ptxsim {

/// A warp as the checker knows it: what its lanes know of others, which interval it is in.
struct WarpShadow {
  /// Lanes that know the same.
  struct View {
    Mask lanes;
    Clock clock;
  };

  uint32_t index = 0;
  IntervalId id = kNobody;  // of the running interval, once it has accessed memory
  bool fenced = false;      // a fence came after the last store
  /// What its last fences cover, for its own block and for all: what comes behind a fence tells of this to whoever
  /// sees it, and of nothing else.
  Clock fence_block, fence_device;
  bool has_fence_block = false, has_fence_device = false;
  IntervalId together = 0;  // intervals below: all of the warp's lanes know of each other
  /// Beyond that, [of lane * 32 + about lane], after synchronisations of some of the lanes; empty until there is one.
  std::vector<IntervalId> mutual;
  std::vector<View> views;
  /// Records at what the lanes have just read and may acquire from. Events come before their effects, so that only the
  /// next event finds there who wrote what was read.
  Mask acquiring = 0;
  const Record* read[kLanes] = {};        // the synchronising writer's
  const Record* read_plain[kLanes] = {};  // the plain writer's, who may have stored behind a fence
  bool read_in_block = false;             // by an access of the block's scope
  Clock published;                        // what its releases within the block covered so far

  UndefinedRegisters undefined;

  // The async proxy.
  AsyncClock async;
  AsyncRegisters under_way;
  std::vector<IntervalId> product_groups;              // by number: its reads are in intervals below
  std::map<int, std::vector<IntervalId>> copy_groups;  // by lane, the same

  // For barrier divergence.
  uint32_t barriers[kLanes] = {};      // barrier 0's phases that each lane has come to
  uint32_t last_barrier[kLanes] = {};  // the site (see Watcher) of the last, where there was one
  uint32_t barrier_place = 0;          // of the last of all lanes
  struct StoreSeen {
    uint32_t barriers = 0;        // in the phase after so many
    Mask in_phase = 0, ever = 0;  // lanes that executed the store
  };
  std::vector<StoreSeen> stores;

  const Clock& clock(int lane) const {
    if (views.size() == 1) return views[0].clock;
    for (const View& v : views) {
      if ((v.lanes >> lane & 1) != 0) return v.clock;
    }
    return views[0].clock;
  }
  IntervalId known(int lane, uint32_t about) const {
    return mutual.empty() ? together : std::max(together, mutual[static_cast<size_t>(lane) * kLanes + about]);
  }
};

/// A block as the checker knows it. Made once and used for one block after the other: its records need no clearing,
/// because intervals of former blocks have smaller numbers.
class BlockShadow {
 public:
  void begin(Cta& cta, LaunchShadow& launch, Intervals& intervals);

  /// The interval that the warp is in; a new one after every synchronisation.
  IntervalId interval(WarpShadow& warp) {
    if (warp.id == kNobody) warp.id = intervals_->open({static_cast<uint32_t>(launch->sequence), number});
    return warp.id;
  }

  // What makes intervals ordered. `lanes` are those that take part.
  void warp_sync(WarpShadow& warp, Mask lanes, Mask alive);
  void release(WarpShadow& warp, Mask lanes, Mask alive, Clock& into);
  void acquire(WarpShadow& warp, Mask lanes, Mask alive, const Clock& from);
  void release_to_blocks(WarpShadow& warp, Mask lanes, Mask alive);
  void fence(WarpShadow& warp, Mask lanes, Mask alive, bool device);
  /// A synchronising store: hands on what the warp's fences cover, and what it has read.
  void publish(WarpShadow& warp, Mask lanes, Mask alive, bool to_blocks);

  void barrier_arrive(WarpShadow& warp, Mask lanes, Mask alive, int barrier, bool waits);
  void barrier_complete(uint32_t alive_threads, uint32_t all_threads, int barrier);
  void barrier_leave(WarpShadow& warp, Mask lanes, Mask alive, int barrier);

  Checker::State* home = nullptr;  // where it goes when the block is done
  uint32_t number = 0;             // Cta::linear_index
  LaunchShadow* launch = nullptr;
  LaunchShadow::Released* released = nullptr;
  bool in_cluster = false;
  std::vector<WarpShadow> warps;
  std::map<uint64_t, Clock> objects;  // mbarriers, by their place in shared memory
  std::map<uint64_t, AsyncClock> async_objects;

  IntervalId first = 0;  // this block's intervals are not below it
  std::unique_ptr<AccessRecords> shared;
  std::unique_ptr<AsyncReads> async_reads;  // null until there are some
  uint32_t shared_bytes = 0;
  /// The last access to it by another block of the cluster.
  struct Remote {
    IntervalId id = kNobody;
    uint32_t place = 0, warp = 0, lane = 0;
    const Cta* from = nullptr;
  };
  Remote remote;
  uint64_t in_flight = 0;  // granules of shared memory that copies have yet to write
  std::vector<uint8_t> shared_written;
  std::vector<uint8_t> local_written;  // thread after thread

  // For barrier divergence: who executed a store after its last barrier and exited.
  struct Left {
    bool valid = false;
    uint32_t barriers = 0, place = 0, thread = 0;
  };
  std::vector<Left> left;  // by number of the store
  bool anyone_left = false;
  /// And who came how often to a barrier: the phase is the number of barriers that a thread has come to, this included.
  struct Rounds {
    uint32_t site = 0;                                  // of the barrier
    uint32_t latest = 0, latest_thread = 0, place = 0;  // the highest phase in which a thread came to it, and where
    uint32_t exited = ~uint32_t{0}, exited_thread = 0;  // the lowest that was a thread's last before it exited
  };
  std::vector<Rounds> rounds;
  Rounds& rounds_at(uint32_t site);

 private:
  /// So that each view has either none but these lanes, or none of them.
  void split_views(WarpShadow& warp, Mask lanes);

  struct Barrier {
    Clock gathering, complete;
    Clock gathering_fences, complete_fences;  // what fences for all blocks cover, of those who came
    bool any_fence = false, any_complete_fence = false;
    AsyncClock gathering_async, complete_async;
    uint32_t arrived = 0;
    bool all_wait = true;
  };
  Intervals* intervals_ = nullptr;
  Barrier barriers_[17];
};

}  // namespace ptxsim
