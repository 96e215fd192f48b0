// A histogram with counters in shared memory, added to the global one by atomics; warp-aggregated appending.
#include <cooperative_groups.h>

#include "tests/ptxsim/programs/expect.h"

__global__ void histogram(const unsigned char* x, unsigned* bins, int n) {
  __shared__ unsigned own[64];
  for (int b = threadIdx.x; b < 64; b += blockDim.x) own[b] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&own[x[i] / 4], 1);
  __syncthreads();
  for (int b = threadIdx.x; b < 64; b += blockDim.x) atomicAdd(&bins[b], own[b]);
}

__global__ void filter(const unsigned char* x, int* kept, unsigned* count, int n) {
  namespace cg = cooperative_groups;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && x[i] > 100) {
    const auto active = cg::coalesced_threads();
    unsigned at = 0;
    if (active.thread_rank() == 0) at = atomicAdd(count, active.size());
    at = active.shfl(at, 0) + active.thread_rank();
    kept[at] = i;
  }
}

int main() {
  const int n = 20011;
  std::vector<unsigned char> x(n);
  std::vector<unsigned> want(64, 0);
  std::vector<int> seen(n, 0);
  unsigned keep = 0;
  for (int i = 0; i < n; ++i) {
    x[i] = static_cast<unsigned char>(i * i % 251);
    ++want[x[i] / 4];
    keep += x[i] > 100;
  }
  const Buffer<unsigned char> device_x(x);
  const Buffer<unsigned> bins(std::vector<unsigned>(64, 0)), count(std::vector<unsigned>{0});
  histogram<<<9, 160>>>(device_x.get(), bins.get(), n);
  EXPECT_RAN();
  EXPECT(bins.download() == want);

  const Buffer<int> kept(n);
  filter<<<(n + 127) / 128, 128>>>(device_x.get(), kept.get(), count.get(), n);
  EXPECT_RAN();
  EXPECT(count.download()[0] == keep);
  std::vector<int> indices(keep);
  EXPECT_OK(cudaMemcpy(indices.data(), kept.get(), keep * sizeof(int), cudaMemcpyDeviceToHost));
  for (const int i : indices) {
    EXPECT(x[i] > 100 && seen[i] == 0);
    seen[i] = 1;
  }
}
