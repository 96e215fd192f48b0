// Sums over blocks in three ways that every CUDA course has: a tree in shared memory, warp shuffles, atomics.
#include "tests/ptxsim/programs/expect.h"

__global__ void tree(const float* x, float* sums, int n) {
  extern __shared__ float tile[];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x] = i < n ? x[i] : 0;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = tile[0];
}

__device__ float warp_sum(float v) {
  for (int lane = 16; lane > 0; lane /= 2) v += __shfl_down_sync(~0u, v, lane);
  return v;
}

__global__ void shuffles(const float* x, float* sums, int n) {
  __shared__ float of_warps[32];
  float v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : 0;
    v = warp_sum(v);
    if (threadIdx.x == 0) sums[blockIdx.x] = v;
  }
}

__global__ void atomics(const int* x, int* sum, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(sum, x[i]);
}

/// The last block to finish adds up what the others left (the guide's threadfence example).
__global__ void last_block(const float* x, volatile float* partial, unsigned* tickets, float* sum, int n) {
  __shared__ bool last;
  float v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = warp_sum(v);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = v;
    __threadfence();
    last = atomicInc(tickets, gridDim.x) == gridDim.x - 1;
  }
  __syncthreads();
  if (last) {
    v = threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0;
    v = warp_sum(v);
    if (threadIdx.x == 0) *sum = v;
  }
}

int main() {
  for (const int n : {1, 31, 1000, 70000}) {
    const std::vector<float> x = numbers(n);
    double want = 0;
    for (const float v : x) want += v;
    const double allowed = 1e-5 + 1e-7 * n;  // sums of n numbers of size 1, in floats
    const Buffer<float> device_x(x);
    const auto total = [](const std::vector<float>& sums) {
      double t = 0;
      for (const float s : sums) t += s;
      return t;
    };
    const int blocks = (n + 255) / 256;
    const Buffer<float> sums(blocks);
    tree<<<blocks, 256, 256 * sizeof(float)>>>(device_x.get(), sums.get(), n);
    EXPECT_RAN();
    EXPECT(std::abs(total(sums.download()) - want) < allowed);

    const Buffer<float> few(7);
    shuffles<<<7, 192>>>(device_x.get(), few.get(), n);
    EXPECT_RAN();
    EXPECT(std::abs(total(few.download()) - want) < allowed);

    const Buffer<float> partial(16), sum(1);
    const Buffer<unsigned> tickets(std::vector<unsigned>{0});
    last_block<<<16, 32>>>(device_x.get(), partial.get(), tickets.get(), sum.get(), n);
    EXPECT_RAN();
    EXPECT(std::abs(sum.download()[0] - want) < allowed);

    std::vector<int> counts(n);
    int exact = 0;
    for (int i = 0; i < n; ++i) exact += counts[i] = i % 13 - 5;
    const Buffer<int> device_counts(counts), device_sum(std::vector<int>{0});
    atomics<<<blocks, 256>>>(device_counts.get(), device_sum.get(), n);
    EXPECT_RAN();
    EXPECT(device_sum.download()[0] == exact);
  }
}
