// Races, one of each kind. The twin of each kernel in programs/twin_checks.cu has what is missing here.
#include <cuda_pipeline.h>

#include "tests/ptxsim/programs/expect.h"

__global__ void between_warps(int* out) {
  __shared__ int tile[128];
  tile[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = tile[127 - threadIdx.x];  // expect: finding "races.cu:LINE"
}

__global__ void within_a_warp(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = tile[31 - threadIdx.x];  // expect: finding "races.cu:LINE"
}

// The barrier at the end of the loop is missing: the next round overwrites what others still read.
__global__ void next_round(const int* in, int* out, int rounds) {
  __shared__ int tile[128];
  int sum = 0;
  for (int r = 0; r < rounds; ++r) {
    tile[threadIdx.x] = in[r * 128 + threadIdx.x];  // expect: finding "races.cu:LINE"
    __syncthreads();
    sum += tile[(threadIdx.x + 40) % 128];
  }
  out[threadIdx.x] = sum;
}

__global__ void reduction(const int* in, int* out) {
  __shared__ int sums[128];
  sums[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  for (int half = 64; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];  // expect: finding "races.cu:LINE"
  }
  if (threadIdx.x == 0) *out = sums[0];
}

__global__ void no_wait(const int* in, int* out) {
  __shared__ int tile[128];
  __pipeline_memcpy_async(&tile[threadIdx.x], &in[threadIdx.x], sizeof(int));
  __pipeline_commit();
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];  // expect: finding "races.cu:LINE: ld.shared"
}

// Waits for all groups but the last, and reads the last.
__global__ void loose_wait(const int* in, int* out) {
  __shared__ int tile[2][128];
  for (int i = 0; i < 2; ++i) {
    __pipeline_memcpy_async(&tile[i][threadIdx.x], &in[i * 128 + threadIdx.x], sizeof(int));
    __pipeline_commit();
  }
  __pipeline_wait_prior(1);
  __syncthreads();
  out[threadIdx.x] = tile[0][threadIdx.x];
  out[threadIdx.x] += tile[1][threadIdx.x];  // expect: finding "races.cu:LINE: ld.shared"
}

// The wait is for the own copies; others' need a barrier, too.
__global__ void wait_without_barrier(const int* in, int* out) {
  __shared__ int tile[128];
  __pipeline_memcpy_async(&tile[threadIdx.x], &in[threadIdx.x], sizeof(int));
  __pipeline_commit();
  __pipeline_wait_prior(0);
  out[threadIdx.x] = tile[127 - threadIdx.x];  // expect: finding "races.cu:LINE"
}

__global__ void counter(int* total) {
  if (threadIdx.x == 0) *total += 1;  // expect: finding "races.cu:LINE"
}

__global__ void neighbour_block(int* data, int* out) {
  data[blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x;
  const int next = (blockIdx.x + 1) % gridDim.x * blockDim.x;
  out[blockIdx.x * blockDim.x + threadIdx.x] = data[next + threadIdx.x];  // expect: finding "races.cu:LINE"
}

// The ticket is drawn before all threads of the block have written.
__global__ void last_block(int* partial, unsigned* ticket, int* out) {
  __shared__ bool last;
  partial[blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x;
  __threadfence();
  if (threadIdx.x == 0) last = atomicInc(ticket, gridDim.x) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  int sum = 0;
  for (int b = 0; b < gridDim.x; ++b) sum += partial[b * blockDim.x + threadIdx.x];  // expect: finding "races.cu:LINE"
  out[threadIdx.x] = sum;
}

// By way of a cache that does not see what the kernel itself has written.
__global__ void read_only_cache(int* data, int* out) {
  data[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = __ldg(data + 63 - threadIdx.x);  // expect: finding "inlined at races.cu:LINE): ld.global.nc"
}

int main() {
  const Buffer<int> in(std::vector<int>(1024, 3)), out(1024), data(1024), total(std::vector<int>(2, 0));
  between_warps<<<1, 128>>>(out.get());
  within_a_warp<<<1, 32>>>(out.get());
  next_round<<<1, 128>>>(in.get(), out.get(), 4);
  reduction<<<1, 128>>>(in.get(), out.get());
  no_wait<<<1, 128>>>(in.get(), out.get());
  loose_wait<<<1, 128>>>(in.get(), out.get());
  wait_without_barrier<<<1, 128>>>(in.get(), out.get());
  read_only_cache<<<1, 64>>>(data.get(), out.get());
  counter<<<8, 32>>>(total.get());
  neighbour_block<<<8, 64>>>(data.get(), out.get());
  last_block<<<8, 64>>>(data.get(), reinterpret_cast<unsigned*>(total.get() + 1), out.get());
  EXPECT_RAN();
}
