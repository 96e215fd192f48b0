// A program that does not return from main: what was found before counts all the same.
#include <cstdlib>

#include "tests/ptxsim/programs/expect.h"

__global__ void counter(int* total) {
  if (threadIdx.x == 0) *total += 1;  // expect: finding "ends_by_abort.cu:LINE"
}

int main() {
  const Buffer<int> total(std::vector<int>(1, 0));
  counter<<<8, 32>>>(total.get());
  EXPECT_RAN();
  std::abort();
}
