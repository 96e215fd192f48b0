#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ptxsim {

/// Threads that help whoever has a task of many parts. A helper that is busy elsewhere simply does not help: the caller
/// does all by itself if need be, so tasks that wait for each other come to their end.
class WorkerPool {
 public:
  explicit WorkerPool(int helpers);
  ~WorkerPool();

  /// Calls part() on this thread and on as many helpers as are free; returns when all calls have. part() must return
  /// when there is nothing left to do.
  void run(const std::function<void()>& part);

 private:
  struct Task {
    const std::function<void()>* part;
    int inside = 0;
    bool open = true;
  };
  void help();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> tasks_;
  bool ending_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace ptxsim
