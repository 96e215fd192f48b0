#include <algorithm>
#include <utility>

#include "tools/ptxsim/runtime/graph.h"
#include "tools/ptxsim/runtime/pool.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr int kLeastPriority = 0, kGreatestPriority = -5;

std::shared_ptr<Stream> make_stream(unsigned flags, int priority, Stream::Kind kind, Runtime& runtime) {
  auto stream = std::make_shared<Stream>();
  stream->kind = kind;
  stream->flags = flags;
  stream->priority = std::clamp(priority, kGreatestPriority, kLeastPriority);
  stream->id = runtime.next_id++;
  return stream;
}

cudaError_t create(const char* name, cudaStream_t* result, unsigned flags, int priority) {
  return call(name, [&](Runtime& runtime) {
    require(result != nullptr && (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) == 0);
    runtime.machine();
    *result = runtime.streams.add(make_stream(flags, priority, Stream::Kind::kCreated, runtime));
  });
}

/// Attributes that streams have; of the launch attributes a few.
void check_stream_attribute(cudaLaunchAttributeID id) {
  require(id == cudaLaunchAttributeAccessPolicyWindow || id == cudaLaunchAttributeSynchronizationPolicy ||
          id == cudaLaunchAttributeMemSyncDomainMap || id == cudaLaunchAttributeMemSyncDomain ||
          id == cudaLaunchAttributePriority);
}

}  // namespace

std::shared_ptr<Stream> Runtime::stream(cudaStream_t handle) {
  if (handle == nullptr) handle = this_thread().per_thread_default_stream ? cudaStreamPerThread : cudaStreamLegacy;
  if (handle == cudaStreamLegacy) return legacy_;
  if (handle == cudaStreamPerThread) {
    static thread_local Stream* own = nullptr;
    const std::lock_guard lock(order_mutex);
    const auto found = std::ranges::find_if(per_thread_streams_, [](const auto& s) { return s.get() == own; });
    if (own != nullptr && found != per_thread_streams_.end()) return *found;
    auto made = make_stream(cudaStreamDefault, kLeastPriority, Stream::Kind::kPerThread, *this);
    own = made.get();
    per_thread_streams_.push_back(made);
    return made;
  }
  std::shared_ptr<Stream> found = streams.find(handle);
  require(found != nullptr, cudaErrorInvalidResourceHandle);
  return found;
}

void Runtime::destroy_stream(cudaStream_t handle) {
  require(handle != nullptr && handle != cudaStreamLegacy && handle != cudaStreamPerThread,
          cudaErrorInvalidResourceHandle);
  const std::lock_guard lock(order_mutex);
  const std::shared_ptr<Stream> stream = streams.remove(handle);
  require(stream != nullptr, cudaErrorInvalidResourceHandle);
  // Its work goes on, and who waits for the device waits for it too.
  std::erase_if(destroyed_streams_, [this](const Destroyed& gone) { return finished_for_host(*gone.last); });
  if (stream->last != nullptr && !finished_for_host(*stream->last)) {
    destroyed_streams_.push_back({stream->last, stream->blocking()});
  }
  if (const std::shared_ptr<Capture> capture = stream->capture) {
    if (capture->origin == stream.get()) {
      invalidate(*capture, cudaErrorStreamCaptureInvalidated);
      end_capture(capture);
    } else {
      // What it has captured stays in the graph, and must be joined like any other stream's.
      capture->streams.erase(stream.get());
      capture->left_behind.insert(capture->left_behind.end(), stream->captured_last.begin(),
                                  stream->captured_last.end());
    }
  }
}

std::vector<std::shared_ptr<Stream>> Runtime::every_stream() {
  std::vector<std::shared_ptr<Stream>> result = streams.all();
  result.insert(result.end(), per_thread_streams_.begin(), per_thread_streams_.end());
  result.push_back(legacy_);
  return result;
}

