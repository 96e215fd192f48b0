#include "tools/ptxsim/runtime/runtime.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "tools/ptxsim/check/findings.h"
#include "tools/ptxsim/program/compile.h"
#include "tools/ptxsim/runtime/graph.h"
#include "tools/ptxsim/runtime/pool.h"

namespace ptxsim::runtime {
namespace {

std::atomic<Runtime*> g_runtime{nullptr};

cudaError_t error_of(Status status) {
  switch (status) {
    case Status::kOk:
      return cudaSuccess;
    case Status::kIllegalAddress:
      return cudaErrorIllegalAddress;
    case Status::kMisalignedAddress:
      return cudaErrorMisalignedAddress;
    case Status::kIllegalInstruction:
      return cudaErrorIllegalInstruction;
    case Status::kAssert:
      return cudaErrorAssert;
    case Status::kTrap:
      return cudaErrorLaunchFailure;
    case Status::kDeadlock:
      return cudaErrorLaunchTimeout;
    case Status::kStackOverflow:
      return cudaErrorHardwareStackError;
  }
  return cudaErrorUnknown;
}

/// For the driver program: a byte for each finding as it is made, for the program may end by abort() or _exit(), and
/// one that says that the library was used at all.
void tell_driver(char what) {
  const char* text = std::getenv("PTXSIM_RESULT_FD");
  if (text == nullptr) return;
  int descriptor = -1;
  if (std::from_chars(text, text + std::strlen(text), descriptor).ec != std::errc{}) return;
  // Nobody may be reading any more.
  if (write(descriptor, &what, 1) < 0) return;
}

}  // namespace

Runtime::Runtime() : graph_pool(std::make_shared<Pool>(cudaMemPoolProps{})) {
  legacy_->kind = Stream::Kind::kLegacy;
  legacy_->id = next_id++;
}

Runtime& Runtime::get() {
  static auto* runtime = [] {
    auto* made = new Runtime;
    g_runtime = made;
    return made;
  }();
  return *runtime;
}

Runtime* Runtime::get_if_made() { return g_runtime; }

Machine& Runtime::machine() {
  std::call_once(machine_once_, [this] {
    try {
      auto* machine = new Machine(Options::from_environment());
      machine->findings().on_new([] { tell_driver('f'); });
      tell_driver('u');
      machine_made_ = machine;
    } catch (const Error& error) {
      say(error.what());
    }
  });
  Machine* machine = machine_made_;
  require(machine != nullptr, cudaErrorInitializationError);
  return *machine;
}

void Runtime::finished(const Outcome& outcome) {
  if (outcome.status == Status::kOk) return;
  cudaError_t none = cudaSuccess;
  if (lost_.compare_exchange_strong(none, error_of(outcome.status)) && !machine().options().check) say(outcome.message);
}

void Runtime::observe() {
  if (!lost()) return;
  observed_ = true;
  fail(lost_);
}

void Runtime::wait(const TaskPointer& task) {
  if (task == nullptr) return;
  scheduler.wait(*task);
  host_knows(task);
}

void Runtime::host_knows(const TaskPointer& task) {
  if (task != nullptr && task->checked != nullptr) task->checked->order.host_knows(*task->checked);
}

bool Runtime::finished_for_host(const Task& task) {
  return task.done() && (task.checked == nullptr || task.checked->order.known_to_host(*task.checked));
}

void Runtime::synchronise(const TaskPointer& task) {
  wait(task);
  observe();
}

void Runtime::synchronise_stream(Stream& stream) {
  std::vector<TaskPointer> tasks;
  {
    const std::lock_guard lock(order_mutex);
    // The legacy stream's next operation would wait for all blocking streams: so does who waits for the stream.
    tasks = stream.kind == Stream::Kind::kLegacy ? order_after(stream) : std::vector{stream.last};
  }
  for (const TaskPointer& task : tasks) wait(task);
  observe();
}

void Runtime::synchronise_device() {
  std::vector<TaskPointer> tasks;
  {
    const std::lock_guard lock(order_mutex);
    for (const auto& stream : every_stream()) tasks.push_back(stream->last);
    for (const Destroyed& stream : destroyed_streams_) tasks.push_back(stream.last);
    std::erase_if(destroyed_streams_, [this](const Destroyed& stream) { return finished_for_host(*stream.last); });
  }
  for (const TaskPointer& task : tasks) wait(task);
  observe();
}

void Runtime::launch_failed(const void* function, ThreadState& thread) {
  const std::shared_ptr<Function> found = registry.function(function);
  const std::lock_guard lock(failed_mutex_);
  std::set<std::string>& failed = failed_launches_[&thread];
  if (!thread.launch_failed.exchange(true)) failed.clear();
  failed.insert(fmt::format("{}: launch failed: {}: nobody has asked for the error since",
                            found == nullptr ? "a kernel" : demangle(found->name), thread.noted));
}

void Runtime::reset() {
  try {
    synchronise_device();
  } catch (const Failure&) {  // what the reset is for
  }
  const std::lock_guard lock(order_mutex);
  captures.clear();
  execs.clear();
  graphs.clear();
  events.clear();
  streams.clear();
  pools.clear();
  current_pool = nullptr;
  const bool after_fault = lost();
  recover();
  if (machine_if_made() == nullptr) return;
  for (const auto& binary : registry.binaries()) binary->unload();
  // What a program that is being checked leaves to the reset is reported as its leak at the end.
  if (!machine().options().check || after_fault) {
    for (Allocation* allocation : memory().live_allocations()) memory().free(allocation);
    const std::lock_guard pool_lock(pool_mutex_);
    default_pool_ = nullptr;
  }
}

void Runtime::finish() {
  // In a child that the program has forked the threads are missing, and the report is the parent's.
  if (getpid() != process_) return;
  // A program may end without waiting for its last kernels. They are run, for their findings; but one that waits for
  // the program would wait forever.
  constexpr std::chrono::seconds kPatience{20};
  if (Machine* machine = machine_if_made()) {
    if (!scheduler.wait_all_for(kPatience)) say("the program has ended while its kernels are still running");
    if (lost()) {
      // After a fault the program cannot free anything any more: what it has left is no leak.
      for (Allocation* allocation : machine->memory().live_allocations()) machine->memory().free(allocation);
    }
    {
      const std::lock_guard lock(failed_mutex_);
      for (const auto& [thread, failed] : failed_launches_) {
        if (!thread->launch_failed) continue;
        for (const std::string& text : failed) machine->findings().add(text, text);
      }
    }
    machine->finish();
  }
  tell_driver('u');
}

namespace {

/// After all of the program's own destructors, which may free device memory: this library is a dependency of the
/// program, and is finished after it.
[[gnu::destructor]] void finish_at_exit() {
  if (Runtime* runtime = Runtime::get_if_made()) runtime->finish();
}

}  // namespace
}  // namespace ptxsim::runtime
