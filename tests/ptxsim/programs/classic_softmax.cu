// Softmax of rows of any length, a warp a row; half and float.
#include <cuda_fp16.h>

#include "tests/ptxsim/programs/expect.h"

template <class T>
__global__ void softmax(const T* x, T* y, int rows, int columns) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float most = -INFINITY, sum = 0;
  for (int c = lane; c < columns; c += 32) most = fmaxf(most, float(x[row * columns + c]));
  for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
  for (int c = lane; c < columns; c += 32) sum += expf(float(x[row * columns + c]) - most);
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  for (int c = lane; c < columns; c += 32) y[row * columns + c] = T(expf(float(x[row * columns + c]) - most) / sum);
}

template <class T>
void test(int rows, int columns, double allowed) {
  std::vector<T> x;
  for (const float v : numbers(rows * columns, 5)) x.push_back(T(20 * v));
  const Buffer<T> device_x(x), y(x.size());
  softmax<<<(rows + 3) / 4, 128>>>(device_x.get(), y.get(), rows, columns);
  EXPECT_RAN();
  const std::vector<T> got = y.download();
  for (int r = 0; r < rows; ++r) {
    double most = -1e30, sum = 0;
    for (int c = 0; c < columns; ++c) most = std::max(most, double(float(x[r * columns + c])));
    for (int c = 0; c < columns; ++c) sum += std::exp(double(float(x[r * columns + c])) - most);
    for (int c = 0; c < columns; ++c) {
      const double want = std::exp(double(float(x[r * columns + c])) - most) / sum;
      EXPECT(std::abs(double(float(got[r * columns + c])) - want) < allowed);
    }
  }
}

int main() {
  for (const int columns : {1, 31, 32, 33, 197}) {
    test<float>(5, columns, 2e-7);
    test<half>(6, columns, 5e-4);
  }
}
