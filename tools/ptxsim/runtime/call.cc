#include "tools/ptxsim/runtime/call.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#include "tools/ptxsim/runtime/runtime.h"
#include "tools/ptxsim/runtime/unsupported.h"

namespace ptxsim::runtime {

void fail(cudaError_t code, std::string why) { throw Failure{code, std::move(why)}; }

void say(const std::string& line) { fmt::print(stderr, "ptxsim: {}\n", line); }

void refuse(const std::string& what) {
  say(fmt::format("{} is not supported", what));
  fail(cudaErrorNotSupported);
}

ThreadState& this_thread() {
  // Never destroyed: destructors of the program's own thread-local and static objects may still call.
  static thread_local auto* state = new ThreadState;
  return *state;
}

namespace {

/// With checks on, a line about a call that has failed; its caller knows the code, and may not look at it.
void note(const char* name, cudaError_t code, const std::string& why, Runtime& runtime) {
  const Machine* machine = runtime.machine_if_made();
  if (machine == nullptr || !machine->options().check) return;
  // What is no fault, what has been said, and a fault that every later call returns.
  if (code == cudaErrorNotReady || code == cudaErrorNotSupported || code == runtime.observed()) return;
  ThreadState& thread = this_thread();
  if (!thread.noted.empty()) return;
  thread.noted = fmt::format("{}: {}", cudaGetErrorName(code), why.empty() ? cudaGetErrorString(code) : why);
  const std::string text = fmt::format("note: {}: {}", name, thread.noted);
  constexpr size_t kEnough = 1000;
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (said.size() < kEnough && said.insert(text).second) say(text);
}

/// Entry points that other ones call are part of those.
class Depth {
 public:
  Depth() {
    if (this_thread().depth++ == 0) this_thread().noted.clear();
  }
  ~Depth() { --this_thread().depth; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;
};

}  // namespace

cudaError_t guarded(const char* name, CallKind kind, Body body, void* closure) {
  cudaError_t code = cudaSuccess;
  const Depth depth;
  Runtime& runtime = Runtime::get();
  try {
    if (kind == CallKind::kNormal) require(runtime.observed() == cudaSuccess, runtime.observed());
    body(closure, runtime);
  } catch (const Failure& failure) {
    code = failure.code;
    note(name, code, failure.why, runtime);
  } catch (const Error& error) {
    say(fmt::format("{}: {}", name, error.what()));
    code = cudaErrorUnknown;
  } catch (const std::bad_alloc&) {
    code = cudaErrorMemoryAllocation;
    note(name, code, {}, runtime);
  } catch (const std::exception& error) {
    say(fmt::format("{}: {}", name, error.what()));
    code = cudaErrorUnknown;
  }
  if (code != cudaSuccess) this_thread().last_error = code;
  return code;
}

int unsupported(const char* name) {
  return call(
      name, [name](Runtime&) { refuse(name); }, CallKind::kOnLostContext);
}

}  // namespace ptxsim::runtime
