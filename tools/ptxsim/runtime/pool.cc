#include "tools/ptxsim/runtime/pool.h"

#include <algorithm>
#include <utility>

#include "tools/ptxsim/runtime/memory.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr uint64_t kUnit = 512;
constexpr uint64_t kReserveUnit = 32 << 20;  // pools take memory from the device in pieces of this size

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

cudaMemPoolProps device_properties() {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 0};
  return properties;
}

bool on_device(const cudaMemPoolProps& properties) {
  return properties.location.type == cudaMemLocationTypeDevice && properties.allocType == cudaMemAllocationTypePinned;
}

std::shared_ptr<Pool> find_pool(cudaMemPool_t handle, Runtime& runtime) {
  auto default_pool = runtime.default_pool();
  if (reinterpret_cast<Pool*>(handle) == default_pool.get()) return default_pool;
  std::shared_ptr<Pool> pool = runtime.pools.find(handle);
  require(pool != nullptr);
  return pool;
}

cudaMemPool_t handle_of(const std::shared_ptr<Pool>& pool) { return reinterpret_cast<cudaMemPool_t>(pool.get()); }

std::shared_ptr<Pool> current(Runtime& runtime) {
  const std::lock_guard lock(runtime.order_mutex);
  return runtime.current_pool != nullptr ? runtime.current_pool : runtime.default_pool();
}

/// Memory nodes have an address of their own from the beginning; it becomes memory when the graph runs.
void* capture_allocation(size_t bytes, Stream& stream, Runtime& runtime) {
  AllocateOperation operation;
  operation.allocation = runtime.memory().reserve(MemoryKind::kPool, bytes);
  require(operation.allocation != nullptr, cudaErrorMemoryAllocation);
  operation.parameters.poolProps = device_properties();
  operation.parameters.bytesize = bytes;
  operation.parameters.dptr = pointer_to(operation.allocation->base);
  void* result = operation.parameters.dptr;
  runtime.enqueue(stream, std::move(operation));
  return result;
}

void allocate(void** result, size_t bytes, const std::shared_ptr<Pool>& pool, cudaStream_t handle, Runtime& runtime) {
  require(result != nullptr);
  *result = nullptr;
  const auto stream = runtime.stream(handle);
  if (bytes == 0) return;
  {
    const std::lock_guard lock(runtime.order_mutex);
    if (stream->capture != nullptr) {
      *result = capture_allocation(bytes, *stream, runtime);
      return;
    }
  }
  const size_t limit = pool->properties.maxSize;
  if (limit != 0) {
    const std::lock_guard lock(pool->mutex);
    require(pool->used + bytes <= limit, cudaErrorMemoryAllocation);
  }
  Allocation* allocation = runtime.memory().allocate(MemoryKind::kPool, bytes);
  if (allocation == nullptr) {
    // Memory that is being given back in some stream's order may be what is missing.
    runtime.synchronise_device();
    allocation = runtime.memory().allocate(MemoryKind::kPool, bytes);
  }
  require(allocation != nullptr, cudaErrorMemoryAllocation);
  pool->took(bytes);
  runtime.change_notes(allocation, [&](Runtime::Notes& notes) { notes.pool = pool; });
  // The memory is there at once; in the stream it has its place all the same.
  runtime.enqueue(*stream, EmptyOperation{allocation});
  *result = pointer_to(allocation->base);
}

cudaError_t give_current(const char* name, cudaMemPool_t* pool, const cudaMemLocation* location,
                         cudaMemAllocationType type, bool the_default) {
  return call(name, [&](Runtime& runtime) {
    require(pool != nullptr && location != nullptr);
    if (location->type != cudaMemLocationTypeDevice || type != cudaMemAllocationTypePinned) {
      refuse(std::string(name) + " for memory that is not the device's");
    }
    require(location->id == 0, cudaErrorInvalidDevice);
    *pool = handle_of(the_default ? runtime.default_pool() : current(runtime));
  });
}

void set_current(cudaMemPool_t pool, Runtime& runtime) {
  const auto found = find_pool(pool, runtime);
  const std::lock_guard lock(runtime.order_mutex);
  runtime.current_pool = found;
}

}  // namespace

void Pool::took(uint64_t bytes) {
  const std::lock_guard lock(mutex);
  used += round_up(bytes, kUnit);
  used_high = std::max(used_high, used);
  reserved = std::max(reserved, round_up(used, kReserveUnit));
  reserved_high = std::max(reserved_high, reserved);
}

void Pool::gave_back(uint64_t bytes) {
  const std::lock_guard lock(mutex);
  used -= round_up(bytes, kUnit);
}

void Pool::trim(uint64_t keep) {
  const std::lock_guard lock(mutex);
  reserved = std::min(reserved, std::max(round_up(used, kReserveUnit), keep));
}

void Pool::trim_to_threshold() {
  uint64_t keep = 0;
  {
    const std::lock_guard lock(mutex);
    keep = threshold;
  }
  trim(keep);
}

