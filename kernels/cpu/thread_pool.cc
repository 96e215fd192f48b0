#include "kernels/cpu/thread_pool.h"

#include <omp.h>

namespace cpvt::cpu {

namespace {

// Between the operators of one forward pass the next loop follows within microseconds; sleeping would cost more.
constexpr int kSpins = 4000;

void relax() { __builtin_ia32_pause(); }

/// oneDNN threads by OpenMP unless told that this thread has a team of one; the pool is the only team here.
class OneThreadForOpenMP {
 public:
  OneThreadForOpenMP() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThreadForOpenMP() { omp_set_num_threads(before_); }
  OneThreadForOpenMP(const OneThreadForOpenMP&) = delete;
  OneThreadForOpenMP& operator=(const OneThreadForOpenMP&) = delete;

 private:
  int before_;
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    ++epoch_;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::drain(int thread) {
  for (int64_t item = next_++; item < items_; item = next_++) (*body_)(item, thread);
}

void ThreadPool::work(int thread) {
  const OneThreadForOpenMP one;
  uint64_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpins && epoch_ == seen; ++spin) relax();
    if (epoch_ == seen) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return epoch_ != seen; });
    }
    seen = epoch_;
    if (stop_) return;
    drain(thread);
    --busy_;
  }
}

void ThreadPool::run(int64_t items, const std::function<void(int64_t, int)>& body) {
  const OneThreadForOpenMP one;
  if (workers_.empty() || items <= 1) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  body_ = &body;
  items_ = items;
  next_ = 0;
  busy_ = static_cast<int>(workers_.size());
  {
    const std::lock_guard lock(mutex_);
    ++epoch_;
  }
  wake_.notify_all();
  drain(0);
  for (int spin = 0; busy_ != 0; ++spin) {
    if (spin < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace cpvt::cpu