std::vector<TaskPointer> Runtime::order_after(Stream& stream) {
  std::vector<TaskPointer> after{stream.last};
  if (stream.kind == Stream::Kind::kLegacy) {
    for (const auto& other : every_stream()) {
      if (other->blocking()) after.push_back(other->last);
    }
    // What a destroyed stream still has to do comes before as well.
    for (const Destroyed& gone : destroyed_streams_) {
      if (gone.blocking) after.push_back(gone.last);
    }
  } else if (stream.blocking()) {
    after.push_back(legacy_->last);
  }
  return after;
}

TaskPointer Runtime::submit(const Stream& stream, Operation operation, std::vector<TaskPointer> after) {
  const std::lock_guard lock(order_mutex);
  if (const auto* wait = std::get_if<WaitOperation>(&operation); wait != nullptr && wait->event->recording != nullptr) {
    after.push_back(wait->event->recording->task);
  }
  auto* record = std::get_if<RecordOperation>(&operation);
  std::shared_ptr<Recording> recording;
  if (record != nullptr) recording = record->recording = std::make_shared<Recording>();
  const std::shared_ptr<Event> event = record != nullptr ? record->event : nullptr;
  WorkPointer work;
  if (DeviceOrder* order = machine().order()) {
    std::vector<WorkPointer> before;
    for (const TaskPointer& task : after) {
      if (task != nullptr) before.push_back(task->checked);
    }
    work =
        order->submitted(describe(operation, stream.kind == Stream::Kind::kLegacy ? 0 : stream.id), std::move(before));
  }
  TaskPointer task =
      scheduler.submit([this, work, operation = std::move(operation)] { execute(operation, work, *this); }, after);
  task->checked = std::move(work);
  if (recording != nullptr) {
    recording->task = task;
    event->recording = recording;
    event->capture = nullptr;
    event->captured_nodes.clear();
  }
  return task;
}

TaskPointer Runtime::enqueue(Stream& stream, Operation operation) {
  const std::lock_guard lock(order_mutex);
  const auto* wait = std::get_if<WaitOperation>(&operation);
  if (stream.capture != nullptr || (wait != nullptr && wait->event->capture != nullptr)) {
    capture(stream, std::move(operation));
    return nullptr;
  }
  if (stream.kind == Stream::Kind::kLegacy) forbid_legacy_while_capturing();
  stream.last = submit(stream, std::move(operation), order_after(stream));
  return stream.last;
}

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create("cudaStreamCreate", stream, cudaStreamDefault, 0); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return create("cudaStreamCreateWithFlags", stream, flags, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return create("cudaStreamCreateWithPriority", stream, flags, priority);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call("cudaStreamDestroy", [&](Runtime& runtime) { runtime.destroy_stream(stream); });
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  return call("cudaStreamGetPriority", [&](Runtime& runtime) {
    require(priority != nullptr);
    *priority = runtime.stream(handle)->priority;
  });
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  return call("cudaStreamGetFlags", [&](Runtime& runtime) {
    require(flags != nullptr);
    *flags = runtime.stream(handle)->flags;
  });
}

cudaError_t cudaStreamGetId(cudaStream_t handle, unsigned long long* id) {
  return call("cudaStreamGetId", [&](Runtime& runtime) {
    require(id != nullptr);
    *id = runtime.stream(handle)->id;
  });
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
  return call("cudaStreamGetDevice", [&](Runtime& runtime) {
    require(device != nullptr);
    runtime.stream(handle);
    *device = 0;
  });
}

cudaError_t cudaStreamGetAttribute(cudaStream_t handle, cudaLaunchAttributeID id, cudaLaunchAttributeValue* value) {
  return call("cudaStreamGetAttribute", [&](Runtime& runtime) {
    require(value != nullptr);
    check_stream_attribute(id);
    const auto stream = runtime.stream(handle);
    *value = {};
    if (id == cudaLaunchAttributePriority) {
      value->priority = stream->priority;
    } else if (const auto* set = stream->attributes.find(id)) {
      *value = *set;
    } else if (id == cudaLaunchAttributeSynchronizationPolicy) {
      value->syncPolicy = cudaSyncPolicyAuto;
    } else if (id == cudaLaunchAttributeMemSyncDomainMap) {
      value->memSyncDomainMap = {0, 1};
    }
  });
}

