#include "kernels/cpu/pool.h"

#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

TEST(MeanRows, MatchesTheDoubleReference) {
  const auto images = layout({{0, 1, 1, 1}, {0, 14, 14, 1}, {0, 3, 11, 0}, {0, 50, 40, 2}}, 1);
  for (const int64_t width : {1, 7, 63, 64, 65, 197}) {
    const Matrix x(rows_of(images), width, width + 3, 1);
    Matrix first(4, width, width + 1);
    for (const int threads : {1, 2, 3, 5}) {
      ThreadPool pool(threads);
      Matrix y(4, width, width + 1);
      mean_rows(x.data(), x.stride(), images, y.data(), y.stride(), width, pool);
      ASSERT_TRUE(y.guards_intact());
      if (threads == 1) first = y;
      EXPECT_TRUE(same_bits(first, y));
    }
    Comparison comparison;
    for (size_t i = 0; i < images.size(); ++i) {
      for (int64_t c = 0; c < width; ++c) {
        double sum = 0;
        for (int64_t r = images[i].patches(); r-- > 0;) sum += x(images[i].first_patch() + r, c);
        sum /= static_cast<double>(images[i].patches());
        comparison.add(first(static_cast<int64_t>(i), c), sum, 1.01 * kEps * std::abs(sum) + 1e-15);
      }
    }
    comparison.expect_within("mean_rows");
  }
}

TEST(ClassRows, TakesTheFirstRowOfEachImage) {
  const auto images = layout({{0, 1, 1, 1}, {0, 2, 2, 2}}, 3);
  const Matrix x(rows_of(images), 9, 11, 1);
  Matrix y(2, 9, 10);
  class_rows(x.data(), x.stride(), images, y.data(), y.stride(), 9);
  EXPECT_TRUE(y.guards_intact());
  EXPECT_TRUE(same_bits(y.row(0), x.row(3), 9));
  EXPECT_TRUE(same_bits(y.row(1), x.row(5), 9));
}

}  // namespace
}  // namespace cpvt::cpu::testing
