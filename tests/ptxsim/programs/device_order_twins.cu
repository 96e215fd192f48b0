// The correct twins of faults/device_order.cu: all that orders operations, and what needs no order. Nothing may be
// found.
#include <atomic>

#include "tests/ptxsim/programs/device_order.h"

__constant__ int coefficients[4];

__global__ void reads_coefficients(int* to) { to[threadIdx.x] = coefficients[threadIdx.x & 3]; }

__global__ void tells_host(int* data, volatile int* pinned) {
  data[threadIdx.x] += 1;
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) *pinned = 1;
}

__global__ void waits_for_host(const volatile int* pinned, const int* data, int* out) {
  if (threadIdx.x == 0) {
    while (*pinned == 0) {
    }
    __threadfence_system();
  }
  __syncthreads();
  out[threadIdx.x] = data[threadIdx.x];
}

__global__ void sends(int* data, int* flag) {
  data[threadIdx.x] = 7;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) atomicExch(flag, 1);
}

__global__ void receives(const int* data, volatile int* flag, int* out) {
  if (threadIdx.x == 0) {
    while (*flag == 0) {
    }
    __threadfence();
  }
  __syncthreads();
  out[threadIdx.x] = data[threadIdx.x];
}

void poll(const int* pinned) {
  while (*static_cast<const volatile int*>(pinned) == 0) std::this_thread::yield();
}

