// Reads of what nobody has written that are no fault: the padding of structs that are copied, and values that are loaded
// and then discarded.
#include "tests/ptxsim/programs/expect.h"

struct Padded {
  int i;
  double d;
};

struct Vector {
  float3 p;
  double w;
};

__global__ void fill(Padded* a, Vector* b) {
  a[threadIdx.x].i = 1;
  a[threadIdx.x].d = 2;
  b[threadIdx.x].p = make_float3(1, 2, 3);
  b[threadIdx.x].w = 4;
}

__global__ void copy(const Padded* a, Padded* b, const Vector* c, Vector* d) {
  b[threadIdx.x] = a[threadIdx.x];
  d[threadIdx.x] = c[threadIdx.x];
}

__global__ void through_shared(const Padded* a, Padded* b) {
  __shared__ Padded tile[32];
  tile[threadIdx.x] = a[threadIdx.x];
  __syncthreads();
  b[threadIdx.x] = tile[31 - threadIdx.x];
}

// One merge step of each thread: the key behind the last is read, compared, and not taken.
__global__ void larger_of_valid(const float* keys, float* out, int valid) {
  __shared__ float tile[33];
  tile[threadIdx.x] = keys[threadIdx.x];
  __syncthreads();
  const float a = tile[threadIdx.x], b = tile[threadIdx.x + 1];
  const bool second = (static_cast<int>(threadIdx.x) + 1 < valid) & (b > a);
  out[threadIdx.x] = second ? b : a;
}

int main() {
  const Buffer<Padded> a(32), b(32);
  const Buffer<Vector> c(32), d(32);
  const Buffer<float> keys(std::vector<float>(32, 3.0F)), out(32);
  fill<<<1, 32>>>(a.get(), c.get());
  copy<<<1, 32>>>(a.get(), b.get(), c.get(), d.get());
  through_shared<<<1, 32>>>(a.get(), b.get());
  larger_of_valid<<<1, 32>>>(keys.get(), out.get(), 32);
  EXPECT_RAN();
}
