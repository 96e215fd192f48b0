// What make.sh compiles: a kernel for every figure that a cubin states.
extern "C" {
__global__ void __launch_bounds__(192) plain(float* x) { x[threadIdx.x] *= 2; }

__global__ void shared_and_barriers(float* x) {
  __shared__ float s[100];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x ^ 1];
  asm volatile("bar.sync 3, 64;");
}

__global__ void any_barrier(float* x, int b) {
  asm volatile("bar.sync %0, 64;" ::"r"(b));
  x[0] = 1;
}

extern __shared__ float dynamic_memory[];
__global__ void dynamic_shared(float* x) {
  dynamic_memory[threadIdx.x] = x[3];
  __syncthreads();
  x[0] = dynamic_memory[3];
}

__global__ void frame(int* x, int n) {
  int a[100];
#pragma unroll 1
  for (int i = 0; i < n; i++) a[i] = x[i * 3];
#pragma unroll 1
  for (int i = 0; i < n; i++) x[i] = a[x[i]];
}
}
