// Properties of the device, attributes and occupancy of functions, and launches with attributes.
#include <cstring>

#include "tests/ptxsim/programs/expect.h"

__global__ void __launch_bounds__(256) kernel(int* x, char c, double d) {
  __shared__ int values[64];
  values[threadIdx.x % 64] = c;
  __syncthreads();
  x[0] = values[0] + static_cast<int>(d);
}
__global__ void store(int* x, int value) { *x = value; }
__global__ void __cluster_dims__(2, 1, 1) in_pairs(int* x) {
  if (threadIdx.x == 0) x[blockIdx.x] = static_cast<int>(blockIdx.x);
}
// Launched by the number of clusters; its blocks have the size that it asks for.
__global__ void __block_size__((64, 1, 1), (2, 1, 1)) counted_in_clusters(int* x) {
  if (threadIdx.x == 63) x[blockIdx.x] = static_cast<int>(gridDim.x * 1000 + blockDim.x);
}

void device() {
  int count = 0, current = -1, value = 0;
  EXPECT_OK(cudaGetDeviceCount(&count));
  EXPECT_OK(cudaGetDevice(&current));
  EXPECT(count == 1 && current == 0);
  cudaDeviceProp p;
  EXPECT_OK(cudaGetDeviceProperties(&p, 0));
  EXPECT_ERROR(cudaGetDeviceProperties(&p, 1), cudaErrorInvalidDevice);
  EXPECT(std::strcmp(p.name, "NVIDIA H100 80GB HBM3") == 0);
  EXPECT(p.major == 9 && p.minor == 0 && p.multiProcessorCount == 132 && p.warpSize == 32);
  EXPECT(p.sharedMemPerBlock == 48 << 10 && p.sharedMemPerBlockOptin == 227 << 10);
  EXPECT(p.sharedMemPerMultiprocessor == 228 << 10 && p.maxThreadsPerMultiProcessor == 2048);
  EXPECT(p.managedMemory == 1 && p.cooperativeLaunch == 1 && p.clusterLaunch == 1);
  // The same answers one by one.
  const std::pair<cudaDeviceAttr, int> attributes[] = {
      {cudaDevAttrMaxThreadsPerBlock, p.maxThreadsPerBlock},
      {cudaDevAttrMaxGridDimY, p.maxGridSize[1]},
      {cudaDevAttrMaxSharedMemoryPerBlock, static_cast<int>(p.sharedMemPerBlock)},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(p.sharedMemPerBlockOptin)},
      {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
      {cudaDevAttrComputeCapabilityMajor, p.major},
      {cudaDevAttrComputeCapabilityMinor, p.minor},
      {cudaDevAttrL2CacheSize, p.l2CacheSize},
      {cudaDevAttrMaxRegistersPerBlock, p.regsPerBlock},
      {cudaDevAttrConcurrentManagedAccess, p.concurrentManagedAccess},
      {cudaDevAttrMemoryPoolsSupported, p.memoryPoolsSupported},
      {cudaDevAttrClockRate, 1980000},
  };
  for (const auto& [attribute, want] : attributes) {
    EXPECT_OK(cudaDeviceGetAttribute(&value, attribute, 0));
    EXPECT(value == want);
  }
  EXPECT_ERROR(cudaDeviceGetAttribute(&value, static_cast<cudaDeviceAttr>(100000), 0), cudaErrorInvalidValue);
  EXPECT_OK(cudaRuntimeGetVersion(&value));
  EXPECT(value == CUDART_VERSION);
  EXPECT_OK(cudaDriverGetVersion(&value));
  EXPECT(value >= CUDART_VERSION);
  char bus[32];
  EXPECT_OK(cudaDeviceGetPCIBusId(bus, sizeof bus, 0));
  EXPECT_OK(cudaDeviceGetByPCIBusId(&value, bus));
  EXPECT(value == 0);
  EXPECT_ERROR(cudaDeviceEnablePeerAccess(1, 0), cudaErrorInvalidDevice);
  size_t limit;
  EXPECT_OK(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 16 << 20));
  EXPECT_OK(cudaDeviceGetLimit(&limit, cudaLimitMallocHeapSize));
  EXPECT(limit == 16 << 20);
  EXPECT_ERROR(cudaDeviceSetLimit(static_cast<cudaLimit>(77), 1), cudaErrorUnsupportedLimit);
  cudaGetLastError();
}

