// Prefix sums: a block's by shuffles and shared memory, a grid's by decoupled look-back through volatile flags.
#include "tests/ptxsim/programs/expect.h"

__device__ int warp_scan(int v) {
  const int lane = threadIdx.x % 32;
  for (int d = 1; d < 32; d *= 2) {
    const int below = __shfl_up_sync(~0u, v, d);
    if (lane >= d) v += below;
  }
  return v;
}

__global__ void scan(const int* x, int* y, volatile int* state, int n) {
  __shared__ int of_warps[8];
  __shared__ int before;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  int v = warp_scan(i < n ? x[i] : 0);
  if (threadIdx.x % 32 == 31) of_warps[threadIdx.x / 32] = v;
  __syncthreads();
  for (unsigned w = 0; w < threadIdx.x / 32; ++w) v += of_warps[w];
  if (threadIdx.x == blockDim.x - 1) {
    // state: pairs of {ready, sum of this block and all before it}.
    int sum = 0;
    if (blockIdx.x > 0) {
      while (state[2 * (blockIdx.x - 1)] == 0) {
      }
      __threadfence();
      sum = state[2 * (blockIdx.x - 1) + 1];
    }
    state[2 * blockIdx.x + 1] = sum + v;
    __threadfence();
    state[2 * blockIdx.x] = 1;
    before = sum;
  }
  __syncthreads();
  if (i < n) y[i] = v + before;
}

int main() {
  for (const int n : {1, 255, 257, 10000}) {
    std::vector<int> x(n), want(n);
    for (int i = 0; i < n; ++i) {
      x[i] = i * 7 % 11 - 3;
      want[i] = x[i] + (i > 0 ? want[i - 1] : 0);
    }
    const int blocks = (n + 255) / 256;
    const Buffer<int> device_x(x), y(n), state(std::vector<int>(2 * blocks, 0));
    scan<<<blocks, 256>>>(device_x.get(), y.get(), state.get(), n);
    EXPECT_RAN();
    EXPECT(y.download() == want);
  }
}
