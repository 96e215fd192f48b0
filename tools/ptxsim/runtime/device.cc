#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string_view>

#include "tools/ptxsim/runtime/launch.h"
#include "tools/ptxsim/runtime/pool.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr int kVersion = CUDART_VERSION;
constexpr std::string_view kBusId = "0000:01:00.0";
constexpr int kPciBus = 1;
constexpr int kTextureAlignment = 512, kTexturePitchAlignment = 32;
constexpr size_t kMaxPitch = 0x7fffffff;
constexpr unsigned kScheduleFlags =
    cudaDeviceScheduleMask | cudaDeviceMapHost | cudaDeviceLmemResizeToMax | cudaDeviceSyncMemops;

void check_device(int device) { require(device == 0, cudaErrorInvalidDevice); }

/// Pairs of an attribute and its value, from which properties are filled as well.
std::map<cudaDeviceAttr, int> attributes_of(const Gpu& gpu) {
  const bool clusters = gpu.max_cluster > 0;
  const auto l2 = static_cast<int>(gpu.l2_bytes);
  return {
      {cudaDevAttrMaxThreadsPerBlock, gpu.max_threads_per_block},
      {cudaDevAttrMaxBlockDimX, 1024},
      {cudaDevAttrMaxBlockDimY, 1024},
      {cudaDevAttrMaxBlockDimZ, 64},
      {cudaDevAttrMaxGridDimX, 0x7fffffff},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrMaxSharedMemoryPerBlock, gpu.shared_per_block},
      {cudaDevAttrTotalConstantMemory, 64 << 10},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxPitch, static_cast<int>(kMaxPitch)},
      {cudaDevAttrMaxRegistersPerBlock, gpu.registers_per_block},
      {cudaDevAttrClockRate, gpu.clock_khz},
      {cudaDevAttrTextureAlignment, kTextureAlignment},
      {cudaDevAttrGpuOverlap, 1},
      {cudaDevAttrMultiProcessorCount, gpu.multiprocessors},
      {cudaDevAttrKernelExecTimeout, 0},
      {cudaDevAttrIntegrated, 0},
      {cudaDevAttrCanMapHostMemory, 1},
      {cudaDevAttrComputeMode, cudaComputeModeDefault},
      {cudaDevAttrSurfaceAlignment, kTextureAlignment},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrEccEnabled, gpu.major == 8 && gpu.minor == 9 ? 0 : 1},
      {cudaDevAttrPciBusId, kPciBus},
      {cudaDevAttrPciDeviceId, 0},
      {cudaDevAttrPciDomainId, 0},
      {cudaDevAttrTccDriver, 0},
      {cudaDevAttrMemoryClockRate, gpu.memory_clock_khz},
      {cudaDevAttrGlobalMemoryBusWidth, gpu.memory_bus_bits},
      {cudaDevAttrL2CacheSize, l2},
      {cudaDevAttrMaxThreadsPerMultiProcessor, gpu.max_threads_per_sm},
      {cudaDevAttrAsyncEngineCount, 3},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrTexturePitchAlignment, kTexturePitchAlignment},
      {cudaDevAttrComputeCapabilityMajor, gpu.major},
      {cudaDevAttrComputeCapabilityMinor, gpu.minor},
      {cudaDevAttrStreamPrioritiesSupported, 1},
      {cudaDevAttrGlobalL1CacheSupported, 1},
      {cudaDevAttrLocalL1CacheSupported, 1},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, gpu.shared_per_sm},
      {cudaDevAttrMaxRegistersPerMultiprocessor, gpu.registers_per_sm},
      {cudaDevAttrManagedMemory, 1},
      {cudaDevAttrIsMultiGpuBoard, 0},
      {cudaDevAttrMultiGpuBoardGroupID, 0},
      {cudaDevAttrHostNativeAtomicSupported, 0},
      {cudaDevAttrSingleToDoublePrecisionPerfRatio, static_cast<int>(gpu.fp32_fma / gpu.fp64_fma)},
      {cudaDevAttrPageableMemoryAccess, 0},
      {cudaDevAttrConcurrentManagedAccess, 1},
      {cudaDevAttrComputePreemptionSupported, 1},
      {cudaDevAttrCanUseHostPointerForRegisteredMem, 1},
      {cudaDevAttrCooperativeLaunch, 1},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu.shared_per_block_optin},
      {cudaDevAttrCanFlushRemoteWrites, 0},
      {cudaDevAttrHostRegisterSupported, 1},
      {cudaDevAttrPageableMemoryAccessUsesHostPageTables, 0},
      {cudaDevAttrDirectManagedMemAccessFromHost, 0},
      {cudaDevAttrMaxBlocksPerMultiprocessor, gpu.max_blocks_per_sm},
      {cudaDevAttrMaxPersistingL2CacheSize, l2 / 8 * 5},
      {cudaDevAttrMaxAccessPolicyWindowSize, 128 << 20},
      {cudaDevAttrReservedSharedMemoryPerBlock, gpu.shared_reserved},
      {cudaDevAttrSparseCudaArraySupported, 0},
      {cudaDevAttrHostRegisterReadOnlySupported, 1},
      {cudaDevAttrTimelineSemaphoreInteropSupported, 0},
      {cudaDevAttrMemoryPoolsSupported, 1},
      {cudaDevAttrGPUDirectRDMASupported, 0},
      {cudaDevAttrGPUDirectRDMAFlushWritesOptions, 0},
      {cudaDevAttrGPUDirectRDMAWritesOrdering, cudaGPUDirectRDMAWritesOrderingNone},
      {cudaDevAttrMemoryPoolSupportedHandleTypes, cudaMemHandleTypeNone},
      {cudaDevAttrClusterLaunch, clusters ? 1 : 0},
      {cudaDevAttrDeferredMappingCudaArraySupported, 0},
      {cudaDevAttrIpcEventSupport, 0},
      {cudaDevAttrMemSyncDomainCount, clusters ? 4 : 1},
      {cudaDevAttrNumaConfig, cudaDeviceNumaConfigNone},
      {cudaDevAttrNumaId, -1},
      {cudaDevAttrMpsEnabled, 0},
      {cudaDevAttrHostNumaId, 0},
      {cudaDevAttrD3D12CigSupported, 0},
      {cudaDevAttrVulkanCigSupported, 0},
      {cudaDevAttrGpuPciDeviceId, 0x10de},
      {cudaDevAttrGpuPciSubsystemId, 0x10de},
      {cudaDevAttrHostNumaMemoryPoolsSupported, 0},
      {cudaDevAttrHostNumaMultinodeIpcSupported, 0},
      {cudaDevAttrHostMemoryPoolsSupported, 0},
      {cudaDevAttrOnlyPartialHostNativeAtomicSupported, 0},
  };
}

