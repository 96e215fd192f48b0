#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace ptxsim {
struct DeviceWork;
}

namespace ptxsim::runtime {

/// A piece of the device's work and what waits for it.
class Task {
 public:
  bool done() const { return done_.load(std::memory_order_acquire); }

  /// What checks know of it; null without them. Set where it is submitted.
  std::shared_ptr<DeviceWork> checked;

 private:
  friend class Scheduler;
  std::function<void()> work_;
  std::vector<std::shared_ptr<Task>> followers_;
  size_t waits_for_ = 0;
  std::atomic<bool> done_{false};
};
using TaskPointer = std::shared_ptr<Task>;

/// Runs tasks in the order that their dependencies leave, each on a thread of its own while it runs: a kernel may wait
/// for what another one, or a host function, does meanwhile.
class Scheduler {
 public:
  /// `after` may hold null pointers and finished tasks.
  TaskPointer submit(std::function<void()> work, std::span<const TaskPointer> after);

  void wait(const Task& task);
  void wait_all();
  /// False when there is still work after that long.
  bool wait_all_for(std::chrono::milliseconds limit);
  bool idle();

 private:
  // As many grids as run concurrently on a real device.
  static constexpr size_t kMaxThreads = 256;

  void make_ready(TaskPointer task);  // with mutex_ held
  void run();

  std::mutex mutex_;
  std::condition_variable ready_changed_, finished_;
  std::deque<TaskPointer> ready_;
  size_t threads_ = 0, idle_threads_ = 0, unfinished_ = 0;
};

}  // namespace ptxsim::runtime