int main() {
  const std::vector<int> nothing(kCount);
  const Buffer<int> x(nothing), y(nothing), z(nothing), zeros(nothing);
  const Buffer<char> bytes(4096);
  const Pinned pinned(kCount);
  const Event event, other;
  {
    const Stream a, b, blocking(cudaStreamDefault), blocking_too(cudaStreamDefault);
    const auto fill_x = [&](const Stream& stream) { fill<1><<<kBlocks, kThreads, 0, stream.handle>>>(x.get(), 1); };
    const auto read_x = [&](const Stream& stream) {
      twice<1><<<kBlocks, kThreads, 0, stream.handle>>>(x.get(), y.get());
    };
    // Two that read.
    read_x(a);
    twice<2><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), z.get());
    EXPECT_RAN();

    for (int i = 0; i < 3; ++i) {
      fill_x(a);
      record_and_wait(event, a, b);
      read_x(b);
      record_and_wait(other, b, a);  // the next round's write comes after this one's read
    }
    EXPECT_RAN();

    // By a third stream.
    fill_x(a);
    record_and_wait(event, a, blocking);
    record_and_wait(other, blocking, b);
    read_x(b);
    EXPECT_RAN();

    // Streams that block wait for the default stream, and it for them.
    fill<3><<<kBlocks, kThreads>>>(x.get(), 1);
    read_x(blocking);
    fill<4><<<kBlocks, kThreads>>>(x.get(), 2);
    fill<5><<<kBlocks, kThreads, 0, cudaStreamPerThread>>>(x.get(), 3);
    fill<6><<<kBlocks, kThreads, 0, cudaStreamLegacy>>>(x.get(), 4);
    fill_x(blocking_too);
    EXPECT_OK(cudaMemset(x.get(), 0, x.bytes()));
    fill_x(blocking);
    EXPECT_RAN();

    // The host in between, by each of its ways to wait.
    fill_x(a);
    EXPECT_OK(cudaStreamSynchronize(a.handle));
    read_x(b);
    EXPECT_OK(cudaEventRecord(event.handle, b.handle));
    EXPECT_OK(cudaEventSynchronize(event.handle));
    fill_x(a);
    while (cudaStreamQuery(a.handle) == cudaErrorNotReady) std::this_thread::yield();
    read_x(b);
    EXPECT_OK(cudaEventRecord(event.handle, b.handle));
    while (cudaEventQuery(event.handle) == cudaErrorNotReady) std::this_thread::yield();
    cudaGetLastError();  // that of a query that came too early
    fill_x(a);
    EXPECT_OK(cudaDeviceSynchronize());
    read_x(b);
    std::thread([&] { EXPECT_OK(cudaStreamSynchronize(b.handle)); }).join();
    EXPECT_OK(cudaMemcpy(x.get(), nothing.data(), x.bytes(), cudaMemcpyHostToDevice));
    read_x(b);
    EXPECT_OK(cudaMemcpyAsync(pinned.data, y.get(), y.bytes(), cudaMemcpyDeviceToHost, b.handle));
    std::vector<int> pageable(kCount);
    EXPECT_OK(cudaMemcpyAsync(pageable.data(), y.get(), y.bytes(), cudaMemcpyDeviceToHost, b.handle));
    fill_x(a);
    twice<7><<<kBlocks, kThreads, 0, a.handle>>>(pinned.data, z.get());
    EXPECT_RAN();

    // A function of the host that tells what comes before it.
    std::atomic<bool> told{false};
    fill_x(a);
    EXPECT_OK(cudaLaunchHostFunc(
        a.handle, [](void* flag) { *static_cast<std::atomic<bool>*>(flag) = true; }, &told));
    while (!told) std::this_thread::yield();
    read_x(b);
    EXPECT_RAN();

    count<8><<<kBlocks, kThreads, 0, a.handle>>>(zeros.get());
    count<9><<<kBlocks, kThreads, 0, b.handle>>>(zeros.get());
    EXPECT_RAN();
    for (const int seam : {999, 1000, 1001, 1023, 1024, 1025}) {
      fill_bytes<8><<<8, 256, 0, a.handle>>>(bytes.get(), 0, seam);
      fill_bytes<9><<<8, 256, 0, b.handle>>>(bytes.get(), seam, 1000);
      EXPECT_OK(cudaMemsetAsync(bytes.get() + seam + 1000, 0, 77, blocking.handle));
      EXPECT_RAN();
    }

    // Columns of the same rows.
    EXPECT_OK(cudaMemcpy2DAsync(x.get(), 64, pinned.data, 12, 12, 16, cudaMemcpyHostToDevice, a.handle));
    EXPECT_OK(cudaMemset2DAsync(reinterpret_cast<char*>(x.get()) + 12, 64, 0, 52, 16, b.handle));
    EXPECT_RAN();

    // The free waits for all.
    int* data;
    EXPECT_OK(cudaMalloc(&data, x.bytes()));
    fill<10><<<kBlocks, kThreads, 0, a.handle>>>(data, 1);
    EXPECT_OK(cudaFree(data));
    EXPECT_OK(cudaMallocAsync(&data, x.bytes(), a.handle));
    record_and_wait(event, a, b);
    fill<11><<<kBlocks, kThreads, 0, b.handle>>>(data, 1);
    record_and_wait(event, b, a);
    EXPECT_OK(cudaFreeAsync(data, a.handle));
    EXPECT_RAN();

    const int ones[4] = {1, 1, 1, 1};
    reads_coefficients<<<1, 64, 0, a.handle>>>(y.get());
    EXPECT_OK(cudaStreamSynchronize(a.handle));
    EXPECT_OK(cudaMemcpyToSymbolAsync(coefficients, ones, sizeof ones, 0, cudaMemcpyHostToDevice, b.handle));
    EXPECT_RAN();
  }
  {
    // A stream's work goes on when the stream is destroyed, and what would wait for the stream waits for it.
    cudaStream_t a;
    EXPECT_OK(cudaStreamCreate(&a));
    fill<12><<<kBlocks, kThreads, 0, a>>>(x.get(), 1);
    EXPECT_OK(cudaStreamDestroy(a));
    fill<13><<<kBlocks, kThreads>>>(x.get(), 2);
    EXPECT_OK(cudaStreamCreate(&a));
    fill<14><<<kBlocks, kThreads, 0, a>>>(x.get(), 1);
    EXPECT_OK(cudaStreamDestroy(a));
    EXPECT_RAN();
  }
  {
    const Stream a, b;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    EXPECT_OK(cudaStreamBeginCapture(a.handle, cudaStreamCaptureModeGlobal));
    fill<15><<<kBlocks, kThreads, 0, a.handle>>>(x.get(), 1);
    record_and_wait(event, a, b);
    twice<15><<<kBlocks, kThreads, 0, b.handle>>>(x.get(), y.get());
    twice<16><<<kBlocks, kThreads, 0, a.handle>>>(x.get(), z.get());
    record_and_wait(other, b, a);
    EXPECT_OK(cudaStreamEndCapture(a.handle, &graph));
    EXPECT_OK(cudaGraphInstantiate(&exec, graph, 0));
    // Launches of one executable graph come one after the other, in whatever stream.
    for (int i = 0; i < 4; ++i) EXPECT_OK(cudaGraphLaunch(exec, i % 2 == 0 ? a.handle : b.handle));
    increment<17><<<kBlocks, kThreads, 0, b.handle>>>(y.get());
    EXPECT_RAN();
    EXPECT_OK(cudaGraphExecDestroy(exec));
    EXPECT_OK(cudaGraphDestroy(graph));
  }
  {
    // Flags: from a kernel to the host, from the host to a kernel, from one kernel to another.
    const Stream a, b;
    pinned.data[0] = pinned.data[64] = 0;
    tells_host<<<1, 32, 0, a.handle>>>(x.get(), pinned.data);
    waits_for_host<<<1, 32, 0, b.handle>>>(pinned.data + 64, x.get(), y.get());
    poll(pinned.data);
    *static_cast<volatile int*>(pinned.data + 64) = 1;
    EXPECT_RAN();
    pinned.data[0] = 0;
    tells_host<<<1, 32, 0, a.handle>>>(x.get(), pinned.data);
    poll(pinned.data);
    fill<18><<<1, 32, 0, b.handle>>>(x.get(), 1);
    EXPECT_RAN();
    EXPECT_OK(cudaMemset(zeros.get(), 0, zeros.bytes()));
    EXPECT_OK(cudaDeviceSynchronize());
    receives<<<1, 32, 0, b.handle>>>(x.get(), zeros.get(), y.get());
    fill<19><<<1, 32, 0, b.handle>>>(x.get(), 1);
    sends<<<1, 32, 0, a.handle>>>(x.get(), zeros.get());
    EXPECT_RAN();
    EXPECT(y.download()[5] == 7);
    // A copy's bytes may be a flag, too.
    EXPECT_OK(cudaMemset(zeros.get(), 0, zeros.bytes()));
    EXPECT_OK(cudaDeviceSynchronize());
    receives<<<1, 32, 0, b.handle>>>(x.get(), zeros.get(), y.get());
    pinned.data[0] = 1;
    EXPECT_OK(cudaMemcpyAsync(x.get(), pinned.data + 64, 128, cudaMemcpyHostToDevice, a.handle));
    EXPECT_OK(cudaMemcpyAsync(zeros.get(), pinned.data, 4, cudaMemcpyHostToDevice, a.handle));
    EXPECT_RAN();
  }
}
