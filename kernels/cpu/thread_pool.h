#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cpvt::cpu {

/// A fixed team of threads, the caller among them. One parallel loop runs at a time; an owner uses it from one thread.
class ThreadPool {  // NOLINT(clang-analyzer-optin.performance.Padding): two cache lines kept apart on purpose
 public:
  /// threads >= 1; 1 runs everything in the caller. Throws Error where the system has not so many threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(item, thread) once for every item in [0, items), 0 <= thread < threads(), and returns when all are
  /// done. Items are handed out in rising order to whoever is free; bodies must not depend on who gets which. What
  /// one throws (there was no memory) comes out here, once all have ended; further items may then be left undone. A
  /// worker that the system has not woken by the time the items are gone is not waited for.
  void run(int64_t items, const std::function<void(int64_t item, int thread)>& body);

 private:
  void work(int thread);
  void end_workers();
  void drain(int thread);
  bool join(uint64_t& seen);

  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t items_ = 0;
  bool stop_ = false;           // guarded by mutex_
  std::exception_ptr failure_;  // guarded by mutex_ while a loop runs
  std::mutex mutex_;
  std::condition_variable wake_;
  // The current loop in one word: its number, whether workers may still join, and how many are inside.
  alignas(64) std::atomic<uint64_t> gate_;
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace cpvt::cpu
