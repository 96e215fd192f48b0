// The README's example: sums of 256 numbers. Built with -DRACE the barrier is missing.
//   nvcc -cudart shared -lineinfo -arch=sm_90 tools/ptxsim/example.cu -o example
#include <cstdio>
#include <vector>

__global__ void block_sum(const float* x, float* sums) {
  __shared__ float tile[256];
  tile[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
  for (int half = 128; half > 0; half /= 2) {
#ifndef RACE
    __syncthreads();
#endif
    if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = tile[0];
}

int main() {
  constexpr int kBlocks = 64;
  std::vector<float> x(kBlocks * 256), sums(kBlocks);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  float *device_x, *device_sums;
  cudaMalloc(&device_x, x.size() * sizeof(float));
  cudaMalloc(&device_sums, sums.size() * sizeof(float));
  cudaMemcpy(device_x, x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice);
  block_sum<<<kBlocks, 256>>>(device_x, device_sums);
  cudaMemcpy(sums.data(), device_sums, sums.size() * sizeof(float), cudaMemcpyDeviceToHost);
  for (int b = 0; b < kBlocks; ++b) {
    float want = 0;
    for (int i = 0; i < 256; ++i) want += x[b * 256 + i];
    if (sums[b] != want) {
      std::printf("block %d: expected %g, found %g\n", b, want, sums[b]);
      return 1;
    }
  }
  std::printf("%d sums are right: %s\n", kBlocks, cudaGetErrorString(cudaGetLastError()));
  cudaFree(device_x);
  cudaFree(device_sums);
}
