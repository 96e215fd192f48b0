#include "tools/ptxsim/runtime/operation.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "tools/ptxsim/runtime/call.h"
#include "tools/ptxsim/runtime/memory.h"
#include "tools/ptxsim/runtime/pool.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

bool in_device_memory(const Allocation& allocation) {
  return allocation.kind == MemoryKind::kDevice || allocation.kind == MemoryKind::kPool ||
         allocation.kind == MemoryKind::kModule;
}

/// Where the simulator finds the byte at a device or host address.
std::byte* resolve(uint64_t address, const Allocation* allocation) {
  return allocation == nullptr ? static_cast<std::byte*>(pointer_to(address))
                               : allocation->host + (address - allocation->base);
}

/// Calls body(offset in `to`, offset in `from`, bytes) for each run of bytes that is contiguous on both sides.
template <class F>
void for_each_run(const Extent& extent, const Box& to, const Box& from, F&& body) {
  const bool whole = extent.height * extent.depth == 1 ||
                     (to.pitch == extent.width && from.pitch == extent.width &&
                      (extent.depth == 1 || (to.slice == extent.width * extent.height && from.slice == to.slice)));
  if (whole) {
    body(size_t{0}, size_t{0}, extent.width * extent.height * extent.depth);
    return;
  }
  for (size_t layer = 0; layer < extent.depth; ++layer) {
    for (size_t row = 0; row < extent.height; ++row) {
      body(layer * to.slice + row * to.pitch, layer * from.slice + row * from.pitch, extent.width);
    }
  }
}

/// Work that has become impossible since it was asked for: its memory was freed in between.
Place place_now(uint64_t address, size_t bytes, const char* call, Runtime& runtime) {
  const Allocation* allocation = runtime.memory().find(address);
  if (allocation == nullptr || allocation->kind == MemoryKind::kRegistered) return place_of(address, bytes, runtime);
  if (runtime.memory().find_live(address, bytes) == nullptr) {
    throw Error("{}: {} bytes at {:#x} are not there any more when it runs: {}", call, bytes, address,
                allocation->describe());
  }
  return {runtime.memory().find(address)};
}

/// For the check of the operations' order; memory that is the host's own is not seen.
void note(DeviceWork* work, Touch touch, const Allocation* allocation, uint64_t address, uint64_t bytes) {
  if (work == nullptr || allocation == nullptr || bytes == 0) return;
  work->accesses.of(*allocation).add(touch, address - allocation->base, bytes);
}

/// Memory that comes or goes: what is not ordered with that must not touch any of it.
void note_all(DeviceWork* work, const Allocation& allocation) {
  note(work, Touch::kWrite, &allocation, allocation.base, allocation.bytes);
}

void run(const CopyOperation& copy, DeviceWork* work, Runtime& runtime) {
  Machine& machine = runtime.machine();
  const Box packed{reinterpret_cast<uint64_t>(copy.staged == nullptr ? nullptr : copy.staged->data()),
                   copy.extent.width, copy.extent.width * copy.extent.height};
  const Box& from = copy.staged == nullptr ? copy.from : packed;
  const Place target = place_now(copy.to.address, copy.extent.span(copy.to), copy.call, runtime);
  const Place source =
      copy.staged == nullptr ? place_now(from.address, copy.extent.span(from), copy.call, runtime) : Place{};
  std::byte* target_bytes = resolve(copy.to.address, target.allocation);
  const std::byte* source_bytes = resolve(from.address, source.allocation);
  for_each_run(copy.extent, copy.to, from, [&](size_t to_offset, size_t from_offset, size_t bytes) {
    const uint64_t to_address = copy.to.address + to_offset, from_address = from.address + from_offset;
    const bool from_device = source.allocation != nullptr && in_device_memory(*source.allocation);
    const bool to_device = target.allocation != nullptr && in_device_memory(*target.allocation);
    note(work, Touch::kRead, source.allocation, from_address, bytes);
    note(work, Touch::kWrite, target.allocation, to_address, bytes);
    if (from_device && !to_device) machine.host_reads(from_address, bytes, copy.call);
    std::memmove(target_bytes + to_offset, source_bytes + from_offset, bytes);
    if (from_device && to_device) {
      machine.device_copied(to_address, from_address, bytes);
    } else if (target.allocation != nullptr) {
      machine.host_wrote(to_address, bytes);
    }
  });
}

