// Memory that is allocated and freed in a stream's order, and the pools that it comes from.
#include <atomic>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__global__ void fill(int* x, int value) { x[threadIdx.x] = value; }
__global__ void add(int* x, const int* y) { x[threadIdx.x] += y[threadIdx.x]; }

uint64_t attribute(cudaMemPool_t pool, cudaMemPoolAttr which) {
  uint64_t value = 0;
  EXPECT_OK(cudaMemPoolGetAttribute(pool, which, &value));
  return value;
}

int main() {
  cudaMemPool_t pool, other;
  EXPECT_OK(cudaDeviceGetDefaultMemPool(&pool, 0));
  EXPECT_OK(cudaDeviceGetMemPool(&other, 0));
  EXPECT(pool == other);
  EXPECT_ERROR(cudaDeviceGetDefaultMemPool(&other, 1), cudaErrorInvalidDevice);
  EXPECT(attribute(pool, cudaMemPoolAttrReleaseThreshold) == 0);
  EXPECT(attribute(pool, cudaMemPoolAttrUsedMemCurrent) == 0);

  cudaStream_t stream;
  EXPECT_OK(cudaStreamCreate(&stream));
  int *a, *b;
  EXPECT_OK(cudaMallocAsync(&a, 64 * sizeof(int), stream));
  EXPECT_OK(cudaMallocAsync(&b, 64 * sizeof(int), stream));
  EXPECT(attribute(pool, cudaMemPoolAttrUsedMemCurrent) >= 512);
  EXPECT(attribute(pool, cudaMemPoolAttrReservedMemCurrent) >= attribute(pool, cudaMemPoolAttrUsedMemCurrent));
  cudaPointerAttributes attributes;
  EXPECT_OK(cudaPointerGetAttributes(&attributes, a));
  EXPECT(attributes.type == cudaMemoryTypeDevice);
  fill<<<1, 64, 0, stream>>>(a, 1);
  fill<<<1, 64, 0, stream>>>(b, 2);
  add<<<1, 64, 0, stream>>>(a, b);
  std::vector<int> host(64);
  EXPECT_OK(cudaMemcpyAsync(host.data(), a, 256, cudaMemcpyDeviceToHost, stream));
  EXPECT(host == std::vector<int>(64, 3));
  EXPECT_OK(cudaFreeAsync(a, stream));
  EXPECT_ERROR(cudaFreeAsync(a, stream), cudaErrorInvalidValue);
  EXPECT_OK(cudaFree(b));  // may be freed the plain way as well
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT_ERROR(cudaMemset(a, 0, 4), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT(attribute(pool, cudaMemPoolAttrUsedMemCurrent) == 0);
  EXPECT(attribute(pool, cudaMemPoolAttrUsedMemHigh) >= 512);
  uint64_t zero = 0;
  EXPECT_OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &zero));
  EXPECT(attribute(pool, cudaMemPoolAttrUsedMemHigh) == 0);

  // The threshold keeps memory in the pool when the device is waited for.
  size_t before, after, total;
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT_OK(cudaMemGetInfo(&before, &total));
  uint64_t threshold = uint64_t{64} << 20;
  EXPECT_OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  EXPECT_OK(cudaMallocAsync(&a, 100 << 20, stream));
  EXPECT_OK(cudaFreeAsync(a, stream));
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT(attribute(pool, cudaMemPoolAttrReservedMemCurrent) == threshold);
  EXPECT_OK(cudaMemGetInfo(&after, &total));
  EXPECT(before - after == threshold);
  EXPECT_OK(cudaMallocAsync(&a, 40 << 20, stream));
  EXPECT_OK(cudaMemPoolTrimTo(pool, 0));
  EXPECT(attribute(pool, cudaMemPoolAttrReservedMemCurrent) >= 40 << 20);  // what is in use stays
  EXPECT_OK(cudaFreeAsync(a, stream));
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT_OK(cudaMemPoolTrimTo(pool, 0));
  EXPECT_OK(cudaMemGetInfo(&after, &total));
  EXPECT(before == after);

  // What other work in the stream still uses is freed after it.
  struct Gate {
    std::atomic<bool> open{false};
  } gate;
  EXPECT_OK(cudaMallocAsync(&a, 64 * sizeof(int), stream));
  EXPECT_OK(cudaLaunchHostFunc(
      stream,
      [](void* data) {
        while (!static_cast<Gate*>(data)->open) std::this_thread::yield();
      },
      &gate));
  fill<<<1, 64, 0, stream>>>(a, 5);
  EXPECT_OK(cudaFreeAsync(a, stream));
  gate.open = true;
  EXPECT_OK(cudaStreamSynchronize(stream));

  // More than fits at once, one after the other: what is on its way back is waited for.
  for (int i = 0; i < 5; ++i) {
    EXPECT_OK(cudaMallocAsync(&a, size_t{60} << 30, stream));
    EXPECT_OK(cudaFreeAsync(a, stream));
  }
  EXPECT_OK(cudaMallocAsync(&a, size_t{60} << 30, stream));
  EXPECT_ERROR(cudaMallocAsync(&b, size_t{60} << 30, stream), cudaErrorMemoryAllocation);
  cudaGetLastError();
  EXPECT_OK(cudaFreeAsync(a, stream));

  // A pool of one's own, with a limit.
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 0};
  properties.maxSize = 1 << 20;
  EXPECT_OK(cudaMemPoolCreate(&other, &properties));
  EXPECT_OK(cudaMallocFromPoolAsync(&a, 1 << 19, other, stream));
  EXPECT_ERROR(cudaMallocFromPoolAsync(&b, 1 << 20, other, stream), cudaErrorMemoryAllocation);
  EXPECT(attribute(other, cudaMemPoolAttrUsedMemCurrent) == 1 << 19);
  cudaMemLocation location{cudaMemLocationTypeDevice, 0};
  cudaMemAccessFlags flags;
  EXPECT_OK(cudaMemPoolGetAccess(&flags, other, &location));
  EXPECT(flags == cudaMemAccessFlagsProtReadWrite);
  EXPECT_OK(cudaDeviceSetMemPool(0, other));
  EXPECT_OK(cudaMallocAsync(&b, 1024, stream));
  EXPECT(attribute(other, cudaMemPoolAttrUsedMemCurrent) == (1 << 19) + 1024);
  EXPECT_OK(cudaFreeAsync(a, stream));
  EXPECT_OK(cudaFreeAsync(b, stream));
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT_OK(cudaMemPoolDestroy(other));
  EXPECT_ERROR(cudaMemPoolDestroy(other), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemPoolDestroy(pool), cudaErrorInvalidValue);
  EXPECT_OK(cudaDeviceGetMemPool(&other, 0));
  EXPECT(other == pool);
  cudaGetLastError();
  EXPECT_OK(cudaStreamDestroy(stream));
  return 0;
}
