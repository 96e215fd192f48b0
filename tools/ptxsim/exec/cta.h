#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "tools/ptxsim/exec/warp.h"

namespace ptxsim {

class Cluster;

/// A launch that is running: what all its blocks share.
struct Grid {
  Machine* machine = nullptr;
  const Launch* launch = nullptr;
  DeviceWork* work = nullptr;  // which the launch is, for the check of its order with others
  const Program* program = nullptr;
  const std::byte* constants = nullptr;  // Program::constants, aligned
  uint64_t sequence = 0;                 // of the launch, from 1
  uint64_t blocks = 0;
  uint32_t threads_per_block = 0, warps_per_block = 0;
  uint32_t shared_bytes = 0;   // static + dynamic, as the device counts them
  uint32_t shared_extent = 0;  // the same with red zones: what addresses stay below
  /// With red zones, where shared memory may be accessed: the static variables, then dynamic memory.
  struct SharedRegion {
    std::string_view variable;  // empty: dynamic memory
    uint32_t offset, end;
  };
  std::vector<SharedRegion> shared_regions;
  /// "variable 'tile'", "dynamic shared memory".
  static std::string describe(const SharedRegion& region);
  uint32_t blocks_per_cluster = 1;
  std::atomic<bool> stopped{false};  // by a fault
  std::mutex mutex;
  Outcome outcome;               // the first fault's
  uint64_t barrier_address = 0;  // cooperative launches: global memory for grid-wide barriers, by %envreg1/2

  void fail(Status status, std::string message);
};

/// One operating-system thread that executes blocks.
struct Worker {
  int index = 0;
  std::mt19937_64 random;                              // of the adversarial schedule
  std::vector<uint64_t> executed, threads, divergent;  // per instruction index: warps, lanes, branches that parted
  std::vector<std::unique_ptr<Observer>> observers;    // at most two
};

/// A thread block: its memory, its warps, its barriers. Moves between workers, but is in the hands of one at a time.
class Cta {
 public:
  Cta(Grid& grid, uint64_t linear_index);
  ~Cta();
  Cta(const Cta&) = delete;
  Cta& operator=(const Cta&) = delete;

  Grid& grid;
  Worker* worker = nullptr;  // in whose hands it is
  uint64_t linear_index;
  Dim3 index;                   // blockIdx
  std::byte* shared = nullptr;  // grid.shared_extent of it
  std::byte* locals = nullptr;  // program.local_bytes per thread, thread after thread
  std::vector<Warp> warps;
  Cluster* cluster = nullptr;  // null for launches without clusters
  uint32_t cluster_rank = 0;
  std::unique_ptr<void, void (*)(void*)> shadow{nullptr, [](void*) {}};  // the checker's

  /// Lets every warp run for a while on this worker. False when the block is done.
  bool step(Worker& worker, uint64_t budget = 1 << 16);
  /// Whether the last step did anything but look at memory that others must change.
  bool progressed() const { return progressed_; }
  bool done() const { return done_; }
  /// Whether every lane waits for others of the block or cluster; in a cluster, another block may still help.
  bool stuck() const { return stuck_; }
  /// Whether a warp looked at an mbarrier in the last step, and found that it has to wait.
  bool awaits() const { return awaits_; }
  void fail_stuck();  ///< ends the launch with a message that says who waits where

  struct Barrier {
    uint32_t arrived = 0;            // threads
    uint32_t expected = 0;           // 0: all threads that are alive
    std::vector<uint32_t> waiting;   // warps, perhaps more than once
    std::map<uint32_t, Mask> lanes;  // of each warp, for barriers of a stated number of threads
  };
  Barrier barriers[16];
  struct Reduction {  // barrier.red: what the predicates handed in say
    uint32_t count = 0;
    bool all = true, any = false;
  };
  /// Of the barrier's running phase, and of its last, which those that waited read before they can end the next.
  Reduction reductions[16], reduced[16];
  void arrive(Warp& warp, Mask lanes, int id, uint32_t threads, bool waits);

  /// A bulk copy to this block's shared memory: read when issued, landed when somebody looks at its mbarrier.
  struct BulkCopy {
    uint32_t mbarrier;  // offset
    uint32_t bytes;     // by which the mbarrier learns of it
    const Instruction* instruction;
    uint32_t first;  // offset of the image in shared memory
    std::vector<std::byte> image;
    struct Piece {
      uint32_t offset, bytes;
    };
    std::vector<Piece> pieces;  // what of the image is written
  };
  std::vector<std::unique_ptr<BulkCopy>> bulk_copies;

  void lanes_exited(Warp& warp);
  uint32_t alive_threads() const;
  void complete_if_full(int id);
  std::string describe() const;  // "block (0, 1, 0)"

 private:
  void fill_specials();
  bool started_ = false;
  bool progressed_ = true;
  bool stuck_ = false;
  bool awaits_ = false;
  bool done_ = false;
  size_t memory_bytes_ = 0;  // of `shared` and all that lies behind it
};

/// Blocks that are scheduled together: a cluster, or a single block of a launch without clusters.
class Cluster {
 public:
  Cluster(Grid& grid, uint64_t index);

  std::vector<std::unique_ptr<Cta>> blocks;  // by rank

  /// As Cta::step, for all blocks. False when all are done.
  bool step(Worker& worker);
  bool progressed() const { return progressed_; }

  /// Whether it has been through the same states again and again, and will be for as long as nobody changes memory.
  bool cycles() const { return nothing_new_ >= kCycles; }
  void fail_cycling(const std::string& why);

  /// barrier.cluster (cluster_barrier.cc), which observers know as barrier 16 of each block.
  static constexpr int kBarrier = 16;
  void arrive(Warp& warp, Mask lanes);
  void lanes_exited(Warp& warp);

 private:
  void complete_if_full(Warp& last);
  // Rounds in which all only looked at mbarriers, and not at memory that others change. Whoever counts its attempts,
  // and so is never in the same state again, goes on before this.
  static constexpr uint32_t kPatience = 1 << 16;
  uint32_t idle_rounds_ = 0;
  uint32_t own_cycles_ = 0;  // of them, those in states that had all been there before
  uint32_t arrived_ = 0;     // threads, all alive, in the barrier's phase
  bool progressed_ = true;

  static constexpr uint32_t kCycles = 64;
  static constexpr size_t kMostStates = 1 << 12;
  void look_for_cycle();
  bool executed_much();

  std::unordered_set<uint64_t> states_;  // of its warps, since memory changed last
  uint32_t nothing_new_ = 0;             // rounds
  uint64_t changes_seen_ = 0;            // Machine::memory_changes
  uint64_t executed_seen_ = 0;           // instructions
};

}  // namespace ptxsim
