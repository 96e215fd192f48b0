#include "tests/engine/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace cpvt {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Comparison, MeasuresTheLargestDifferenceAgainstTheLargestExpectation) {
  EXPECT_DOUBLE_EQ(relative_error(std::vector<float>{1, -4, 2}, std::vector<float>{1, -4, 2}), 0);
  EXPECT_DOUBLE_EQ(relative_error(std::vector<float>{1, -4, 3}, std::vector<float>{1, -4, 2}), 0.25);
  EXPECT_DOUBLE_EQ(relative_error(std::vector<float>{0, 0}, std::vector<float>{0, 0}), 0);
}

// What a comparator must never let pass, one fault at a time.
TEST(Comparison, NoticesEveryFault) {
  const std::vector<float> expected{1, 2, 3, 4};
  for (const std::vector<float>& wrong :
       {std::vector<float>{kNaN, 2, 3, 4}, std::vector<float>{1, 2, 3, kInfinity}, std::vector<float>{-1, 2, 3, 4},
        std::vector<float>{-100, 2, 3, 4}, std::vector<float>{2, 3, 4, 1}, std::vector<float>{1, 2, 3}}) {
    EXPECT_FALSE(relative_error(wrong, expected) <= 0.4);
    EXPECT_FALSE(same_bits(wrong, expected));
  }
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{kNaN}, std::vector<float>{kNaN})));
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{1}, std::vector<float>{0})));
  EXPECT_FALSE(same_bits(std::vector<float>{0.0F}, std::vector<float>{-0.0F}));
  EXPECT_TRUE(same_bits(expected, expected));
}

}  // namespace
}  // namespace cpvt
