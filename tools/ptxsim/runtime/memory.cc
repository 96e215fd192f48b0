#include "tools/ptxsim/runtime/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "tools/ptxsim/runtime/pool.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr size_t kPitchUnit = 512;

/// The module's allocation behind a symbol.
Allocation& symbol_allocation(const void* symbol, Runtime& runtime) {
  if (const Variable* variable = runtime.registry.variable(symbol)) {
    Allocation* allocation = variable->code->load(runtime).variable(variable->name);
    require(allocation != nullptr, cudaErrorInvalidSymbol);
    return *allocation;
  }
  // Host code sees a managed variable through its pointer: what comes here as a symbol is then its address.
  Allocation* allocation = runtime.memory().find_live(address_of(symbol), 1);
  require(allocation != nullptr && !allocation->name.empty() && allocation->base == address_of(symbol),
          cudaErrorInvalidSymbol);
  return *allocation;
}

uint64_t symbol_range(const void* symbol, size_t bytes, size_t offset, Runtime& runtime) {
  const Allocation& allocation = symbol_allocation(symbol, runtime);
  require(offset <= allocation.bytes && bytes <= allocation.bytes - offset, cudaErrorInvalidValue,
          [&] { return fmt::format("{} bytes from byte {} of {}", bytes, offset, allocation.describe()); });
  return allocation.base + offset;
}

CopyOperation checked(CopyOperation copy, Runtime& runtime) {
  check_copy(copy, runtime);
  return copy;
}

CopyOperation flat(const char* call, uint64_t to, uint64_t from, size_t bytes, cudaMemcpyKind kind, Runtime& runtime) {
  return checked({{to, bytes, bytes}, {from, bytes, bytes}, {bytes}, kind, call, nullptr}, runtime);
}

CopyOperation copy_2d(const char* call, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                      size_t height, cudaMemcpyKind kind, Runtime& runtime) {
  require(width <= to_pitch && width <= from_pitch, cudaErrorInvalidPitchValue);
  return checked({{address_of(to), to_pitch, to_pitch * height},
                  {address_of(from), from_pitch, from_pitch * height},
                  {width, height},
                  kind,
                  call,
                  nullptr},
                 runtime);
}

/// One side of a 3D copy.
Box box_of(const char* call, cudaArray_t array, const cudaPitchedPtr& pointer, const cudaPos& position,
           const cudaExtent& extent) {
  if (array != nullptr) refuse(std::string(call) + " with a cudaArray");
  require(pointer.ptr != nullptr);
  const size_t rows = pointer.ysize != 0 ? pointer.ysize : extent.height;
  require(extent.depth <= 1 || rows >= extent.height);
  const size_t slice = pointer.pitch * rows;
  return {address_of(pointer.ptr) + position.x + position.y * pointer.pitch + position.z * slice, pointer.pitch, slice};
}

CopyOperation copy_3d_peer(const char* call, const cudaMemcpy3DPeerParms* peer, Runtime& runtime) {
  require(peer != nullptr);
  require(peer->srcDevice == 0 && peer->dstDevice == 0, cudaErrorInvalidDevice);
  const cudaMemcpy3DParms parameters{peer->srcArray, peer->srcPos, peer->srcPtr, peer->dstArray,
                                     peer->dstPos,   peer->dstPtr, peer->extent, cudaMemcpyDefault};
  return copy_3d(call, &parameters, runtime);
}

FillOperation fill(void* to, size_t pitch, int value, const Extent& extent, size_t slice, Runtime& runtime) {
  FillOperation result{{address_of(to), pitch, slice}, extent, static_cast<uint32_t>(value) & 0xff, 1};
  check_fill(result, runtime);
  return result;
}

void fill_async(const FillOperation& operation, cudaStream_t handle, Runtime& runtime) {
  const auto stream = runtime.stream(handle);
  if (operation.extent.empty()) return;
  runtime.enqueue(*stream, operation);
}

/// Of the synchronous forms only those on host memory wait.
void fill_now(const FillOperation& operation, Runtime& runtime) {
  const auto stream = runtime.stream(nullptr);
  if (stream->capture != nullptr) runtime.forbid_while_capturing(*stream);
  if (operation.extent.empty()) return;
  const bool wait = !place_of(operation.to.address, operation.extent.span(operation.to), runtime).device_only();
  const TaskPointer task = runtime.enqueue(*stream, operation);
  if (wait) runtime.synchronise(task);
}

