#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/check/access_set.h"
#include "tools/ptxsim/check/block_shadow.h"
#include "tools/ptxsim/check/checker.h"
#include "tools/ptxsim/check/launch_shadow.h"
#include "tools/ptxsim/check/races.h"

namespace ptxsim {

struct Checker::State {
  State(Machine& the_machine, Findings& the_findings) : machine(&the_machine), findings(&the_findings) {}

  Machine* machine;
  Findings* findings;
  Intervals intervals;

  std::mutex mutex;                                                                         // of all that follows
  uint32_t generation = 0;                                                                  // of interval numbers
  std::unordered_map<const Grid*, std::pair<std::shared_ptr<LaunchShadow>, int>> launches;  // running; their workers
  std::vector<std::unique_ptr<BlockShadow>> spare_blocks;

  std::shared_ptr<LaunchShadow> launch_begins(Grid& grid);
  void launch_ends(const Grid* grid);
  std::unique_ptr<BlockShadow> take_block();
  void give_block(std::unique_ptr<BlockShadow> block);
  /// Made when first asked for.
  GlobalShadow& shadow_of(Allocation& allocation);
};

/// Says where and what, and each thing once.
class Reporter {
 public:
  Reporter(Findings& findings, const Grid& grid) : findings_(findings), grid_(grid) {}

  /// "kernel, file.cu:12: st.global.u32 …: block (0, 0, 0), thread (3, 0, 0)".
  std::string who(const Cta& cta, uint32_t warp, uint32_t lane, uint32_t place) const;
  std::string thread(uint32_t warp, uint32_t lane) const;
  std::string block(uint64_t linear) const;
  /// "file.cu:12: st.global.u32 …", without the kernel.
  std::string where(uint32_t place) const;
  /// What stands for the instruction in keys: its line, for unrolled loops make many of one; else itself.
  std::string site(uint32_t place) const;
  const Program& program() const { return *grid_.program; }

  /// `same`: three numbers that tell apart what may need different keys; key and text are made when they are new.
  template <class Key, class Text>
  void add(std::tuple<uint64_t, uint64_t, uint64_t> same, Key key, Text text) {
    const auto [known, fresh] = key_of(same, key);
    findings_.add(*known, fresh ? text() : std::string());
  }

  template <class Key>
  std::pair<const std::string*, bool> key_of(std::tuple<uint64_t, uint64_t, uint64_t> same, Key key) {
    const auto [at, fresh] = keys_.try_emplace(same);
    if (fresh) at->second = fmt::format("{}|{}", program().kernel, key());
    return {&at->second, fresh};
  }

 private:
  Findings& findings_;
  const Grid& grid_;
  std::map<std::tuple<uint64_t, uint64_t, uint64_t>, std::string> keys_;
};

/// One worker's eyes on one launch.
class Watcher : public Observer {
 public:
  Watcher(Checker::State& state, Grid& grid);
  ~Watcher() override;

  void begin_cta(Cta& cta) override;
  void access(Warp& warp, const Instruction& in, const Access& access) override;
  void step(Warp& warp, const Instruction& in, Mask active, Mask mask) override;
  void warp_sync(Warp& warp, Mask lanes) override;
  void barrier_arrive(Warp& warp, Mask lanes, int barrier, bool waits) override;
  void barrier_complete(Cta& cta, int barrier) override;
  void barrier_leave(Warp& warp, Mask lanes, int barrier) override;
  void barrier_diverged(Warp& warp, const Instruction& in, Mask here, Mask missing) override;
  void lanes_exit(Warp& warp, Mask lanes) override;
  void release(Warp& warp, Mask lanes, Space space, uint64_t object) override;
  void acquire(Warp& warp, Mask lanes, Space space, uint64_t object) override;
  void proxy_fence(Warp& warp, Mask lanes) override;
  void async_commit(Warp& warp, Mask lanes, AsyncReader reader) override;
  void async_wait(Warp& warp, Mask lanes, AsyncReader reader, uint64_t pending) override;
  void product_issued(Warp& warp, const Instruction& in) override;

 private:
  static BlockShadow& block(const Cta& cta) { return *static_cast<BlockShadow*>(cta.shadow.get()); }
  struct Object {
    BlockShadow* owner;  // null: a block that has not begun
    uint64_t offset;
  };
  /// A synchronisation object in shared memory, the block's own or another's of the cluster.
  static Object object_of(const Warp& warp, uint64_t object);
  static WarpShadow& shadow(const Warp& warp) { return block(*warp.cta).warps[warp.index]; }
  /// The same, once it has acquired from what it read last.
  WarpShadow& up_to_date(Warp& warp) {
    WarpShadow& w = shadow(warp);
    if (w.acquiring != 0) catch_up(warp, w);
    return w;
  }
  void catch_up(Warp& warp, WarpShadow& w);

