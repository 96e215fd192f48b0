#include "kernels/cpu/elementwise.h"

#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

TEST(Gelu, MatchesTheDoubleReferenceEverywhere) {
  // Every 1/4096 from -12 to 12, and powers of two to the ends of the range.
  std::vector<float> x;
  for (int i = -12 * 4096; i <= 12 * 4096; ++i) x.push_back(static_cast<float>(i) / 4096);
  for (int e = -149; e <= 100; ++e) {
    x.push_back(std::ldexp(1.3F, e));
    x.push_back(-x.back());
  }
  std::vector<float> y(x.size());
  const auto count = static_cast<int64_t>(x.size());
  ThreadPool pool(2);
  gelu_erf(x.data(), count, y.data(), count, 1, count, pool);
  Comparison absolute;
  Comparison relative;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    const double wanted = 0.5 * v * std::erfc(-v / std::sqrt(2.0));
    absolute.add(y[i], wanted, std::max(2.0e-7, 2 * kEps * std::abs(v)));
    if (v > -1) relative.add(y[i], wanted, 6 * kEps * std::abs(wanted) + 1e-45);
  }
  absolute.expect_within("gelu, absolute");
  relative.expect_within("gelu above -1, relative");
}

TEST(Gelu, KeepsTheRangeEnds) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {0.0F, INFINITY, nan, -1e30F, 1e30F, -20.0F};
  std::vector<float> y(6);
  ThreadPool pool(1);
  gelu_erf(x.data(), 6, y.data(), 6, 1, 6, pool);
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[4], 1e30F);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_NEAR(y[5], 0, 1e-12);
}

TEST(Elementwise, RowsStridesAndThreads) {
  for (const int64_t rows : {1, 15, 16, 17, 50}) {
    for (const int64_t width : {1, 7, 16, 31, 33, 197}) {
      const Matrix a(rows, width, width + 3, 1);
      const Matrix b(rows, width, width + 1, 2);
      Matrix first(rows, width, width);
      for (const int threads : {1, 2, 5}) {
        ThreadPool pool(threads);
        Matrix sum(rows, width, width + 2);
        add(a.data(), a.stride(), b.data(), b.stride(), sum.data(), sum.stride(), rows, width, pool);
        Matrix g(rows, width, width + 2);
        gelu_erf(a.data(), a.stride(), g.data(), g.stride(), rows, width, pool);
        ASSERT_TRUE(sum.guards_intact() && g.guards_intact());
        if (threads == 1) first = g;
        EXPECT_TRUE(same_bits(first, g));
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < width; ++c) ASSERT_EQ(sum(r, c), a(r, c) + b(r, c));
        }
      }
    }
  }
}

TEST(AddPosition, EachImageHasItsTable) {
  const auto images = layout({{0, 2, 3, 1}, {0, 4, 1, 1}, {0, 5, 6, 1}}, 2);
  const Matrix x(rows_of(images), 19, 21, 1);
  std::vector<std::vector<float>> tables;
  std::vector<const float*> pointers;
  tables.reserve(images.size());  // the pointers stay good
  pointers.reserve(images.size());
  for (const TokenGrid& g : images) {
    tables.push_back(noise(g.rows() * 19, static_cast<uint32_t>(tables.size())));
    pointers.push_back(tables.back().data());
  }
  Matrix y = x;
  ThreadPool pool(2);
  add_position(y.data(), y.stride(), pointers, images, y.data(), y.stride(), 19, pool);
  EXPECT_TRUE(y.guards_intact());
  for (size_t i = 0; i < images.size(); ++i) {
    for (int64_t r = 0; r < images[i].rows(); ++r) {
      for (int64_t c = 0; c < 19; ++c) {
        const int64_t row = images[i].first_row + r;
        EXPECT_EQ(y(row, c), x(row, c) + tables[i][static_cast<size_t>(r * 19 + c)]);
      }
    }
  }
  EXPECT_EQ(y(0, 0), x(0, 0));
}

}  // namespace
}  // namespace cpvt::cpu::testing
