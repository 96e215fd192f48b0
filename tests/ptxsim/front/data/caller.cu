__device__ int called(int a);

__global__ void caller(int* x) {
  __shared__ int s[7];
  s[threadIdx.x] = x[0];
  __syncthreads();
  x[0] = called(x[1] + s[0]);
}
