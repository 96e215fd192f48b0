// Matrix products: tiles in shared memory with plain arithmetic, and tensor cores through nvcuda::wmma.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <tuple>

#include "tests/ptxsim/programs/expect.h"

constexpr int kTile = 16;

__global__ void tiled(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float a_tile[kTile][kTile], b_tile[kTile][kTile];
  const int row = blockIdx.y * kTile + threadIdx.y, column = blockIdx.x * kTile + threadIdx.x;
  float sum = 0;
  for (int at = 0; at < k; at += kTile) {
    a_tile[threadIdx.y][threadIdx.x] = row < m && at + threadIdx.x < k ? a[row * k + at + threadIdx.x] : 0;
    b_tile[threadIdx.y][threadIdx.x] = column < n && at + threadIdx.y < k ? b[(at + threadIdx.y) * n + column] : 0;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum += a_tile[threadIdx.y][i] * b_tile[i][threadIdx.x];
    __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

template <class T>
__global__ void tensor(const T* a, const T* b, float* c, int n, int k) {
  using namespace nvcuda;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> a_fragment;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> b_fragment;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 0.0f);
  for (int at = 0; at < k; at += 16) {
    wmma::load_matrix_sync(a_fragment, a + blockIdx.y * 16 * k + at, k);
    wmma::load_matrix_sync(b_fragment, b + blockIdx.x * 16 * k + at, k);
    wmma::mma_sync(sum, a_fragment, b_fragment, sum);
  }
  for (int i = 0; i < sum.num_elements; ++i) sum.x[i] *= 0.5f;
  wmma::store_matrix_sync(c + blockIdx.y * 16 * n + blockIdx.x * 16, sum, n, wmma::mem_row_major);
}

template <class T>
void test_tensor(double allowed) {
  const int m = 48, n = 32, k = 80;
  const std::vector<float> a = numbers(m * k, 3), b = numbers(n * k, 4);
  std::vector<T> a16, b16;
  for (const float v : a) a16.push_back(T(v));
  for (const float v : b) b16.push_back(T(v));
  const Buffer<T> device_a(a16), device_b(b16);
  const Buffer<float> c(m * n);
  tensor<<<dim3(n / 16, m / 16), 32>>>(device_a.get(), device_b.get(), c.get(), n, k);
  EXPECT_RAN();
  const std::vector<float> got = c.download();
  for (int r = 0; r < m; ++r) {
    for (int s = 0; s < n; ++s) {
      double want = 0;
      for (int i = 0; i < k; ++i) want += double(float(a16[r * k + i])) * float(b16[s * k + i]);
      EXPECT(std::abs(got[r * n + s] - 0.5 * want) < allowed);
    }
  }
}

int main() {
  for (const auto [m, n, k] : {std::tuple(16, 16, 16), std::tuple(37, 50, 65), std::tuple(1, 1, 1)}) {
    const std::vector<float> a = numbers(m * k, 1), b = numbers(k * n, 2);
    const Buffer<float> device_a(a), device_b(b), c(m * n);
    tiled<<<dim3((n + 15) / 16, (m + 15) / 16), dim3(16, 16)>>>(device_a.get(), device_b.get(), c.get(), m, n, k);
    EXPECT_RAN();
    const std::vector<float> got = c.download();
    for (int r = 0; r < m; ++r) {
      for (int s = 0; s < n; ++s) {
        double want = 0;
        for (int i = 0; i < k; ++i) want += double(a[r * k + i]) * b[i * n + s];
        EXPECT(std::abs(got[r * n + s] - want) < 1e-4);
      }
    }
  }
  test_tensor<half>(1e-5);
  test_tensor<__nv_bfloat16>(1e-5);
}
