// The correct twins of what is planted in faults/: nothing may be found here. Beside them what looks like a fault and
// is none.
#include <cooperative_groups.h>
#include <cuda_pipeline.h>

#include "tests/ptxsim/programs/expect.h"

namespace cg = cooperative_groups;

__global__ void write_first(int* data, int* out) {
  __shared__ int tile[64];
  int own[16];
  data[threadIdx.x] = threadIdx.x;
  tile[threadIdx.x] = threadIdx.x;
  for (int i = 0; i < 16; ++i) own[(i * 7) & 15] = i;
  __syncthreads();
  out[threadIdx.x] = data[63 - threadIdx.x] + tile[63 - threadIdx.x] + own[threadIdx.x & 15];
}

__global__ void between_warps(int* out) {
  __shared__ int tile[128];
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[127 - threadIdx.x];
}

__global__ void within_a_warp(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = threadIdx.x;
  __syncwarp();
  out[threadIdx.x] = tile[31 - threadIdx.x];
}

// All threads go round equally often; then some return, and the others go on to a barrier of their own.
__global__ void even_rounds(int* out, int n) {
  __shared__ int tile[64];
  int sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (threadIdx.x + 16 * i < n) tile[threadIdx.x] = i;
    __syncthreads();
    sum += tile[63 - threadIdx.x];
    __syncthreads();
  }
  if (threadIdx.x >= 40) return;
  tile[threadIdx.x] = sum;
  __syncthreads();
  out[threadIdx.x] = tile[39 - threadIdx.x];
}

