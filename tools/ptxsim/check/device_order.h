#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tools/ptxsim/check/access_history.h"
#include "tools/ptxsim/check/access_set.h"
#include "tools/ptxsim/check/findings.h"
#include "tools/ptxsim/machine/machine.h"

/// Happens-before between pieces of work of the device: kernels, copies, fills, allocations and frees in streams, nodes
/// of graphs.
namespace ptxsim {

/// What has happened before: of each chain of works that follow each other, how many.
using WorkClock = std::vector<uint32_t>;

class DeviceOrder;

struct DeviceWork {
  enum class Kind : uint8_t { kKernel, kCopy, kFill, kAllocate, kFree, kOther };
  struct Description {
    Kind kind = Kind::kOther;
    Kernel kernel;          // of kKernel
    const char* call = "";  // of the others: what has asked for it
    uint64_t stream = 0;    // 0: the legacy default stream
  };

  DeviceWork(DeviceOrder& the_order, Description the_description)
      : order(the_order), description(std::move(the_description)) {}

  std::string what() const;
  /// "fill(int*, int) in stream 3".
  std::string name() const;
  /// Its synchronising accesses to memory that the host sees: it may tell the host of what it has done, or be told.
  void meets_host(bool tells, bool hears);

  DeviceOrder& order;
  const Description description;
  AccessSet accesses;  // until it has ended
  std::atomic<bool> tells_host{false}, hears_host{false};

  // With the order's mutex held:
  uint32_t chain = 0, position = 0;  // position 0: it has not begun
  WorkClock clock;
  std::vector<std::shared_ptr<DeviceWork>> after;  // until it begins
  std::shared_ptr<const WorkClock> host;           // what the host knew when it asked for the work; until it has ended
  /// Those that it may have exchanged flags with while they ran, and so be ordered with.
  std::vector<std::shared_ptr<DeviceWork>> peers;
  struct Place {
    uint64_t allocation;
    Touch touch;
    std::vector<uint32_t> instructions;
  };
  std::vector<Place> places;

  bool before(const DeviceWork& other) const { return &other != this && before_clock(other.clock); }
  bool before_clock(const WorkClock& other) const {
    return position != 0 && chain < other.size() && other[chain] >= position;
  }
};
using WorkPointer = std::shared_ptr<DeviceWork>;

/// Orders works by what the program has said — streams, events, graphs, waits of the host — and finds those that no
/// order keeps from accessing the same bytes at once. The host counts as one thread: whatever it has waited for comes
/// before whatever it asks for later.
class DeviceOrder {
 public:
  explicit DeviceOrder(Findings& findings) : findings_(findings) {}

  WorkPointer submitted(DeviceWork::Description description, std::vector<WorkPointer> after);
  /// On the thread that executes it, around its execution. `compare`: its accesses are those that it should have made.
  void begins(DeviceWork& work);
  void ends(const WorkPointer& work, bool compare);

  /// The host knows that the work is done, or has come as far as to tell the host so.
  void host_knows(const DeviceWork& work);
  bool known_to_host(const DeviceWork& work);

  /// Pieces of memory of which it knows different works.
  size_t remembered();

 private:
  static void join(WorkClock& into, const WorkClock& from);
  void host_joins(const WorkClock& clock);
  /// What every work knows that has not ended, and so every later one.
  WorkClock common() const;
  void compare(const WorkPointer& work);
  void report(const AccessHistory::Conflict& conflict, const DeviceWork& work, const AccessSet::Part& part);

  Findings& findings_;
  std::mutex mutex_;            // of all that follows
  std::vector<uint32_t> ends_;  // of each chain: the position of its last work
  std::shared_ptr<const WorkClock> host_ = std::make_shared<const WorkClock>();
  /// What the host knew when it asked for works that have not ended, and for how many.
  std::map<std::shared_ptr<const WorkClock>, size_t> unfinished_;
  AccessHistory history_;
};

}  // namespace ptxsim
