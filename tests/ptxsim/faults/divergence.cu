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

int main() {
  const Buffer<int> out(64);
  half_a_warp<<<1, 32>>>(out.get());
  a_warp_of_two<<<1, 64>>>(out.get());
  both_sides<<<1, 32>>>(out.get(), 8);
  EXPECT_RAN();
}