template <class T>
void fill_row(std::byte* row, size_t bytes, uint32_t value) {
  const auto element = static_cast<T>(value);
  for (size_t offset = 0; offset < bytes; offset += sizeof(T)) std::memcpy(row + offset, &element, sizeof(T));
}

void run(const FillOperation& fill, DeviceWork* work, Runtime& runtime) {
  Machine& machine = runtime.machine();
  const Place target = place_now(fill.to.address, fill.extent.span(fill.to), "memset", runtime);
  std::byte* base = resolve(fill.to.address, target.allocation);
  for_each_run(fill.extent, fill.to, fill.to, [&](size_t offset, size_t, size_t bytes) {
    note(work, Touch::kWrite, target.allocation, fill.to.address + offset, bytes);
    if (fill.element_bytes == 1) {
      std::memset(base + offset, static_cast<int>(fill.value & 0xff), bytes);
    } else if (fill.element_bytes == 2) {
      fill_row<uint16_t>(base + offset, bytes, fill.value);
    } else {
      fill_row<uint32_t>(base + offset, bytes, fill.value);
    }
    if (target.allocation != nullptr) machine.host_wrote(fill.to.address + offset, bytes);
  });
}

void run(const KernelOperation& kernel, DeviceWork* work, Runtime& runtime) {
  runtime.finished(runtime.machine().run(kernel.launch, work));
}

void run(const HostOperation& host, DeviceWork* work, Runtime&) {
  // A function of the host may tell it that it runs, and so that all before it is done.
  if (work != nullptr) work->order.host_knows(*work);
  host.function(host.data);
}

void run(const CallbackOperation& callback, DeviceWork* work, Runtime& runtime) {
  if (work != nullptr) work->order.host_knows(*work);
  callback.function(callback.stream, runtime.lost_code(), callback.data);
}

void run(const RecordOperation& record, DeviceWork*, Runtime&) {
  record.recording->nanoseconds = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds{1};
}

void run(const AllocateOperation& allocate, DeviceWork* work, Runtime& runtime) {
  if (!runtime.memory().revive(allocate.allocation)) {
    throw Error("a graph's memory node finds no {} bytes of device memory free", allocate.allocation->bytes);
  }
  runtime.graph_pool->took(allocate.allocation->bytes);
  note_all(work, *allocate.allocation);
}

void run(const FreeOperation& free, DeviceWork* work, Runtime& runtime) {
  Allocation* allocation = runtime.memory().find_live(free.address, 1);
  if (allocation == nullptr || allocation->base != free.address) {
    throw Error("{:#x} is not allocated any more when it is to be freed", free.address);
  }
  note_all(work, *allocation);
  runtime.release(allocation);
}

void run(const EmptyOperation& empty, DeviceWork* work, Runtime&) {
  if (empty.obtained != nullptr) note_all(work, *empty.obtained);
}

void run(const WaitOperation&, DeviceWork*, Runtime&) {}  // the order of tasks has seen to it
void run(const ChildOperation&, DeviceWork*, Runtime&) {}

}  // namespace

size_t Extent::span(const Box& box) const {
  return empty() ? 0 : (depth - 1) * box.slice + (height - 1) * box.pitch + width;
}

bool Place::device_only() const { return allocation != nullptr && in_device_memory(*allocation); }

Place place_of(uint64_t address, size_t bytes, Runtime& runtime, cudaError_t code) {
  require(address != 0, code, [] { return std::string("a null pointer"); });
  AddressSpace& memory = runtime.memory();
  if (Allocation* allocation = memory.find_live(address, bytes)) return {allocation};
  Allocation* later = memory.find(address);
  if (later != nullptr && later->recurring && address - later->base + bytes <= later->bytes) return {later};
  require(!memory.covers(address), code, [&] {
    return later == nullptr
               ? fmt::format("nothing is allocated at {:#x}", address)
               : fmt::format("{} bytes from byte {} of {}", bytes, address - later->base, later->describe());
  });
  return {};
}

