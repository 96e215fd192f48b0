// Cooperative groups: tiles, reductions, a barrier over the whole grid.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

#include "tests/ptxsim/programs/expect.h"

namespace cg = cooperative_groups;

/// Every round adds to each element its neighbour's value of the round before.
__global__ void rounds(int* x, int* y, int n, int count) {
  const cg::grid_group grid = cg::this_grid();
  for (int r = 0; r < count; ++r) {
    for (int i = grid.thread_rank(); i < n; i += grid.size()) y[i] = x[i] + x[(i + 1) % n];
    grid.sync();
    int* t = x;
    x = y;
    y = t;
  }
}

template <int kSize>
__global__ void tiles(const int* x, int* sums) {
  const auto tile = cg::tiled_partition<kSize>(cg::this_thread_block());
  const int sum = cg::reduce(tile, x[threadIdx.x], cg::plus<int>());
  const bool odd = tile.any(x[threadIdx.x] % 2 != 0);
  if (tile.thread_rank() == 0) sums[tile.meta_group_rank()] = sum + (odd ? 1000000 : 0);
}

template <int kSize>
void test_tiles() {
  std::vector<int> x(128);
  for (int i = 0; i < 128; ++i) x[i] = 2 * i + (i == 77);
  const Buffer<int> device_x(x), sums(128 / kSize);
  tiles<kSize><<<1, 128>>>(device_x.get(), sums.get());
  EXPECT_RAN();
  const std::vector<int> got = sums.download();
  for (int t = 0; t < 128 / kSize; ++t) {
    int want = t == 77 / kSize ? 1000000 : 0;
    for (int i = 0; i < kSize; ++i) want += x[t * kSize + i];
    EXPECT(got[t] == want);
  }
}

int main() {
  int n = 3001, count = 5;
  std::vector<int> want(n);
  for (int i = 0; i < n; ++i) want[i] = i % 17;
  const Buffer<int> x(want), y(n);
  for (int r = 0; r < count; ++r) {
    const std::vector<int> old = want;
    for (int i = 0; i < n; ++i) want[i] = old[i] + old[(i + 1) % n];
  }
  int* xp = x.get();
  int* yp = y.get();
  void* arguments[] = {&xp, &yp, &n, &count};
  EXPECT_OK(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(rounds), dim3(20), dim3(96), arguments, 0, nullptr));
  EXPECT_RAN();
  EXPECT(y.download() == want);

  test_tiles<32>();
  test_tiles<16>();
  test_tiles<4>();
  test_tiles<2>();
}
