// A barrier of all blocks made of a counter, which waits for one block too many.
#include "tests/ptxsim/programs/expect.h"

__global__ void grid_barrier(unsigned* arrived) {
  if (threadIdx.x != 0) return;
  __threadfence();
  atomicAdd(arrived, 1u);
  while (atomicAdd(arrived, 0u) <= gridDim.x) {  // expect: finding "spin_forever.cu:LINE"
  }
}

int main() {
  const Buffer<unsigned> arrived(std::vector<unsigned>(1, 0));
  grid_barrier<<<4, 32>>>(arrived.get());
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorLaunchTimeout);
}
