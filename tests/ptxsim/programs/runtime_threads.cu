// Many host threads use the runtime at once.
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__device__ int counter;

__global__ void add(int* x, int value) { x[blockIdx.x * blockDim.x + threadIdx.x] += value; }
__global__ void count() { atomicAdd(&counter, 1); }

void work(int index) {
  cudaStream_t stream;
  EXPECT_OK(cudaStreamCreateWithFlags(&stream, index % 2 == 0 ? cudaStreamNonBlocking : cudaStreamDefault));
  cudaEvent_t event;
  EXPECT_OK(cudaEventCreate(&event));
  for (int round = 0; round < 10; ++round) {
    int* x;
    EXPECT_OK(cudaMallocAsync(&x, 256 * sizeof(int), stream));
    EXPECT_OK(cudaMemsetAsync(x, 0, 256 * sizeof(int), stream));
    for (int i = 0; i < 5; ++i) add<<<4, 64, 0, stream>>>(x, index);
    EXPECT_OK(cudaGetLastError());
    count<<<1, 1, 0, stream>>>();
    EXPECT_OK(cudaEventRecord(event, stream));
    EXPECT_OK(cudaEventSynchronize(event));
    std::vector<int> host(256);
    EXPECT_OK(cudaMemcpyAsync(host.data(), x, 1024, cudaMemcpyDeviceToHost, stream));
    EXPECT(host == std::vector<int>(256, 5 * index));
    EXPECT_OK(cudaFreeAsync(x, stream));
    const Buffer<int> y(std::vector<int>(64, round));
    add<<<1, 64>>>(y.get(), index);
    EXPECT(y.download() == std::vector<int>(64, round + index));
    EXPECT_ERROR(cudaSetDevice(5), cudaErrorInvalidDevice);
    EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidDevice);
  }
  EXPECT_OK(cudaEventDestroy(event));
  EXPECT_OK(cudaStreamDestroy(stream));
}

int main() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_OK(cudaDeviceSynchronize());
  int counted = 0;
  EXPECT_OK(cudaMemcpyFromSymbol(&counted, counter, sizeof counted));
  EXPECT(counted == 60);
  return 0;
}
