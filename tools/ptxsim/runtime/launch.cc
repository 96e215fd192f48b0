#include "tools/ptxsim/runtime/launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <utility>

#include "tools/ptxsim/runtime/call.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr unsigned kMaxGridX = INT_MAX, kMaxGridYZ = 65535, kMaxBlockXY = 1024, kMaxBlockZ = 64;
constexpr size_t kMaxParameterBytes = 32764;

Dim3 to_dim3(dim3 from) { return {from.x, from.y, from.z}; }

uint64_t volume(const Dim3& extent) { return uint64_t{extent[0]} * extent[1] * extent[2]; }

void check_dimensions(dim3 grid, dim3 block, const Gpu& gpu) {
  const auto text = [&] {
    return fmt::format("a grid of {} x {} x {} blocks of {} x {} x {} threads", grid.x, grid.y, grid.z, block.x,
                       block.y, block.z);
  };
  require(grid.x > 0 && grid.y > 0 && grid.z > 0 && block.x > 0 && block.y > 0 && block.z > 0,
          cudaErrorInvalidConfiguration, text);
  require(grid.x <= kMaxGridX && grid.y <= kMaxGridYZ && grid.z <= kMaxGridYZ, cudaErrorInvalidConfiguration, text);
  require(block.x <= kMaxBlockXY && block.y <= kMaxBlockXY && block.z <= kMaxBlockZ, cudaErrorInvalidConfiguration,
          text);
  const auto threads = volume(to_dim3(block));
  require(threads <= static_cast<uint64_t>(gpu.max_threads_per_block), cudaErrorInvalidConfiguration, [&] {
    return fmt::format("a block of {} threads, where at most {} are allowed", threads, gpu.max_threads_per_block);
  });
}

void check_cluster(const Function& function, const Dim3& cluster, const Dim3& grid, const Gpu& gpu) {
  if (volume(cluster) == 1) return;
  require(volume(cluster) <= static_cast<uint64_t>(max_cluster(function, gpu)), cudaErrorInvalidClusterSize);
  for (size_t axis = 0; axis < 3; ++axis) {
    require(grid[axis] % cluster[axis] == 0, cudaErrorInvalidClusterSize);
  }
}

std::vector<std::byte> pack(Kernel& kernel, const LaunchRequest& request) {
  std::vector<std::byte> buffer(kernel.parameter_bytes());
  if (buffer.empty()) return buffer;
  if (request.extra != nullptr) {
    // The values that cuda.h gives CU_LAUNCH_PARAM_END, _BUFFER_POINTER and _BUFFER_SIZE.
    const void* source = nullptr;
    size_t bytes = 0;
    for (void** entry = request.extra; *entry != nullptr; entry += 2) {
      const auto key = reinterpret_cast<uintptr_t>(*entry);
      if (key == 1) {
        source = entry[1];
      } else if (key == 2) {
        bytes = *static_cast<const size_t*>(entry[1]);
      } else {
        fail(cudaErrorInvalidValue);
      }
    }
    require(source != nullptr && bytes >= buffer.size());
    std::memcpy(buffer.data(), source, buffer.size());
    return buffer;
  }
  require(request.arguments != nullptr);
  size_t index = 0;
  for (const Kernel::Parameter& parameter : kernel.parameters()) {
    const void* argument = request.arguments[index++];
    require(argument != nullptr);
    std::memcpy(buffer.data() + parameter.offset, argument, parameter.bytes);
  }
  return buffer;
}

bool cooperative(const LaunchAttributes& attributes) {
  const cudaLaunchAttributeValue* value = attributes.find(cudaLaunchAttributeCooperative);
  return value != nullptr && value->cooperative != 0;
}

/// Event attributes are the stream's business: the launch as a whole comes before them, which the program cannot tell
/// from a block of it having come as far.
void record_events(const LaunchAttributes& attributes, Stream& stream, Runtime& runtime) {
  for (const auto& [id, pad, value] : attributes.values) {
    if (id == cudaLaunchAttributeProgrammaticEvent) {
      runtime.enqueue(stream, RecordOperation{runtime.event(value.programmaticEvent.event), nullptr});
    } else if (id == cudaLaunchAttributeLaunchCompletionEvent) {
      runtime.enqueue(stream, RecordOperation{runtime.event(value.launchCompletionEvent.event), nullptr});
    }
  }
}

void launch(const std::shared_ptr<Function>& function, const LaunchRequest& request, cudaStream_t handle,
            Runtime& runtime) {
  const std::shared_ptr<Stream> stream = runtime.stream(handle);
  KernelOperation operation = make_kernel(function, request, runtime);
  operation.launch.stream = stream->id;
  const std::lock_guard lock(runtime.order_mutex);
  runtime.enqueue(*stream, std::move(operation));
  record_events(request.attributes, *stream, runtime);
}

}  // namespace

