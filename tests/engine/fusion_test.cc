#include "engine/fusion.h"

#include <gtest/gtest.h>

#include "engine/model.h"
#include "engine/runner.h"
#include "tests/engine/comparison.h"
#include "tests/engine/plain_backend.h"
#include "tests/engine/random_graph.h"

namespace cpvt {
namespace {

/// "name(input, input) …": what runs, in order; a Linear with what it has swallowed.
std::string text(const Graph& graph) {
  std::vector<std::string> made(static_cast<size_t>(graph.value_count()));
  std::string all;
  for (const Node& node : graph.nodes()) {
    std::string line = node.name;
    if (const auto* linear = std::get_if<ops::Linear>(&node.op)) {
      if (linear->activation == ops::Activation::kGelu) line += "+gelu";
      if (linear->residual) line += "+residual";
      if (linear->norm) line += "+norm";
    }
    const auto* pool = std::get_if<ops::Pool>(&node.op);
    if (pool != nullptr && pool->norm) line += "+norm";
    const auto* peg = std::get_if<ops::Peg>(&node.op);
    if (peg != nullptr && peg->norm) line += "+norm";
    line += "(";
    for (const ValueId id : node.inputs) line += (line.back() == '(' ? "" : " ") + made[static_cast<size_t>(id)];
    all += (all.empty() ? "" : " ") + line + ")";
    made[static_cast<size_t>(node.output)] = node.name;
    if (node.second >= 0) made[static_cast<size_t>(node.second)] = node.name + "'";
  }
  return all;
}

/// x of width 8, and operators on it by one-letter names.
struct Builder {
  Graph graph;
  ValueId x = graph.add("x", ops::PatchEmbed{shape_only({8, 1, 2, 2}), shape_only({8}), {}});

