// A fault is reported by the next call that waits, and by every call from then on until the device is reset.
#include "tests/ptxsim/programs/expect.h"

__global__ void outside(int* x) {
  x[10] = 1;  // expect: finding "runtime_sticky.cu:LINE"
}
__global__ void store(int* x, int value) { *x = value; }

struct Call {
  int count = 0;
  cudaError_t status = cudaSuccess;
};

int main() {
  int *x, *y;
  EXPECT_OK(cudaMalloc(&x, sizeof(int)));
  EXPECT_OK(cudaHostAlloc(&y, sizeof(int), 0));
  *y = 1;
  cudaStream_t stream;
  cudaEvent_t event;
  EXPECT_OK(cudaStreamCreate(&stream));
  EXPECT_OK(cudaEventCreate(&event));
  Call host, callback;

  outside<<<1, 1, 0, stream>>>(x);
  EXPECT_OK(cudaGetLastError());  // nobody knows yet
  store<<<1, 1, 0, stream>>>(y, 2);
  EXPECT_OK(cudaLaunchHostFunc(
      stream, [](void* data) { ++static_cast<Call*>(data)->count; }, &host));
  EXPECT_OK(cudaStreamAddCallback(
      stream,
      [](cudaStream_t, cudaError_t status, void* data) {
        *static_cast<Call*>(data) = {1, status};
      },
      &callback, 0));
  EXPECT_OK(cudaEventRecord(event, stream));
  EXPECT_ERROR(cudaEventSynchronize(event), cudaErrorIllegalAddress);

  // What came after the fault has not run, but for the callback, which is told.
  EXPECT(*y == 1 && host.count == 0);
  EXPECT(callback.count == 1 && callback.status == cudaErrorIllegalAddress);
  void* p;
  EXPECT_ERROR(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaPeekAtLastError(), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaMalloc(&p, 4), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaMemcpy(y, x, 4, cudaMemcpyDefault), cudaErrorIllegalAddress);
  store<<<1, 1>>>(y, 3);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaFree(x), cudaErrorIllegalAddress);

  EXPECT_OK(cudaDeviceReset());
  cudaGetLastError();
  EXPECT_ERROR(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaFree(x), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaMallocManaged(&y, sizeof(int)));
  store<<<1, 1>>>(y, 3);
  EXPECT_RAN();
  EXPECT(*y == 3);
  EXPECT_OK(cudaFree(y));
  return 0;
}
