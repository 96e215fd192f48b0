#include "tools/ptxsim/runtime/scheduler.h"

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace ptxsim::runtime {

TaskPointer Scheduler::submit(std::function<void()> work, std::span<const TaskPointer> after) {
  auto task = std::make_shared<Task>();
  task->work_ = std::move(work);
  const std::lock_guard lock(mutex_);
  ++unfinished_;
  for (const TaskPointer& before : after) {
    if (before == nullptr || before->done()) continue;
    before->followers_.push_back(task);
    ++task->waits_for_;
  }
  if (task->waits_for_ == 0) make_ready(task);
  return task;
}

void Scheduler::make_ready(TaskPointer task) {
  ready_.push_back(std::move(task));
  if (idle_threads_ >= ready_.size() || threads_ == kMaxThreads) {
    ready_changed_.notify_one();
    return;
  }
  ++threads_;
  // Signals are the program's: its own threads shall handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([this] { run(); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Scheduler::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_threads_;
    ready_changed_.wait(lock, [this] { return !ready_.empty(); });
    --idle_threads_;
    TaskPointer task = std::move(ready_.front());
    ready_.pop_front();
    while (task != nullptr) {
      lock.unlock();
      task->work_();
      task->work_ = nullptr;
      lock.lock();
      task->done_.store(true, std::memory_order_release);
      --unfinished_;
      finished_.notify_all();
      // This thread goes on with the first task that has become possible: most often the stream's next.
      TaskPointer next;
      for (TaskPointer& follower : task->followers_) {
        if (--follower->waits_for_ != 0) continue;
        if (next == nullptr) {
          next = std::move(follower);
        } else {
          make_ready(std::move(follower));
        }
      }
      task->followers_.clear();
      task = std::move(next);
    }
  }
}

void Scheduler::wait(const Task& task) {
  if (task.done()) return;
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&task] { return task.done(); });
}

void Scheduler::wait_all() {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return unfinished_ == 0; });
}

bool Scheduler::wait_all_for(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return finished_.wait_for(lock, limit, [this] { return unfinished_ == 0; });
}

bool Scheduler::idle() {
  const std::lock_guard lock(mutex_);
  return unfinished_ == 0;
}

}  // namespace ptxsim::runtime
