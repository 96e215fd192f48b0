#include <utility>

#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr unsigned kFlags = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;

cudaError_t create(const char* name, cudaEvent_t* result, unsigned flags) {
  return call(name, [&](Runtime& runtime) {
    require(result != nullptr && (flags & ~kFlags) == 0);
    if ((flags & cudaEventInterprocess) != 0) {
      require((flags & cudaEventDisableTiming) != 0);
      refuse("an event with cudaEventInterprocess");
    }
    runtime.machine();
    *result = runtime.events.add(std::make_shared<Event>(flags));
  });
}

/// The event's latest recording, for a call that looks at it; null when it was never recorded.
std::shared_ptr<Recording> recording_of(Event& event, Runtime& runtime) {
  const std::lock_guard lock(runtime.order_mutex);
  if (event.capture != nullptr) {
    runtime.invalidate(*event.capture, cudaErrorCapturedEvent);
    fail(cudaErrorCapturedEvent);
  }
  return event.recording;
}

}  // namespace

std::shared_ptr<Event> Runtime::event(cudaEvent_t handle) {
  std::shared_ptr<Event> found = events.find(handle);
  require(found != nullptr, cudaErrorInvalidResourceHandle);
  return found;
}

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaEventCreate(cudaEvent_t* event) { return create("cudaEventCreate", event, cudaEventDefault); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return create("cudaEventCreateWithFlags", event, flags);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call("cudaEventDestroy", [&](Runtime& runtime) {
    require(runtime.events.remove(event) != nullptr, cudaErrorInvalidResourceHandle);
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags) {
  return call("cudaEventRecord", [&](Runtime& runtime) {
    require((flags & ~static_cast<unsigned>(cudaEventRecordExternal)) == 0);
    const auto stream = runtime.stream(handle);
    RecordOperation record{runtime.event(event), nullptr};
    if ((flags & cudaEventRecordExternal) != 0) {
      const std::lock_guard lock(runtime.order_mutex);
      require(stream->capture != nullptr, cudaErrorIllegalState);
      runtime.capture_node(*stream, std::move(record));
      return;
    }
    runtime.enqueue(*stream, std::move(record));
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return call("cudaEventQuery", [&](Runtime& runtime) {
    const auto event = runtime.event(handle);
    const auto recording = recording_of(*event, runtime);
    runtime.forbid_while_capturing();
    require(recording == nullptr || recording->task->done(), cudaErrorNotReady);
    if (recording == nullptr) return;
    runtime.host_knows(recording->task);
    runtime.observe();
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return call("cudaEventSynchronize", [&](Runtime& runtime) {
    const auto event = runtime.event(handle);
    const auto recording = recording_of(*event, runtime);
    runtime.forbid_while_capturing();
    if (recording != nullptr) runtime.synchronise(recording->task);
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call("cudaEventElapsedTime", [&](Runtime& runtime) {
    require(milliseconds != nullptr);
    const auto first = runtime.event(start), second = runtime.event(end);
    require(first->timed() && second->timed(), cudaErrorInvalidResourceHandle);
    const auto from = recording_of(*first, runtime), to = recording_of(*second, runtime);
    require(from != nullptr && to != nullptr, cudaErrorInvalidResourceHandle);
    require(from->task->done() && to->task->done(), cudaErrorNotReady);
    for (const auto& recording : {from, to}) runtime.host_knows(recording->task);
    runtime.observe();
    constexpr double kNanosecondsPerMillisecond = 1e6;
    *milliseconds =
        static_cast<float>(static_cast<double>(to->nanoseconds - from->nanoseconds) / kNanosecondsPerMillisecond);
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
