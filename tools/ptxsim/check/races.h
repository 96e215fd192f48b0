#pragma once

#include <cstdint>

#include "tools/ptxsim/check/block_shadow.h"
#include "tools/ptxsim/check/record.h"

namespace ptxsim {

/// Whether what others did happened before what a warp does now.
class Order {
 public:
  /// `across_blocks`: the memory is one that other blocks access as well.
  Order(const BlockShadow& block, const WarpShadow& warp, const Intervals& intervals, bool across_blocks)
      : block_(block), warp_(warp), intervals_(intervals), across_blocks_(across_blocks) {}

  /// `wrote`: the record is a writer's.
  bool before(Record r, int lane, bool wrote);

  enum class Whose : uint8_t { kFormerLaunch, kThisBlock, kOtherBlock };
  Whose whose(IntervalId id);

  bool across_blocks() const { return across_blocks_; }

 private:
  static bool released(LaunchShadow::Released* by, Record r, bool wrote);

  const BlockShadow& block_;
  const WarpShadow& warp_;
  const Intervals& intervals_;
  bool across_blocks_;
  // The interval asked for last: neighbours were mostly accessed together.
  IntervalId last_ = kNobody;
  Whose last_whose_ = Whose::kFormerLaunch;
  LaunchShadow::Released* last_released_ = nullptr;
};

/// A warp's access to memory whose records are at hand: finds who else accessed it, unordered, and leaves its own
/// records.
class RaceCheck {
 public:
  enum class What : uint8_t {
    kRead,
    kReadOnly,  // leaves no record: synchronising, or checked again by an atomic
    kWrite,
    kIssue,  // of an asynchronous copy to here
    kLand,
  };
  struct Lanes {
    Mask mask;
    const uint64_t* place;  // per lane: where its bytes start in the records
    uint32_t bytes;
    const std::byte* value;  // of writes, as in Access; null when not at hand
    std::byte* memory;       // what is at place 0 before the access
  };

  RaceCheck(Order& order, BlockShadow& block, WarpShadow& warp, IntervalId floor, uint32_t place, Manner manner,
            What what);
  virtual ~RaceCheck() = default;
  RaceCheck(const RaceCheck&) = delete;
  RaceCheck& operator=(const RaceCheck&) = delete;

  void run(AccessRecords& records, const Lanes& lanes);
  /// Granules that became (kIssue) or stopped being (kLand) in flight.
  uint64_t in_flight() const { return in_flight_; }
  /// Of synchronising writes: the record that each lane's replaced.
  const Record* replaced() const { return replaced_; }

 protected:
  /// The lane's access at this place (of a byte) and another's are not ordered. `which_lane`: of the other's lane no
  /// more is known than its warp.
  virtual void race(int lane, uint64_t place, Record other, bool other_writes, bool which_lane) = 0;
  /// The lane accesses what an asynchronous copy has not written yet.
  virtual void under_way(int lane, uint64_t place, Record copy) = 0;

 private:
  /// A run of granules: `lane_shift` says how many (2^) belong to each lane.
  struct Range {
    uint64_t first, count;
    uint32_t lane, lane_shift;
  };

  /// What tells of a record whether it needs a closer look. By value in the loops over granules, so that they become
  /// vectors; without branches for the same reason.
  struct Filter {
    Record floor;        // records below are of the past
    Record together;     // likewise those of the own warp
    Record same_thread;  // bits that tell threads apart
    Record same_warp;

    bool passes(Record r, Record mine) const {
      const bool past = r < floor, own_thread = ((r ^ mine) & same_thread) == 0,
                 own_warp = ((r ^ mine) & record::kWarpBits) == 0, own_past = r < together;
      return past | own_thread | (own_warp & own_past);
    }
    bool mine_or_old(Record r, Record mine) const {
      const bool past = r < floor, own = ((r ^ mine) & same_thread) == 0;
      return past | own;
    }
    /// Of two readers in one warp, rather one of another warp is kept.
    bool second_stays(Record first, Record second, Record mine) const {
      const bool second_matters = second >= floor, second_is_other = ((second ^ mine) & same_warp) != 0,
                 first_is_own_warp = ((first ^ mine) & same_warp) == 0;
      return first_is_own_warp & second_matters & second_is_other;
    }
  };
  static Record mine(Record stamp, const Range& range, uint64_t i) {
    return stamp | Record{(range.lane + (i >> range.lane_shift)) & 31} << record::kLaneShift;
  }
  bool all_pass(const Record* records, const Range& range) const;
  void words(AccessRecords& records, const Range& range);
  void bytes(AccessRecords& records, const Granules& own, const Range& range);
  void check(const Granules& granules, const Range& range, uint32_t width);
  void examine(Record r, const Range& range, uint64_t i, uint32_t width, bool other_writes);
  void note_readers(const Granules& granules, const Range& range);
  void note_further_readers(const Granules& granules, const Range& range);
  void check_further_readers(const Granules& granules, const Range& range, uint32_t width, uint32_t per_granule);
  void note_writers(const Granules& granules, const Range& range);
  void note_ordered_writers(Record* records, const Range& range);
  void write_early(const Range& range, uint32_t width) const;
  bool same_value(int lane, uint64_t place, uint32_t width, Record other) const;
  bool writes() const { return what_ == What::kWrite || what_ == What::kIssue; }

  Order& order_;
  BlockShadow& block_;
  WarpShadow& warp_;
  What what_;
  Manner manner_;
  Record stamp_;  // of lane 0
  Filter filter_;
  const Lanes* lanes_ = nullptr;
  AccessRecords* records_ = nullptr;
  bool synchronised_ = false;  // the memory has records of synchronising writers
  uint64_t in_flight_ = 0;
  Record replaced_[kLanes] = {};
};

}  // namespace ptxsim