void give(void** result, const Allocation* allocation) {
  require(allocation != nullptr, cudaErrorMemoryAllocation);
  *result = pointer_to(allocation->base);
}

cudaError_t allocate(const char* name, void** result, size_t bytes, MemoryKind kind, unsigned flags = 0) {
  return call(name, [&](Runtime& runtime) {
    require(result != nullptr);
    runtime.forbid_while_capturing();
    runtime.machine();
    *result = nullptr;
    if (bytes == 0) return;
    Allocation* allocation = runtime.memory().allocate(kind, bytes);
    give(result, allocation);
    if (flags != 0) runtime.change_notes(allocation, [&](Runtime::Notes& notes) { notes.flags = flags; });
  });
}

void allocate_pitched(void** result, size_t* pitch, size_t width, size_t rows, Runtime& runtime) {
  require(result != nullptr && pitch != nullptr);
  runtime.forbid_while_capturing();
  *pitch = (width + kPitchUnit - 1) / kPitchUnit * kPitchUnit;
  *result = nullptr;
  if (width == 0 || rows == 0) return;
  require(*pitch <= SIZE_MAX / rows, cudaErrorMemoryAllocation);
  give(result, runtime.memory().allocate(MemoryKind::kDevice, *pitch * rows));
}

/// Frees what starts there, once nothing that has been asked of the device can use it any more.
void free_at(void* pointer, bool host, Runtime& runtime) {
  runtime.forbid_while_capturing();
  Allocation* allocation = runtime.memory().find_live(address_of(pointer), 1);
  require(allocation != nullptr && allocation->base == address_of(pointer), cudaErrorInvalidValue, [&] {
    const Allocation* near = runtime.memory().find(address_of(pointer));
    return near == nullptr
               ? fmt::format("nothing is allocated at {}", pointer)
               : fmt::format("{} is byte {} of {}", pointer, address_of(pointer) - near->base, near->describe());
  });
  require((allocation->kind == MemoryKind::kHost) == host, cudaErrorInvalidValue,
          [&] { return fmt::format("{} is freed by {}", allocation->describe(), host ? "cudaFree" : "cudaFreeHost"); });
  require(allocation->kind != MemoryKind::kModule && allocation->kind != MemoryKind::kRegistered);
  require(allocation->name.empty());  // a __managed__ variable
  runtime.synchronise_device();
  runtime.change_notes(allocation, [](Runtime::Notes& notes) { notes.outstanding = false; });
  runtime.release(allocation);
}

/// The allocation of host memory that holds an address, for the calls about pinned memory.
Allocation& pinned(const void* pointer, Runtime& runtime) {
  Allocation* allocation = runtime.memory().find_live(address_of(pointer), 1);
  require(allocation != nullptr &&
          (allocation->kind == MemoryKind::kHost || allocation->kind == MemoryKind::kRegistered));
  return *allocation;
}

Allocation& managed(const void* pointer, size_t bytes, Runtime& runtime) {
  Allocation* allocation = runtime.memory().find_live(address_of(pointer), bytes);
  require(bytes > 0 && allocation != nullptr && allocation->kind == MemoryKind::kManaged);
  return *allocation;
}

void check_location(const cudaMemLocation& location) {
  require(location.type == cudaMemLocationTypeDevice || location.type == cudaMemLocationTypeHost ||
          location.type == cudaMemLocationTypeHostNuma || location.type == cudaMemLocationTypeHostNumaCurrent);
  require(location.type != cudaMemLocationTypeDevice || location.id == 0, cudaErrorInvalidDevice);
}

/// Managed memory is where everybody needs it: of a prefetch there remains its place in the stream, and the answer to
/// who asks where the memory was prefetched to.
void prefetch(const void* pointer, size_t bytes, const cudaMemLocation& location, Stream& stream, Runtime& runtime) {
  check_location(location);
  const Allocation& allocation = managed(pointer, bytes, runtime);
  runtime.change_notes(&allocation, [&](Runtime::Notes& notes) { notes.prefetched = location; });
  runtime.enqueue(stream, EmptyOperation{});
}