void function() {
  cudaFuncAttributes attributes;
  EXPECT_OK(cudaFuncGetAttributes(&attributes, kernel));
  EXPECT(attributes.sharedSizeBytes == 256 && attributes.maxThreadsPerBlock == 256);
  EXPECT(attributes.numRegs > 0 && attributes.binaryVersion == 90 && attributes.ptxVersion == 90);
  EXPECT(attributes.maxDynamicSharedSizeBytes == (48 << 10) - 256);
  EXPECT_OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
  EXPECT_OK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 50));
  EXPECT_OK(cudaFuncGetAttributes(&attributes, kernel));
  EXPECT(attributes.maxDynamicSharedSizeBytes == 65536 && attributes.preferredShmemCarveout == 50);
  EXPECT_ERROR(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 101),
               cudaErrorInvalidValue);
  EXPECT_ERROR(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(device)),
               cudaErrorInvalidDeviceFunction);
  const char* name;
  EXPECT_OK(cudaFuncGetName(&name, reinterpret_cast<const void*>(kernel)));
  EXPECT(std::strstr(name, "kernel") != nullptr);
  size_t offset, bytes;
  EXPECT_OK(cudaFuncGetParamInfo(reinterpret_cast<const void*>(kernel), 0, &offset, &bytes));
  EXPECT(offset == 0 && bytes == 8);
  EXPECT_OK(cudaFuncGetParamInfo(reinterpret_cast<const void*>(kernel), 1, &offset, &bytes));
  EXPECT(offset == 8 && bytes == 1);
  EXPECT_OK(cudaFuncGetParamInfo(reinterpret_cast<const void*>(kernel), 2, &offset, &bytes));
  EXPECT(offset == 16 && bytes == 8);
  EXPECT_ERROR(cudaFuncGetParamInfo(reinterpret_cast<const void*>(kernel), 3, &offset, &bytes), cudaErrorInvalidValue);
  cudaGetLastError();

  int blocks = 0;
  EXPECT_OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 256, 0));
  EXPECT(blocks == 8);
  EXPECT_OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 256, 50 << 10));
  EXPECT(blocks == 4);
  EXPECT_OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 32, 0));
  EXPECT(blocks == 32);
  int grid = 0, block = 0;
  EXPECT_OK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, kernel));
  EXPECT(block == 256 && grid == 132 * 8);
  size_t dynamic = 0;
  EXPECT_OK(cudaOccupancyAvailableDynamicSMemPerBlock(&dynamic, kernel, 4, 256));
  EXPECT(dynamic == (57 << 10) - 1024 - 256);
  EXPECT_ERROR(cudaOccupancyAvailableDynamicSMemPerBlock(&dynamic, kernel, 9, 256), cudaErrorInvalidValue);
  cudaGetLastError();

  const Buffer<int> x(1);
  kernel<<<1, 64>>>(x.get(), 3, 4.5);
  EXPECT_RAN();
  EXPECT(x.download()[0] == 7);
  cudaKernel_t handle;
  EXPECT_OK(cudaGetKernel(&handle, kernel));
  int* pointer = x.get();
  char c = 10;
  double d = 20;
  void* arguments[] = {&pointer, &c, &d};
  EXPECT_OK(cudaLaunchKernel(reinterpret_cast<const void*>(handle), dim3(1), dim3(64), arguments, 0, nullptr));
  EXPECT(x.download()[0] == 30);
}

cudaLaunchConfig_t configuration(unsigned grid, unsigned block, cudaLaunchAttribute* attributes, unsigned count) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid);
  config.blockDim = dim3(block);
  config.attrs = attributes;
  config.numAttrs = count;
  return config;
}

void launches_with_attributes() {
  const Buffer<int> x(std::vector<int>(64, 0));
  cudaLaunchAttribute attributes[4]{};
  cudaEvent_t event;
  EXPECT_OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributePriority;
  attributes[1].val.priority = -2;
  attributes[2].id = cudaLaunchAttributeAccessPolicyWindow;
  attributes[2].val.accessPolicyWindow.base_ptr = x.get();
  attributes[2].val.accessPolicyWindow.num_bytes = 64;
  attributes[3].id = cudaLaunchAttributeProgrammaticEvent;
  attributes[3].val.programmaticEvent.event = event;
  cudaLaunchConfig_t config = configuration(1, 1, attributes, 4);
  EXPECT_OK(cudaLaunchKernelEx(&config, store, x.get(), 5));
  EXPECT_OK(cudaEventSynchronize(event));
  EXPECT(x.download()[0] == 5);
  EXPECT_OK(cudaEventDestroy(event));

  attributes[0].id = cudaLaunchAttributeDeviceUpdatableKernelNode;
  attributes[0].val.deviceUpdatableKernelNode.deviceUpdatable = 1;
  config.numAttrs = 1;
  EXPECT_ERROR(cudaLaunchKernelEx(&config, store, x.get(), 6), cudaErrorNotSupported);

  attributes[0].id = cudaLaunchAttributeCooperative;
  attributes[0].val.cooperative = 1;
  config = configuration(132 * 32 + 1, 1, attributes, 1);
  EXPECT_ERROR(cudaLaunchKernelEx(&config, store, x.get(), 6), cudaErrorCooperativeLaunchTooLarge);

  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {4, 1, 1};
  config = configuration(6, 1, attributes, 1);
  EXPECT_ERROR(cudaLaunchKernelEx(&config, store, x.get(), 6), cudaErrorInvalidClusterSize);  // 6 is no multiple
  config.gridDim = dim3(32);
  attributes[0].val.clusterDim.x = 16;
  EXPECT_ERROR(cudaLaunchKernelEx(&config, store, x.get(), 6), cudaErrorInvalidClusterSize);  // more than 8
  int size = 0, clusters = 0;
  EXPECT_OK(cudaOccupancyMaxPotentialClusterSize(&size, store, &config));
  EXPECT(size == 8);
  EXPECT_OK(cudaFuncSetAttribute(store, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  EXPECT_OK(cudaOccupancyMaxPotentialClusterSize(&size, store, &config));
  EXPECT(size == 16);
  attributes[0].val.clusterDim.x = 8;
  EXPECT_OK(cudaOccupancyMaxActiveClusters(&clusters, store, &config));
  EXPECT(clusters == 32 * 132 / 8);
  cudaGetLastError();

  // A kernel that declares its cluster.
  in_pairs<<<4, 32>>>(x.get());
  EXPECT_RAN();
  EXPECT(x.download()[3] == 3);
  in_pairs<<<3, 32>>>(x.get());
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidClusterSize);
  const Buffer<int> of_blocks(std::vector<int>(7, -1));
  counted_in_clusters<<<3>>>(of_blocks.get());
  EXPECT_RAN();
  EXPECT(of_blocks.download()[5] == 6064 && of_blocks.download()[6] == -1);
  cudaFuncAttributes function_attributes;
  EXPECT_OK(cudaFuncGetAttributes(&function_attributes, in_pairs));
  EXPECT(function_attributes.requiredClusterWidth == 2);
}

int main() {
  device();
  function();
  launches_with_attributes();
  return 0;
}