  // --- memory ---------------------------------------------------------------------------------------------------
  void shared(Warp& warp, const Instruction& in, const Access& access, const Cta& owner);
  void cluster(Warp& warp, const Instruction& in, const Access& access);
  void note_remote(Warp& warp, const Instruction& in, const Cta& owner, Mask lanes);
  void outlived(const Cta& owner, const BlockShadow::Remote& by);
  void global(Warp& warp, const Instruction& in, const Access& access);
  void global(Warp& warp, const Instruction& in, const Access& access, Allocation& allocation);
  void noncoherent(Warp& warp, const Instruction& in, const Access& access, const GlobalShadow& shadow,
                   const uint64_t* place, const Allocation& allocation);
  void local(Warp& warp, const Instruction& in, const Access& access);

  /// Reads of bytes that nobody wrote; then what the access writes. `flags`: of place 0 of each lane's `place`.
  /// `describe`: of the memory, given a lane.
  template <class Describe>
  void initialisation(Warp& warp, const Instruction& in, const Access& access, uint8_t* flags, const uint64_t* place,
                      uint64_t same, Describe describe);
  // --- values that nobody wrote (undefined.cc) ----------------------------------------------------------------
  /// Follows the value of the load's element number `number`, of `element` bytes; false where that cannot be.
  bool load_undefined(Warp& warp, const Instruction& in, const Access& access, uint32_t element, uint32_t number,
                      Mask lanes, uint64_t same);
  /// A store of registers of which some hold such values. `flags`: as above; null where they are not kept.
  void store_undefined(Warp& warp, const Instruction& in, const Access& access, uint8_t* flags, const uint64_t* place);
  static void forget_used(UndefinedRegisters& registers, const RegisterUse& all, const RegisterUse::Use& use,
                          uint32_t frame, Mask mask);
  void report_undefined(Warp& warp, const UndefinedLoad& load, int lane);

  struct Tracked {
    AccessRecords& records;
    const uint64_t* place;
    std::byte* memory;
    IntervalId floor;
    bool across_blocks;
    const Allocation* allocation;  // null for shared memory
    const Cta* owner;              // of shared memory
  };
  void races(Warp& warp, const Instruction& in, const Access& access, const Tracked& memory);
  template <class RecordOf>
  void acquire_from_records(Warp& warp, Mask lanes, IntervalId floor, Order& order, bool in_block, bool hands_on,
                            RecordOf record_of);
  std::string shared_place(uint64_t offset) const;

  GlobalShadow& shadow_of(Allocation& allocation) {
    Cached& c = cache_[allocation.sequence % cache_.size()];
    if (c.allocation != &allocation) c = {&allocation, &state_.shadow_of(allocation)};
    return *c.shadow;
  }

  // --- the async proxy (async_proxy.cc) -------------------------------------------------------------------------
  /// An access to shared memory, before its records are written: what it owes to the async proxy, or as part of it.
  void async_proxy(Warp& warp, const Instruction& in, const Access& access, const Cta& owner);
  void unfenced(Warp& warp, const Instruction& in, const Access& access, const Cta& owner, Order& order);
  void still_read(Warp& warp, const Instruction& in, const Access& access, const Cta& owner, Order& order);
  /// An instruction while products are under way.
  void step_under_way(Warp& warp, const Instruction& in, const RegisterUse::Use& use);

  // --- divergence -----------------------------------------------------------------------------------------------
  void note_store(Warp& warp, const Instruction& in, Mask lanes);
  /// Stands for a barrier and its copies in an unrolled loop, as far as lines and columns tell that they are copies.
  uint32_t barrier_site(uint32_t place) const;
  void went_round_again(const Cta& cta, const BlockShadow::Rounds& rounds);

  struct Cached {
    const Allocation* allocation = nullptr;
    GlobalShadow* shadow = nullptr;
  };

  Checker::State& state_;
  Grid& grid_;
  std::shared_ptr<LaunchShadow> launch_;
  Reporter reporter_;
  std::array<Cached, 64> cache_;
  std::optional<AccessCollector> collector_;  // where other works of the device may come in between
};

}  // namespace ptxsim