void prefetch_batch(void** pointers, const size_t* sizes, size_t count, const cudaMemLocation* locations,
                    const size_t* indices, size_t locations_count, unsigned long long flags, cudaStream_t handle,
                    Runtime& runtime) {
  require(pointers != nullptr && sizes != nullptr && count > 0 && locations != nullptr && indices != nullptr &&
          locations_count > 0 && locations_count <= count && indices[0] == 0 && flags == 0);
  const auto stream = runtime.stream(handle);
  size_t location = 0;
  for (size_t i = 0; i < count; ++i) {
    if (location + 1 < locations_count && indices[location + 1] == i) ++location;
    prefetch(pointers[i], sizes[i], locations[location], *stream, runtime);
  }
}

int location_id(const std::optional<cudaMemLocation>& location) {
  if (!location) return cudaInvalidDeviceId;
  return location->type == cudaMemLocationTypeDevice ? location->id : cudaCpuDeviceId;
}

void range_attribute(void* data, size_t data_bytes, cudaMemRangeAttribute attribute, const Allocation& allocation,
                     Runtime& runtime) {
  require(data != nullptr);
  const Runtime::Notes notes = runtime.notes(&allocation);
  if (attribute == cudaMemRangeAttributeAccessedBy) {
    require(data_bytes >= sizeof(int) && data_bytes % sizeof(int) == 0);
    auto* ids = static_cast<int*>(data);
    for (size_t i = 0; i < data_bytes / sizeof(int); ++i) {
      ids[i] = i < notes.accessed_by.size() ? notes.accessed_by[i] : cudaInvalidDeviceId;
    }
    return;
  }
  require(data_bytes == sizeof(int));
  const auto type = [](const std::optional<cudaMemLocation>& location) {
    return static_cast<int>(location ? location->type : cudaMemLocationTypeInvalid);
  };
  int value = 0;
  switch (attribute) {
    case cudaMemRangeAttributeReadMostly:
      value = notes.read_mostly ? 1 : 0;
      break;
    case cudaMemRangeAttributePreferredLocation:
      value = location_id(notes.preferred);
      break;
    case cudaMemRangeAttributeLastPrefetchLocation:
      value = location_id(notes.prefetched);
      break;
    case cudaMemRangeAttributePreferredLocationType:
      value = type(notes.preferred);
      break;
    case cudaMemRangeAttributePreferredLocationId:
      value = notes.preferred ? notes.preferred->id : 0;
      break;
    case cudaMemRangeAttributeLastPrefetchLocationType:
      value = type(notes.prefetched);
      break;
    case cudaMemRangeAttributeLastPrefetchLocationId:
      value = notes.prefetched ? notes.prefetched->id : 0;
      break;
    default:
      fail(cudaErrorInvalidValue);
  }
  std::memcpy(data, &value, sizeof value);
}

}  // namespace

Runtime::Notes Runtime::notes(const Allocation* allocation) {
  const std::lock_guard lock(notes_mutex_);
  const auto found = notes_.find(allocation);
  return found == notes_.end() ? Notes{} : found->second;
}

void Runtime::change_notes(const Allocation* allocation, const std::function<void(Notes&)>& change) {
  const std::lock_guard lock(notes_mutex_);
  change(notes_[allocation]);
}

void Runtime::release(Allocation* allocation) {
  std::shared_ptr<Pool> pool;
  if (allocation->recurring) {
    pool = graph_pool;
  } else {
    // What is said of a graph's memory is said when it is launched, not when the memory comes and goes.
    pool = notes(allocation).pool;
    const std::lock_guard lock(notes_mutex_);
    notes_.erase(allocation);
  }
  const uint64_t bytes = allocation->bytes;
  memory().free(allocation);
  if (pool != nullptr) pool->gave_back(bytes);
}

CopyOperation copy_1d(const char* call, void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                      Runtime& runtime) {
  return flat(call, address_of(to), address_of(from), bytes, kind, runtime);
}

CopyOperation copy_to_symbol(const char* call, const void* symbol, const void* from, size_t bytes, size_t offset,
                             cudaMemcpyKind kind, Runtime& runtime) {
  require(kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice || kind == cudaMemcpyDefault,
          cudaErrorInvalidMemcpyDirection);
  return flat(call, symbol_range(symbol, bytes, offset, runtime), address_of(from), bytes, kind, runtime);
}

