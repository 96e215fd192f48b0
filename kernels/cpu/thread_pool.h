#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cpvt::cpu {

/// A fixed team of threads, the caller among them. One parallel loop runs at a time; an owner uses it from one thread.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  ///< threads >= 1; 1 runs everything in the caller
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(item, thread) once for every item in [0, items), 0 <= thread < threads(), and returns when all are
  /// done. Items are handed out in rising order to whoever is free; bodies must not depend on who gets which, nor
  /// throw.
  void run(int64_t items, const std::function<void(int64_t item, int thread)>& body);

 private:
  void work(int thread);
  void drain(int thread);

  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t items_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<uint64_t> epoch_{0};  // a loop's number; workers wait for it to change
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace cpvt::cpu