/// Textures and surfaces do not exist here: every limit on their extents is 0, as is what else is not in the table.
int attribute(const std::map<cudaDeviceAttr, int>& attributes, cudaDeviceAttr wanted) {
  const auto found = attributes.find(wanted);
  return found == attributes.end() ? 0 : found->second;
}

void fill_properties(cudaDeviceProp& p, const Gpu& gpu) {
  p = {};
  const auto attributes = attributes_of(gpu);
  const auto get = [&attributes](cudaDeviceAttr wanted) { return attribute(attributes, wanted); };
  gpu.name.copy(p.name, sizeof p.name - 1);
  // Recognisably nobody's.
  constexpr std::string_view kUuid = "ptxsim-device-0";
  kUuid.copy(p.uuid.bytes, sizeof p.uuid.bytes);
  p.totalGlobalMem = gpu.memory_bytes;
  p.sharedMemPerBlock = static_cast<size_t>(gpu.shared_per_block);
  p.regsPerBlock = gpu.registers_per_block;
  p.warpSize = get(cudaDevAttrWarpSize);
  p.memPitch = kMaxPitch;
  p.maxThreadsPerBlock = gpu.max_threads_per_block;
  p.maxThreadsDim[0] = get(cudaDevAttrMaxBlockDimX);
  p.maxThreadsDim[1] = get(cudaDevAttrMaxBlockDimY);
  p.maxThreadsDim[2] = get(cudaDevAttrMaxBlockDimZ);
  p.maxGridSize[0] = get(cudaDevAttrMaxGridDimX);
  p.maxGridSize[1] = get(cudaDevAttrMaxGridDimY);
  p.maxGridSize[2] = get(cudaDevAttrMaxGridDimZ);
  p.totalConstMem = static_cast<size_t>(get(cudaDevAttrTotalConstantMemory));
  p.major = gpu.major;
  p.minor = gpu.minor;
  p.textureAlignment = kTextureAlignment;
  p.texturePitchAlignment = kTexturePitchAlignment;
  p.multiProcessorCount = gpu.multiprocessors;
  p.canMapHostMemory = get(cudaDevAttrCanMapHostMemory);
  p.surfaceAlignment = kTextureAlignment;
  p.concurrentKernels = get(cudaDevAttrConcurrentKernels);
  p.ECCEnabled = get(cudaDevAttrEccEnabled);
  p.pciBusID = kPciBus;
  p.asyncEngineCount = get(cudaDevAttrAsyncEngineCount);
  p.unifiedAddressing = get(cudaDevAttrUnifiedAddressing);
  p.memoryBusWidth = gpu.memory_bus_bits;
  p.l2CacheSize = static_cast<int>(gpu.l2_bytes);
  p.persistingL2CacheMaxSize = get(cudaDevAttrMaxPersistingL2CacheSize);
  p.maxThreadsPerMultiProcessor = gpu.max_threads_per_sm;
  p.streamPrioritiesSupported = get(cudaDevAttrStreamPrioritiesSupported);
  p.globalL1CacheSupported = get(cudaDevAttrGlobalL1CacheSupported);
  p.localL1CacheSupported = get(cudaDevAttrLocalL1CacheSupported);
  p.sharedMemPerMultiprocessor = static_cast<size_t>(gpu.shared_per_sm);
  p.regsPerMultiprocessor = gpu.registers_per_sm;
  p.managedMemory = get(cudaDevAttrManagedMemory);
  p.concurrentManagedAccess = get(cudaDevAttrConcurrentManagedAccess);
  p.computePreemptionSupported = get(cudaDevAttrComputePreemptionSupported);
  p.canUseHostPointerForRegisteredMem = get(cudaDevAttrCanUseHostPointerForRegisteredMem);
  p.cooperativeLaunch = get(cudaDevAttrCooperativeLaunch);
  p.sharedMemPerBlockOptin = static_cast<size_t>(gpu.shared_per_block_optin);
  p.maxBlocksPerMultiProcessor = gpu.max_blocks_per_sm;
  p.accessPolicyMaxWindowSize = get(cudaDevAttrMaxAccessPolicyWindowSize);
  p.reservedSharedMemPerBlock = static_cast<size_t>(gpu.shared_reserved);
  p.hostRegisterSupported = get(cudaDevAttrHostRegisterSupported);
  p.hostRegisterReadOnlySupported = get(cudaDevAttrHostRegisterReadOnlySupported);
  p.memoryPoolsSupported = get(cudaDevAttrMemoryPoolsSupported);
  p.clusterLaunch = get(cudaDevAttrClusterLaunch);
  p.deviceNumaId = -1;
}