CopyOperation copy_from_symbol(const char* call, void* to, const void* symbol, size_t bytes, size_t offset,
                               cudaMemcpyKind kind, Runtime& runtime) {
  require(kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice || kind == cudaMemcpyDefault,
          cudaErrorInvalidMemcpyDirection);
  return flat(call, address_of(to), symbol_range(symbol, bytes, offset, runtime), bytes, kind, runtime);
}

CopyOperation copy_3d(const char* call, const cudaMemcpy3DParms* parameters, Runtime& runtime) {
  require(parameters != nullptr);
  const cudaMemcpy3DParms& p = *parameters;
  require((p.srcArray == nullptr) != (p.srcPtr.ptr == nullptr) && (p.dstArray == nullptr) != (p.dstPtr.ptr == nullptr));
  return checked({box_of(call, p.dstArray, p.dstPtr, p.dstPos, p.extent),
                  box_of(call, p.srcArray, p.srcPtr, p.srcPos, p.extent),
                  {p.extent.width, p.extent.height, p.extent.depth},
                  p.kind,
                  call,
                  nullptr},
                 runtime);
}

cudaMemcpy3DParms parameters_of(const CopyOperation& copy) {
  const auto pitched = [&copy](const Box& box) {
    return cudaPitchedPtr{pointer_to(box.address), box.pitch, copy.extent.width,
                          box.pitch == 0 ? copy.extent.height : box.slice / box.pitch};
  };
  return {nullptr,
          {},
          pitched(copy.from),
          nullptr,
          {},
          pitched(copy.to),
          {copy.extent.width, copy.extent.height, copy.extent.depth},
          copy.kind};
}

FillOperation fill_2d(const cudaMemsetParams* parameters, Runtime& runtime) {
  require(parameters != nullptr);
  const cudaMemsetParams& p = *parameters;
  FillOperation result{
      {address_of(p.dst), p.pitch, p.pitch * p.height}, {p.width * p.elementSize, p.height}, p.value, p.elementSize};
  require(!result.extent.empty());
  check_fill(result, runtime);
  return result;
}

void copy_now(CopyOperation copy, Runtime& runtime) {
  const auto stream = runtime.stream(nullptr);
  if (stream->capture != nullptr) runtime.forbid_while_capturing(*stream);
  if (copy.extent.empty()) return;
  const bool on_device = place_of(copy.to.address, copy.extent.span(copy.to), runtime).device_only() &&
                         place_of(copy.from.address, copy.extent.span(copy.from), runtime).device_only();
  const TaskPointer task = runtime.enqueue(*stream, std::move(copy));
  if (!on_device) runtime.synchronise(task);
}

void copy_async(CopyOperation copy, cudaStream_t handle, Runtime& runtime) {
  const auto stream = runtime.stream(handle);
  if (copy.extent.empty()) return;
  const bool to_pageable = place_of(copy.to.address, copy.extent.span(copy.to), runtime).host_only();
  const bool from_pageable = place_of(copy.from.address, copy.extent.span(copy.from), runtime).host_only();
  std::unique_lock lock(runtime.order_mutex);
  if (from_pageable && !to_pageable && stream->capture == nullptr) {
    // The program may change pageable memory as soon as the call has returned.
    copy.staged = std::make_shared<std::vector<std::byte>>(copy.extent.width * copy.extent.height * copy.extent.depth);
    std::byte* row = copy.staged->data();
    for (size_t layer = 0; layer < copy.extent.depth; ++layer) {
      for (size_t line = 0; line < copy.extent.height; ++line, row += copy.extent.width) {
        std::memcpy(row, pointer_to(copy.from.address + layer * copy.from.slice + line * copy.from.pitch),
                    copy.extent.width);
      }
    }
  }
  const TaskPointer task = runtime.enqueue(*stream, std::move(copy));
  if (task == nullptr || !to_pageable) return;
  // Into pageable memory the call returns when the copy is complete.
  lock.unlock();
  runtime.wait(task);
}

#pragma GCC visibility push(default)
extern "C" {

// ---- Allocation

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return allocate("cudaMalloc", pointer, bytes, MemoryKind::kDevice);
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return allocate("cudaMallocHost", pointer, bytes, MemoryKind::kHost);
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  constexpr unsigned kFlags = cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
  return call("cudaHostAlloc", [&](Runtime&) {
    require((flags & ~kFlags) == 0);
    const cudaError_t result = allocate("cudaHostAlloc", pointer, bytes, MemoryKind::kHost, flags);
    require(result == cudaSuccess, result);
  });
}

