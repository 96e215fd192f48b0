#include "tools/ptxsim/runtime/call.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <new>

#include "tools/ptxsim/runtime/runtime.h"
#include "tools/ptxsim/runtime/unsupported.h"

namespace ptxsim::runtime {

void fail(cudaError_t code) { throw Failure{code}; }

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

cudaError_t guarded(const char* name, CallKind kind, Body body, void* closure) {
  cudaError_t code = cudaSuccess;
  try {
    Runtime& runtime = Runtime::get();
    if (kind == CallKind::kNormal) require(runtime.observed() == cudaSuccess, runtime.observed());
    body(closure, runtime);
  } catch (const Failure& failure) {
    code = failure.code;
  } catch (const Error& error) {
    say(fmt::format("{}: {}", name, error.what()));
    code = cudaErrorUnknown;
  } catch (const std::bad_alloc&) {
    code = cudaErrorMemoryAllocation;
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
