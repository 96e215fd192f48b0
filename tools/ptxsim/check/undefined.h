#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/machine/address_space.h"
#include "tools/ptxsim/program/program.h"

/// Registers that hold what nobody has written. A load of such memory is no fault by itself: a struct's padding is
/// copied with it, a key that is read beyond the end is discarded. It is one when the value decides or ends up as a
/// result. A warp with such registers is watched, instruction by instruction; others cost nothing.
namespace ptxsim {

/// What the instructions of a program do with registers, by the text's names, numbered over all functions.
class RegisterUse {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};
  enum class Kind : uint8_t {
    kCompute,  // results depend on all sources
    kCopy,     // mov, also into and out of vectors
    kSelect,   // selp: sources a, b, p
    kLogic,    // and, or of predicates: sources a, b
    kCompare,  // setp with a third predicate: sources a, b, c
    kLoad,
    kStore,
    kDecide,  // leaves the thread's own registers: shuffles, atomics, calls…
  };
  struct Use {
    Kind kind = Kind::kDecide;
    std::vector<uint32_t> destinations, sources;  // kNone for what is no register
    std::vector<uint32_t> addresses;
    uint32_t guard = kNone;
  };

  explicit RegisterUse(const Program& program);
  const Use& of(uint32_t index) const { return uses_[index]; }
  uint32_t reads(uint32_t number) const { return number == kNone ? 0 : reads_[number]; }

 private:
  std::vector<Use> uses_;        // by instruction
  std::vector<uint32_t> reads_;  // how many operands read each register
};

/// The load by which a value came.
struct UndefinedLoad {
  uint32_t place;
  Space space;
  const Allocation* allocation;
  uint64_t same;  // for the finding's key
  uint32_t element;
  uint64_t address[kLanes];
};

class UndefinedRegisters {
 public:
  struct Entry {
    Mask lanes = 0;
    bool computed = false;  // no mere copy
    std::shared_ptr<const UndefinedLoad> load;
  };

  bool empty() const { return entries_.empty(); }
  void clear() { entries_.clear(); }
  /// Null when all lanes are defined.
  const Entry* find(uint32_t frame, uint32_t number) const {
    const auto at = entries_.find(key(frame, number));
    return at == entries_.end() ? nullptr : &at->second;
  }
  void add(uint32_t frame, uint32_t number, const Entry& entry) {
    if (entry.lanes == 0 || number == RegisterUse::kNone) return;
    Entry& e = entries_[key(frame, number)];
    e.lanes |= entry.lanes;
    e.computed = e.computed || entry.computed;
    e.load = entry.load;
  }
  void define(uint32_t frame, uint32_t number, Mask lanes) {
    const auto at = entries_.find(key(frame, number));
    if (at != entries_.end() && (at->second.lanes &= ~lanes) == 0) entries_.erase(at);
  }
  void exit(Mask lanes) {
    for (auto e = entries_.begin(); e != entries_.end();) {
      e = (e->second.lanes &= ~lanes) == 0 ? entries_.erase(e) : std::next(e);
    }
  }

 private:
  static uint64_t key(uint32_t frame, uint32_t number) { return uint64_t{frame} << 32 | number; }
  std::unordered_map<uint64_t, Entry> entries_;
};

}  // namespace ptxsim
