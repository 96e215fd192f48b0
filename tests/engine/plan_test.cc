#include "engine/plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/cost.h"
#include "engine/fusion.h"
#include "engine/position.h"
#include "engine/runner.h"
#include "tests/engine/random_graph.h"
#include "tests/engine/stamp_backend.h"

namespace cpvt {
namespace {

/// A stretch of the arena and who has it.
struct Stretch {
  size_t begin, end;
  std::string owner;
};

/// What a plan must be, found anew by looking at every moment of the run.
class Checker {
 public:
  Checker(const Executable& executable, const Plan& plan, const Stream& stream)
      : executable_(executable),
        graph_(executable.graph()),
        plan_(plan),
        stream_(stream),
        runs_(graph_.nodes().size()) {
    // Who is read by what runs, runs: over and over, until no more are found.
    for (bool more = true; more;) {
      more = false;
      for (size_t node = 0; node < runs_.size(); ++node) {
        const Node& n = graph_.nodes()[node];
        const bool read = read_after(n.output, node) || (n.second >= 0 && read_after(n.second, node));
        if (runs_[node] || !read) continue;
        runs_[node] = more = true;
      }
    }
  }

  /// Fails the test where two things that are needed at once share a byte, or anything leaves the arena.
  void check() {
    for (size_t now = 0; now < graph_.nodes().size(); ++now) {
      EXPECT_EQ(plan_.needed.at(now), runs(now)) << graph_.nodes()[now].name;
      if (!runs(now)) continue;
      std::vector<Stretch> held;
      size_t needed = 0;
      for (ValueId id = 0; id < graph_.value_count(); ++id) {
        if (!needed_at(id, now) || replaced_at(id, now)) continue;
        held.push_back(stretch(plan_.value_offset.at(static_cast<size_t>(id)), bytes(id), fmt::format("value {}", id)));
        needed += rounded(bytes(id));
      }
      const size_t workspace = workspace_bytes(now);
      held.push_back(stretch(plan_.workspace_offset.at(now), workspace, "workspace"));
      needed += rounded(workspace);
      std::sort(held.begin(), held.end(), [](const Stretch& a, const Stretch& b) { return a.begin < b.begin; });
      for (size_t i = 0; i < held.size(); ++i) {
        if (held[i].begin == held[i].end) continue;
        EXPECT_LE(held[i].end, plan_.arena_bytes) << held[i].owner;
        for (size_t j = i + 1; j < held.size(); ++j) {
          if (held[j].begin == held[j].end) continue;
          EXPECT_LE(held[i].end, held[j].begin)
              << held[i].owner << " and " << held[j].owner << " overlap at node " << now;
        }
      }
      least_ = std::max(least_, needed);
    }
  }

  /// What no plan of this graph can do without.
  size_t least() const { return least_; }

 private:
  static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

  static Stretch stretch(size_t offset, size_t bytes, std::string owner) {
    EXPECT_EQ(offset % 64, 0U) << owner;
    return {offset, offset + bytes, std::move(owner)};
  }

  size_t bytes(ValueId id) const {
    const Value& value = graph_.value(id);
    return static_cast<size_t>(row_count(value.rows, plan_.layout) * value.width) * sizeof(float);
  }

  size_t workspace_bytes(size_t node) const { return executable_.kernel(node).workspace_bytes(plan_.layout, stream_); }

  bool read_after(ValueId id, size_t now) const {
    for (const std::string& name : plan_.wanted) {
      if (graph_.output(name) == id) return true;
    }
    for (size_t later = now + 1; later < graph_.nodes().size(); ++later) {
      if (!runs(later)) continue;
      const auto& inputs = graph_.nodes()[later].inputs;
      if (std::find(inputs.begin(), inputs.end(), id) != inputs.end()) return true;
    }
    return false;
  }

  /// Whether anything that is wanted comes from the node.
  bool runs(size_t node) const { return runs_[node]; }

  bool needed_at(ValueId id, size_t now) const {
    const Node& node = graph_.nodes()[now];
    if (node.output == id || node.second == id) return true;
    if (std::find(node.inputs.begin(), node.inputs.end(), id) != node.inputs.end()) return true;
    const bool made = std::any_of(graph_.nodes().begin(), graph_.nodes().begin() + static_cast<std::ptrdiff_t>(now),
                                  [&](const Node& earlier) { return earlier.output == id || earlier.second == id; });
    return made && read_after(id, now);
  }

  /// Whether the node may, and by this plan does, write its output where this input of it lies.
  bool replaced_at(ValueId id, size_t now) const {
    const Node& node = graph_.nodes()[now];
    const int place = in_place_input(node.op);
    if (place < 0 || node.inputs[static_cast<size_t>(place)] != id || read_after(id, now)) return false;
    if (std::count(node.inputs.begin(), node.inputs.end(), id) != 1) return false;
    EXPECT_EQ(plan_.value_offset.at(static_cast<size_t>(id)), plan_.value_offset.at(static_cast<size_t>(node.output)))
        << node.name << " could work in place";
    return true;
  }

