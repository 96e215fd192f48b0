#pragma once

#include <thread>

#include "tests/ptxsim/programs/expect.h"

/// What the programs about the order of the device's operations have in common. The number only tells one use from
/// another.
template <int kUse>
__global__ void fill(int* to, int value) {
  to[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

template <int kUse>
__global__ void twice(const int* from, int* to) {
  to[blockIdx.x * blockDim.x + threadIdx.x] = 2 * from[blockIdx.x * blockDim.x + threadIdx.x];
}

/// Adds by turns: not atomic.
template <int kUse>
__global__ void increment(int* counts) {
  counts[blockIdx.x * blockDim.x + threadIdx.x] += 1;
}

template <int kUse>
__global__ void count(int* counter) {
  atomicAdd(counter, 1);
}

/// Bytes from `first` on.
template <int kUse>
__global__ void fill_bytes(char* to, int first, int bytes) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < bytes) to[first + i] = 1;
}

constexpr int kBlocks = 4, kThreads = 256, kCount = kBlocks * kThreads;

struct Stream {
  explicit Stream(unsigned flags = cudaStreamNonBlocking) { EXPECT_OK(cudaStreamCreateWithFlags(&handle, flags)); }
  ~Stream() { cudaStreamDestroy(handle); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t handle = nullptr;
};

struct Event {
  Event() { EXPECT_OK(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(handle); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t handle = nullptr;
};

inline void record_and_wait(const Event& event, const Stream& of, const Stream& waits) {
  EXPECT_OK(cudaEventRecord(event.handle, of.handle));
  EXPECT_OK(cudaStreamWaitEvent(waits.handle, event.handle, 0));
}

/// Host memory that the device cannot be late for.
struct Pinned {
  explicit Pinned(size_t count) { EXPECT_OK(cudaMallocHost(&data, count * sizeof(int))); }
  ~Pinned() { cudaFreeHost(data); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  int* data = nullptr;
};
