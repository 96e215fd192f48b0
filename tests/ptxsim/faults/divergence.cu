// Barriers that some threads never come to. The twins are in programs/twin_checks.cu.
#include "tests/ptxsim/programs/expect.h"

__global__ void half_a_warp(int* out) {
  if (threadIdx.x < 16) __syncthreads();  // expect: finding "divergence.cu:LINE"
  out[threadIdx.x] = threadIdx.x;
}

__global__ void a_warp_of_two(int* out) {
  if (threadIdx.x < 32) __syncthreads();  // expect: finding "divergence.cu:LINE"
  out[threadIdx.x] = threadIdx.x;
}

__global__ void both_sides(int* out, int limit) {
  __shared__ int tile[64];
  if (threadIdx.x < limit) {
    tile[threadIdx.x] = 1;
    __syncthreads();  // expect: finding "barrier divergence: lanes"
    out[threadIdx.x] = tile[0];
  } else {
    tile[threadIdx.x] = 2;
    __syncthreads();
    out[threadIdx.x] = tile[limit];
  }
}

// Some threads leave the loop before the others; unrolled, so that the barrier stands there several times.
__global__ void uneven_rounds(int* out, int n) {
  int sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (threadIdx.x + 16 * i < n) {
      sum += out[threadIdx.x];
      __syncthreads();  // expect: finding "divergence.cu:LINE"
    }
  }
  if (sum == 1) out[threadIdx.x] = 0;
}

int main() {
  const Buffer<int> out(64);
  half_a_warp<<<1, 32>>>(out.get());
  a_warp_of_two<<<1, 64>>>(out.get());
  both_sides<<<1, 32>>>(out.get(), 8);
  uneven_rounds<<<1, 64>>>(out.get(), 100);
  EXPECT_RAN();
}