  ValueId linear(const std::string& name, ValueId in) {
    return graph.add(name, ops::Linear{shape_only({8, 8}), shape_only({8})}, {in});
  }
  ValueId gelu(const std::string& name, ValueId in) { return graph.add(name, ops::Gelu{8}, {in}); }
  ValueId add(const std::string& name, ValueId a, ValueId b) { return graph.add(name, ops::Add{8}, {a, b}); }
  ValueId norm(const std::string& name, ValueId in) {
    return graph.add(name, ops::LayerNorm{shape_only({8}), shape_only({8}), 1e-6F}, {in});
  }
  ValueId peg(const std::string& name, ValueId in) {
    return graph.add(name, ops::Peg{shape_only({8, 1, 3, 3}), shape_only({8})}, {in});
  }
  ValueId pool(const std::string& name, ValueId in) {
    return graph.add(name, ops::Pool{ops::Pool::Kind::kMean, 8}, {in});
  }
  std::string normed(ValueId output, int64_t widest = 8, bool into_pool = true, bool into_peg = true) {
    graph.set_output("output", output);
    return text(fuse_norms(graph, widest, into_pool, into_peg));
  }
  std::string fused(ValueId output) {
    graph.set_output("output", output);
    const Graph result = fuse(graph);
    EXPECT_EQ(result.output("output"), result.value_count() - 1);
    return text(result);
  }
};

TEST(Fusion, LinearThenGelu) {
  Builder b;
  EXPECT_EQ(b.fused(b.gelu("g", b.linear("l", b.x))), "x() l+gelu(x)");
}

TEST(Fusion, LinearThenAddOnEitherSide) {
  Builder right;
  EXPECT_EQ(right.fused(right.add("a", right.x, right.linear("l", right.x))), "x() l+residual(x x)");
  Builder left;
  const ValueId y = left.gelu("y", left.x);
  EXPECT_EQ(left.fused(left.add("a", left.linear("l", left.x), y)), "x() y(x) l+residual(x y)");
}

TEST(Fusion, TwoLinearsAddedSwallowOnlyOne) {
  Builder b;
  EXPECT_EQ(b.fused(b.add("a", b.linear("l", b.x), b.linear("m", b.x))), "x() l(x) m+residual(x l)");
}

TEST(Fusion, LinearThenGeluThenAdd) {
  Builder b;
  EXPECT_EQ(b.fused(b.add("a", b.x, b.gelu("g", b.linear("l", b.x)))), "x() l+gelu+residual(x x)");
}

// gelu(x W + b + r) is not gelu(x W + b) + r.
TEST(Fusion, NoGeluAfterAResidual) {
  Builder b;
  EXPECT_EQ(b.fused(b.gelu("g", b.add("a", b.x, b.linear("l", b.x)))), "x() l+residual(x x) g(l)");
}

TEST(Fusion, NoSecondGeluAndNoSecondResidual) {
  Builder b;
  EXPECT_EQ(b.fused(b.gelu("h", b.gelu("g", b.linear("l", b.x)))), "x() l+gelu(x) h(l)");
  Builder c;
  EXPECT_EQ(c.fused(c.add("b", c.x, c.add("a", c.x, c.linear("l", c.x)))), "x() l+residual(x x) b(x l)");
}

TEST(Fusion, LeavesWhatSomeoneElseReads) {
  Builder b;
  const ValueId l = b.linear("l", b.x);
  const ValueId g = b.gelu("g", l);
  EXPECT_EQ(b.fused(b.graph.add("n", ops::LayerNorm{shape_only({8}), shape_only({8}), 1e-6F}, {b.add("a", g, l)})),
            "x() l(x) g(l) a(g l) n(a)");
}

TEST(Fusion, LeavesOutputs) {
  Builder b;
  const ValueId l = b.linear("l", b.x);
  b.graph.set_output("hidden", l);
  EXPECT_EQ(b.fused(b.gelu("g", l)), "x() l(x) g(l)");
}

TEST(Fusion, LeavesALinearAddedToItself) {
  Builder b;
  const ValueId l = b.linear("l", b.x);
  EXPECT_EQ(b.fused(b.add("a", l, l)), "x() l(x) a(l l)");
}

// The residual is made after the linear: the fused node must run where the addition ran.
TEST(Fusion, WaitsForTheResidual) {
  Builder b;
  const ValueId l = b.linear("l", b.x);
  const ValueId y = b.gelu("y", b.x);
  EXPECT_EQ(b.fused(b.add("a", l, y)), "x() y(x) l+residual(x y)");
}

TEST(FuseNorms, IntoLinearAndPool) {
  Builder b;
  EXPECT_EQ(b.normed(b.linear("l", b.norm("n", b.x))), "x() l+norm(x)");
  Builder c;
  EXPECT_EQ(c.normed(c.pool("p", c.norm("n", c.x))), "x() p+norm(x)");
}

TEST(FuseNorms, OnlyWhereAskedFor) {
  Builder b;
  EXPECT_EQ(b.normed(b.linear("l", b.norm("n", b.x)), 7), "x() n(x) l(n)");
  Builder c;
  EXPECT_EQ(c.normed(c.pool("p", c.norm("n", c.x)), 8, false), "x() n(x) p(n)");
}

TEST(FuseNorms, IntoEveryReaderButKeptForOthers) {
  Builder b;
  const ValueId n = b.norm("n", b.x);
  const ValueId l = b.linear("l", n);
  EXPECT_EQ(b.normed(b.add("a", l, b.linear("m", n))), "x() l+norm(x) m+norm(x) a(l m)");
  Builder c;
  const ValueId o = c.norm("n", c.x);
  EXPECT_EQ(c.normed(c.add("a", c.linear("l", o), o)), "x() n(x) l+norm(x) a(l n)");
  Builder d;
  const ValueId p = d.norm("n", d.x);
  d.graph.set_output("features", p);
  EXPECT_EQ(d.normed(d.pool("p", p)), "x() n(x) p+norm(x)");
}

// A Peg takes what the Linear is too wide for.
TEST(FuseNorms, IntoPeg) {
  Builder b;
  const ValueId p = b.peg("p", b.x);
  EXPECT_EQ(b.normed(b.add("a", p, b.linear("l", b.norm("n", p))), 7), "x() p+norm(x) l(p') a(p l)");
  Builder c;
  const ValueId q = c.peg("p", c.x);
  EXPECT_EQ(c.normed(c.add("a", q, c.linear("l", c.norm("n", q)))), "x() p(x) l+norm(p) a(p l)");
  Builder d;
  const ValueId r = d.peg("p", d.x);
  const ValueId l = d.linear("l", d.norm("n", r));
  EXPECT_EQ(d.normed(d.add("a", l, d.linear("k", d.norm("m", r))), 7), "x() p+norm(x) l(p') m(p) k(m) a(l k)");
  Builder e;
  EXPECT_EQ(e.normed(e.linear("l", e.norm("n", e.peg("p", e.x))), 7, true, false), "x() p(x) n(p) l(n)");
}

// The passes may come in any order: a second value is renamed as a first is.
TEST(FuseNorms, ThenFuse) {
  Builder b;
  b.graph.set_output("output", b.gelu("g", b.linear("l", b.norm("n", b.peg("p", b.x)))));
  EXPECT_EQ(text(fuse(fuse_norms(b.graph, 7, true, true))), "x() p+norm(x) l+gelu(p')");
}

// norm(norm(x)): a Linear has room for one.
TEST(FuseNorms, OneNormEach) {
  Builder b;
  EXPECT_EQ(b.normed(b.linear("l", b.norm("m", b.norm("n", b.x)))), "x() n(x) l+norm(n)");
}

// A residual that is the normalised value still reads it.
TEST(FuseNorms, NotTheResidual) {
  Builder b;
  const ValueId n = b.norm("n", b.x);
  ops::Linear linear{shape_only({8, 8}), shape_only({8})};
  linear.residual = true;
  EXPECT_EQ(b.normed(b.graph.add("l", linear, {b.x, n})), "x() n(x) l+residual(x n)");
}

TEST(Fusion, ChangesNoValueOfRandomGraphs) {
  Random random(2);
  double worst = 0;
  int swallowed = 0;
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const Graph graph = random_graph(random);
    const Graph fused = fuse_norms(fuse(graph), pick(random, 0, 24), true, true);
    swallowed += graph.value_count() - fused.value_count();
    const std::vector<ImageSize> sizes = random_sizes(random);
    std::vector<Tensor> pixels;
    std::vector<ImageView> images;
    for (const ImageSize size : sizes) {
      pixels.push_back(random_tensor(random, {1, size.height, size.width}));
      images.push_back({pixels.back().data.get(), size});
    }
    std::vector<std::string> wanted;
    for (const auto& [name, id] : graph.outputs()) wanted.push_back(name);
    const std::shared_ptr<const Backend> backend = make_plain_backend();
    Runner plain(std::make_shared<const Executable>(graph, backend));
    Runner quick(std::make_shared<const Executable>(fused, backend));
    plain.run(images, wanted);
    quick.run(images, wanted);
    for (const std::string& name : wanted) {
      const double error = relative_error(quick.output(name), plain.output(name));
      worst = std::max(worst, error);
      EXPECT_LE(error, 2e-5) << name << " of " << text(graph);
    }
  }
  std::printf("%d operators swallowed, worst error %.1e\n", swallowed, worst);
  EXPECT_GE(swallowed, 100);
}

}  // namespace
}  // namespace cpvt
