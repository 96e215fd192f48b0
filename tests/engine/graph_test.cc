#include "engine/graph.h"

#include <gtest/gtest.h>

#include "tests/engine/error_text.h"
#include "tests/engine/random_graph.h"

namespace cpvt {
namespace {

Tensor t(std::vector<int64_t> shape) { return shape_only(std::move(shape)); }

/// Two values to build on: tokens of width 8 (value 0) and a row of 8 per image (value 1).
Graph start() {
  Graph graph;
  const ValueId tokens = graph.add("embed", ops::PatchEmbed{t({8, 3, 4, 4}), t({8}), t({1, 1, 8})});
  graph.add("pool", ops::Pool{ops::Pool::Kind::kMean, 8}, {tokens});
  return graph;
}

TEST(Graph, KnowsWhatEveryOperatorMakes) {
  Graph graph = start();
  const auto expect = [&](Op op, std::vector<ValueId> inputs, Rows rows, int64_t width) {
    const Value& value = graph.value(graph.add("node", std::move(op), std::move(inputs)));
    EXPECT_EQ(value.rows, rows);
    EXPECT_EQ(value.width, width);
  };
  expect(ops::AddPosition{t({1, 10, 8}), 8}, {0}, Rows::kTokens, 8);
  expect(ops::AddPosition{{}, 8}, {0}, Rows::kTokens, 8);
  expect(ops::Peg{t({8, 1, 27, 27}), t({8})}, {0}, Rows::kTokens, 8);
  expect(ops::LayerNorm{t({8}), t({8}), 1e-6F}, {0}, Rows::kTokens, 8);
  expect(ops::LayerNorm{t({8}), t({8}), 1e-6F}, {1}, Rows::kImages, 8);
  expect(ops::Linear{t({24, 8}), t({24})}, {0}, Rows::kTokens, 24);
  expect(ops::Linear{t({5, 8}), t({5})}, {1}, Rows::kImages, 5);
  ops::Linear with_residual{t({8, 8}), t({8})};
  with_residual.residual = true;
  expect(with_residual, {1, 1}, Rows::kImages, 8);
  expect(ops::Gelu{8}, {1}, Rows::kImages, 8);
  expect(ops::Add{8}, {0, 0}, Rows::kTokens, 8);
  expect(ops::Attention{2, 4, 0.5F}, {graph.add("qkv", ops::Linear{t({24, 8}), t({24})}, {0})}, Rows::kTokens, 8);
  expect(ops::Pool{ops::Pool::Kind::kClassToken, 8}, {0}, Rows::kImages, 8);
}

struct Wrong {
  Op op;
  std::vector<ValueId> inputs;
  std::string text;
};

TEST(Graph, RefusesWhatDoesNotFit) {
  ops::Linear residual{t({8, 8}), t({8})};
  residual.residual = true;
  const ops::LayerNorm norm{t({8}), t({8}), 1e-6F};
  const std::vector<Wrong> all{
      {ops::PatchEmbed{t({8, 3, 4}), t({8}), {}}, {}, "n: weight has shape [8, 3, 4], expected 4 dimensions"},
      {ops::PatchEmbed{t({8, 3, 4, 5}), t({8}), {}}, {}, "n: weight has shape [8, 3, 4, 5], expected [8, 3, 4, 4]"},
      {ops::PatchEmbed{t({8, 3, 4, 4}), t({7}), {}}, {}, "n: bias has shape [7], expected [8]"},
      {ops::PatchEmbed{t({8, 3, 4, 4}), t({8}), {}, 1, {0}, {1, 1, 1}}, {}, "n: 1 means, expected 3"},
      {ops::PatchEmbed{t({8, 3, 4, 4}), t({8}), {}, 1, {0, 0, 0}, {}}, {}, "n: 0 stds, expected 3"},
      {ops::PatchEmbed{t({8, 3, 4, 4}), t({8}), t({1, 8})}, {}, "n: class token has shape [1, 8], expected [1, 1, 8]"},
      {ops::PatchEmbed{t({8, 3, 4, 4}), t({8}), {}}, {0}, "n: expected 0 inputs, found 1"},
      {ops::AddPosition{t({9, 8}), 8}, {0}, "n: weight has shape [9, 8], expected 3 dimensions"},
      {ops::AddPosition{t({1, 9, 4}), 8}, {0}, "n: table has shape [1, 9, 4], expected [1, 9, 8]"},
      {ops::AddPosition{{}, 6}, {0}, "n: sines and cosines need a width that is a multiple of 4, found 6"},
      {ops::AddPosition{{}, 8}, {1}, "n: input 0 is [images, 8], expected [tokens, 8]"},
      {ops::Peg{t({8, 1, 3}), t({8})}, {0}, "n: weight has shape [8, 1, 3], expected 4 dimensions"},
      {ops::Peg{t({8, 2, 3, 3}), t({8})}, {0}, "n: weight has shape [8, 2, 3, 3], expected [8, 1, 3, 3]"},
      {ops::Peg{t({8, 1, 4, 4}), t({8})}, {0}, "n: expected an odd kernel, found 4"},
      {ops::Peg{t({8, 1, 3, 3}), t({1})}, {0}, "n: bias has shape [1], expected [8]"},
      {ops::Peg{t({8, 1, 3, 3}), t({8})}, {1}, "n: input 0 is [images, 8], expected [tokens, 8]"},
      {ops::LayerNorm{t({8, 1}), t({8}), 1e-6F}, {0}, "n: weight has shape [8, 1], expected 1 dimensions"},
      {ops::LayerNorm{t({8}), t({9}), 1e-6F}, {0}, "n: bias has shape [9], expected [8]"},
      {ops::LayerNorm{t({9}), t({9}), 1e-6F}, {0}, "n: input 0 is [tokens, 8], expected [tokens, 9]"},
      {norm, {}, "n: expected 1 inputs, found 0"},
      {norm, {2}, "n: input 2 does not exist"},
      {norm, {-1}, "n: input -1 does not exist"},
      {ops::Linear{t({8}), t({8})}, {0}, "n: weight has shape [8], expected 2 dimensions"},
      {ops::Linear{t({4, 8}), t({8})}, {0}, "n: bias has shape [8], expected [4]"},
      {ops::Linear{t({8, 4}), t({8})}, {0}, "n: input 0 is [tokens, 8], expected [tokens, 4]"},
      {residual, {0}, "n: expected 2 inputs, found 1"},
      {residual, {0, 1}, "n: input 1 is [images, 8], expected [tokens, 8]"},
      {ops::Gelu{4}, {0}, "n: input 0 is [tokens, 8], expected [tokens, 4]"},
      {ops::Add{8}, {0, 1}, "n: input 1 is [images, 8], expected [tokens, 8]"},
      {ops::Attention{2, 4, 0.5F}, {0}, "n: input 0 is [tokens, 8], expected [tokens, 24]"},
      {ops::Pool{ops::Pool::Kind::kMean, 8}, {1}, "n: input 0 is [images, 8], expected [tokens, 8]"},
  };
  for (const Wrong& wrong : all) {
    Graph graph = start();
    EXPECT_EQ(error_text([&] { graph.add("n", wrong.op, wrong.inputs); }), wrong.text);
    EXPECT_EQ(graph.value_count(), 2) << "a refused operator left something behind: " << wrong.text;
  }
}

TEST(Graph, NamesOutputs) {
  Graph graph = start();
  EXPECT_EQ(error_text([&] { graph.set_output("logits", 2); }), "output logits: value 2 does not exist");
  graph.set_output("tokens", 0);
  graph.set_output("pooled", 1);
  EXPECT_EQ(graph.output("pooled"), 1);
  EXPECT_EQ(error_text([&] { graph.output("logits"); }), "no output 'logits': the model has pooled, tokens");
}

}  // namespace
}  // namespace cpvt
