// Operations that nothing orders, and that access the same bytes.
#include "tests/ptxsim/programs/device_order.h"

__constant__ int coefficients[4];

__global__ void reads_coefficients(int* to) { to[threadIdx.x] = coefficients[threadIdx.x & 3]; }

// A plain store that the host looks at tells it, but is no promise.
template <int kUse>
__global__ void done_plainly(int* data, int* pinned) {
  data[threadIdx.x] += 1;
  __syncthreads();
  if (threadIdx.x == 0) *pinned = 1;
}

void poll(const int* pinned) {
  while (*static_cast<const volatile int*>(pinned) == 0) std::this_thread::yield();
}

int main() {
  const std::vector<int> nothing(kCount);
  const Buffer<int> x(nothing), y(nothing), zeros(nothing);
  const Buffer<char> bytes(4096);
  const Pinned pinned(kCount);
  const Event event;
  {
    const Stream a, b;
    fill<1><<<kBlocks, kThreads, 0, a.handle>>>(x.get(), 1);
    twice<1><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), y.get());  // expect: finding "twice<1>"
    EXPECT_RAN();

    // An event that was recorded before what it should stand for.
    EXPECT_OK(cudaEventRecord(event.handle, a.handle));
    fill<2><<<kBlocks, kThreads, 0, a.handle>>>(x.get(), 1);
    EXPECT_OK(cudaStreamWaitEvent(b.handle, event.handle, 0));
    twice<2><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), y.get());  // expect: finding "fill<2>"
    EXPECT_RAN();

    // A stream that does not wait for the default stream.
    fill<3><<<kBlocks, kThreads>>>(x.get(), 1);
    twice<3>
        <<<kBlocks, kThreads, 0, a.handle>>>(x.get(), y.get());  // expect: finding "(int*, int) in the default stream"
    EXPECT_RAN();

    EXPECT_OK(cudaMemcpyAsync(x.get(), pinned.data, x.bytes(), cudaMemcpyHostToDevice, a.handle));
    increment<4><<<kBlocks, kThreads, 0, b.handle>>>(x.get());  // expect: finding "cudaMemcpyAsync in stream"
    EXPECT_RAN();

    EXPECT_OK(cudaMemcpyAsync(pinned.data, x.get(), x.bytes(), cudaMemcpyDeviceToHost, a.handle));
    fill<5><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), 2);  // expect: finding "fill<5>"
    EXPECT_RAN();

    // The host's part of a copy is memory as well.
    EXPECT_OK(cudaMemcpyAsync(pinned.data, x.get(), x.bytes(), cudaMemcpyDeviceToHost, a.handle));
    EXPECT_OK(cudaMemcpyAsync(y.get(), pinned.data, x.bytes(), cudaMemcpyHostToDevice, b.handle));
    // expect: finding "of pinned host memory"
    EXPECT_RAN();

    count<6><<<kBlocks, kThreads, 0, a.handle>>>(zeros.get());
    EXPECT_OK(cudaMemsetAsync(zeros.get(), 0, 4, b.handle));  // expect: finding "memset in stream"
    EXPECT_RAN();

    count<7><<<kBlocks, kThreads, 0, a.handle>>>(zeros.get());
    increment<7><<<1, 32, 0, b.handle>>>(zeros.get());  // expect: finding "atomic or volatile"
    EXPECT_RAN();

    // One byte too many.
    fill_bytes<8><<<4, 256, 0, a.handle>>>(bytes.get(), 0, 1000);
    fill_bytes<9><<<4, 256, 0, b.handle>>>(bytes.get(), 999, 1000);  // expect: finding "write of byte 999 of"
    EXPECT_RAN();

    // The host waits for the wrong stream.
    fill<10><<<kBlocks, kThreads, 0, a.handle>>>(x.get(), 1);
    EXPECT_OK(cudaStreamSynchronize(b.handle));
    twice<10><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), y.get());  // expect: finding "fill<10>"
    EXPECT_RAN();

    // Copies within the device and sets do not wait, though they have no "Async" in their names.
    EXPECT_OK(cudaMemcpy(x.get(), y.get(), x.bytes(), cudaMemcpyDeviceToDevice));
    increment<11><<<kBlocks, kThreads, 0, b.handle>>>(x.get());  // expect: finding "cudaMemcpy in the default stream"
    EXPECT_RAN();
    EXPECT_OK(cudaMemset(x.get(), 0, x.bytes()));
    increment<12><<<kBlocks, kThreads, 0, b.handle>>>(x.get());  // expect: finding "memset in the default stream"
    EXPECT_RAN();

    const int ones[4] = {1, 1, 1, 1};
    reads_coefficients<<<1, 64, 0, a.handle>>>(y.get());
    EXPECT_OK(cudaMemcpyToSymbolAsync(coefficients, ones, sizeof ones, 0, cudaMemcpyHostToDevice, b.handle));
    // expect: finding "'coefficients'"
    EXPECT_RAN();
  }
  {
    // A new stream, though it may have a destroyed one's handle.
    const Stream b;
    cudaStream_t a;
    EXPECT_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    fill<13><<<kBlocks, kThreads, 0, a>>>(x.get(), 1);
    EXPECT_OK(cudaStreamDestroy(a));
    EXPECT_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    twice<13><<<kBlocks, kThreads, 0, a>>>(x.get(), y.get());  // expect: finding "twice<13>"
    EXPECT_RAN();
    EXPECT_OK(cudaStreamDestroy(a));
  }
  {
    // Two threads' own default streams.
    fill<14><<<kBlocks, kThreads, 0, cudaStreamPerThread>>>(x.get(), 1);
    std::thread([&] {
      twice<14><<<kBlocks, kThreads, 0, cudaStreamPerThread>>>(x.get(), y.get());  // expect: finding "fill<14>"
    }).join();
    EXPECT_RAN();
  }
  {
    // A graph whose nodes have no edge between them.
    const Stream a, b;
    const Event joined;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    EXPECT_OK(cudaStreamBeginCapture(a.handle, cudaStreamCaptureModeGlobal));
    record_and_wait(event, a, b);
    fill<15><<<kBlocks, kThreads, 0, a.handle>>>(x.get(), 1);
    twice<15><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), y.get());  // expect: finding "fill<15>"
    record_and_wait(joined, b, a);
    EXPECT_OK(cudaStreamEndCapture(a.handle, &graph));
    EXPECT_OK(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; ++i) EXPECT_OK(cudaGraphLaunch(exec, a.handle));
    EXPECT_RAN();
    EXPECT_OK(cudaGraphExecDestroy(exec));
    EXPECT_OK(cudaGraphDestroy(graph));
  }
  {
    // Memory that is given back in one stream while another has not been waited for. The kernel is done with it.
    const Stream a, b;
    int* data;
    pinned.data[0] = 0;
    EXPECT_OK(cudaMallocAsync(&data, kThreads * sizeof(int), a.handle));
    EXPECT_OK(cudaMemsetAsync(data, 0, kThreads * sizeof(int), a.handle));
    record_and_wait(event, a, b);
    done_plainly<16><<<1, kThreads, 0, b.handle>>>(data, pinned.data);  // expect: finding "freeing"
    poll(pinned.data);
    EXPECT_OK(cudaFreeAsync(data, a.handle));
    EXPECT_RAN();

    // Memory of another stream, before that has come to have it. Either of the two may be the first to run.
    EXPECT_OK(cudaMallocAsync(&data, kCount * sizeof(int), a.handle));
    fill<17><<<kBlocks, kThreads, 0, b.handle>>>(data, 1);  // expect: finding "fill<17>"
    EXPECT_OK(cudaStreamSynchronize(b.handle));
    EXPECT_OK(cudaFreeAsync(data, a.handle));
    EXPECT_RAN();
  }
}
