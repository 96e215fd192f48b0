#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

/// Ends the program with the failed condition, where it stands, unless it holds.
#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

/// The same for a call of the CUDA runtime that must return this error.
#define EXPECT_ERROR(call, error)                                                                   \
  do {                                                                                              \
    const cudaError_t expect_found = (call);                                                        \
    if (expect_found != (error)) {                                                                  \
      std::fprintf(stderr, "%s:%d: failed: %s: expected %s, found %s\n", __FILE__, __LINE__, #call, \
                   cudaGetErrorName(error), cudaGetErrorName(expect_found));                        \
      std::exit(1);                                                                                 \
    }                                                                                               \
  } while (false)

#define EXPECT_OK(call) EXPECT_ERROR(call, cudaSuccess)

/// A kernel launch must have been taken and must end well.
#define EXPECT_RAN()                    \
  do {                                  \
    EXPECT_OK(cudaGetLastError());      \
    EXPECT_OK(cudaDeviceSynchronize()); \
  } while (false)

/// Device memory with a vector's values, freed at the end of its scope.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) { EXPECT_OK(cudaMalloc(&data_, count * sizeof(T))); }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    EXPECT_OK(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> download() const {
    std::vector<T> values(count_);
    EXPECT_OK(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

/// Numbers in [-1, 1) that are the same everywhere.
inline std::vector<float> numbers(size_t count, unsigned seed = 1) {
  std::vector<float> values(count);
  for (float& v : values) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return values;
}
