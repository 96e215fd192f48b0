#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/check/clock.h"
#include "tools/ptxsim/check/record.h"
#include "tools/ptxsim/check/shadow.h"
#include "tools/ptxsim/exec/observer.h"

/// What bulk copies and products of warpgroups do to shared memory by themselves, in the async proxy: when they have
/// ended, whoever waits for them knows; and what threads have written they see once a proxy fence has come between.
namespace ptxsim {

/// What threads know of it, handed on as a Clock is. Kept only where a launch has such instructions.
struct AsyncClock {
  Clock fenced;                      // accesses that a proxy fence came after
  IntervalId ended[2][kLanes] = {};  // [AsyncReader][warp]: reads issued in intervals below have ended

  void join(const AsyncClock& other) {
    fenced.join(other.fenced);
    for (int reader = 0; reader < 2; ++reader) {
      for (int w = 0; w < kLanes; ++w) ended[reader][w] = std::max(ended[reader][w], other.ended[reader][w]);
    }
  }
};

/// Who reads shared memory asynchronously: of each 16 bytes, which are read as a whole, the last of each warpgroup. The
/// manner is the AsyncReader.
class AsyncReads {
 public:
  static constexpr uint32_t kGranule = 16, kSlots = 4;

  explicit AsyncReads(size_t memory_bytes) : memory_((memory_bytes / kGranule + 2) * kSlots * sizeof(Record)) {}
  Record* at(uint64_t place) const { return memory_.as<Record>() + place / kGranule * kSlots; }
  bool any() const { return any_; }
  void note(uint64_t place, Record r) {
    at(place)[record::warp(r) / 4 % kSlots] = r;
    any_ = true;
  }

 private:
  LazyZeros memory_;
  bool any_ = false;
};

/// Registers of products that are under way, and copies of them: nvcc's PTX moves accumulators about.
struct AsyncRegisters {
  struct Entry {
    uint64_t group;
    uint32_t place;  // of the product
  };
  std::unordered_map<uint64_t, Entry> entries;  // by frame and number, as UndefinedRegisters

  static uint64_t key(uint32_t frame, uint32_t number) { return uint64_t{frame} << 32 | number; }
};

}  // namespace ptxsim
