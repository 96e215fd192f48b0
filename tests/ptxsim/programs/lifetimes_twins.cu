// The kernels of faults/lifetimes.cu as they should be.
#include <cooperative_groups.h>

#include "tests/ptxsim/programs/expect.h"

namespace cg = cooperative_groups;

__global__ void __cluster_dims__(2) reads_neighbour(int* out) {
  __shared__ int tile[32];
  const cg::cluster_group cluster = cg::this_cluster();
  tile[threadIdx.x] = threadIdx.x;
  cluster.sync();
  const int* first = cluster.map_shared_rank(tile, 0);
  int sum = 0;
  if (cluster.block_rank() == 1) {
    for (int i = 0; i < 32; ++i) sum += first[i];
  }
  out[blockIdx.x * 32 + threadIdx.x] = sum;
  cluster.sync();
}

__global__ void remembers(int* out) {
  int* own = static_cast<int*>(malloc(16));
  own[0] = threadIdx.x;
  out[threadIdx.x] = own[0];
  free(own);
}

int main() {
  const Buffer<int> out(64);
  reads_neighbour<<<2, 32>>>(out.get());
  remembers<<<1, 32>>>(out.get());
  EXPECT_RAN();
}