__global__ void next_round(const int* in, int* out, int rounds) {
  __shared__ int tile[128];
  int sum = 0;
  for (int r = 0; r < rounds; ++r) {
    tile[threadIdx.x] = in[r * 128 + threadIdx.x];
    __syncthreads();
    sum += tile[(threadIdx.x + 40) % 128];
    __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// The last warp by itself: with __syncwarp, and the old way with volatile.
__global__ void reduction(const int* in, int* out, bool old_way) {
  __shared__ int sums[128];
  sums[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  if (threadIdx.x < 64) sums[threadIdx.x] += sums[threadIdx.x + 64];
  __syncthreads();
  if (threadIdx.x >= 32) return;
  if (old_way) {
    volatile int* s = sums;
    for (int half = 32; half > 0; half /= 2) s[threadIdx.x] = s[threadIdx.x] + s[threadIdx.x + half];
  } else {
    int sum = sums[threadIdx.x] + sums[threadIdx.x + 32];
    for (int half = 16; half > 0; half /= 2) sum += __shfl_down_sync(~0u, sum, half);
    sums[threadIdx.x] = sum;
  }
  if (threadIdx.x == 0) *out = sums[0];
}

__global__ void two_stages(const int* in, int* out, int rounds) {
  __shared__ int tile[2][128];
  const auto load = [&](int r) {
    if (r < rounds) __pipeline_memcpy_async(&tile[r % 2][threadIdx.x], &in[r * 128 + threadIdx.x], sizeof(int));
    __pipeline_commit();
  };
  load(0);
  int sum = 0;
  for (int r = 0; r < rounds; ++r) {
    load(r + 1);
    __pipeline_wait_prior(1);
    __syncthreads();
    sum += tile[r % 2][127 - threadIdx.x];
    __syncthreads();
  }
  out[threadIdx.x] = sum;
}

__global__ void whole_numbers(int* words, double* out) {
  words[2 * threadIdx.x] = words[2 * threadIdx.x + 1] = 0;
  __syncthreads();
  out[threadIdx.x] = reinterpret_cast<double*>(words)[31 - threadIdx.x] + 1;
}

__global__ void read_only_cache(const int* data, int* out) { out[threadIdx.x] = __ldg(data + 63 - threadIdx.x); }

__global__ void counter(int* total, int* seen) {
  if (threadIdx.x == 0) atomicAdd(total, 1);
  *seen = 1;  // all write the same
}

// How atomicAdd was made of atomicCAS, reading first.
__global__ void add_double(double* sum) {
  auto* address = reinterpret_cast<unsigned long long*>(sum);
  unsigned long long old = *address, assumed;
  do {
    assumed = old;
    old = atomicCAS(address, assumed, __double_as_longlong(__longlong_as_double(assumed) + 1.0));
  } while (assumed != old);
}

__global__ void last_block(int* partial, unsigned* ticket, int* out) {
  __shared__ bool last;
  partial[blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  int sum = 0;
  for (int b = 0; b < gridDim.x; ++b) sum += partial[b * blockDim.x + threadIdx.x];
  out[threadIdx.x] = sum;
}

// A chain of blocks, each waiting for the flag of the one before.
__global__ void chain(int* data, volatile int* flags) {
  int value = 0;
  if (blockIdx.x > 0) {
    if (threadIdx.x == 0) {
      while (flags[blockIdx.x - 1] == 0) {
      }
      __threadfence();
    }
    __syncthreads();
    value = data[(blockIdx.x - 1) * blockDim.x + threadIdx.x];
  }
  data[blockIdx.x * blockDim.x + threadIdx.x] = value + 1;
  __syncthreads();
  __threadfence();
  if (threadIdx.x == 0) flags[blockIdx.x] = 1;
}

__global__ void lock(int* mutex, int* total) {
  if (threadIdx.x != 0) return;
  while (atomicCAS(mutex, 0, 1) != 0) {
  }
  __threadfence();
  *total += 1;
  __threadfence();
  atomicExch(mutex, 0);
}

__global__ void whole_grid(int* data, int* out) {
  const auto grid = cg::this_grid();
  const int i = static_cast<int>(grid.thread_rank()), n = static_cast<int>(grid.size());
  data[i] = i;
  grid.sync();
  out[i] = data[n - 1 - i];
  grid.sync();
  data[n - 1 - i] = i;
}

__global__ void early_return(int* out, int n) {
  __shared__ int tile[64];
  if (threadIdx.x >= n) return;
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[n - 1 - threadIdx.x];
}

__global__ void bytes_of_a_word(unsigned char* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x; }

struct Padded {
  char tag;
  int value;
  double weight;
};
__global__ void fill(Padded* p) {
  p[threadIdx.x].tag = 'a';
  p[threadIdx.x].value = 1;
  p[threadIdx.x].weight = 2;
}
__global__ void copy(const Padded* from, Padded* to) { to[threadIdx.x] = from[threadIdx.x]; }

// All the static shared memory that there is, in pieces, each used to its ends; dynamic memory begins behind it where
// its alignment asks.
__global__ void full_shared(int* out) {
  __shared__ int first[100], second[33], third[12288 - 100 - 33 - 3];
  __shared__ char bytes[5];
  for (int i = threadIdx.x; i < 100; i += blockDim.x) first[i] = 1;
  if (threadIdx.x < 33) second[threadIdx.x] = 2;
  for (int i = threadIdx.x; i < 12288 - 100 - 33 - 3; i += blockDim.x) third[i] = 3;
  if (threadIdx.x < 5) bytes[threadIdx.x] = 4;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int sum = 0;
  for (int i = 0; i < 100; ++i) sum += first[i];
  for (int i = 0; i < 33; ++i) sum += second[i];
  for (int i = 0; i < 12288 - 100 - 33 - 3; ++i) sum += third[i];
  for (int i = 0; i < 5; ++i) sum += bytes[i];
  *out = sum;
}

__global__ void behind_static(int* out, int n) {
  __shared__ int fixed[3];
  extern __shared__ __align__(1024) int dynamic[];
  if (threadIdx.x < 3) fixed[threadIdx.x] = 5;
  for (int i = threadIdx.x; i < n; i += blockDim.x) dynamic[i] = i;
  __syncthreads();
  if (threadIdx.x != 0) return;
  *out = fixed[2] + dynamic[n - 1];
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(dynamic));
  if (address < 12 || address % 1024 != 0) *out = -1;
}

int main() {
  const Buffer<int> in(std::vector<int>(1024, 3)), out(1024), data(1024), zeros(std::vector<int>(64, 0));
  write_first<<<1, 64>>>(data.get(), out.get());
  between_warps<<<1, 128>>>(out.get());
  within_a_warp<<<1, 32>>>(out.get());
  next_round<<<1, 128>>>(in.get(), out.get(), 4);
  even_rounds<<<1, 64>>>(out.get(), 100);
  for (const bool old_way : {false, true}) {
    reduction<<<1, 128>>>(in.get(), out.get(), old_way);
    EXPECT_RAN();
    EXPECT(out.download()[0] == 3 * 128);
  }
  two_stages<<<2, 128>>>(in.get(), out.get(), 8);
  read_only_cache<<<1, 64>>>(out.get(), data.get());
  read_only_cache<<<1, 64>>>(data.get(), out.get());
  const Buffer<int> words(64);
  const Buffer<double> sums(32);
  whole_numbers<<<1, 32>>>(words.get(), sums.get());
  int* z = zeros.get();
  counter<<<8, 32>>>(z, z + 1);
  const Buffer<double> sum(std::vector<double>(1, 0.0));
  add_double<<<4, 64>>>(sum.get());
  EXPECT_RAN();
  EXPECT(sum.download()[0] == 256);
  for (int i = 0; i < 2; ++i) last_block<<<8, 64>>>(data.get(), reinterpret_cast<unsigned*>(z + 2), out.get());
  chain<<<8, 64>>>(data.get(), z + 16);
  EXPECT_RAN();
  EXPECT(data.download()[7 * 64 + 5] == 8);
  lock<<<8, 32>>>(z + 3, z + 4);
  EXPECT_RAN();
  EXPECT(zeros.download()[4] == 8);
  int *d = data.get(), *o = out.get();
  void* arguments[] = {&d, &o};
  EXPECT_OK(cudaLaunchCooperativeKernel(whole_grid, dim3(8), dim3(64), arguments));
  EXPECT_RAN();
  EXPECT(out.download()[0] == 511);
  for (const int n : {20, 32, 40}) early_return<<<1, 64>>>(out.get(), n);
  bytes_of_a_word<<<7, 37>>>(reinterpret_cast<unsigned char*>(out.get()));
  cudaFuncAttributes attributes;
  EXPECT_OK(cudaFuncGetAttributes(&attributes, full_shared));
  EXPECT(attributes.sharedSizeBytes > 48 * 1024 - 16 && attributes.sharedSizeBytes <= 48 * 1024);
  full_shared<<<1, 64>>>(out.get());
  EXPECT_RAN();
  EXPECT(out.download()[0] == 100 + 66 + 3 * (12288 - 136) + 20);
  EXPECT_OK(cudaFuncSetAttribute(behind_static, cudaFuncAttributeMaxDynamicSharedMemorySize, 226 * 1024));
  for (const int n : {1, 33, 12000, 226 * 256}) {
    behind_static<<<1, 64, n * sizeof(int)>>>(out.get(), n);
    EXPECT_RAN();
    EXPECT(out.download()[0] == 5 + n - 1);
  }
  const Buffer<Padded> from(32), to(32);
  fill<<<1, 32>>>(from.get());
  copy<<<1, 32>>>(from.get(), to.get());
  EXPECT_RAN();
  to.download();
}
