// What the runtime says to wrong calls, and how errors are remembered.
#include <cstring>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__global__ void nothing() {}
__global__ void __launch_bounds__(128) bounded(int* x) {
  if (x != nullptr) x[threadIdx.x] = 1;
}
__global__ void fixed_shared(int* x) {
  __shared__ int values[1024];
  values[threadIdx.x] = 1;
  __syncthreads();
  if (x != nullptr) x[threadIdx.x] = values[threadIdx.x];
}
void not_a_kernel() {}

void last_error() {
  EXPECT_OK(cudaGetLastError());
  EXPECT_ERROR(cudaSetDevice(7), cudaErrorInvalidDevice);
  EXPECT_ERROR(cudaPeekAtLastError(), cudaErrorInvalidDevice);  // looking leaves it
  EXPECT_OK(cudaSetDevice(0));                                  // and so does a call that succeeds
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidDevice);
  EXPECT_OK(cudaGetLastError());
  // Each host thread has its own.
  EXPECT_ERROR(cudaMemcpy(nullptr, nullptr, 4, cudaMemcpyDefault), cudaErrorInvalidValue);
  std::thread([] { EXPECT_OK(cudaGetLastError()); }).join();
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidValue);
}

void names() {
  EXPECT(std::strcmp(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress") == 0);
  EXPECT(std::strcmp(cudaGetErrorString(cudaErrorIllegalAddress), "an illegal memory access was encountered") == 0);
  EXPECT(std::strcmp(cudaGetErrorName(static_cast<cudaError_t>(12345)), "unrecognized error code") == 0);
}

void configurations() {
  const auto launch = [](dim3 grid, dim3 block, size_t shared) {
    nothing<<<grid, block, shared>>>();
    return cudaGetLastError();
  };
  EXPECT_OK(launch(1, 1024, 48 << 10));
  EXPECT_ERROR(launch(0, 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(launch(1, 0, 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(launch(1, 1025, 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(launch(1, dim3(32, 33), 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(launch(1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(launch(dim3(1, 65536), 1, 0), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(launch(dim3(1, 1, 65536), 1, 0), cudaErrorInvalidConfiguration);
  EXPECT_OK(launch(dim3(1, 65535), 1, 0));
  EXPECT_ERROR(launch(1, 1, (48 << 10) + 1), cudaErrorInvalidValue);
  EXPECT_OK(cudaDeviceSynchronize());

  bounded<<<1, 128>>>(nullptr);
  EXPECT_OK(cudaGetLastError());
  bounded<<<1, 129>>>(nullptr);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorLaunchOutOfResources);

  // Static shared memory counts towards what is there without asking.
  fixed_shared<<<1, 32, 44 << 10>>>(nullptr);
  EXPECT_OK(cudaGetLastError());
  fixed_shared<<<1, 32, (44 << 10) + 4>>>(nullptr);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_OK(cudaFuncSetAttribute(fixed_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10));
  fixed_shared<<<1, 32, 100 << 10>>>(nullptr);
  EXPECT_OK(cudaGetLastError());
  fixed_shared<<<1, 32, (100 << 10) + 4>>>(nullptr);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaFuncSetAttribute(fixed_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 224 << 10),
               cudaErrorInvalidValue);  // with 4 KiB of its own that is more than 227
  EXPECT_ERROR(cudaFuncSetAttribute(fixed_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, -1),
               cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaDeviceSynchronize());

  void* arguments[] = {nullptr};
  EXPECT_ERROR(cudaLaunchKernel(reinterpret_cast<const void*>(not_a_kernel), 1, 1, arguments, 0, nullptr),
               cudaErrorInvalidDeviceFunction);
  EXPECT_ERROR(cudaLaunchKernel(static_cast<const void*>(nullptr), 1, 1, arguments, 0, nullptr),
               cudaErrorInvalidDeviceFunction);
  EXPECT_ERROR(
      cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(nothing), 132 * 2 + 1, 1024, nullptr, 0, nullptr),
      cudaErrorCooperativeLaunchTooLarge);
  EXPECT_OK(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(nothing), 132 * 2, 1024, nullptr, 0, nullptr));
  EXPECT_OK(cudaDeviceSynchronize());
  cudaGetLastError();
}

void handles() {
  cudaStream_t stream;
  EXPECT_ERROR(cudaStreamCreate(nullptr), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaStreamCreateWithFlags(&stream, 0xff), cudaErrorInvalidValue);
  EXPECT_OK(cudaStreamCreate(&stream));
  EXPECT_OK(cudaStreamDestroy(stream));
  EXPECT_ERROR(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaStreamDestroy(stream), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaStreamDestroy(nullptr), cudaErrorInvalidResourceHandle);
  nothing<<<1, 1, 0, stream>>>();
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidResourceHandle);
  cudaEvent_t event;
  EXPECT_OK(cudaEventCreate(&event));
  EXPECT_OK(cudaEventDestroy(event));
  EXPECT_ERROR(cudaEventRecord(event), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaEventDestroy(event), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaEventCreateWithFlags(&event, 0x100), cudaErrorInvalidValue);
  cudaGetLastError();
}

void memory() {
  void* pointer = nullptr;
  EXPECT_ERROR(cudaMalloc(nullptr, 1), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMalloc(&pointer, size_t{1} << 40), cudaErrorMemoryAllocation);
  EXPECT_ERROR(cudaMalloc(&pointer, ~size_t{0}), cudaErrorMemoryAllocation);
  EXPECT_OK(cudaMalloc(&pointer, 0));
  EXPECT(pointer == nullptr);
  EXPECT_OK(cudaFree(nullptr));
  EXPECT_OK(cudaFreeHost(nullptr));
  EXPECT_OK(cudaMalloc(&pointer, 100));
  int own = 0;
  EXPECT_ERROR(cudaFree(&own), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaFree(static_cast<char*>(pointer) + 4), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaFreeHost(pointer), cudaErrorInvalidValue);
  char host[200] = {};
  EXPECT_OK(cudaMemcpy(pointer, host, 100, cudaMemcpyHostToDevice));
  EXPECT_ERROR(cudaMemcpy(pointer, host, 101, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(static_cast<char*>(pointer) + 50, host, 51, cudaMemcpyDefault), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(host, host + 100, 10, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(pointer, host, 10, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(pointer, host, 10, static_cast<cudaMemcpyKind>(9)), cudaErrorInvalidMemcpyDirection);
  EXPECT_OK(cudaMemcpy(pointer, host, 0, cudaMemcpyHostToDevice));
  EXPECT_ERROR(cudaMemcpy2D(pointer, 4, host, 10, 5, 2, cudaMemcpyHostToDevice), cudaErrorInvalidPitchValue);
  EXPECT_ERROR(cudaMemset(pointer, 0, 101), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemset(host, 0, 10), cudaErrorInvalidValue);
  EXPECT_OK(cudaFree(pointer));
  EXPECT_ERROR(cudaFree(pointer), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemset(pointer, 0, 10), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(pointer, host, 10, cudaMemcpyDefault), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpyToSymbol(&own, host, 4), cudaErrorInvalidSymbol);
  EXPECT_ERROR(cudaHostAlloc(&pointer, 10, 0x80), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMallocManaged(&pointer, 0), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMallocManaged(&pointer, 10, 7), cudaErrorInvalidValue);
  cudaGetLastError();
}

void unsupported() {
  cudaArray_t array = nullptr;
  const cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
  EXPECT_ERROR(cudaMallocArray(&array, &format, 16), cudaErrorNotSupported);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorNotSupported);
  cudaIpcMemHandle_t handle;
  EXPECT_ERROR(cudaIpcGetMemHandle(&handle, nullptr), cudaErrorNotSupported);
  cudaGetLastError();
}

int main() {
  last_error();
  names();
  configurations();
  handles();
  memory();
  unsupported();
  return 0;
}
