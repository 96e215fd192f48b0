#pragma once

#include <cstdint>

#include "tools/ptxsim/check/clock.h"

namespace ptxsim {

/// Who accessed a piece of memory, in 64 bits: the interval (32), the instruction's index (19), the lane (5), the warp
/// in its block (5), how (3). Zero: nobody.
using Record = uint64_t;

enum class Manner : uint8_t {
  kPlain = 0,
  kSynchronising = 1,  // volatile, relaxed…, atomic
  kFenced = 2,         // a plain store right behind a fence: as good as a flag
  kAsync = 3,          // an asynchronous copy has yet to write it (interval kInFlight)
  kLanded = 5,         // an asynchronous copy has written it, and somebody has waited for that
  kBlockScope = 4,     // synchronising, but with threads of the own block only: .cta
};

namespace record {

constexpr uint32_t kUnknownPlace = 0x7ffff;
constexpr int kIdShift = 32, kPlaceShift = 13, kLaneShift = 8, kWarpShift = 3;
constexpr Record kWarpBits = Record{31} << kWarpShift, kLaneBits = Record{31} << kLaneShift, kMannerBits = 7;
constexpr Record kIdBits = Record{0xffffffff} << kIdShift;

inline Record make(IntervalId id, uint32_t place, uint32_t warp, uint32_t lane, Manner manner) {
  return Record{id} << kIdShift | Record{place < kUnknownPlace ? place : kUnknownPlace} << kPlaceShift |
         Record{lane} << kLaneShift | Record{warp} << kWarpShift | static_cast<Record>(manner);
}
inline IntervalId id(Record r) { return static_cast<IntervalId>(r >> kIdShift); }
inline uint32_t place(Record r) { return static_cast<uint32_t>(r >> kPlaceShift) & kUnknownPlace; }
inline uint32_t lane(Record r) { return static_cast<uint32_t>(r >> kLaneShift) & 31; }
inline uint32_t warp(Record r) { return static_cast<uint32_t>(r >> kWarpShift) & 31; }
inline Manner manner(Record r) { return static_cast<Manner>(r & kMannerBits); }
inline Record of_warp(Record r, uint32_t warp) { return (r & ~kWarpBits) | Record{warp} << kWarpShift; }
inline bool synchronising(Manner m) { return m == Manner::kSynchronising || m == Manner::kBlockScope; }

}  // namespace record

}  // namespace ptxsim