/// The cluster of a configuration whose occupancy is asked for.
uint64_t cluster_blocks(Function& function, const cudaLaunchConfig_t& config, Runtime& runtime) {
  const Dim3 cluster = cluster_of(function, read_attributes(config.attrs, config.numAttrs), runtime);
  return uint64_t{cluster[0]} * cluster[1] * cluster[2];
}

int resident_of(Function& function, const cudaLaunchConfig_t& config, Runtime& runtime) {
  const dim3 block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > static_cast<uint64_t>(max_threads(function, runtime))) return 0;
  if (config.dynamicSmemBytes > max_dynamic_shared(function, runtime)) return 0;
  return resident_blocks(function, static_cast<int>(threads), config.dynamicSmemBytes, runtime);
}

void occupancy_of(int* blocks, const void* symbol, int threads, size_t dynamic_shared, Runtime& runtime) {
  require(blocks != nullptr && threads > 0);
  const auto function = find_function(symbol, runtime);
  const bool possible =
      threads <= max_threads(*function, runtime) && dynamic_shared <= max_dynamic_shared(*function, runtime);
  *blocks = possible ? resident_blocks(*function, threads, dynamic_shared, runtime) : 0;
}

void set_attribute(Function& function, cudaFuncAttribute attribute, int value, Runtime& runtime) {
  Kernel& kernel = function.kernel(runtime);
  const Gpu& gpu = runtime.gpu();
  const auto cluster_axis = [&](size_t axis) {
    require(value >= 0 && gpu.max_cluster > 0);
    function.required_cluster[axis] = static_cast<unsigned>(value);
  };
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      require(value >= 0 && static_cast<int64_t>(kernel.static_shared_bytes()) + value <= gpu.shared_per_block_optin);
      function.max_dynamic_shared = value;
      return;
    case cudaFuncAttributePreferredSharedMemoryCarveout:
      require(value >= cudaSharedmemCarveoutDefault && value <= cudaSharedmemCarveoutMaxShared);
      function.carveout = value;
      return;
    case cudaFuncAttributeClusterDimMustBeSet:
      fail(cudaErrorInvalidValue);  // read only
    case cudaFuncAttributeRequiredClusterWidth:
      return cluster_axis(0);
    case cudaFuncAttributeRequiredClusterHeight:
      return cluster_axis(1);
    case cudaFuncAttributeRequiredClusterDepth:
      return cluster_axis(2);
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
      require(value == 0 || value == 1);
      function.non_portable_cluster = value == 1;
      return;
    case cudaFuncAttributeClusterSchedulingPolicyPreference:
      require(value >= cudaClusterSchedulingPolicyDefault && value <= cudaClusterSchedulingPolicyLoadBalancing);
      function.cluster_policy = static_cast<cudaClusterSchedulingPolicy>(value);
      return;
    default:
      fail(cudaErrorInvalidValue);
  }
}