cudaError_t cudaMallocManaged(void** pointer, size_t bytes, unsigned flags) {
  return call("cudaMallocManaged", [&](Runtime&) {
    require(bytes > 0 && (flags == cudaMemAttachGlobal || flags == cudaMemAttachHost));
    const cudaError_t result = allocate("cudaMallocManaged", pointer, bytes, MemoryKind::kManaged, flags);
    require(result == cudaSuccess, result);
  });
}

cudaError_t cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height) {
  return call("cudaMallocPitch", [&](Runtime& runtime) { allocate_pitched(pointer, pitch, width, height, runtime); });
}

cudaError_t cudaMalloc3D(cudaPitchedPtr* pointer, cudaExtent extent) {
  return call("cudaMalloc3D", [&](Runtime& runtime) {
    require(pointer != nullptr);
    allocate_pitched(&pointer->ptr, &pointer->pitch, extent.width, extent.height * extent.depth, runtime);
    pointer->xsize = extent.width;
    pointer->ysize = extent.height;
  });
}

cudaError_t cudaFree(void* pointer) {
  return call("cudaFree", [&](Runtime& runtime) {
    runtime.machine();
    if (pointer != nullptr) free_at(pointer, false, runtime);
  });
}

cudaError_t cudaFreeHost(void* pointer) {
  return call("cudaFreeHost", [&](Runtime& runtime) {
    if (pointer != nullptr) free_at(pointer, true, runtime);
  });
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned flags) {
  constexpr unsigned kFlags = cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterReadOnly;
  return call("cudaHostRegister", [&](Runtime& runtime) {
    if ((flags & cudaHostRegisterIoMemory) != 0) refuse("cudaHostRegister with cudaHostRegisterIoMemory");
    require(pointer != nullptr && bytes > 0 && (flags & ~kFlags) == 0);
    runtime.forbid_while_capturing();
    require(!runtime.memory().covers(address_of(pointer)), cudaErrorHostMemoryAlreadyRegistered);
    const Allocation* allocation = runtime.memory().register_host(pointer, bytes);
    require(allocation != nullptr, cudaErrorHostMemoryAlreadyRegistered);
    runtime.change_notes(allocation, [&](Runtime::Notes& notes) { notes.flags = flags; });
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return call("cudaHostUnregister", [&](Runtime& runtime) {
    require(pointer != nullptr);
    Allocation* allocation = runtime.memory().find_live(address_of(pointer), 1);
    require(
        allocation != nullptr && allocation->kind == MemoryKind::kRegistered && allocation->base == address_of(pointer),
        cudaErrorHostMemoryNotRegistered);
    runtime.forbid_while_capturing();
    runtime.synchronise_device();
    runtime.release(allocation);
  });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags) {
  return call("cudaHostGetDevicePointer", [&](Runtime& runtime) {
    require(device != nullptr && host != nullptr && flags == 0);
    pinned(host, runtime);
    *device = host;  // one address for both
  });
}

cudaError_t cudaHostGetFlags(unsigned* flags, void* host) {
  return call("cudaHostGetFlags", [&](Runtime& runtime) {
    require(flags != nullptr && host != nullptr);
    // All pinned memory is mapped where addresses are unified.
    *flags = runtime.notes(&pinned(host, runtime)).flags | cudaHostAllocMapped;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call("cudaMemGetInfo", [&](Runtime& runtime) {
    require(free != nullptr && total != nullptr);
    const AddressSpace& memory = runtime.memory();
    uint64_t used = memory.used_bytes();
    for (const auto& pool : runtime.every_pool()) used += pool->kept();
    *total = memory.device_bytes();
    *free = used < *total ? *total - used : 0;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return call("cudaPointerGetAttributes", [&](Runtime& runtime) {
    require(attributes != nullptr);
    *attributes = {};
    void* own = const_cast<void*>(pointer);
    const Allocation* allocation = runtime.memory().find_live(address_of(pointer), 1);
    if (allocation == nullptr) {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->device = cudaInvalidDeviceId;
      attributes->hostPointer = own;
      return;
    }
    attributes->device = 0;
    attributes->devicePointer = own;
    if (allocation->kind == MemoryKind::kManaged) {
      attributes->type = cudaMemoryTypeManaged;
      attributes->hostPointer = own;
    } else if (allocation->kind == MemoryKind::kHost || allocation->kind == MemoryKind::kRegistered) {
      attributes->type = cudaMemoryTypeHost;
      attributes->hostPointer = own;
    } else {
      attributes->type = cudaMemoryTypeDevice;
    }
  });
}

// ---- Copies

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call("cudaMemcpy",
              [&](Runtime& runtime) { copy_now(copy_1d("cudaMemcpy", to, from, bytes, kind, runtime), runtime); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call("cudaMemcpyAsync", [&](Runtime& runtime) {
    copy_async(copy_1d("cudaMemcpyAsync", to, from, bytes, kind, runtime), stream, runtime);
  });
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t bytes) {
  return call("cudaMemcpyPeer", [&](Runtime& runtime) {
    require(to_device == 0 && from_device == 0, cudaErrorInvalidDevice);
    copy_now(copy_1d("cudaMemcpyPeer", to, from, bytes, cudaMemcpyDefault, runtime), runtime);
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  return call("cudaMemcpyPeerAsync", [&](Runtime& runtime) {
    require(to_device == 0 && from_device == 0, cudaErrorInvalidDevice);
    copy_async(copy_1d("cudaMemcpyPeerAsync", to, from, bytes, cudaMemcpyDefault, runtime), stream, runtime);
  });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return call("cudaMemcpy2D", [&](Runtime& runtime) {
    copy_now(copy_2d("cudaMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind, runtime), runtime);
  });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return call("cudaMemcpy2DAsync", [&](Runtime& runtime) {
    copy_async(copy_2d("cudaMemcpy2DAsync", to, to_pitch, from, from_pitch, width, height, kind, runtime), stream,
               runtime);
  });
}

cudaError_t cudaMemcpy3D(const cudaMemcpy3DParms* parameters) {
  return call("cudaMemcpy3D",
              [&](Runtime& runtime) { copy_now(copy_3d("cudaMemcpy3D", parameters, runtime), runtime); });
}

cudaError_t cudaMemcpy3DAsync(const cudaMemcpy3DParms* parameters, cudaStream_t stream) {
  return call("cudaMemcpy3DAsync", [&](Runtime& runtime) {
    copy_async(copy_3d("cudaMemcpy3DAsync", parameters, runtime), stream, runtime);
  });
}

cudaError_t cudaMemcpy3DPeer(const cudaMemcpy3DPeerParms* parameters) {
  return call("cudaMemcpy3DPeer",
              [&](Runtime& runtime) { copy_now(copy_3d_peer("cudaMemcpy3DPeer", parameters, runtime), runtime); });
}

cudaError_t cudaMemcpy3DPeerAsync(const cudaMemcpy3DPeerParms* parameters, cudaStream_t stream) {
  return call("cudaMemcpy3DPeerAsync", [&](Runtime& runtime) {
    copy_async(copy_3d_peer("cudaMemcpy3DPeerAsync", parameters, runtime), stream, runtime);
  });
}

cudaError_t cudaMemcpyBatchAsync(void* const* to, const void* const* from, const size_t* sizes, size_t count,
                                 cudaMemcpyAttributes* attributes, size_t* indices, size_t attributes_count,
                                 cudaStream_t stream) {
  return call("cudaMemcpyBatchAsync", [&](Runtime& runtime) {
    require(to != nullptr && from != nullptr && sizes != nullptr && count > 0 && attributes != nullptr &&
            indices != nullptr && attributes_count > 0 && attributes_count <= count && indices[0] == 0);
    require(runtime.stream(stream)->kind != Stream::Kind::kLegacy);
    // All are checked before the first is queued.
    std::vector<CopyOperation> copies;
    for (size_t i = 0; i < count; ++i) {
      require(to[i] != nullptr && from[i] != nullptr && sizes[i] > 0);
      copies.push_back(copy_1d("cudaMemcpyBatchAsync", to[i], from[i], sizes[i], cudaMemcpyDefault, runtime));
    }
    for (CopyOperation& copy : copies) copy_async(std::move(copy), stream, runtime);
  });
}

cudaError_t cudaMemcpy3DBatchAsync(size_t count, cudaMemcpy3DBatchOp* operations, unsigned long long flags,
                                   cudaStream_t stream) {
  return call("cudaMemcpy3DBatchAsync", [&](Runtime& runtime) {
    require(count > 0 && operations != nullptr && flags == 0);
    require(runtime.stream(stream)->kind != Stream::Kind::kLegacy);
    std::vector<CopyOperation> copies;
    for (const cudaMemcpy3DBatchOp& operation : std::span(operations, count)) {
      const cudaExtent& extent = operation.extent;
      const auto box = [&extent](const cudaMemcpy3DOperand& operand) -> Box {
        if (operand.type == cudaMemcpyOperandTypeArray) refuse("cudaMemcpy3DBatchAsync with a cudaArray");
        require(operand.type == cudaMemcpyOperandTypePointer && operand.op.ptr.ptr != nullptr);
        const size_t row = operand.op.ptr.rowLength != 0 ? operand.op.ptr.rowLength : extent.width;
        const size_t rows = operand.op.ptr.layerHeight != 0 ? operand.op.ptr.layerHeight : extent.height;
        return {address_of(operand.op.ptr.ptr), row, row * rows};
      };
      copies.push_back(checked({box(operation.dst),
                                box(operation.src),
                                {extent.width, extent.height, extent.depth},
                                cudaMemcpyDefault,
                                "cudaMemcpy3DBatchAsync",
                                nullptr},
                               runtime));
    }
    for (CopyOperation& copy : copies) copy_async(std::move(copy), stream, runtime);
  });
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return call("cudaMemcpyToSymbol", [&](Runtime& runtime) {
    copy_now(copy_to_symbol("cudaMemcpyToSymbol", symbol, from, bytes, offset, kind, runtime), runtime);
  });
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return call("cudaMemcpyFromSymbol", [&](Runtime& runtime) {
    copy_now(copy_from_symbol("cudaMemcpyFromSymbol", to, symbol, bytes, offset, kind, runtime), runtime);
  });
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t bytes, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
  return call("cudaMemcpyToSymbolAsync", [&](Runtime& runtime) {
    copy_async(copy_to_symbol("cudaMemcpyToSymbolAsync", symbol, from, bytes, offset, kind, runtime), stream, runtime);
  });
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t bytes, size_t offset, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  return call("cudaMemcpyFromSymbolAsync", [&](Runtime& runtime) {
    copy_async(copy_from_symbol("cudaMemcpyFromSymbolAsync", to, symbol, bytes, offset, kind, runtime), stream,
               runtime);
  });
}

cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  return call("cudaGetSymbolAddress", [&](Runtime& runtime) {
    require(pointer != nullptr);
    *pointer = pointer_to(symbol_allocation(symbol, runtime).base);
  });
}

cudaError_t cudaGetSymbolSize(size_t* bytes, const void* symbol) {
  return call("cudaGetSymbolSize", [&](Runtime& runtime) {
    require(bytes != nullptr);
    *bytes = symbol_allocation(symbol, runtime).bytes;
  });
}

// ---- Fills

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return call("cudaMemset",
              [&](Runtime& runtime) { fill_now(fill(to, bytes, value, {bytes}, bytes, runtime), runtime); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call("cudaMemsetAsync",
              [&](Runtime& runtime) { fill_async(fill(to, bytes, value, {bytes}, bytes, runtime), stream, runtime); });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return call("cudaMemset2D", [&](Runtime& runtime) {
    fill_now(fill(to, pitch, value, {width, height}, pitch * height, runtime), runtime);
  });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return call("cudaMemset2DAsync", [&](Runtime& runtime) {
    fill_async(fill(to, pitch, value, {width, height}, pitch * height, runtime), stream, runtime);
  });
}

cudaError_t cudaMemset3D(cudaPitchedPtr to, int value, cudaExtent extent) {
  return call("cudaMemset3D", [&](Runtime& runtime) {
    fill_now(fill(to.ptr, to.pitch, value, {extent.width, extent.height, extent.depth}, to.pitch * to.ysize, runtime),
             runtime);
  });
}

cudaError_t cudaMemset3DAsync(cudaPitchedPtr to, int value, cudaExtent extent, cudaStream_t stream) {
  return call("cudaMemset3DAsync", [&](Runtime& runtime) {
    fill_async(fill(to.ptr, to.pitch, value, {extent.width, extent.height, extent.depth}, to.pitch * to.ysize, runtime),
               stream, runtime);
  });
}

// ---- Hints on managed memory

cudaError_t cudaMemPrefetchAsync(const void* pointer, size_t bytes, cudaMemLocation location, unsigned flags,
                                 cudaStream_t stream) {
  return call("cudaMemPrefetchAsync", [&](Runtime& runtime) {
    require(flags == 0);
    prefetch(pointer, bytes, location, *runtime.stream(stream), runtime);
  });
}

cudaError_t cudaMemPrefetchBatchAsync(void** pointers, size_t* sizes, size_t count, cudaMemLocation* locations,
                                      size_t* indices, size_t locations_count, unsigned long long flags,
                                      cudaStream_t stream) {
  return call("cudaMemPrefetchBatchAsync", [&](Runtime& runtime) {
    prefetch_batch(pointers, sizes, count, locations, indices, locations_count, flags, stream, runtime);
  });
}

// What is discarded may have any content afterwards: also the one that it had.
cudaError_t cudaMemDiscardBatchAsync(void** pointers, size_t* sizes, size_t count, unsigned long long flags,
                                     cudaStream_t handle) {
  return call("cudaMemDiscardBatchAsync", [&](Runtime& runtime) {
    require(pointers != nullptr && sizes != nullptr && count > 0 && flags == 0);
    const auto stream = runtime.stream(handle);
    for (size_t i = 0; i < count; ++i) managed(pointers[i], sizes[i], runtime);
    runtime.enqueue(*stream, EmptyOperation{});
  });
}

cudaError_t cudaMemDiscardAndPrefetchBatchAsync(void** pointers, size_t* sizes, size_t count,
                                                cudaMemLocation* locations, size_t* indices, size_t locations_count,
                                                unsigned long long flags, cudaStream_t stream) {
  return call("cudaMemDiscardAndPrefetchBatchAsync", [&](Runtime& runtime) {
    prefetch_batch(pointers, sizes, count, locations, indices, locations_count, flags, stream, runtime);
  });
}

cudaError_t cudaMemAdvise(const void* pointer, size_t bytes, cudaMemoryAdvise advice, cudaMemLocation location) {
  return call("cudaMemAdvise", [&](Runtime& runtime) {
    const Allocation& allocation = managed(pointer, bytes, runtime);
    const bool about_place = advice == cudaMemAdviseSetPreferredLocation || advice == cudaMemAdviseSetAccessedBy ||
                             advice == cudaMemAdviseUnsetAccessedBy;
    require(advice >= cudaMemAdviseSetReadMostly && advice <= cudaMemAdviseUnsetAccessedBy);
    if (about_place) check_location(location);
    const int id = location_id(location);
    runtime.change_notes(&allocation, [&](Runtime::Notes& notes) {
      if (advice == cudaMemAdviseSetReadMostly || advice == cudaMemAdviseUnsetReadMostly) {
        notes.read_mostly = advice == cudaMemAdviseSetReadMostly;
      } else if (advice == cudaMemAdviseSetPreferredLocation) {
        notes.preferred = location;
      } else if (advice == cudaMemAdviseUnsetPreferredLocation) {
        notes.preferred.reset();
      } else {
        std::erase(notes.accessed_by, id);
        if (advice == cudaMemAdviseSetAccessedBy) notes.accessed_by.push_back(id);
      }
    });
  });
}

cudaError_t cudaMemRangeGetAttribute(void* data, size_t data_bytes, cudaMemRangeAttribute attribute,
                                     const void* pointer, size_t bytes) {
  return call("cudaMemRangeGetAttribute", [&](Runtime& runtime) {
    range_attribute(data, data_bytes, attribute, managed(pointer, bytes, runtime), runtime);
  });
}

cudaError_t cudaMemRangeGetAttributes(void** data, size_t* sizes, cudaMemRangeAttribute* attributes, size_t count,
                                      const void* pointer, size_t bytes) {
  return call("cudaMemRangeGetAttributes", [&](Runtime& runtime) {
    require(data != nullptr && sizes != nullptr && attributes != nullptr && count > 0);
    const Allocation& allocation = managed(pointer, bytes, runtime);
    for (size_t i = 0; i < count; ++i) range_attribute(data[i], sizes[i], attributes[i], allocation, runtime);
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
