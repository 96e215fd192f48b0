// The kernels of faults/memory_model.cu with the fences, scopes and barriers that are missing there.
#include "tests/ptxsim/programs/expect.h"

__global__ void flag(int* data, volatile int* flag, int* out) {
  if (blockIdx.x == 0) {
    data[threadIdx.x] = 7;
    __syncthreads();
    __threadfence();
    if (threadIdx.x == 0) *flag = 1;
  } else {
    if (threadIdx.x == 0) {
      while (*flag == 0) {
      }
    }
    __threadfence();
    __syncthreads();
    out[threadIdx.x] = data[threadIdx.x];
  }
}

__global__ void last_block(int* partial, unsigned* ticket, int* out) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = 1;
  __threadfence();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  __threadfence();
  int sum = 0;
  for (int b = 0; b < gridDim.x; ++b) sum += partial[b];
  *out = sum;
}

// All fence, one draws the ticket.
__global__ void last_block_of_many(int* partial, unsigned* ticket, int* out) {
  __shared__ bool last;
  partial[blockIdx.x * blockDim.x + threadIdx.x] = 1;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(ticket, gridDim.x) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  int sum = 0;
  for (int b = 0; b < gridDim.x; ++b) sum += partial[b * blockDim.x + threadIdx.x];
  out[threadIdx.x] = sum;
}

__global__ void scope(int* count) { atomicAdd(count, 1); }

__global__ void zeroed_by_one(int* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  __syncthreads();
  out[threadIdx.x] = count;
}

__global__ void volatile_exchange(const int* in, int* out) {
  __shared__ volatile int tile[128];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[127 - threadIdx.x];
}

// A flag between the warps of a block: the volatile load that waits is no race.
__global__ void flag_in_block(int* out) {
  __shared__ volatile int flag;
  __shared__ int data[32];
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x < 32) {
    data[threadIdx.x] = 5;
    __syncwarp();
    __threadfence_block();
    if (threadIdx.x == 0) flag = 1;
  } else {
    while (flag == 0) {
    }
    __threadfence_block();
    out[threadIdx.x] = data[threadIdx.x % 32];
  }
}

__global__ void test_and_set(int* lock, int* owner) {
  if (threadIdx.x == 0 && atomicExch(lock, 1) == 0) *owner = blockIdx.x;
}

/// The loop that the programming guide shows: a plain load guesses, the compare-and-swap tells.
__global__ void maximum(int* value) {
  int old = *value;
  while (old < static_cast<int>(blockIdx.x)) {
    const int assumed = old;
    old = atomicCAS(value, assumed, static_cast<int>(blockIdx.x));
    if (old == assumed) break;
  }
}

int main() {
  const Buffer<int> in(std::vector<int>(256, 3)), out(256), data(512), zeros(std::vector<int>(8, 0));
  flag<<<2, 64>>>(data.get(), zeros.get(), out.get());
  last_block<<<8, 32>>>(data.get(), reinterpret_cast<unsigned*>(zeros.get() + 1), out.get());
  last_block_of_many<<<8, 64>>>(data.get(), reinterpret_cast<unsigned*>(zeros.get() + 5), out.get());
  scope<<<4, 64>>>(zeros.get() + 2);
  zeroed_by_one<<<1, 128>>>(out.get());
  volatile_exchange<<<1, 128>>>(in.get(), out.get());
  flag_in_block<<<1, 64>>>(out.get());
  test_and_set<<<8, 32>>>(zeros.get() + 3, zeros.get() + 4);
  maximum<<<8, 32>>>(zeros.get() + 6);
  EXPECT_RAN();
}
