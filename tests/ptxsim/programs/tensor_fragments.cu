// nvcuda::wmma in its types and shapes, with work on single elements between; asynchronous copies as the C++ library
// writes them: cuda::barrier, cuda::pipeline, cooperative_groups::memcpy_async.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <cuda/barrier>
#include <cuda/pipeline>

#include "tests/ptxsim/programs/expect.h"

namespace cg = cooperative_groups;
namespace wmma = nvcuda::wmma;

/// d = 2 (a b) + c, of row-major a, column-major b.
template <int M, int N, int K, class Element, class Memory, class Sum>
__global__ void product(const Memory* a, const Memory* b, const Sum* c, Sum* d) {
  wmma::fragment<wmma::matrix_a, M, N, K, Element, wmma::row_major> x;
  wmma::fragment<wmma::matrix_b, M, N, K, Element, wmma::col_major> y;
  wmma::fragment<wmma::accumulator, M, N, K, Sum> sum, more;
  wmma::load_matrix_sync(x, a, K);
  wmma::load_matrix_sync(y, b, K);
  wmma::load_matrix_sync(more, c, N, wmma::mem_row_major);
  wmma::fill_fragment(sum, static_cast<Sum>(0));
  wmma::mma_sync(sum, x, y, sum);
  for (int i = 0; i < sum.num_elements; ++i) {
    sum.x[i] = static_cast<Sum>(sum.x[i] + sum.x[i]);
    sum.x[i] = static_cast<Sum>(sum.x[i] + more.x[i]);
  }
  wmma::store_matrix_sync(d, sum, N, wmma::mem_row_major);
}

template <int M, int N, int K, class Element, class Memory, class Sum>
void check() {
  std::vector<Memory> a(M * K), b(N * K);
  std::vector<Sum> c(M * N);
  const auto value = [](int i) { return (i * 7 + i / 11) % 5; };
  for (int i = 0; i < M * K; ++i) a[static_cast<size_t>(i)] = static_cast<Memory>(static_cast<float>(value(i)));
  for (int i = 0; i < N * K; ++i) b[static_cast<size_t>(i)] = static_cast<Memory>(static_cast<float>(value(i + 3)));
  for (int i = 0; i < M * N; ++i) c[static_cast<size_t>(i)] = static_cast<Sum>(static_cast<float>(value(i + 1)));
  Buffer<Memory> device_a(a), device_b(b);
  Buffer<Sum> device_c(c), device_d(M * N);
  product<M, N, K, Element><<<1, 32>>>(device_a.get(), device_b.get(), device_c.get(), device_d.get());
  EXPECT_RAN();
  const std::vector<Sum> d = device_d.download();
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      int sum = value(i * N + j + 1);
      for (int k = 0; k < K; ++k) sum += 2 * value(i * K + k) * value(j * K + k + 3);
      EXPECT(static_cast<float>(d[static_cast<size_t>(i * N + j)]) == static_cast<float>(sum));
    }
  }
}

/// Sums of blocks of kBlock words, each brought to shared memory by a barrier that counts its bytes.
constexpr int kBlock = 256;

#pragma nv_diag_suppress static_var_with_dynamic_init  // init() below is what makes it
__global__ void sums_by_barrier(const int* from, int* to) {
  __shared__ alignas(16) int stage[kBlock];
  __shared__ cuda::barrier<cuda::thread_scope_block> barrier;
  if (threadIdx.x == 0) init(&barrier, blockDim.x);
  __syncthreads();
  int sum = 0;
  for (int round = 0; round < 4; ++round) {
    cuda::memcpy_async(cg::this_thread_block(), stage, from + round * kBlock, cuda::aligned_size_t<16>(sizeof stage),
                       barrier);
    barrier.arrive_and_wait();
    for (int i = 0; i < kBlock; ++i) sum += stage[i];
    barrier.arrive_and_wait();
  }
  to[threadIdx.x] = sum;
}

__global__ void sums_by_pipeline(const int* from, int* to) {
  constexpr int kStages = 2;
  __shared__ alignas(16) int stage[kStages][kBlock];
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, kStages> state;
  const auto block = cg::this_thread_block();
  auto pipeline = cuda::make_pipeline(block, &state);
  int sum = 0, issued = 0;
  for (int round = 0; round < 4; ++round) {
    for (; issued < 4 && issued < round + kStages; ++issued) {
      pipeline.producer_acquire();
      cuda::memcpy_async(block, stage[issued % kStages], from + issued * kBlock, cuda::aligned_size_t<16>(kBlock * 4),
                         pipeline);
      pipeline.producer_commit();
    }
    pipeline.consumer_wait();
    for (int i = 0; i < kBlock; ++i) sum += stage[round % kStages][i];
    pipeline.consumer_release();
  }
  to[threadIdx.x] = sum;
}

__global__ void sums_by_group(const int* from, int* to) {
  __shared__ alignas(16) int stage[kBlock];
  const auto block = cg::this_thread_block();
  int sum = 0;
  for (int round = 0; round < 4; ++round) {
    cg::memcpy_async(block, stage, from + round * kBlock, sizeof stage);
    cg::wait(block);
    for (int i = 0; i < kBlock; ++i) sum += stage[i];
    block.sync();
  }
  to[threadIdx.x] = sum;
}

int main() {
  check<16, 16, 16, half, half, float>();
  check<32, 8, 16, half, half, float>();
  check<8, 32, 16, half, half, float>();
  check<16, 16, 16, half, half, half>();
  check<32, 8, 16, half, half, half>();
  check<8, 32, 16, half, half, half>();
  check<16, 16, 16, __nv_bfloat16, __nv_bfloat16, float>();
  check<8, 32, 16, __nv_bfloat16, __nv_bfloat16, float>();
  check<16, 16, 8, wmma::precision::tf32, float, float>();
  check<16, 16, 16, signed char, signed char, int>();
  check<32, 8, 16, unsigned char, unsigned char, int>();
  check<8, 8, 4, double, double, double>();

  std::vector<int> words(4 * kBlock);
  int expected = 0;
  for (size_t i = 0; i < words.size(); ++i) expected += words[i] = static_cast<int>(i * i % 97);
  Buffer<int> from(words), to(64);
  for (const auto kernel : {sums_by_barrier, sums_by_pipeline, sums_by_group}) {
    kernel<<<1, 64>>>(from.get(), to.get());
    EXPECT_RAN();
    for (const int v : to.download()) EXPECT(v == expected);
  }
}
