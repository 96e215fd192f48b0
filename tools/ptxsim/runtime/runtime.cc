#include "tools/ptxsim/runtime/runtime.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "tools/ptxsim/check/findings.h"
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

void Runtime::synchronise(const TaskPointer& task) {
  if (task != nullptr) scheduler.wait(*task);
  observe();
}

void Runtime::synchronise_stream(Stream& stream) {
  std::vector<TaskPointer> tasks;
  {
    const std::lock_guard lock(order_mutex);
    // The legacy stream's next operation would wait for all blocking streams: so does who waits for the stream.
    tasks = stream.kind == Stream::Kind::kLegacy ? order_after(stream) : std::vector{stream.last};
  }
  for (const TaskPointer& task : tasks) {
    if (task != nullptr) scheduler.wait(*task);
  }
  observe();
}

void Runtime::synchronise_device() {
  std::vector<TaskPointer> tasks;
  {
    const std::lock_guard lock(order_mutex);
    for (const auto& stream : every_stream()) tasks.push_back(stream->last);
    for (const TaskPointer& task : destroyed_streams_) tasks.push_back(task);
    std::erase_if(destroyed_streams_, [](const TaskPointer& task) { return task->done(); });
  }
  for (const TaskPointer& task : tasks) {
    if (task != nullptr) scheduler.wait(*task);
  }
  observe();
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