const cudaLaunchAttributeValue* LaunchAttributes::find(cudaLaunchAttributeID id) const {
  const auto found = std::ranges::find(values, id, &cudaLaunchAttribute::id);
  return found == values.end() ? nullptr : &found->val;
}

void LaunchAttributes::set(cudaLaunchAttributeID id, const cudaLaunchAttributeValue& value) {
  const auto found = std::ranges::find(values, id, &cudaLaunchAttribute::id);
  if (found != values.end()) {
    found->val = value;
  } else {
    values.push_back({id, {}, value});
  }
}

LaunchAttributes read_attributes(const cudaLaunchAttribute* attributes, unsigned count) {
  LaunchAttributes result;
  require(count == 0 || attributes != nullptr);
  for (unsigned i = 0; i < count; ++i) {
    const cudaLaunchAttribute& attribute = attributes[i];
    switch (attribute.id) {
      case cudaLaunchAttributeIgnore:
        continue;
      case cudaLaunchAttributeClusterDimension:
        require(attribute.val.clusterDim.x > 0 && attribute.val.clusterDim.y > 0 && attribute.val.clusterDim.z > 0,
                cudaErrorInvalidClusterSize);
        break;
      // These change when and how fast, not what; in order and without them is one of the ways a device may take.
      case cudaLaunchAttributeCooperative:
      case cudaLaunchAttributeAccessPolicyWindow:
      case cudaLaunchAttributeSynchronizationPolicy:
      case cudaLaunchAttributeClusterSchedulingPolicyPreference:
      case cudaLaunchAttributeProgrammaticStreamSerialization:
      case cudaLaunchAttributeProgrammaticEvent:
      case cudaLaunchAttributeLaunchCompletionEvent:
      case cudaLaunchAttributePriority:
      case cudaLaunchAttributeMemSyncDomainMap:
      case cudaLaunchAttributeMemSyncDomain:
      case cudaLaunchAttributePreferredClusterDimension:
      case cudaLaunchAttributePreferredSharedMemoryCarveout:
      case cudaLaunchAttributeNvlinkUtilCentricScheduling:
        break;
      case cudaLaunchAttributeDeviceUpdatableKernelNode:
        if (attribute.val.deviceUpdatableKernelNode.deviceUpdatable == 0) continue;
        refuse("the launch attribute cudaLaunchAttributeDeviceUpdatableKernelNode");
      default:
        refuse(fmt::format("the launch attribute with the number {}", static_cast<int>(attribute.id)));
    }
    result.set(attribute.id, attribute.val);
  }
  return result;
}

std::shared_ptr<Function> find_function(const void* function, Runtime& runtime) {
  std::shared_ptr<Function> found = runtime.registry.function(function);
  require(found != nullptr, cudaErrorInvalidDeviceFunction,
          [&] { return fmt::format("{} is no kernel of the program", function); });
  return found;
}

int max_threads(Function& function, Runtime& runtime) {
  Kernel& kernel = function.kernel(runtime);
  const Gpu& gpu = runtime.gpu();
  int threads = std::min(gpu.max_threads_per_block, static_cast<int>(kernel.max_threads()));
  const auto registers = static_cast<int>(kernel.resources().registers);
  // As many warps as find registers.
  while (threads > 0 && occupancy(gpu, threads, registers, 0).blocks == 0) threads -= 32;
  return std::max(threads, 0);
}

size_t max_dynamic_shared(Function& function, Runtime& runtime) {
  const size_t fixed = function.kernel(runtime).static_shared_bytes();
  const auto usual = static_cast<size_t>(runtime.gpu().shared_per_block);
  const size_t without_opt_in = usual > fixed ? usual - fixed : 0;
  if (function.max_dynamic_shared < 0) return without_opt_in;
  return static_cast<size_t>(function.max_dynamic_shared);
}

int max_cluster(const Function& function, const Gpu& gpu) {
  constexpr int kNonPortable = 16;
  return gpu.max_cluster > 0 && function.non_portable_cluster ? kNonPortable : gpu.max_cluster;
}

int resident_blocks(Function& function, int threads, size_t dynamic_shared, Runtime& runtime) {
  Kernel& kernel = function.kernel(runtime);
  return occupancy(runtime.gpu(), threads, static_cast<int>(kernel.resources().registers),
                   kernel.static_shared_bytes() + dynamic_shared)
      .blocks;
}

