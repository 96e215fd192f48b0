#pragma once

// What every CUDA operator's test needs: device memory, matrices with canaries in the three dtypes, and bounds. The
// plain references compute in double from the values as they were stored, so that only the kernel's own rounding is
// measured.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/cuda/dtype.h"
#include "tests/kernels/cpu/reference.h"

namespace cpvt::cuda::testing {

using cpu::testing::Comparison;
using cpu::testing::layout;
using cpu::testing::noise;
using cpu::testing::rows_of;

inline const std::vector<DType> kDTypes = {DType::kF32, DType::kF16, DType::kBF16};

inline const char* name(DType dtype) { return dtype == DType::kF32 ? "fp32" : dtype == DType::kF16 ? "fp16" : "bf16"; }

/// Half a unit in the last place of 1: the relative error of one rounding to dtype.
inline double epsilon(DType dtype) {
  return dtype == DType::kF32 ? cpu::testing::kEps : dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
}

/// Below this, rounding to dtype has an absolute error.
inline double smallest_step(DType dtype) { return dtype == DType::kF16 ? 0x1p-25 : 1e-40; }

inline void encode(float value, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, &value, 4);
  } else if (dtype == DType::kF16) {
    const __half h = __float2half_rn(value);
    std::memcpy(to, &h, 2);
  } else {
    const __nv_bfloat16 b = __float2bfloat16_rn(value);
    std::memcpy(to, &b, 2);
  }
}

inline float decode(const std::byte* from, DType dtype) {
  if (dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, from, 4);
    return value;
  }
  if (dtype == DType::kF16) {
    __half h;
    std::memcpy(&h, from, 2);
    return __half2float(h);
  }
  __nv_bfloat16 b;
  std::memcpy(&b, from, 2);
  return __bfloat162float(b);
}

#define EXPECT_CUDA(call) EXPECT_EQ(static_cast<int>(call), static_cast<int>(cudaSuccess))

/// Device memory holding a copy of host values, freed at the end.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    EXPECT_CUDA(cudaMalloc(&data_, std::max<size_t>(1, count_ * sizeof(T))));
    EXPECT_CUDA(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { EXPECT_CUDA(cudaFree(data_)); }
  T* data() const { return static_cast<T*>(data_); }
  int count() const { return static_cast<int>(count_); }
  std::vector<T> download() const {
    std::vector<T> values(count_);
    EXPECT_CUDA(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t count_;
};

/// rows x width numbers on the device, `slack` chunks of 16 bytes more from row to row than needed, a guard of canaries
/// before, behind and between. Values are kept on the host as the device has them: rounded to dtype.
class DeviceMatrix {
 public:
  /// Not a number everywhere: for results.
  DeviceMatrix(DType dtype, int64_t rows, int64_t width, int64_t slack = 0)
      : DeviceMatrix(dtype, rows, width, slack,
                     std::vector<float>(static_cast<size_t>(rows * width), std::numeric_limits<float>::quiet_NaN())) {}

  /// Uniform in [-scale, scale].
  static DeviceMatrix random(DType dtype, int64_t rows, int64_t width, int64_t slack, uint32_t seed, float scale = 1) {
    std::vector<float> values = noise(rows * width, seed);
    for (float& v : values) v *= scale;
    return {dtype, rows, width, slack, values};
  }

  DeviceMatrix(DType dtype, int64_t rows, int64_t width, int64_t slack, const std::vector<float>& values)
      : dtype_(dtype),
        rows_(rows),
        width_(width),
        stride_(row_stride(width, dtype) + slack * row_stride(1, dtype)),
        storage_(fill(values)),
        device_(storage_) {
    refresh();
  }

  void* data() const { return device_.data() + kGuard; }
  DType dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t width() const { return width_; }
  int64_t stride() const { return stride_; }

  /// Fetches what kernels have written.
  void download() {
    storage_ = device_.download();
    refresh();
  }

  /// The value that the device has (or had, at the last download).
  float operator()(int64_t r, int64_t c) const { return values_[static_cast<size_t>(r * width_ + c)]; }

  /// Whether every byte that is no element still holds its canary; of what was downloaded last.
  bool guards_intact() const {
    std::vector<bool> element(storage_.size(), false);
    for (int64_t r = 0; r < rows_; ++r) {
      const size_t begin = offset(r, 0);
      std::fill_n(element.begin() + static_cast<std::ptrdiff_t>(begin),
                  static_cast<size_t>(width_) * element_bytes(dtype_), true);
    }
    for (size_t i = 0; i < storage_.size(); ++i) {
      if (!element[i] && storage_[i] != kCanary) return false;
    }
    return true;
  }

  bool same_bits(const DeviceMatrix& other) const {
    if (rows_ != other.rows_ || width_ != other.width_ || dtype_ != other.dtype_) return false;
    for (int64_t r = 0; r < rows_; ++r) {
      if (!same_row(r, other, r)) return false;
    }
    return true;
  }
  bool same_row(int64_t r, const DeviceMatrix& other, int64_t other_r) const {
    return std::memcmp(&storage_[offset(r, 0)], &other.storage_[other.offset(other_r, 0)],
                       static_cast<size_t>(width_) * element_bytes(dtype_)) == 0;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr std::byte kCanary{0x7F};  // 0x7F7F: not a number in fp16, 3.4e38 in bf16 and fp32

  size_t offset(int64_t r, int64_t c) const {
    return kGuard + static_cast<size_t>(r * stride_ + c) * element_bytes(dtype_);
  }
  std::vector<std::byte> fill(const std::vector<float>& values) const {
    std::vector<std::byte> bytes(2 * kGuard + static_cast<size_t>(rows_ * stride_) * element_bytes(dtype_), kCanary);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < width_; ++c) {
        encode(values[static_cast<size_t>(r * width_ + c)], dtype_, &bytes[offset(r, c)]);
      }
    }
    return bytes;
  }
  void refresh() {
    values_.resize(static_cast<size_t>(rows_ * width_));
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < width_; ++c) {
        values_[static_cast<size_t>(r * width_ + c)] = decode(&storage_[offset(r, c)], dtype_);
      }
    }
  }

  DType dtype_;
  int64_t rows_, width_, stride_;
  std::vector<std::byte> storage_;
  DeviceArray<std::byte> device_;
  std::vector<float> values_;
};

}  // namespace cpvt::cuda::testing
