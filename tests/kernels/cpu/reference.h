#pragma once

// What every operator's test needs: guarded matrices, and a comparison in shares of a stated bound.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/token_grid.h"

namespace cpvt::cpu::testing {

constexpr double kEps = 1.1920929e-7 / 2;  // the rounding of one fp32 operation

/// Uniform in [-1, 1], the same on every machine for a seed.
inline std::vector<float> noise(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(random()) * 0x1p-31F - 1.0F;
  return values;
}

/// rows x width floats with `stride` floats from row to row, at an odd 4-byte address, and canaries before, behind and
/// between.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t width, int64_t stride) : rows_(rows), width_(width), stride_(stride) {
    storage_.assign(static_cast<size_t>(kGuard + 1 + rows * stride + kGuard), canary());
    for (int64_t r = 0; r < rows; ++r) std::fill_n(data() + r * stride, width, std::numeric_limits<float>::quiet_NaN());
  }
  Matrix(int64_t rows, int64_t width, int64_t stride, uint32_t seed, float scale = 1) : Matrix(rows, width, stride) {
    const auto values = noise(rows * width, seed);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) (*this)(r, c) = scale * values[static_cast<size_t>(r * width + c)];
    }
  }

  float* data() { return storage_.data() + kGuard + 1; }
  const float* data() const { return storage_.data() + kGuard + 1; }
  float* row(int64_t r) { return data() + r * stride_; }
  const float* row(int64_t r) const { return data() + r * stride_; }
  float& operator()(int64_t r, int64_t c) { return row(r)[c]; }
  float operator()(int64_t r, int64_t c) const { return row(r)[c]; }
  int64_t rows() const { return rows_; }
  int64_t width() const { return width_; }
  int64_t stride() const { return stride_; }

  /// Whether every float that is no element still holds the canary.
  bool guards_intact() const {
    const float guard = canary();
    const float* begin = data();
    for (size_t i = 0; i < storage_.size(); ++i) {
      const int64_t at = storage_.data() + i - begin;
      if (at >= 0 && at < rows_ * stride_ && at % stride_ < width_) continue;
      if (std::bit_cast<uint32_t>(storage_[i]) != std::bit_cast<uint32_t>(guard)) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kGuard = 32;
  static float canary() { return -1.2345678e30F; }  // would also show as an error when read as data

  int64_t rows_;
  int64_t width_;
  int64_t stride_;
  std::vector<float> storage_;
};

/// Gathers the largest |got - wanted| / bound; anything that is not a number counts as infinitely wrong.
class Comparison {
 public:
  void add(float got, double wanted, double bound) {
    const double share = std::abs(static_cast<double>(got) - wanted) / bound;
    if (!(share <= worst_)) worst_ = std::isnan(share) ? std::numeric_limits<double>::infinity() : share;
    ++count_;
  }
  /// The share of the allowance that was used, 1 being all of it.
  double worst() const { return worst_; }
  bool within_bound() const { return count_ > 0 && worst_ <= 1; }

  /// Fails the test when the bound is broken. The worst share of each test is printed at its end (reference_test.cc).
  void expect_within(const std::string& what) const {
    EXPECT_TRUE(within_bound()) << what << ": " << worst_ << " times the bound, over " << count_ << " values";
    worst_of_test() = std::max(worst_of_test(), worst_);
  }
  static double& worst_of_test() {
    static double worst = 0;
    return worst;
  }

 private:
  double worst_ = 0;
  int64_t count_ = 0;
};

inline bool same_bits(const float* a, const float* b, int64_t count) {
  return std::equal(a, a + count, b,
                    [](float l, float r) { return std::bit_cast<uint32_t>(l) == std::bit_cast<uint32_t>(r); });
}

/// Whether the elements of two equally shaped matrices are the same bits.
inline bool same_bits(const Matrix& a, const Matrix& b) {
  for (int64_t r = 0; r < a.rows(); ++r) {
    if (!same_bits(a.row(r), b.row(r), a.width())) return false;
  }
  return a.rows() == b.rows() && a.width() == b.width();
}

/// Grids of (prefix, height, width) triples laid one after another, after `gap` rows that belong to nobody.
inline std::vector<TokenGrid> layout(std::initializer_list<TokenGrid> shapes, int64_t gap = 0) {
  std::vector<TokenGrid> grids(shapes);
  int64_t row = gap;
  for (TokenGrid& grid : grids) {
    grid.first_row = row;
    row += grid.rows();
  }
  return grids;
}

inline int64_t rows_of(std::span<const TokenGrid> grids) { return grids.back().first_row + grids.back().rows(); }

}  // namespace cpvt::cpu::testing