uint64_t Pool::kept() const {
  const std::lock_guard lock(mutex);
  return reserved - used;
}

std::shared_ptr<Pool> Runtime::default_pool() {
  const std::lock_guard lock(pool_mutex_);
  if (default_pool_ == nullptr) default_pool_ = std::make_shared<Pool>(device_properties());
  return default_pool_;
}

std::vector<std::shared_ptr<Pool>> Runtime::every_pool() {
  std::vector<std::shared_ptr<Pool>> result = pools.all();
  result.push_back(default_pool());
  result.push_back(graph_pool);
  return result;
}

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return call("cudaMallocAsync",
              [&](Runtime& runtime) { allocate(pointer, bytes, current(runtime), stream, runtime); });
}

cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  return call("cudaMallocFromPoolAsync",
              [&](Runtime& runtime) { allocate(pointer, bytes, find_pool(pool, runtime), stream, runtime); });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  return call("cudaFreeAsync", [&](Runtime& runtime) {
    const auto stream = runtime.stream(handle);
    if (pointer == nullptr) return;
    const std::lock_guard lock(runtime.order_mutex);
    Allocation* allocation = runtime.memory().find(address_of(pointer));
    require(allocation != nullptr && allocation->base == address_of(pointer) &&
            (allocation->live || allocation->recurring));
    // Memory of cudaMalloc may go this way too.
    require(allocation->kind == MemoryKind::kPool || allocation->kind == MemoryKind::kDevice);
    const Runtime::Notes notes = runtime.notes(allocation);
    require(!notes.freeing);
    if (stream->capture == nullptr) {
      if (allocation->recurring) {
        require(notes.outstanding);
        runtime.change_notes(allocation, [](Runtime::Notes& change) { change.outstanding = false; });
      } else {
        runtime.change_notes(allocation, [](Runtime::Notes& change) { change.freeing = true; });
      }
    }
    runtime.enqueue(*stream, FreeOperation{allocation->base});
  });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return call("cudaMemPoolCreate", [&](Runtime& runtime) {
    require(pool != nullptr && properties != nullptr);
    if (properties->handleTypes != cudaMemHandleTypeNone) refuse("a memory pool that other processes share");
    require(properties->location.type != cudaMemLocationTypeDevice || properties->location.id == 0);
    if (!on_device(*properties)) refuse("a memory pool that is not the device's");
    runtime.machine();
    *pool = runtime.pools.add(std::make_shared<Pool>(*properties));
  });
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t handle) {
  return call("cudaMemPoolDestroy", [&](Runtime& runtime) {
    const auto pool = runtime.pools.remove(handle);
    require(pool != nullptr);  // the default pool cannot be destroyed
    const std::lock_guard lock(runtime.order_mutex);
    if (runtime.current_pool == pool) runtime.current_pool = nullptr;
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t handle, size_t keep) {
  return call("cudaMemPoolTrimTo", [&](Runtime& runtime) { find_pool(handle, runtime)->trim(keep); });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  return call("cudaMemPoolSetAttribute", [&](Runtime& runtime) {
    require(value != nullptr);
    const auto pool = find_pool(handle, runtime);
    const std::lock_guard lock(pool->mutex);
    const uint64_t number = attribute >= cudaMemPoolAttrReleaseThreshold ? *static_cast<uint64_t*>(value) : 0;
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
        pool->reuse_follow = *static_cast<int*>(value);
        break;
      case cudaMemPoolReuseAllowOpportunistic:
        pool->reuse_opportunistic = *static_cast<int*>(value);
        break;
      case cudaMemPoolReuseAllowInternalDependencies:
        pool->reuse_internal = *static_cast<int*>(value);
        break;
      case cudaMemPoolAttrReleaseThreshold:
        pool->threshold = number;
        break;
      // The high-water marks can be reset, and to nothing but zero.
      case cudaMemPoolAttrReservedMemHigh:
        require(number == 0);
        pool->reserved_high = pool->reserved;
        break;
      case cudaMemPoolAttrUsedMemHigh:
        require(number == 0);
        pool->used_high = pool->used;
        break;
      default:
        fail(cudaErrorInvalidValue);
    }
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  return call("cudaMemPoolGetAttribute", [&](Runtime& runtime) {
    require(value != nullptr);
    const auto pool = find_pool(handle, runtime);
    const std::lock_guard lock(pool->mutex);
    const auto give = [value](auto number) { *static_cast<decltype(number)*>(value) = number; };
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
        return give(pool->reuse_follow);
      case cudaMemPoolReuseAllowOpportunistic:
        return give(pool->reuse_opportunistic);
      case cudaMemPoolReuseAllowInternalDependencies:
        return give(pool->reuse_internal);
      case cudaMemPoolAttrReleaseThreshold:
        return give(pool->threshold);
      case cudaMemPoolAttrReservedMemCurrent:
        return give(pool->reserved);
      case cudaMemPoolAttrReservedMemHigh:
        return give(pool->reserved_high);
      case cudaMemPoolAttrUsedMemCurrent:
        return give(pool->used);
      case cudaMemPoolAttrUsedMemHigh:
        return give(pool->used_high);
      default:
        fail(cudaErrorInvalidValue);
    }
  });
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t handle, const cudaMemAccessDesc* descriptions, size_t count) {
  return call("cudaMemPoolSetAccess", [&](Runtime& runtime) {
    find_pool(handle, runtime);
    require(descriptions != nullptr || count == 0);
    for (size_t i = 0; i < count; ++i) {
      require(descriptions[i].location.type == cudaMemLocationTypeDevice);
      require(descriptions[i].location.id == 0, cudaErrorInvalidDevice);
      // The device that the memory is on cannot lose it.
      require(descriptions[i].flags == cudaMemAccessFlagsProtReadWrite);
    }
  });
}

cudaError_t cudaMemPoolGetAccess(cudaMemAccessFlags* flags, cudaMemPool_t handle, cudaMemLocation* location) {
  return call("cudaMemPoolGetAccess", [&](Runtime& runtime) {
    require(flags != nullptr && location != nullptr);
    find_pool(handle, runtime);
    require(location->type == cudaMemLocationTypeDevice && location->id == 0);
    *flags = cudaMemAccessFlagsProtReadWrite;
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  const cudaMemLocation location{cudaMemLocationTypeDevice, device};
  return give_current("cudaDeviceGetDefaultMemPool", pool, &location, cudaMemAllocationTypePinned, true);
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  const cudaMemLocation location{cudaMemLocationTypeDevice, device};
  return give_current("cudaDeviceGetMemPool", pool, &location, cudaMemAllocationTypePinned, false);
}

cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t pool) {
  return call("cudaDeviceSetMemPool", [&](Runtime& runtime) {
    require(device == 0, cudaErrorInvalidDevice);
    set_current(pool, runtime);
  });
}

cudaError_t cudaMemGetDefaultMemPool(cudaMemPool_t* pool, cudaMemLocation* location, cudaMemAllocationType type) {
  return give_current("cudaMemGetDefaultMemPool", pool, location, type, true);
}

cudaError_t cudaMemGetMemPool(cudaMemPool_t* pool, cudaMemLocation* location, cudaMemAllocationType type) {
  return give_current("cudaMemGetMemPool", pool, location, type, false);
}

cudaError_t cudaMemSetMemPool(cudaMemLocation* location, cudaMemAllocationType type, cudaMemPool_t pool) {
  return call("cudaMemSetMemPool", [&](Runtime& runtime) {
    require(location != nullptr);
    if (location->type != cudaMemLocationTypeDevice || type != cudaMemAllocationTypePinned) {
      refuse("cudaMemSetMemPool for memory that is not the device's");
    }
    require(location->id == 0, cudaErrorInvalidDevice);
    set_current(pool, runtime);
  });
}

// ---- Memory of graphs

cudaError_t cudaDeviceGraphMemTrim(int device) {
  return call("cudaDeviceGraphMemTrim", [&](Runtime& runtime) {
    require(device == 0, cudaErrorInvalidDevice);
    runtime.graph_pool->trim(0);
  });
}

cudaError_t cudaDeviceGetGraphMemAttribute(int device, cudaGraphMemAttributeType attribute, void* value) {
  return call("cudaDeviceGetGraphMemAttribute", [&](Runtime& runtime) {
    require(device == 0, cudaErrorInvalidDevice);
    require(value != nullptr);
    Pool& pool = *runtime.graph_pool;
    const std::lock_guard lock(pool.mutex);
    const uint64_t* source = attribute == cudaGraphMemAttrUsedMemCurrent       ? &pool.used
                             : attribute == cudaGraphMemAttrUsedMemHigh        ? &pool.used_high
                             : attribute == cudaGraphMemAttrReservedMemCurrent ? &pool.reserved
                             : attribute == cudaGraphMemAttrReservedMemHigh    ? &pool.reserved_high
                                                                               : nullptr;
    require(source != nullptr);
    *static_cast<uint64_t*>(value) = *source;
  });
}

cudaError_t cudaDeviceSetGraphMemAttribute(int device, cudaGraphMemAttributeType attribute, void* value) {
  return call("cudaDeviceSetGraphMemAttribute", [&](Runtime& runtime) {
    require(device == 0, cudaErrorInvalidDevice);
    require(value != nullptr && *static_cast<uint64_t*>(value) == 0);
    Pool& pool = *runtime.graph_pool;
    const std::lock_guard lock(pool.mutex);
    require(attribute == cudaGraphMemAttrUsedMemHigh || attribute == cudaGraphMemAttrReservedMemHigh);
    if (attribute == cudaGraphMemAttrUsedMemHigh) {
      pool.used_high = pool.used;
    } else {
      pool.reserved_high = pool.reserved;
    }
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
