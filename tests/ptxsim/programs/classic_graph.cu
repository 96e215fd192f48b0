// A stream captured with a fork and a join, launched again and again.
#include "tests/ptxsim/programs/expect.h"

__global__ void add(int* x, int value) { x[threadIdx.x] += value; }
__global__ void sum(const int* a, const int* b, int* c) { c[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x]; }

int main() {
  const std::vector<int> zeros(64, 0);
  const Buffer<int> a(zeros), b(zeros), c(zeros);
  cudaStream_t main_stream, side;
  EXPECT_OK(cudaStreamCreate(&main_stream));
  EXPECT_OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
  cudaEvent_t fork, join;
  EXPECT_OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  EXPECT_OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));

  EXPECT_OK(cudaStreamBeginCapture(main_stream, cudaStreamCaptureModeGlobal));
  EXPECT_OK(cudaEventRecord(fork, main_stream));
  EXPECT_OK(cudaStreamWaitEvent(side, fork));
  add<<<1, 64, 0, main_stream>>>(a.get(), 1);
  add<<<1, 64, 0, side>>>(b.get(), 10);
  add<<<1, 64, 0, side>>>(b.get(), 100);
  EXPECT_OK(cudaEventRecord(join, side));
  EXPECT_OK(cudaStreamWaitEvent(main_stream, join));
  sum<<<1, 64, 0, main_stream>>>(a.get(), b.get(), c.get());
  cudaGraph_t graph;
  EXPECT_OK(cudaStreamEndCapture(main_stream, &graph));
  size_t nodes = 0;
  EXPECT_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT(nodes == 4);
  EXPECT(c.download() == zeros);  // nothing has run

  cudaGraphExec_t executable;
  EXPECT_OK(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 5; ++i) EXPECT_OK(cudaGraphLaunch(executable, main_stream));
  EXPECT_OK(cudaStreamSynchronize(main_stream));
  EXPECT(c.download() == std::vector<int>(64, 5 * 111));

  EXPECT_OK(cudaGraphExecDestroy(executable));
  EXPECT_OK(cudaGraphDestroy(graph));
  EXPECT_OK(cudaEventDestroy(fork));
  EXPECT_OK(cudaEventDestroy(join));
  EXPECT_OK(cudaStreamDestroy(side));
  EXPECT_OK(cudaStreamDestroy(main_stream));
}