int number_in(std::string_view target) {
  int number = 0;
  for (const char letter : target) {
    if (letter >= '0' && letter <= '9') number = number * 10 + (letter - '0');
  }
  return number;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// ---- The device

cudaError_t cudaGetDeviceCount(int* count) {
  return call("cudaGetDeviceCount", [&](Runtime&) {
    require(count != nullptr);
    *count = 1;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return call("cudaGetDevice", [&](Runtime&) {
    require(device != nullptr);
    *device = 0;
  });
}

cudaError_t cudaSetDevice(int device) {
  return call("cudaSetDevice", [&](Runtime& runtime) {
    check_device(device);
    runtime.machine();
  });
}

cudaError_t cudaInitDevice(int device, unsigned flags, unsigned init_flags) {
  return call("cudaInitDevice", [&](Runtime& runtime) {
    check_device(device);
    require((init_flags & ~static_cast<unsigned>(cudaInitDeviceFlagsAreValid)) == 0);
    runtime.machine();
    if ((init_flags & cudaInitDeviceFlagsAreValid) != 0) runtime.device_flags = flags;
  });
}

cudaError_t cudaSetValidDevices(int* devices, int count) {
  return call("cudaSetValidDevices", [&](Runtime&) {
    require(count >= 0 && (count == 0 || devices != nullptr));
    for (int i = 0; i < count; ++i) check_device(devices[i]);
  });
}

cudaError_t cudaChooseDevice(int* device, const cudaDeviceProp* properties) {
  return call("cudaChooseDevice", [&](Runtime&) {
    require(device != nullptr && properties != nullptr);
    *device = 0;
  });
}

cudaError_t cudaSetDeviceFlags(unsigned flags) {
  return call("cudaSetDeviceFlags", [&](Runtime& runtime) {
    require((flags & ~kScheduleFlags) == 0);
    runtime.device_flags = flags;
  });
}

cudaError_t cudaGetDeviceFlags(unsigned* flags) {
  return call("cudaGetDeviceFlags", [&](Runtime& runtime) {
    require(flags != nullptr);
    *flags = runtime.device_flags | cudaDeviceMapHost;
  });
}

cudaError_t cudaDeviceReset() {
  return call(
      "cudaDeviceReset", [](Runtime& runtime) { runtime.reset(); }, CallKind::kOnLostContext);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call("cudaGetDeviceProperties", [&](Runtime& runtime) {
    require(properties != nullptr);
    check_device(device);
    fill_properties(*properties, runtime.gpu());
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr wanted, int device) {
  return call("cudaDeviceGetAttribute", [&](Runtime& runtime) {
    require(value != nullptr && wanted >= cudaDevAttrMaxThreadsPerBlock && wanted < cudaDevAttrMax);
    check_device(device);
    *value = attribute(attributes_of(runtime.gpu()), wanted);
  });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  return call("cudaDeviceGetPCIBusId", [&](Runtime&) {
    check_device(device);
    require(text != nullptr && length > static_cast<int>(kBusId.size()));
    std::memcpy(text, kBusId.data(), kBusId.size());
    text[kBusId.size()] = 0;
  });
}

cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* text) {
  return call("cudaDeviceGetByPCIBusId", [&](Runtime&) {
    require(device != nullptr && text != nullptr);
    // The domain and the function may be left away.
    const std::string_view given = text;
    require(given == kBusId || given == kBusId.substr(5) || given == kBusId.substr(0, 10), cudaErrorInvalidDevice);
    *device = 0;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int* possible, int device, int peer) {
  return call("cudaDeviceCanAccessPeer", [&](Runtime&) {
    require(possible != nullptr);
    check_device(device);
    check_device(peer);
    *possible = 0;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
  return call("cudaDeviceEnablePeerAccess", [](Runtime&) { fail(cudaErrorInvalidDevice); });  // there is no peer
}

cudaError_t cudaDeviceDisablePeerAccess(int) {
  return call("cudaDeviceDisablePeerAccess", [](Runtime&) { fail(cudaErrorInvalidDevice); });
}

cudaError_t cudaDeviceGetP2PAttribute(int*, cudaDeviceP2PAttr, int, int) {
  return call("cudaDeviceGetP2PAttribute", [](Runtime&) { fail(cudaErrorInvalidDevice); });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return call("cudaDriverGetVersion", [&](Runtime&) {
    require(version != nullptr);
    *version = kVersion;
  });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  return call("cudaRuntimeGetVersion", [&](Runtime&) {
    require(version != nullptr);
    *version = kVersion;
  });
}

// ---- Limits and preferences

cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  return call("cudaDeviceSetLimit", [&](Runtime& runtime) {
    Machine& machine = runtime.machine();
    switch (limit) {
      case cudaLimitStackSize:
        machine.stack_limit = value;
        return;
      case cudaLimitMallocHeapSize:
        machine.heap_limit = value;
        return;
      case cudaLimitPrintfFifoSize:
        runtime.printf_limit = value;
        return;
      case cudaLimitDevRuntimePendingLaunchCount:
        runtime.pending_launches = value;
        return;
      case cudaLimitMaxL2FetchGranularity:
        require(value <= 128);
        runtime.l2_fetch = value;
        return;
      case cudaLimitPersistingL2CacheSize:
        require(value <= machine.gpu().l2_bytes);
        runtime.persisting_l2 = value;
        return;
      default:
        fail(cudaErrorUnsupportedLimit);
    }
  });
}

cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  return call("cudaDeviceGetLimit", [&](Runtime& runtime) {
    require(value != nullptr);
    Machine& machine = runtime.machine();
    switch (limit) {
      case cudaLimitStackSize:
        *value = machine.stack_limit;
        return;
      case cudaLimitMallocHeapSize:
        *value = machine.heap_limit;
        return;
      case cudaLimitPrintfFifoSize:
        *value = runtime.printf_limit;
        return;
      case cudaLimitDevRuntimePendingLaunchCount:
        *value = runtime.pending_launches;
        return;
      case cudaLimitMaxL2FetchGranularity:
        *value = runtime.l2_fetch;
        return;
      case cudaLimitPersistingL2CacheSize:
        *value = runtime.persisting_l2;
        return;
      default:
        fail(cudaErrorUnsupportedLimit);
    }
  });
}

cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache* config) {
  return call("cudaDeviceGetCacheConfig", [&](Runtime& runtime) {
    require(config != nullptr);
    *config = runtime.cache_config;
  });
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache config) {
  return call("cudaDeviceSetCacheConfig", [&](Runtime& runtime) {
    require(config >= cudaFuncCachePreferNone && config <= cudaFuncCachePreferEqual);
    runtime.cache_config = config;
  });
}

cudaError_t cudaDeviceGetSharedMemConfig(cudaSharedMemConfig* config) {
  return call("cudaDeviceGetSharedMemConfig", [&](Runtime&) {
    require(config != nullptr);
    *config = cudaSharedMemBankSizeFourByte;  // as of compute capability 5.0 there is no other
  });
}

cudaError_t cudaDeviceSetSharedMemConfig(cudaSharedMemConfig config) {
  return call("cudaDeviceSetSharedMemConfig", [&](Runtime&) {
    require(config >= cudaSharedMemBankSizeDefault && config <= cudaSharedMemBankSizeEightByte);
  });
}

// There are no caches to prefer lines in, and no profiler to start: on a machine without one these do nothing too.
cudaError_t cudaCtxResetPersistingL2Cache() {
  return call("cudaCtxResetPersistingL2Cache", [](Runtime&) {});
}

cudaError_t cudaProfilerStart() {
  return call("cudaProfilerStart", [](Runtime&) {});
}

cudaError_t cudaProfilerStop() {
  return call("cudaProfilerStop", [](Runtime&) {});
}

cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w, cudaChannelFormatKind kind) {
  return {x, y, z, w, kind};
}

// ---- Functions

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* symbol) {
  return call("cudaFuncGetAttributes", [&](Runtime& runtime) {
    require(attributes != nullptr);
    const auto function = find_function(symbol, runtime);
    Kernel& kernel = function->kernel(runtime);
    const Gpu& gpu = runtime.gpu();
    cudaFuncAttributes& a = *attributes = {};
    a.sharedSizeBytes = kernel.static_shared_bytes();
    a.localSizeBytes = kernel.has_machine_code() ? kernel.resources().local_bytes : kernel.local_bytes();
    a.maxThreadsPerBlock = max_threads(*function, runtime);
    a.numRegs = static_cast<int>(kernel.resources().registers);
    a.ptxVersion = number_in(kernel.module().text().target);
    a.binaryVersion = gpu.major * 10 + gpu.minor;
    a.maxDynamicSharedSizeBytes = static_cast<int>(max_dynamic_shared(*function, runtime));
    a.preferredShmemCarveout = function->carveout;
    const ptx::Function& declared = kernel.function();
    a.clusterDimMustBeSet = declared.explicit_cluster || function->cluster_required ? 1 : 0;
    std::array<int*, 3> cluster{&a.requiredClusterWidth, &a.requiredClusterHeight, &a.requiredClusterDepth};
    for (size_t axis = 0; axis < cluster.size(); ++axis) {
      const uint32_t own = declared.cluster[axis];
      *cluster[axis] = static_cast<int>(own != 0 ? own : function->required_cluster[axis]);
    }
    a.clusterSchedulingPolicyPreference = function->cluster_policy;
    a.nonPortableClusterSizeAllowed = function->non_portable_cluster ? 1 : 0;
  });
}

cudaError_t cudaFuncSetAttribute(const void* symbol, cudaFuncAttribute attribute, int value) {
  return call("cudaFuncSetAttribute",
              [&](Runtime& runtime) { set_attribute(*find_function(symbol, runtime), attribute, value, runtime); });
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, cudaFuncAttribute attribute, int value, int device) {
  return call("cudaKernelSetAttributeForDevice", [&](Runtime& runtime) {
    check_device(device);
    set_attribute(*find_function(kernel, runtime), attribute, value, runtime);
  });
}

cudaError_t cudaFuncSetCacheConfig(const void* symbol, cudaFuncCache config) {
  return call("cudaFuncSetCacheConfig", [&](Runtime& runtime) {
    find_function(symbol, runtime);
    require(config >= cudaFuncCachePreferNone && config <= cudaFuncCachePreferEqual);
  });
}

cudaError_t cudaFuncSetSharedMemConfig(const void* symbol, cudaSharedMemConfig) {
  return call("cudaFuncSetSharedMemConfig", [&](Runtime& runtime) { find_function(symbol, runtime); });
}

cudaError_t cudaFuncGetName(const char** name, const void* symbol) {
  return call("cudaFuncGetName", [&](Runtime& runtime) {
    require(name != nullptr);
    *name = find_function(symbol, runtime)->name.c_str();
  });
}

cudaError_t cudaFuncGetParamInfo(const void* symbol, size_t index, size_t* offset, size_t* bytes) {
  return call("cudaFuncGetParamInfo", [&](Runtime& runtime) {
    require(offset != nullptr);
    const auto parameters = find_function(symbol, runtime)->kernel(runtime).parameters();
    require(index < parameters.size());
    *offset = parameters[index].offset;
    if (bytes != nullptr) *bytes = parameters[index].bytes;
  });
}

// ---- Occupancy

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* symbol, int threads,
                                                          size_t dynamic_shared) {
  return call("cudaOccupancyMaxActiveBlocksPerMultiprocessor",
              [&](Runtime& runtime) { occupancy_of(blocks, symbol, threads, dynamic_shared, runtime); });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* symbol, int threads,
                                                                   size_t dynamic_shared, unsigned flags) {
  return call("cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", [&](Runtime& runtime) {
    require((flags & ~static_cast<unsigned>(cudaOccupancyDisableCachingOverride)) == 0);
    occupancy_of(blocks, symbol, threads, dynamic_shared, runtime);
  });
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, const void* symbol, int blocks, int threads) {
  return call("cudaOccupancyAvailableDynamicSMemPerBlock", [&](Runtime& runtime) {
    require(bytes != nullptr && blocks > 0 && threads > 0);
    const auto function = find_function(symbol, runtime);
    require(threads <= max_threads(*function, runtime));
    require(blocks <= resident_blocks(*function, threads, 0, runtime));
    const Gpu& gpu = runtime.gpu();
    const int share = gpu.shared_per_sm / blocks / gpu.shared_unit * gpu.shared_unit - gpu.shared_reserved;
    const size_t fixed = function->kernel(runtime).static_shared_bytes();
    const auto usable = static_cast<size_t>(std::clamp(share, 0, gpu.shared_per_block_optin));
    *bytes = std::min(usable > fixed ? usable - fixed : 0, max_dynamic_shared(*function, runtime));
  });
}

cudaError_t cudaOccupancyMaxPotentialClusterSize(int* size, const void* symbol, const cudaLaunchConfig_t* config) {
  return call("cudaOccupancyMaxPotentialClusterSize", [&](Runtime& runtime) {
    require(size != nullptr && config != nullptr);
    const auto function = find_function(symbol, runtime);
    require(runtime.gpu().max_cluster > 0, cudaErrorNotSupported);
    *size = resident_of(*function, *config, runtime) > 0 ? max_cluster(*function, runtime.gpu()) : 0;
  });
}

cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void* symbol, const cudaLaunchConfig_t* config) {
  return call("cudaOccupancyMaxActiveClusters", [&](Runtime& runtime) {
    require(clusters != nullptr && config != nullptr);
    const auto function = find_function(symbol, runtime);
    const Gpu& gpu = runtime.gpu();
    require(gpu.max_cluster > 0, cudaErrorNotSupported);
    const uint64_t blocks = cluster_blocks(*function, *config, runtime);
    require(blocks <= static_cast<uint64_t>(max_cluster(*function, gpu)), cudaErrorInvalidClusterSize);
    const int resident = resident_of(*function, *config, runtime);
    *clusters = static_cast<int>(static_cast<uint64_t>(resident) * static_cast<uint64_t>(gpu.multiprocessors) / blocks);
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
