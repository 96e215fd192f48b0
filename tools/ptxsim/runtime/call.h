#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <string>
#include <type_traits>
#include <vector>

#include "tools/ptxsim/error.h"

/// What every entry point has in common: how it fails, and what it leaves in the thread's last error.
namespace ptxsim::runtime {

class Runtime;

/// Thrown in an entry point: the code that it returns, and for `--check` what was wrong, where that says more than the
/// code does.
struct Failure {
  cudaError_t code;
  std::string why;
};

[[noreturn]] void fail(cudaError_t code, std::string why = {});
inline void require(bool condition, cudaError_t code = cudaErrorInvalidValue) {
  if (!condition) fail(code);
}
/// `why`: makes the text.
template <class Why>
void require(bool condition, cudaError_t code, Why why) {
  if (!condition) fail(code, why());
}

/// One line on stderr, after "ptxsim: ".
void say(const std::string& line);

/// Prints that the call is not supported and fails with cudaErrorNotSupported. `what` names the call, or the part of
/// it.
[[noreturn]] void refuse(const std::string& what);

struct ThreadState {
  struct Configuration {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
  };
  cudaError_t last_error = cudaSuccess;
  std::vector<Configuration> configurations;  // pushed by <<<>>>, popped by the stub of the kernel
  bool in_stub = false;                       // which launches next, and drops the result
  std::atomic<bool> launch_failed{false};     // in such a stub, and nobody has asked for the last error since
  int depth = 0;                              // of entry points that call others
  std::string noted;                          // with checks: how the running entry point has failed
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  bool per_thread_default_stream = false;  // while an entry point ending in _ptsz or _ptds runs
};
ThreadState& this_thread();

enum class CallKind {
  kNormal,
  kOnLostContext,  // is of use after a fault too: not refused
};

using Body = void (*)(void* closure, Runtime& runtime);
cudaError_t guarded(const char* name, CallKind kind, Body body, void* closure);

/// Runs an entry point's body: refuses it when the context is lost, turns what it throws into an error code, and
/// records that code as the thread's last error. `name` must outlive the program: operations keep it.
template <class F>
cudaError_t call(const char* name, F&& body, CallKind kind = CallKind::kNormal) {
  using Function = std::remove_reference_t<F>;
  return guarded(
      name, kind, [](void* closure, Runtime& runtime) { (*static_cast<Function*>(closure))(runtime); }, &body);
}

/// Within its lifetime the null stream is the calling thread's own.
class PerThreadDefaultStream {
 public:
  PerThreadDefaultStream() : before_(this_thread().per_thread_default_stream) {
    this_thread().per_thread_default_stream = true;
  }
  ~PerThreadDefaultStream() { this_thread().per_thread_default_stream = before_; }
  PerThreadDefaultStream(const PerThreadDefaultStream&) = delete;
  PerThreadDefaultStream& operator=(const PerThreadDefaultStream&) = delete;

 private:
  bool before_;
};

}  // namespace ptxsim::runtime
