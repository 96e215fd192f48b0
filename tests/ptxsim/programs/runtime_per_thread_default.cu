// The entry points of programs compiled with --default-stream per-thread: null means the thread's own stream.
#include <thread>

#include "tests/ptxsim/programs/expect.h"

extern "C" {
cudaError_t cudaLaunchKernel_ptsz(const void*, dim3, dim3, void**, size_t, cudaStream_t);
cudaError_t cudaMemcpy_ptds(void*, const void*, size_t, cudaMemcpyKind);
cudaError_t cudaMemsetAsync_ptsz(void*, int, size_t, cudaStream_t);
cudaError_t cudaStreamSynchronize_ptsz(cudaStream_t);
cudaError_t cudaStreamQuery_ptsz(cudaStream_t);
cudaError_t cudaStreamBeginCapture_ptsz(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture_ptsz(cudaStream_t, cudaGraph_t*);
}

__global__ void wait_for(volatile int* flag) {
  while (*flag == 0) {
  }
}

int main() {
  int* flag;
  EXPECT_OK(cudaHostAlloc(&flag, sizeof(int), 0));
  *flag = 0;
  const Buffer<int> x(std::vector<int>{1}), y(std::vector<int>{2});
  void* arguments[] = {&flag};
  EXPECT_OK(cudaLaunchKernel_ptsz(reinterpret_cast<const void*>(wait_for), 1, 1, arguments, 0, nullptr));
  EXPECT_ERROR(cudaStreamQuery_ptsz(nullptr), cudaErrorNotReady);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorNotReady);
  // Another thread's copies and fills do not wait for it.
  std::thread([&] {
    int got = 0;
    EXPECT_OK(cudaMemcpy_ptds(&got, x.get(), 4, cudaMemcpyDeviceToHost));
    EXPECT(got == 1);
    EXPECT_OK(cudaMemsetAsync_ptsz(y.get(), 0, 4, nullptr));
    EXPECT_OK(cudaStreamSynchronize_ptsz(nullptr));
  }).join();
  EXPECT_ERROR(cudaStreamQuery(cudaStreamPerThread), cudaErrorNotReady);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorNotReady);
  *static_cast<volatile int*>(flag) = 1;
  EXPECT_OK(cudaStreamSynchronize_ptsz(nullptr));
  EXPECT(y.download()[0] == 0);

  // That stream can be captured, which the legacy default stream cannot.
  cudaGraph_t graph;
  EXPECT_OK(cudaStreamBeginCapture_ptsz(nullptr, cudaStreamCaptureModeGlobal));
  EXPECT_OK(cudaMemsetAsync_ptsz(y.get(), 1, 4, nullptr));
  EXPECT_OK(cudaStreamEndCapture_ptsz(nullptr, &graph));
  size_t nodes = 0;
  EXPECT_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT(nodes == 1);
  EXPECT_OK(cudaGraphDestroy(graph));
  EXPECT_OK(cudaFreeHost(flag));
  return 0;
}
