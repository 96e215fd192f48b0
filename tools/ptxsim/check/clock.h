#pragma once

#include <algorithm>
#include <cstdint>

#include "tools/ptxsim/program/program.h"

/// Happens-before, in terms of intervals. What a warp does between two synchronisations is an interval; each has a
/// number that grows over the whole process, so that "all of a warp's intervals before number n" is one number.
namespace ptxsim {

using IntervalId = uint32_t;
constexpr IntervalId kNobody = 0;
constexpr IntervalId kInFlight = ~IntervalId{0};  // in a record: bytes that an asynchronous copy has yet to write

/// What threads know: accesses that happened before what they do next. By warp of the block: those of all its lanes in
/// intervals below `all`, and of some lanes below `part`. (Where knowledge of different lanes meets, `part` is the
/// larger for both: rather a race missed than a false alarm.)
struct Clock {
  alignas(64) IntervalId all[kLanes] = {};  // index: warp
  IntervalId part[kLanes] = {};
  Mask lanes[kLanes] = {};
  IntervalId floor = 0;     // every interval of the block below it
  IntervalId acquired = 0;  // other blocks' releases below and at it have been seen

  void join(const Clock& other) {
    for (int w = 0; w < kLanes; ++w) {
      const IntervalId a = std::max(all[w], other.all[w]);
      const Mask mine = part[w] > a ? lanes[w] : 0, theirs = other.part[w] > a ? other.lanes[w] : 0;
      all[w] = a;
      part[w] = std::max(part[w], other.part[w]);
      lanes[w] = mine | theirs;
    }
    floor = std::max(floor, other.floor);
    acquired = std::max(acquired, other.acquired);
  }

  void know_all(uint32_t warp, IntervalId before) { all[warp] = std::max(all[warp], before); }
  void know_part(uint32_t warp, Mask which, IntervalId before) {
    lanes[warp] = (part[warp] > all[warp] ? lanes[warp] : 0) | which;
    part[warp] = std::max(part[warp], before);
  }

  bool operator==(const Clock&) const = default;

  bool knows(uint32_t warp, uint32_t lane, IntervalId id) const {
    return id < all[warp] || (id < part[warp] && (lanes[warp] >> lane & 1) != 0) || id < floor;
  }
};

}  // namespace ptxsim
