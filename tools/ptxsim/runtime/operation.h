#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "tools/ptxsim/check/device_order.h"
#include "tools/ptxsim/machine/machine.h"

/// What can be asked of the device. A stream runs operations; a graph's node holds one.
namespace ptxsim::runtime {

class Event;
struct Function;
struct Graph;
struct Pool;
struct Recording;
class Runtime;

/// The attributes of a launch that a graph's node can be asked for again.
struct LaunchAttributes {
  std::vector<cudaLaunchAttribute> values;

  const cudaLaunchAttributeValue* find(cudaLaunchAttributeID id) const;
  void set(cudaLaunchAttributeID id, const cudaLaunchAttributeValue& value);
};

struct KernelOperation {
  std::shared_ptr<Function> function;
  Launch launch;
  LaunchAttributes attributes;
  std::vector<void*> argument_list;  // into launch.parameters, for a program that asks a node for its parameters
};

/// A box of rows in linear memory.
struct Box {
  uint64_t address = 0;
  size_t pitch = 0;  // from row to row
  size_t slice = 0;  // from layer to layer
};

struct Extent {
  size_t width = 0;  // bytes
  size_t height = 1, depth = 1;

  bool empty() const { return width == 0 || height == 0 || depth == 0; }
  /// From a box's first byte to the one behind its last; `pitch` and `slice` are the box's.
  size_t span(const Box& box) const;
};

struct CopyOperation {
  Box to, from;
  Extent extent;
  cudaMemcpyKind kind = cudaMemcpyDefault;
  const char* call = "";                           // for reports
  std::shared_ptr<std::vector<std::byte>> staged;  // the source's rows, packed, where it was pageable host memory
};

struct FillOperation {
  Box to;
  Extent extent;
  uint32_t value = 0;
  uint32_t element_bytes = 1;  // 1, 2, 4
};

struct HostOperation {
  cudaHostFn_t function = nullptr;
  void* data = nullptr;
};

/// cudaStreamAddCallback's; the only operation that runs after a fault as well, to be told of it.
struct CallbackOperation {
  cudaStream_t stream = nullptr;
  cudaStreamCallback_t function = nullptr;
  void* data = nullptr;
};

struct RecordOperation {
  std::shared_ptr<Event> event;
  std::shared_ptr<Recording> recording;  // made on submission
};

struct WaitOperation {
  std::shared_ptr<Event> event;
};

/// A graph's memory node: makes memory live at the address that the node reserved.
struct AllocateOperation {
  Allocation* allocation = nullptr;
  cudaMemAllocNodeParams parameters{};
  std::vector<cudaMemAccessDesc> access;
};

struct FreeOperation {
  uint64_t address = 0;
};

struct EmptyOperation {
  const Allocation* obtained = nullptr;  // cudaMallocAsync's: it may be used by what comes after
};

/// In graphs only; taken apart when the graph is instantiated.
struct ChildOperation {
  std::shared_ptr<Graph> graph;
};

using Operation =
    std::variant<KernelOperation, CopyOperation, FillOperation, HostOperation, CallbackOperation, RecordOperation,
                 WaitOperation, AllocateOperation, FreeOperation, EmptyOperation, ChildOperation>;

/// Does it, on the calling thread. `work`: what checks know of it; null without them.
void execute(const Operation& operation, const WorkPointer& work, Runtime& runtime);
/// For checks: what it is, in a stream with this number.
DeviceWork::Description describe(const Operation& operation, uint64_t stream);

/// Throws Failure unless both sides of the copy lie in memory that its kind allows; resolves nothing for good, as the
/// memory may be gone when the copy runs.
void check_copy(const CopyOperation& copy, Runtime& runtime);
void check_fill(const FillOperation& fill, Runtime& runtime);

/// What an address means to a copy or query.
struct Place {
  Allocation* allocation = nullptr;  // null: pageable memory of the host

  bool host_only() const { return allocation == nullptr; }
  bool device_only() const;  // the host cannot touch it
};
/// Throws Failure(`code`) when the range is neither the host's own memory nor within one allocation that is live, or
/// will be when a graph runs.
Place place_of(uint64_t address, size_t bytes, Runtime& runtime, cudaError_t code = cudaErrorInvalidValue);

}  // namespace ptxsim::runtime
