#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tools/ptxsim/check/access_set.h"

namespace ptxsim {

struct DeviceWork;

/// Of every byte of memory, the works that have accessed it and that a later work may still be unordered with. Bytes
/// with the same past share it, and pages of such bytes are one entry: the room taken grows with how much a page is
/// divided, not with the number of works.
class AccessHistory {
 public:
  /// How a work accessed a byte; a set of bits, the first four in the order of Touch. What copies and fills write is
  /// kept apart: a kernel may wait for it as for a flag.
  enum How : uint8_t { kRead = 1, kWrite = 2, kSyncRead = 4, kSyncWrite = 8, kCopyWrite = 16 };
  static uint8_t conflicting(uint8_t how);  ///< all that must be ordered with it

  struct Past {
    std::shared_ptr<DeviceWork> work;
    uint8_t how = 0;
    bool operator<(const Past& other) const { return std::tie(work, how) < std::tie(other.work, other.how); }
  };
  struct Conflict {
    const Allocation& allocation;
    uint64_t offset;
    uint8_t how;  // the later work's accesses
    const Past& past;
  };

  AccessHistory() { clear(); }

  /// The works of the past that share a flag with this one: one wrote it and the other read it, as flags are.
  std::vector<std::shared_ptr<DeviceWork>> exchanges(const DeviceWork& work, const AccessSet::Part& part);
  /// Adds what the work has accessed. `ordered`: whether a work of the past is ordered with this one; `over`: whether
  /// every later work comes after it anyway.
  void add(const std::shared_ptr<DeviceWork>& work, const AccessSet::Part& part,
           const std::function<bool(const DeviceWork&)>& ordered, const std::function<bool(const DeviceWork&)>& over,
           const std::function<void(const Conflict&)>& found);
  bool knows(const Allocation& allocation) const { return pages_.contains(&allocation); }
  void clear();
  /// Whether there is so much that it is time for forget().
  bool grown() const { return states_.size() > enough_; }
  size_t pieces() const;
  /// Drops the works that every later one comes after.
  void forget(const std::function<bool(const DeviceWork&)>& over);

 private:
  using State = uint32_t;  // number in states_; 0: nobody
  /// From here to the next one's begin.
  struct Stretch {
    uint32_t begin;
    State state;
  };
  struct Page {
    State whole = 0;                                  // of all bytes, where not divided
    std::unique_ptr<std::vector<Stretch>> stretches;  // where divided: the first begins at 0
  };

  /// The same for what one work has accessed; how 0: not at all.
  struct Run {
    uint32_t begin;
    uint8_t how;
  };

  static void runs_of(const AccessSet::Part& part, uint64_t page, bool copies, std::vector<Run>& runs);
  /// Calls f(begin, state, how) for each piece of the page that has one past and was accessed in one way.
  template <class F>
  static void each_piece(const Page& page, const std::vector<Run>& runs, F f);
  State state_of(std::vector<Past> past);

  std::vector<std::vector<Past>> states_;
  std::map<std::vector<Past>, State> numbers_;
  size_t enough_ = 0;
  std::unordered_map<const Allocation*, std::vector<Page>> pages_;
};

}  // namespace ptxsim