  const Executable& executable_;
  const Graph& graph_;
  const Plan& plan_;
  const Stream& stream_;
  std::vector<bool> runs_;
  size_t least_ = 0;
};

TEST(Plan, KeepsWhatIsNeededApartInRandomGraphs) {
  Random random(1);
  double worst = 1;
  double total = 0;
  int plans = 0;
  constexpr int kGraphs = 400;
  for (int round = 0; round < kGraphs && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(round);
    const Graph graph = fuse_norms(random_graph(random), pick(random, 0, 24), true, true);
    const auto executable = std::make_shared<const Executable>(graph, make_stamp_backend(graph));
    std::vector<std::string> wanted;
    for (const auto& [name, id] : graph.outputs()) {
      if (pick(random, 0, 2) != 0) wanted.push_back(name);
    }
    Runner runner(executable);
    const std::unique_ptr<Stream> stream = executable->backend().make_stream();
    for (int batch = 0; batch < 3; ++batch) {
      const std::vector<ImageSize> sizes = random_sizes(random);
      const Plan& plan = runner.plan(sizes, wanted);
      Checker checker(*executable, plan, *stream);
      checker.check();
      EXPECT_GE(plan.arena_bytes, checker.least());
      if (checker.least() > 0) {  // else nothing was wanted
        const double ratio = static_cast<double>(plan.arena_bytes) / static_cast<double>(checker.least());
        worst = std::max(worst, ratio);
        total += ratio;
        ++plans;
      }

      // And really: nothing is lost in a run whose kernels look, and what was wanted is there afterwards.
      std::vector<ImageView> images;
      images.reserve(sizes.size());
      for (const ImageSize size : sizes) images.push_back({nullptr, size});
      ASSERT_NO_THROW(runner.run(images, wanted));
      for (const std::string& name : wanted) {
        const std::span<const float> got = runner.output(name);
        EXPECT_EQ(std::count(got.begin(), got.end(), stamp(graph.output(name))), std::ssize(got)) << name;
      }
    }
  }
  std::printf("arena against what is needed at once: mean %.3f, worst %.3f\n", total / plans, worst);
  EXPECT_LE(worst, 1.5);
}

/// A CPVT of these sizes without weights.
Graph cpvt_graph(int64_t width, int64_t depth, int64_t heads, int64_t patch, bool class_token) {
  const auto t = [](std::vector<int64_t> shape) { return shape_only(std::move(shape)); };
  Graph g;
  ops::PatchEmbed embed{t({width, 3, patch, patch}), t({width}), {}};
  if (class_token) embed.class_token = t({1, 1, width});
  ValueId x = g.add("patch_embed", embed);
  for (int64_t i = 0; i < depth; ++i) {
    const ops::LayerNorm norm{t({width}), t({width}), 1e-6F};
    ValueId y = g.add("norm1", norm, {x});
    y = g.add("qkv", ops::Linear{t({3 * width, width}), t({3 * width})}, {y});
    y = g.add("attention", ops::Attention{heads, width / heads, 1}, {y});
    y = g.add("proj", ops::Linear{t({width, width}), t({width})}, {y});
    x = g.add("add", ops::Add{width}, {x, y});
    y = g.add("norm2", norm, {x});
    y = g.add("fc1", ops::Linear{t({4 * width, width}), t({4 * width})}, {y});
    y = g.add("act", ops::Gelu{4 * width}, {y});
    y = g.add("fc2", ops::Linear{t({width, 4 * width}), t({width})}, {y});
    x = g.add("add", ops::Add{width}, {x, y});
    if (i == 0) x = g.add("peg", ops::Peg{t({width, 1, 3, 3}), t({width})}, {x});
  }
  x = g.add("norm", ops::LayerNorm{t({width}), t({width}), 1e-6F}, {x});
  g.set_output("features", x);
  x = g.add("pool", ops::Pool{class_token ? ops::Pool::Kind::kClassToken : ops::Pool::Kind::kMean, width}, {x});
  g.set_output("logits", g.add("head", ops::Linear{t({1000, width}), t({1000})}, {x}));
  return g;
}

/// A stamp device's kernels ask for workspaces; this one's do not.
class Bare : public Backend {
 public:
  std::string name() const override { return "bare"; }
  size_t free_memory() const override { return size_t{1} << 40; }
  std::unique_ptr<Stream> make_stream() const override {
    struct None final : Stream {
      std::byte* arena(size_t /*bytes*/) override { return nullptr; }
    };
    return std::make_unique<None>();
  }
  Kernel bind(const ops::PatchEmbed& /*op*/) const override { return {}; }
  Kernel bind(const ops::AddPosition& /*op*/) const override { return {}; }
  Kernel bind(const ops::Peg& /*op*/) const override { return {}; }
  Kernel bind(const ops::LayerNorm& /*op*/) const override { return {}; }
  Kernel bind(const ops::Linear& /*op*/) const override { return {}; }
  Kernel bind(const ops::Gelu& /*op*/) const override { return {}; }
  Kernel bind(const ops::Add& /*op*/) const override { return {}; }
  Kernel bind(const ops::Attention& /*op*/) const override { return {}; }
  Kernel bind(const ops::Pool& /*op*/) const override { return {}; }
};

// While the hidden layer of an MLP is made there must be: x, norm(x) and the hidden rows; so 6 D floats a token.
TEST(Plan, NeedsSixRowsOfATokenForACpvt) {
  for (const bool class_token : {false, true}) {
    const Graph graph = fuse(cpvt_graph(768, 12, 12, 16, class_token));
    const auto executable = std::make_shared<const Executable>(graph, std::make_unique<Bare>());
    Runner runner(executable);
    const std::vector<ImageSize> sizes{{1024, 1024}};
    const std::vector<std::string> logits{"logits"};
    const Plan& plan = runner.plan(sizes, logits);
    const auto tokens = static_cast<size_t>(plan.layout.rows);
    std::printf("CPVT-B at 1024x1024: %.1f MiB\n", static_cast<double>(plan.bytes()) / (1 << 20));
    EXPECT_EQ(plan.bytes(), tokens * 6 * 768 * sizeof(float));
    Checker checker(*executable, plan, *executable->backend().make_stream());
    checker.check();
    EXPECT_EQ(plan.bytes(), checker.least());
  }
}

TEST(Plan, RunsOnlyWhatIsWanted) {
  const Graph graph = fuse(cpvt_graph(64, 1, 2, 16, false));
  Runner runner(std::make_shared<const Executable>(graph, std::make_unique<Bare>()));
  const std::vector<ImageSize> sizes{{32, 32}};
  const auto needed = [&](std::vector<std::string> wanted) { return runner.plan(sizes, wanted).needed; };
  const size_t nodes = graph.nodes().size();  // the last two: pool and head
  std::vector<bool> all(nodes, true);
  EXPECT_EQ(needed({"logits"}), all);
  EXPECT_EQ(needed({"features", "logits"}), all);
  all[nodes - 1] = all[nodes - 2] = false;
  EXPECT_EQ(needed({"features"}), all);
}

TEST(Plan, CountsPositionRowsOncePerGrid) {
  Graph graph;
  const ValueId x =
      graph.add("embed", ops::PatchEmbed{shape_only({8, 1, 2, 2}), shape_only({8}), shape_only({1, 1, 8})});
  graph.set_output("x", graph.add("position", ops::AddPosition{{}, 8}, {x}));
  Runner runner(std::make_shared<const Executable>(graph, make_stamp_backend(graph)));
  const std::vector<ImageSize> sizes{{4, 6}, {6, 4}, {5, 7}, {4, 6}};  // grids 2x3, 3x2, 2x3, 2x3
  const std::vector<std::string> wanted{"x"};
  const Plan& plan = runner.plan(sizes, wanted);
  EXPECT_EQ(plan.table_bytes, size_t{2} * 7 * 8 * sizeof(float));
  EXPECT_EQ(PositionTables::of(plan.layout, 8).offset, (std::vector<int64_t>{0, 56, 0, 0}));
  EXPECT_TRUE(std::all_of(plan.tables.get(), plan.tables.get() + plan.table_bytes,
                          [](std::byte b) { return b == std::byte{1}; }));
}

// Kernels that share a table share its bytes: a hundred lists of the same work would be the same list.
class Sharing final : public Bare {
 public:
  Kernel bind(const ops::Peg& /*op*/) const override { return with(table_); }
  Kernel bind(const ops::AddPosition& /*op*/) const override { return with(table(2)); }

