#include "engine/cost.h"

#include <gtest/gtest.h>

#include "tests/engine/random_graph.h"

namespace cpvt {
namespace {

Tensor t(std::vector<int64_t> shape) { return shape_only(std::move(shape)); }

// Two images of 2x3 and 1x1 patches with their class tokens: 9 rows, of which 7 are patches; 49 + 4 pairs.
TEST(Cost, CountsEveryOperator) {
  const std::vector<ImageSize> sizes{{8, 12}, {4, 4}};
  const TokenLayout layout = TokenLayout::of(sizes, 4, true);
  Graph g;
  const auto cost = [&](Op op, std::vector<ValueId> inputs) {
    g.add("node", std::move(op), std::move(inputs));
    return flops(g, g.nodes().back(), layout);
  };
  double total = 0;
  const auto expect = [&](double found, int64_t expected) {
    EXPECT_EQ(found, static_cast<double>(expected)) << g.value_count();
    total += found;
  };
  expect(cost(ops::PatchEmbed{t({8, 3, 4, 4}), t({8}), t({1, 1, 8})}, {}), int64_t{7} * 8 * 48 * 2);
  expect(cost(ops::AddPosition{{}, 8}, {0}), int64_t{9} * 8);
  expect(cost(ops::Peg{t({8, 1, 5, 5}), t({8})}, {1}), int64_t{7} * 8 * (25 * 2 + 1));
  expect(cost(ops::LayerNorm{t({8}), t({8}), 1e-6F}, {2}), int64_t{9} * 8 * 7);
  expect(cost(ops::Linear{t({24, 8}), t({24})}, {3}), int64_t{9} * 24 * 8 * 2);
  expect(cost(ops::Attention{2, 4, 0.5F}, {4}), int64_t{53} * (2 * 8 * 2 + 2 * 4));
  expect(cost(ops::Gelu{8}, {5}), int64_t{9} * 8 * 4);
  expect(cost(ops::Add{8}, {5, 6}), int64_t{9} * 8);
  ops::Linear residual{t({8, 8}), t({8})};
  residual.residual = true;
  expect(cost(residual, {6, 7}), int64_t{9} * (8 * 8 * 2 + 8));
  expect(cost(ops::Pool{ops::Pool::Kind::kClassToken, 8}, {8}), 0);
  expect(cost(ops::Pool{ops::Pool::Kind::kMean, 8}, {8}), int64_t{7} * 8);
  expect(cost(ops::Linear{t({10, 8}), t({10})}, {10}), int64_t{2} * 10 * 8 * 2);
  EXPECT_EQ(flops(g, layout), total);
}

TEST(Cost, CountsRows) {
  const std::vector<ImageSize> sizes{{8, 12}, {4, 4}};
  const TokenLayout layout = TokenLayout::of(sizes, 4, true);
  EXPECT_EQ(row_count(Rows::kTokens, layout), 9);
  EXPECT_EQ(row_count(Rows::kImages, layout), 2);
}

// Pairs of tokens alone are more than an int64_t counts.
TEST(Cost, OfTheLargestPicturesStaysPositive) {
  const std::vector<ImageSize> sizes{{65535, 65535}};
  const TokenLayout layout = TokenLayout::of(sizes, 1, false);
  Graph g;
  const ValueId x = g.add("embed", ops::PatchEmbed{t({24, 3, 1, 1}), t({24}), std::nullopt});
  g.add("attention", ops::Attention{2, 4, 0.5F}, {x});
  const double rows = 65535.0 * 65535.0;
  EXPECT_DOUBLE_EQ(flops(g, g.nodes().back(), layout), rows * rows * (2 * 8 * 2 + 2 * 4));
}

}  // namespace
}  // namespace cpvt
