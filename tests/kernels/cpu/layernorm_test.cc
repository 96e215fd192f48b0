#include "kernels/cpu/layernorm.h"

#include <cmath>

#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

void check(int64_t rows, int64_t width, float offset, float eps, int64_t slack) {
  Matrix x(rows, width, width + slack, 1);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) x(r, c) += offset;
  }
  const Matrix gamma(1, width, width, 2);
  const Matrix beta(1, width, width, 3);
  ThreadPool pool(2);
  Matrix y(rows, width, width + 2 * slack);
  layernorm(x.data(), x.stride(), gamma.data(), beta.data(), eps, y.data(), y.stride(), rows, width, pool);
  EXPECT_TRUE(y.guards_intact());
  Comparison comparison;
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0;
    double largest = 0;
    for (int64_t c = 0; c < width; ++c) {
      mean += x(r, c) / static_cast<double>(width);
      largest = std::max(largest, std::abs(static_cast<double>(x(r, c))));
    }
    double variance = 0;
    for (int64_t c = 0; c < width; ++c) variance += (x(r, c) - mean) * (x(r, c) - mean) / static_cast<double>(width);
    const double scale = 1 / std::sqrt(variance + eps);
    for (int64_t c = 0; c < width; ++c) {
      const double normal = (x(r, c) - mean) * scale;
      const double g = std::abs(gamma(0, c));
      // The mean is good to a few roundings of the largest value; the rest to a few of its own.
      const double bound =
          kEps * (4 * largest * scale * g + 8 * std::abs(normal) * g + 2 * std::abs(beta(0, c)) + 1e-6);
      comparison.add(y(r, c), normal * gamma(0, c) + beta(0, c), bound);
    }
  }
  comparison.expect_within("layernorm " + std::to_string(rows) + " x " + std::to_string(width));
  Matrix in_place = x;
  layernorm(in_place.data(), in_place.stride(), gamma.data(), beta.data(), eps, in_place.data(), in_place.stride(),
            rows, width, pool);
  EXPECT_TRUE(in_place.guards_intact());
  EXPECT_TRUE(same_bits(in_place, y));
}

TEST(LayerNorm, MatchesTheDoubleReference) {
  for (const int64_t width : {1, 7, 8, 15, 16, 17, 31, 32, 33, 64, 192, 197, 384, 768, 1024}) {
    check(5, width, 0, 1e-6F, 3);
    check(5, width, 3, 1e-5F, 0);
  }
  for (const int64_t rows : {1, 15, 16, 17, 197}) check(rows, 48, 1, 1e-6F, 1);
}

TEST(LayerNorm, ConstantRowsGiveBeta) {
  Matrix x(2, 33, 33, 1);
  for (int64_t c = 0; c < 33; ++c) x(0, c) = x(1, c) = 0.5F;
  const Matrix gamma(1, 33, 33, 2);
  const Matrix beta(1, 33, 33, 3);
  ThreadPool pool(1);
  layernorm(x.data(), 33, gamma.data(), beta.data(), 1e-6F, x.data(), 33, 2, 33, pool);
  for (int64_t c = 0; c < 33; ++c) EXPECT_NEAR(x(1, c), beta(0, c), 1e-4);
}

// What does not fit into fp32 must not look like an answer. (PyTorch has NaN for most of these.)
TEST(LayerNorm, RowsThatOverflowAreNotANumber) {
  ThreadPool pool(1);
  for (const int64_t width : {1, 7, 33, 64}) {
    for (const float large : {1e38F, -1e38F, 3e30F, INFINITY, NAN}) {
      Matrix x(2, width, width, 1);
      const Matrix gamma(1, width, width, 2);
      const Matrix beta(1, width, width, 3);
      if (width == 1 && std::isfinite(large)) continue;  // a single value is its own mean
      x(0, width / 2) = large;
      layernorm(x.data(), width, gamma.data(), beta.data(), 1e-6F, x.data(), width, 2, width, pool);
      for (int64_t c = 0; c < width; ++c) {
        EXPECT_TRUE(std::isnan(x(0, c))) << large << " of " << width;
        EXPECT_TRUE(std::isfinite(x(1, c)));
      }
    }
  }
}

TEST(LayerNorm, SameBitsInEveryCompany) {
  const Matrix x(53, 100, 100, 1);
  const Matrix gamma(1, 100, 100, 2);
  const Matrix beta(1, 100, 100, 3);
  Matrix whole(53, 100, 100);
  ThreadPool one(1);
  layernorm(x.data(), 100, gamma.data(), beta.data(), 1e-6F, whole.data(), 100, 53, 100, one);
  for (const int threads : {2, 3, 5}) {
    ThreadPool pool(threads);
    Matrix y(53, 100, 101);
    layernorm(x.data(), 100, gamma.data(), beta.data(), 1e-6F, y.data(), 101, 53, 100, pool);
    EXPECT_TRUE(same_bits(whole, y));
  }
  for (int64_t r = 0; r < 53; ++r) {
    Matrix y(1, 100, 100);
    layernorm(x.row(r), 100, gamma.data(), beta.data(), 1e-6F, y.data(), 100, 1, 100, one);
    EXPECT_TRUE(same_bits(y.data(), whole.row(r), 100)) << r;
  }
}

}  // namespace
}  // namespace cpvt::cpu::testing