cudaError_t cudaStreamSetAttribute(cudaStream_t handle, cudaLaunchAttributeID id,
                                   const cudaLaunchAttributeValue* value) {
  return call("cudaStreamSetAttribute", [&](Runtime& runtime) {
    require(value != nullptr);
    check_stream_attribute(id);
    const auto stream = runtime.stream(handle);
    if (id == cudaLaunchAttributePriority) {
      stream->priority = std::clamp(value->priority, kGreatestPriority, kLeastPriority);
    } else {
      stream->attributes.set(id, *value);
    }
  });
}

cudaError_t cudaStreamCopyAttributes(cudaStream_t target, cudaStream_t source) {
  return call("cudaStreamCopyAttributes", [&](Runtime& runtime) {
    const auto from = runtime.stream(source);
    runtime.stream(target)->attributes = from->attributes;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call("cudaStreamSynchronize", [&](Runtime& runtime) {
    const auto stream = runtime.stream(handle);
    runtime.forbid_while_capturing(*stream);
    runtime.synchronise_stream(*stream);
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return call("cudaStreamQuery", [&](Runtime& runtime) {
    const auto stream = runtime.stream(handle);
    runtime.forbid_while_capturing(*stream);
    const std::lock_guard lock(runtime.order_mutex);
    const std::vector<TaskPointer> tasks =
        stream->kind == Stream::Kind::kLegacy ? runtime.order_after(*stream) : std::vector{stream->last};
    const bool done = std::ranges::all_of(tasks, [](const TaskPointer& task) { return !task || task->done(); });
    require(done, cudaErrorNotReady);
    for (const TaskPointer& task : tasks) runtime.host_knows(task);
    runtime.observe();
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  return call("cudaStreamWaitEvent", [&](Runtime& runtime) {
    require((flags & ~static_cast<unsigned>(cudaEventWaitExternal)) == 0);
    const auto stream = runtime.stream(handle);
    WaitOperation wait{runtime.event(event)};
    if ((flags & cudaEventWaitExternal) != 0) {
      const std::lock_guard lock(runtime.order_mutex);
      require(stream->capture != nullptr, cudaErrorIllegalState);
      runtime.capture_node(*stream, std::move(wait));
      return;
    }
    runtime.enqueue(*stream, std::move(wait));
  });
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t callback, void* data, unsigned flags) {
  return call("cudaStreamAddCallback", [&](Runtime& runtime) {
    require(callback != nullptr && flags == 0);
    runtime.enqueue(*runtime.stream(handle), CallbackOperation{handle, callback, data});
  });
}

cudaError_t cudaStreamAttachMemAsync(cudaStream_t handle, void* pointer, size_t bytes, unsigned flags) {
  return call("cudaStreamAttachMemAsync", [&](Runtime& runtime) {
    require(flags == cudaMemAttachGlobal || flags == cudaMemAttachHost || flags == cudaMemAttachSingle);
    const auto stream = runtime.stream(handle);
    const Place place = place_of(reinterpret_cast<uint64_t>(pointer), std::max<size_t>(bytes, 1), runtime);
    require(place.allocation != nullptr && place.allocation->kind == MemoryKind::kManaged);
    // The host may touch managed memory at any time here: there is nothing left to do but keep the order.
    runtime.enqueue(*stream, EmptyOperation{});
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return call("cudaDeviceGetStreamPriorityRange", [&](Runtime&) {
    if (least != nullptr) *least = kLeastPriority;
    if (greatest != nullptr) *greatest = kGreatestPriority;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call("cudaDeviceSynchronize", [&](Runtime& runtime) {
    runtime.forbid_while_capturing();
    runtime.machine();
    runtime.synchronise_device();
    for (const auto& pool : runtime.every_pool()) pool->trim_to_threshold();
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
