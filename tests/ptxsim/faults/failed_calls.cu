// Calls that fail. A launch by <<<>>> drops its error: it is a finding unless somebody asks for the last error. Of the
// others the program gets the code; notes say what was wrong.
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__constant__ float coefficients[8];

template <int kUse>
__global__ void increment(int* counts) {
  counts[threadIdx.x] += coefficients[threadIdx.x % 8] == 0 ? 1 : 2;
}

int main() {
  Buffer<int> counts(std::vector<int>(100, 0));
  std::vector<float> host(101);
  EXPECT_ERROR(cudaMemcpy(counts.get(), host.data(), 404, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  // expect: note "cudaMemcpy: cudaErrorInvalidValue: 404 bytes from byte 0 of allocation 1 (400 bytes of device memory"
  EXPECT_ERROR(cudaMemcpyToSymbol(coefficients, host.data(), 36), cudaErrorInvalidValue);
  // expect: note "36 bytes from byte 0 of __constant__ variable 'coefficients' (32 bytes"
  int* data;
  EXPECT_OK(cudaMalloc(&data, 400));
  EXPECT_OK(cudaFree(data));
  EXPECT_ERROR(cudaFree(data), cudaErrorInvalidValue);
  // expect: note "cudaFree: cudaErrorInvalidValue: "
  EXPECT_ERROR(cudaMemset(data, 0, 400), cudaErrorInvalidValue);
  // expect: note "cudaMemset: cudaErrorInvalidValue: 400 bytes from byte 0 of allocation 3"
  EXPECT_ERROR(cudaSetDevice(7), cudaErrorInvalidDevice);
  // expect: note "cudaSetDevice: cudaErrorInvalidDevice: invalid device ordinal"
  EXPECT_ERROR(cudaStreamDestroy(reinterpret_cast<cudaStream_t>(&host)), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidResourceHandle);

  // Asked for: in time, or by a look.
  increment<1><<<1, 2048>>>(counts.get());  // expect: note "a grid of 1 x 1 x 1 blocks of 2048 x 1 x 1 threads"
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidConfiguration);
  increment<2><<<1, 64, 1 << 20>>>(counts.get());
  // expect: note "cudaLaunchKernel: cudaErrorInvalidValue: 1048576 bytes of dynamic shared memory"
  EXPECT_ERROR(cudaPeekAtLastError(), cudaErrorInvalidValue);
  int* argument = counts.get();
  void* arguments[] = {&argument};
  // This call's caller has the code.
  EXPECT_ERROR(cudaLaunchKernel(increment<3>, dim3(0), dim3(1), arguments, 0, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_ERROR(cudaLaunchKernel(increment<3>, dim3(0), dim3(1), arguments, 0, nullptr), cudaErrorInvalidConfiguration);

  // Not asked for, though a later call succeeds, and other threads ask for theirs.
  increment<4><<<0, 64>>>(counts.get());  // expect: finding "void increment<4>(int*): launch failed: cudaErrorInvalid"
  EXPECT_OK(cudaDeviceSynchronize());
  std::thread([&] {
    EXPECT_OK(cudaGetLastError());
    increment<5>
        <<<1, 1025>>>(counts.get());  // expect: finding "void increment<5>(int*): launch failed: cudaErrorInvalid"
  }).join();
  increment<6><<<1, 64>>>(counts.get());
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT(counts.download()[63] == 1);
}
