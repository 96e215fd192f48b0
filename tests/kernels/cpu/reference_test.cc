#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

/// Says after each test how much of its error bound it needed.
class PrintShares : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override { Comparison::worst_of_test() = 0; }
  void OnTestEnd(const ::testing::TestInfo&) override {
    if (Comparison::worst_of_test() > 0) std::printf("  error: %.2f of the bound\n", Comparison::worst_of_test());
  }
};

const bool printing = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new PrintShares);
  return true;
}();

// The comparator must see what it is there to see.

Comparison compare(std::vector<float> got, const std::vector<double>& wanted) {
  Comparison comparison;
  for (size_t i = 0; i < got.size(); ++i) comparison.add(got[i], wanted[i], 1e-3);
  return comparison;
}

TEST(Comparison, TakesWhatIsWithinTheBound) {
  EXPECT_TRUE(compare({1, 2, 3}, {1, 2, 3.0009}).within_bound());
  EXPECT_NEAR(compare({1, 2, 3}, {1, 2, 3.0009}).worst(), 0.9, 1e-6);
}

TEST(Comparison, RefusesMutations) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(compare({1, nan, 3}, {1, 2, 3}).within_bound());
  EXPECT_FALSE(compare({nan, 2, 3}, {1, 2, 3}).within_bound());
  EXPECT_FALSE(compare({1, 2, 3}, {1, 2, nan}).within_bound());
  EXPECT_FALSE(compare({INFINITY, 2, 3}, {INFINITY, 2, 3}).within_bound());
  EXPECT_FALSE(compare({-1}, {1}).within_bound());
  EXPECT_FALSE(compare({-100}, {1}).within_bound());
  EXPECT_FALSE(compare({2, 3, 1}, {1, 2, 3}).within_bound());
  EXPECT_FALSE(compare({1, 2, 3.0011F}, {1, 2, 3}).within_bound());
  EXPECT_FALSE(compare({nan, 2}, {1, 2}).within_bound());
  EXPECT_FALSE(Comparison().within_bound()) << "comparing nothing is no success";
}

TEST(Matrix, GuardsSeeWritesBesideTheElements) {
  for (const int64_t at : {-1, -33, 3, 4, 8, 9, 10, 41}) {
    Matrix m(2, 3, 5);
    ASSERT_TRUE(m.guards_intact());
    m(1, 2) = 7;
    ASSERT_TRUE(m.guards_intact());
    m.data()[at] = 0;
    EXPECT_FALSE(m.guards_intact()) << at;
  }
}

TEST(SameBits, TellsZerosAndRowsApart) {
  Matrix a(2, 3, 3, 1);
  Matrix b = a;
  EXPECT_TRUE(same_bits(a, b));
  b(1, 2) = std::nextafter(b(1, 2), 2.0F);
  EXPECT_FALSE(same_bits(a, b));
  a(0, 0) = 0.0F;
  b = a;
  b(0, 0) = -0.0F;
  EXPECT_FALSE(same_bits(a, b));
}

}  // namespace
}  // namespace cpvt::cpu::testing
