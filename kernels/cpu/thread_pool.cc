#include "kernels/cpu/thread_pool.h"

#include <utility>

#include "base/thread.h"
#include "kernels/cpu/openmp.h"

namespace cpvt::cpu {

namespace {

// Between the operators of one forward pass the next loop follows within microseconds; sleeping would cost more.
constexpr int kSpins = 4000;

// gate_: | loop number : 47 | closed : 1 | workers inside : 16 |
constexpr uint64_t kInside = 0xffff;
constexpr uint64_t kClosed = 0x10000;
constexpr uint64_t kLoop = 0x20000;

uint64_t loop_of(uint64_t gate) { return gate / kLoop; }

void relax() { __builtin_ia32_pause(); }

}  // namespace

ThreadPool::ThreadPool(int threads) : gate_(kClosed) {
  const auto all = static_cast<size_t>(threads);
  workers_.reserve(all);
  try {
    for (int i = 1; i < threads; ++i) {
      workers_.push_back(start_thread(static_cast<size_t>(i) + 1, all, [this, i] { work(i); }));
    }
  } catch (...) {
    end_workers();  // those that did start
    throw;
  }
}

ThreadPool::~ThreadPool() { end_workers(); }

void ThreadPool::end_workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::drain(int thread) {
  try {
    for (int64_t item = next_++; item < items_; item = next_++) (*body_)(item, thread);
  } catch (...) {
    next_ = items_;  // what has not begun is given up
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

/// Waits until there is a loop after `seen` and enters it. False where the pool ends; `seen` becomes the loop's number.
bool ThreadPool::join(uint64_t& seen) {
  for (;;) {
    uint64_t gate = gate_;
    for (int spin = 0; spin < kSpins && loop_of(gate) == seen; ++spin) {
      relax();
      gate = gate_;
    }
    if (loop_of(gate) == seen) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || loop_of(gate_) != seen; });
      if (stop_) return false;
      gate = gate_;
    }
    while ((gate & kClosed) == 0) {
      if (gate_.compare_exchange_weak(gate, gate + 1)) {
        seen = loop_of(gate);
        return true;
      }
    }
    seen = loop_of(gate);  // over before this worker was awake
  }
}

void ThreadPool::work(int thread) {
  const OneThreadForOpenMP one;
  for (uint64_t seen = 0; join(seen);) {
    drain(thread);
    --gate_;
  }
}

void ThreadPool::run(int64_t items, const std::function<void(int64_t, int)>& body) {
  const OneThreadForOpenMP one;
  if (workers_.empty() || items <= 1) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  // Nobody is inside: the last loop was closed and left. These are read only by those who pass the gate below.
  body_ = &body;
  items_ = items;
  next_ = 0;
  {
    const std::lock_guard lock(mutex_);  // so that no worker falls asleep between looking at the gate and waiting
    gate_ = (loop_of(gate_) + 1) * kLoop;
  }
  wake_.notify_all();
  drain(0);
  gate_ |= kClosed;
  for (int spin = 0; (gate_ & kInside) != 0; ++spin) {
    if (spin < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace cpvt::cpu
