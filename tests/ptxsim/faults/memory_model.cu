// Flags, tickets and locks whose fence is missing or too narrow, and values that are looked at before they are taken. The
// twin of each kernel in programs/memory_model_twins.cu has what is missing here.
#include "tests/ptxsim/programs/expect.h"

__global__ void flag(int* data, volatile int* flag, int* out) {
  if (blockIdx.x == 0) {
    data[threadIdx.x] = 7;
    __syncthreads();
    if (threadIdx.x == 0) *flag = 1;
  } else {
    if (threadIdx.x == 0) {
      while (*flag == 0) {
      }
    }
    __syncthreads();
    out[threadIdx.x] = data[threadIdx.x];  // expect: finding "memory_model.cu:LINE"
  }
}

__global__ void last_block(int* partial, unsigned* ticket, int* out) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = 1;
  __threadfence_block();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  int sum = 0;
  for (int b = 0; b < gridDim.x; ++b) sum += partial[b];  // expect: finding "memory_model.cu:LINE"
  *out = sum;
}

__global__ void scope(int* count) {
  atomicAdd_block(count, 1);  // expect: finding "the scope is the block"
}

__global__ void zeroed_by_one(int* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  atomicAdd(&count, 1);  // expect: finding "memory_model.cu:LINE"
  __syncthreads();
  out[threadIdx.x] = count;
}

__global__ void volatile_exchange(const int* in, int* out) {
  __shared__ volatile int tile[128];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[127 - threadIdx.x];  // expect: finding "memory_model.cu:LINE"
}

__global__ void test_then_set(int* lock, int* owner) {
  if (threadIdx.x != 0) return;
  if (*lock == 0) {  // expect: finding "memory_model.cu:LINE"
    if (atomicExch(lock, 1) == 0) *owner = blockIdx.x;
  }
}

int main() {
  const Buffer<int> in(std::vector<int>(256, 3)), out(256), data(256), zeros(std::vector<int>(8, 0));
  flag<<<2, 64>>>(data.get(), zeros.get(), out.get());
  last_block<<<8, 32>>>(data.get(), reinterpret_cast<unsigned*>(zeros.get() + 1), out.get());
  scope<<<4, 64>>>(zeros.get() + 2);
  zeroed_by_one<<<1, 128>>>(out.get());
  volatile_exchange<<<1, 128>>>(in.get(), out.get());
  test_then_set<<<8, 32>>>(zeros.get() + 3, zeros.get() + 4);
  EXPECT_RAN();
}
