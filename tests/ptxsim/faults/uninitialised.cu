// Reads of memory that nobody has written, in every space and by the host; memory that was never freed. The twin of
// each kernel in programs/twin_checks.cu writes first.
#include "tests/ptxsim/programs/expect.h"

__global__ void read_global(const int* in, int* out) {
  out[threadIdx.x] = in[threadIdx.x + 1];  // expect: finding "uninitialised.cu:LINE"
}

__global__ void read_shared(int* out) {
  __shared__ int tile[64];
  if (threadIdx.x < 63) tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];  // expect: finding "uninitialised.cu:LINE"
}

__global__ void read_local(int* out, int n) {
  int own[16];
  for (int i = 0; i < n; ++i) own[(i * 7) & 15] = i;
  out[threadIdx.x] = own[threadIdx.x & 15];  // expect: finding "uninitialised.cu:LINE"
}

__global__ void count(int* counters) {
  atomicAdd(&counters[threadIdx.x % 4], 1);  // expect: finding "uninitialised.cu:LINE"
}

// The lower words of doubles.
__global__ void half_a_number(int* words, double* out) {
  words[2 * threadIdx.x] = 0;
  __syncthreads();
  out[threadIdx.x] = reinterpret_cast<double*>(words)[31 - threadIdx.x] + 1;  // expect: finding "uninitialised.cu:LINE"
}

int main() {
  const Buffer<int> in(65), out(64), counters(4), unread(16);
  EXPECT_OK(cudaMemset(in.get(), 0, 64 * sizeof(int)));
  read_global<<<1, 64>>>(in.get(), out.get());
  read_shared<<<1, 64>>>(out.get());
  read_local<<<1, 64>>>(out.get(), 15);
  count<<<1, 64>>>(counters.get());
  const Buffer<int> words(64);
  const Buffer<double> sums(32);
  half_a_number<<<1, 32>>>(words.get(), sums.get());
  EXPECT_RAN();
  int host[16];
  // expect: finding "cudaMemcpy: read of 64 bytes of uninitialised global memory"
  EXPECT_OK(cudaMemcpy(host, unread.get(), sizeof host, cudaMemcpyDeviceToHost));
  int *leaked, *leaked_host;
  EXPECT_OK(cudaMalloc(&leaked, 1000));           // expect: finding "(1000 bytes of device memory"
  EXPECT_OK(cudaMallocHost(&leaked_host, 2000));  // expect: finding "(2000 bytes of pinned host memory"
}
