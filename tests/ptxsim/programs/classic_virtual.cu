// Pointers to functions that one kernel leaves in memory and another, which knows other functions, calls: objects with
// virtual functions, a table of pointers.
#include "tests/ptxsim/programs/expect.h"

struct Shape {
  __device__ virtual ~Shape() {}
  __device__ virtual int area() const = 0;
};

struct Square final : Shape {
  __device__ explicit Square(int side) : side(side) {}
  __device__ int area() const override { return side * side; }
  int side;
};

__device__ int deleted = 0;

struct Strip final : Shape {
  __device__ explicit Strip(int length) : length(length) {}
  __device__ ~Strip() override { atomicAdd(&deleted, 1); }
  __device__ int area() const override { return length; }
  int length;
};

__device__ int twice(int x) { return 2 * x; }
__device__ int square(int x) { return x * x; }
using Function = int (*)(int);
__device__ Function functions[2] = {twice, square};

__global__ void make(Shape** shapes, Function* choice) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  shapes[i] = i % 3 == 0 ? static_cast<Shape*>(new Strip(i)) : new Square(i);
  choice[i] = functions[i % 2];
}

__global__ void use(Shape* const* shapes, const Function* choice, int* result) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  result[i] = choice[i](i) + shapes[i]->area();
}

__global__ void unmake(Shape** shapes) { delete shapes[blockIdx.x * blockDim.x + threadIdx.x]; }

int main() {
  const int n = 128;
  const Buffer<Shape*> shapes(n);
  const Buffer<Function> choice(n);
  const Buffer<int> result(n);
  make<<<2, 64>>>(shapes.get(), choice.get());
  use<<<4, 32>>>(shapes.get(), choice.get(), result.get());
  EXPECT_RAN();
  const std::vector<int> got = result.download();
  for (int i = 0; i < n; ++i) EXPECT(got[i] == (i % 2 == 0 ? 2 * i : i * i) + (i % 3 == 0 ? i : i * i));
  unmake<<<1, n>>>(shapes.get());
  EXPECT_RAN();
  int count = 0;
  EXPECT_OK(cudaMemcpyFromSymbol(&count, deleted, sizeof(count)));
  EXPECT(count == 43);

  // What the host reads from the table is what kernels hand on.
  Function second;
  EXPECT_OK(cudaMemcpyFromSymbol(&second, functions, sizeof(second), sizeof(second)));
  EXPECT(second == choice.download()[1]);
  return 0;
}
