#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/runtime/operation.h"
#include "tools/ptxsim/runtime/scheduler.h"

namespace ptxsim::runtime {

struct Graph;
struct Node;
struct Stream;

/// Objects that the program holds by an opaque pointer. Copies of the shared pointer keep one alive that the program
/// has destroyed while work still needs it.
template <class T, class Handle>
class Handles {
 public:
  Handle add(std::shared_ptr<T> object) {
    const std::lock_guard lock(mutex_);
    T* key = object.get();
    objects_.emplace(key, std::move(object));
    return reinterpret_cast<Handle>(key);
  }
  /// Null when there is no such object.
  std::shared_ptr<T> find(Handle handle) const {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  std::shared_ptr<T> remove(Handle handle) {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(handle);
    if (found == objects_.end()) return nullptr;
    std::shared_ptr<T> result = std::move(found->second);
    objects_.erase(found);
    return result;
  }
  std::vector<std::shared_ptr<T>> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<T>> result;
    for (const auto& [key, object] : objects_) result.push_back(object);
    return result;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    objects_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<const void*, std::shared_ptr<T>> objects_;
};

/// One recording of an event: a place in a stream's or graph's order.
struct Recording {
  TaskPointer task;
  std::atomic<int64_t> nanoseconds{0};  // valid when the task is done
};

/// A capture that is going on: streams that write into one graph.
struct Capture {
  uint64_t id = 0;
  std::shared_ptr<Graph> graph;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  Stream* origin = nullptr;
  std::set<Stream*> streams;
  std::vector<Node*> left_behind;         // the ends of streams that were destroyed meanwhile
  cudaError_t invalidated = cudaSuccess;  // why, once it is
};

class Event {
 public:
  explicit Event(unsigned flags) : flags(flags) {}

  const unsigned flags;
  // With Runtime::order_mutex held:
  std::shared_ptr<Recording> recording;  // the most recent; null before the first
  std::shared_ptr<Capture> capture;      // when the most recent record was captured
  std::vector<Node*> captured_nodes;     // what it stands for then

  bool timed() const { return (flags & cudaEventDisableTiming) == 0; }
};

struct Stream {
  enum class Kind : uint8_t { kLegacy, kPerThread, kCreated };

  Kind kind = Kind::kCreated;
  unsigned flags = cudaStreamDefault;
  int priority = 0;
  uint64_t id = 0;
  LaunchAttributes attributes;
  // With Runtime::order_mutex held:
  TaskPointer last;
  std::shared_ptr<Capture> capture;
  std::vector<Node*> captured_last;                   // what the next captured operation depends on
  std::vector<cudaGraphEdgeData> captured_edge_data;  // as asked for by cudaStreamGetCaptureInfo

  bool blocking() const { return kind != Kind::kLegacy && (flags & cudaStreamNonBlocking) == 0; }
  cudaStream_t handle() { return kind == Kind::kLegacy ? nullptr : reinterpret_cast<cudaStream_t>(this); }
};

}  // namespace ptxsim::runtime