void check_copy(const CopyOperation& copy, Runtime& runtime) {
  require(copy.kind >= cudaMemcpyHostToHost && copy.kind <= cudaMemcpyDefault, cudaErrorInvalidMemcpyDirection);
  if (copy.extent.empty()) return;
  if (copy.extent.height > 1 || copy.extent.depth > 1) {
    require(copy.to.pitch >= copy.extent.width && copy.from.pitch >= copy.extent.width, cudaErrorInvalidPitchValue);
  }
  const Place to = place_of(copy.to.address, copy.extent.span(copy.to), runtime);
  const Place from = place_of(copy.from.address, copy.extent.span(copy.from), runtime);
  const auto fits = [](const Place& place, bool device) { return device ? !place.host_only() : !place.device_only(); };
  if (copy.kind == cudaMemcpyDefault) return;
  const auto check = [&](const Place& place, const char* which, bool device) {
    require(fits(place, device), cudaErrorInvalidValue, [&] {
      return fmt::format("the {} is {}, which is not what the kind of the copy says", which,
                         place.host_only() ? "memory of the host" : place.allocation->describe());
    });
  };
  check(to, "destination", copy.kind == cudaMemcpyHostToDevice || copy.kind == cudaMemcpyDeviceToDevice);
  check(from, "source", copy.kind == cudaMemcpyDeviceToHost || copy.kind == cudaMemcpyDeviceToDevice);
}

void check_fill(const FillOperation& fill, Runtime& runtime) {
  require(fill.element_bytes == 1 || fill.element_bytes == 2 || fill.element_bytes == 4);
  require(fill.element_bytes == 4 || fill.value < uint32_t{1} << (8 * fill.element_bytes));
  if (fill.extent.empty()) return;
  if (fill.extent.height > 1) require(fill.to.pitch >= fill.extent.width);
  require(fill.to.address % fill.element_bytes == 0 && fill.to.pitch % fill.element_bytes == 0);
  require(!place_of(fill.to.address, fill.extent.span(fill.to), runtime).host_only());
}

DeviceWork::Description describe(const Operation& operation, uint64_t stream) {
  using Kind = DeviceWork::Kind;
  if (const auto* kernel = std::get_if<KernelOperation>(&operation)) {
    return {Kind::kKernel, *kernel->launch.kernel, "", stream};
  }
  if (const auto* copy = std::get_if<CopyOperation>(&operation)) return {Kind::kCopy, {}, copy->call, stream};
  if (std::holds_alternative<FillOperation>(operation)) return {Kind::kFill, {}, "memset", stream};
  if (std::holds_alternative<FreeOperation>(operation)) return {Kind::kFree, {}, "cudaFreeAsync", stream};
  if (std::holds_alternative<AllocateOperation>(operation)) return {Kind::kAllocate, {}, "a memory node", stream};
  const auto* empty = std::get_if<EmptyOperation>(&operation);
  if (empty != nullptr && empty->obtained != nullptr) return {Kind::kAllocate, {}, "cudaMallocAsync", stream};
  return {Kind::kOther, {}, "", stream};
}

namespace {

void execute_unchecked(const Operation& operation, DeviceWork* work, Runtime& runtime) {
  // After a fault nothing is done any more but telling callbacks of it, and marking places in streams.
  if (runtime.lost() && !std::holds_alternative<CallbackOperation>(operation) &&
      !std::holds_alternative<RecordOperation>(operation)) {
    return;
  }
  try {
    std::visit([&](const auto& alternative) { run(alternative, work, runtime); }, operation);
  } catch (const Error& error) {
    runtime.finished({Status::kIllegalAddress, error.what()});
  }
}

}  // namespace

void execute(const Operation& operation, const WorkPointer& work, Runtime& runtime) {
  if (work == nullptr) {
    execute_unchecked(operation, nullptr, runtime);
    return;
  }
  work->order.begins(*work);
  execute_unchecked(operation, work.get(), runtime);
  work->order.ends(work, !runtime.lost());
}

}  // namespace ptxsim::runtime
