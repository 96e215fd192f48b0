// Memory that is used longer than it lives, and memory of device code that lives longer than it is used.
#include <cooperative_groups.h>

#include "tests/ptxsim/programs/expect.h"

namespace cg = cooperative_groups;

// The first block may have exited while the second reads its shared memory.
__global__ void __cluster_dims__(2) reads_neighbour(int* out) {
  __shared__ int tile[32];
  const cg::cluster_group cluster = cg::this_cluster();
  tile[threadIdx.x] = threadIdx.x;
  cluster.sync();
  const int* first = cluster.map_shared_rank(tile, 0);
  int sum = 0;
  if (cluster.block_rank() == 1) {
    for (int i = 0; i < 32; ++i) sum += first[i];  // expect: finding "lifetimes.cu:LINE"
  }
  out[blockIdx.x * 32 + threadIdx.x] = sum;
}

// Every thread leaves its own; the line is one finding.
__global__ void forgets(int* out) {
  int* own = static_cast<int*>(malloc(16));  // expect: finding "lifetimes.cu:LINE"
  own[0] = threadIdx.x;
  out[threadIdx.x] = own[0];
}

int main() {
  const Buffer<int> out(64);
  reads_neighbour<<<2, 32>>>(out.get());
  forgets<<<1, 32>>>(out.get());
  EXPECT_RAN();
}