Dim3 cluster_of(Function& function, const LaunchAttributes& attributes, Runtime& runtime) {
  const ptx::Function& declared = function.kernel(runtime).function();
  Dim3 own{declared.cluster[0], declared.cluster[1], declared.cluster[2]};
  if (own[0] == 0) own = {function.required_cluster[0], function.required_cluster[1], function.required_cluster[2]};
  const cudaLaunchAttributeValue* asked = attributes.find(cudaLaunchAttributeClusterDimension);
  if (asked == nullptr) {
    require(own[0] != 0 || !(declared.explicit_cluster || function.cluster_required), cudaErrorInvalidClusterSize);
    return own[0] == 0 ? Dim3{1, 1, 1} : own;
  }
  const Dim3 cluster{asked->clusterDim.x, asked->clusterDim.y, asked->clusterDim.z};
  require(own[0] == 0 || own == cluster, cudaErrorInvalidClusterSize);
  return cluster;
}

KernelOperation make_kernel(const std::shared_ptr<Function>& function, const LaunchRequest& request, Runtime& runtime) {
  Kernel& kernel = function->kernel(runtime);
  const Gpu& gpu = runtime.gpu();
  const ptx::Function& declared = kernel.function();
  dim3 grid = request.grid, block = request.block;
  if (declared.blocks_are_clusters) {
    // A launch counts clusters, and may leave it to the kernel how large its blocks are.
    grid = {grid.x * declared.cluster[0], grid.y * declared.cluster[1], grid.z * declared.cluster[2]};
    if (volume(to_dim3(block)) == 1) block = {declared.block[0], declared.block[1], declared.block[2]};
  }
  check_dimensions(grid, block, gpu);

  KernelOperation operation;
  operation.function = function;
  operation.attributes = request.attributes;
  Launch& launch = operation.launch;
  launch.kernel = &kernel;
  launch.grid = to_dim3(grid);
  launch.block = to_dim3(block);
  launch.cluster = cluster_of(*function, request.attributes, runtime);
  launch.dynamic_shared = request.shared;
  launch.cooperative = cooperative(request.attributes);
  check_cluster(*function, launch.cluster, launch.grid, gpu);

  const auto threads = static_cast<int>(volume(launch.block));
  if (declared.required_threads) require(static_cast<uint32_t>(threads) == declared.max_threads);
  const int most = max_threads(*function, runtime);
  require(threads <= most, cudaErrorLaunchOutOfResources, [&] {
    return fmt::format("a block of {} threads, where {} may have at most {}", threads, kernel.readable_name(), most);
  });
  const size_t most_shared = max_dynamic_shared(*function, runtime);
  require(request.shared <= most_shared, cudaErrorInvalidValue, [&] {
    return fmt::format("{} bytes of dynamic shared memory, where {} may have at most {}", request.shared,
                       kernel.readable_name(), most_shared);
  });
  const int resident = resident_blocks(*function, threads, request.shared, runtime);
  require(resident > 0, cudaErrorLaunchOutOfResources, [&] {
    return fmt::format("no multiprocessor has the registers and the shared memory for a block of {}",
                       kernel.readable_name());
  });
  if (launch.cooperative) {
    const auto at_once = static_cast<uint64_t>(resident) * static_cast<uint64_t>(gpu.multiprocessors);
    require(volume(launch.grid) <= at_once, cudaErrorCooperativeLaunchTooLarge, [&] {
      return fmt::format("{} blocks, of which the device holds {} at once", volume(launch.grid), at_once);
    });
  }
  require(kernel.parameter_bytes() <= kMaxParameterBytes, cudaErrorLaunchOutOfResources);
  launch.parameters = pack(kernel, request);
  try {
    kernel.program();
  } catch (const Error& error) {
    say(error.what());
    fail(cudaErrorInvalidPtx);
  }
  return operation;
}

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  ThreadState& thread = this_thread();
  const bool dropped = std::exchange(thread.in_stub, false);
  const cudaError_t result = call("cudaLaunchKernel", [&](Runtime& runtime) {
    launch(find_function(function, runtime), {grid, block, shared, {}, arguments, nullptr}, stream, runtime);
  });
  if (dropped && result != cudaSuccess && !thread.noted.empty()) Runtime::get().launch_failed(function, thread);
  return result;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return call("cudaLaunchKernelExC", [&](Runtime& runtime) {
    require(config != nullptr);
    launch(find_function(function, runtime),
           {config->gridDim, config->blockDim, config->dynamicSmemBytes,
            read_attributes(config->attrs, config->numAttrs), arguments, nullptr},
           config->stream, runtime);
  });
}

cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                                        cudaStream_t stream) {
  return call("cudaLaunchCooperativeKernel", [&](Runtime& runtime) {
    LaunchRequest request{grid, block, shared, {}, arguments, nullptr};
    cudaLaunchAttributeValue value{};
    value.cooperative = 1;
    request.attributes.set(cudaLaunchAttributeCooperative, value);
    launch(find_function(function, runtime), request, stream, runtime);
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return call("cudaLaunchHostFunc", [&](Runtime& runtime) {
    require(function != nullptr);
    runtime.enqueue(*runtime.stream(stream), HostOperation{function, data});
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
