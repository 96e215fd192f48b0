#include "tools/ptxsim/machine/worker_pool.h"

#include <algorithm>

namespace ptxsim {

WorkerPool::WorkerPool(int helpers) {
  for (int i = 0; i < helpers; ++i) helpers_.emplace_back([this] { help(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& t : helpers_) t.join();
}

void WorkerPool::run(const std::function<void()>& part) {
  const auto task = std::make_shared<Task>();
  task->part = &part;
  if (!helpers_.empty()) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(task);
    }
    changed_.notify_all();
  }
  part();
  if (helpers_.empty()) return;
  std::unique_lock lock(mutex_);
  task->open = false;
  std::erase(tasks_, task);
  changed_.wait(lock, [&] { return task->inside == 0; });
}

void WorkerPool::help() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return ending_ || !tasks_.empty(); });
    if (ending_) return;
    const std::shared_ptr<Task> task = tasks_.front();
    ++task->inside;
    // This helper found all of it that there is to do when part() returns; others need not look again.
    lock.unlock();
    (*task->part)();
    lock.lock();
    --task->inside;
    std::erase(tasks_, task);
    changed_.notify_all();
  }
}

}  // namespace ptxsim
