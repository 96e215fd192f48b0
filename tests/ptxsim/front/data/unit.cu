// With caller.cu, a program of two translation units (-rdc=true).
__device__ int called(int a) {
  volatile int b[12];
  b[a] = 3;
  b[a + 1] = 4;
  return b[a];
}
