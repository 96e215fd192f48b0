// Accesses outside of what is there, in every space; each ends its launch. And blocks that wait for ever.
#include "tests/ptxsim/programs/expect.h"

__global__ void past_the_end(int* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) x[i] = i;  // expect: finding "addresses.cu:LINE"
}

__global__ void host_pointer(int* x) {
  *x = 1;  // expect: finding "addresses.cu:LINE"
}

__global__ void misaligned(char* x) {
  *reinterpret_cast<int*>(x + 2 * threadIdx.x) = 1;  // expect: finding "misaligned write of 4 bytes of global memory"
}

__global__ void outside_shared(int* out, int i) {
  __shared__ int tile[32];
  tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + i];  // expect: finding "addresses.cu:LINE"
}

// From one shared variable into the next, and from dynamic memory back into a variable.
__global__ void next_variable(int* out, int n) {
  __shared__ int first[32], second[32];
  first[threadIdx.x] = second[threadIdx.x] = 1;
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += first[i];  // expect: finding "addresses.cu:LINE: ld.shared"
  out[threadIdx.x] = sum + second[threadIdx.x];
}

__global__ void before_dynamic(int* out) {
  __shared__ int fixed[4];
  extern __shared__ int dynamic[];
  fixed[threadIdx.x & 3] = 1;
  dynamic[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] =
      dynamic[(int)threadIdx.x - 1] + fixed[1];  // expect: finding "4 bytes before dynamic shared memory"
}

__global__ void wider_than_the_rest(int* out) {
  __shared__ alignas(16) int first[6];
  __shared__ int second[2];
  if (threadIdx.x < 6) first[threadIdx.x] = 1;
  if (threadIdx.x < 2) second[threadIdx.x] = 1;
  __syncthreads();
  const int4 v = reinterpret_cast<int4*>(first)[1];  // expect: finding "it reaches 8 bytes beyond the end of variable"
  out[threadIdx.x] = v.x + v.y + v.z + v.w + second[0];
}

__global__ void outside_local(int* out, int i) {
  int own[16];
  for (int k = 0; k < 16; ++k) own[(k * 3 + i) & 15] = k;
  out[threadIdx.x] = own[i * 1000];  // expect: finding "addresses.cu:LINE"
}

__global__ void freed(int* x) {
  x[threadIdx.x] = 1;  // expect: finding "use after free"
}

// Two warps, each at a barrier of its own that takes both.
__global__ void deadlock() {
  if (threadIdx.x < 32) {
    asm volatile("barrier.sync 1, 64;");  // expect: finding "deadlock"
  } else {
    asm volatile("barrier.sync 2, 64;");
  }
}

template <class Launch>
void faulty(cudaError_t error, Launch launch) {
  int* x;
  EXPECT_OK(cudaMalloc(&x, 100 * sizeof(int)));
  launch(x);
  EXPECT_ERROR(cudaDeviceSynchronize(), error);
  EXPECT_OK(cudaDeviceReset());
  cudaGetLastError();
}

int main() {
  faulty(cudaErrorIllegalAddress, [](int* x) { past_the_end<<<4, 32>>>(x, 100); });
  faulty(cudaErrorIllegalAddress, [](int*) {
    int on_the_stack = 0;
    host_pointer<<<1, 1>>>(&on_the_stack);
  });
  faulty(cudaErrorMisalignedAddress, [](int* x) { misaligned<<<1, 2>>>(reinterpret_cast<char*>(x)); });
  faulty(cudaErrorIllegalAddress, [](int* x) { outside_shared<<<1, 32>>>(x, 1); });
  faulty(cudaErrorIllegalAddress, [](int* x) { next_variable<<<1, 32>>>(x, 33); });
  faulty(cudaErrorIllegalAddress, [](int* x) { before_dynamic<<<1, 32, 128>>>(x); });
  faulty(cudaErrorIllegalAddress, [](int* x) { wider_than_the_rest<<<1, 32>>>(x); });
  faulty(cudaErrorIllegalAddress, [](int* x) { outside_local<<<1, 32>>>(x, 1); });
  faulty(cudaErrorIllegalAddress, [](int* x) {
    EXPECT_OK(cudaFree(x));
    freed<<<1, 32>>>(x);
  });
  faulty(cudaErrorLaunchTimeout, [](int*) { deadlock<<<1, 64>>>(); });
}
