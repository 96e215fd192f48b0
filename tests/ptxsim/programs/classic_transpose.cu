// A matrix transposed through shared memory, with and without a column of padding.
#include "tests/ptxsim/programs/expect.h"

template <int kPadding>
__global__ void transpose(const float* x, float* y, int rows, int columns) {
  __shared__ float tile[32][32 + kPadding];
  int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
  for (int r = 0; r < 32; r += 8) {
    if (row + r < rows && column < columns) tile[threadIdx.y + r][threadIdx.x] = x[(row + r) * columns + column];
  }
  __syncthreads();
  column = blockIdx.y * 32 + threadIdx.x;
  row = blockIdx.x * 32 + threadIdx.y;
  for (int r = 0; r < 32; r += 8) {
    if (row + r < columns && column < rows) y[(row + r) * rows + column] = tile[threadIdx.x][threadIdx.y + r];
  }
}

int main() {
  for (const auto [rows, columns] : {std::pair(32, 32), {64, 96}, {33, 70}, {1, 5}}) {
    const std::vector<float> x = numbers(rows * columns);
    const Buffer<float> device_x(x), y(x.size()), z(x.size());
    const dim3 grid((columns + 31) / 32, (rows + 31) / 32);
    transpose<0><<<grid, dim3(32, 8)>>>(device_x.get(), y.get(), rows, columns);
    transpose<1><<<grid, dim3(32, 8)>>>(device_x.get(), z.get(), rows, columns);
    EXPECT_RAN();
    const std::vector<float> a = y.download(), b = z.download();
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        EXPECT(a[c * rows + r] == x[r * columns + c]);
        EXPECT(b[c * rows + r] == x[r * columns + c]);
      }
    }
  }
}