 private:
  static Kernel with(std::shared_ptr<const GeometryTable> table) {
    Kernel kernel;
    kernel.table = std::move(table);
    return kernel;
  }
  static std::shared_ptr<const GeometryTable> table(int value) {
    return std::make_shared<const GeometryTable>(GeometryTable{
        .bytes = [](const TokenLayout&) { return size_t{100}; },
        .fill = [value](const TokenLayout&,
                        std::span<std::byte> bytes) { std::ranges::fill(bytes, static_cast<std::byte>(value)); }});
  }
  std::shared_ptr<const GeometryTable> table_ = table(1);
};

TEST(Plan, SharesTablesBetweenKernels) {
  Graph graph;
  ValueId x = graph.add("embed", ops::PatchEmbed{shape_only({8, 1, 2, 2}), shape_only({8}), {}});
  x = graph.add("peg", ops::Peg{shape_only({8, 1, 3, 3}), shape_only({8})}, {x});
  x = graph.add("position", ops::AddPosition{{}, 8}, {x});
  x = graph.add("another peg", ops::Peg{shape_only({8, 1, 3, 3}), shape_only({8})}, {x});
  graph.set_output("x", x);
  Runner runner(std::make_shared<const Executable>(graph, std::make_unique<Sharing>()));
  const std::vector<ImageSize> sizes{{4, 6}};
  const std::vector<std::string> wanted{"x"};
  const Plan& plan = runner.plan(sizes, wanted);
  EXPECT_EQ(plan.table_bytes, 256U);
  EXPECT_EQ(plan.table_offset, (std::vector<size_t>{0, 0, 128, 0}));
  EXPECT_EQ(plan.tables.get()[99], std::byte{1});
  EXPECT_EQ(plan.tables.get()[128 + 99], std::byte{2});
}

}  // namespace
}  // namespace cpvt
