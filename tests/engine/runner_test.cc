#include "engine/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/engine/error_text.h"
#include "tests/engine/random_graph.h"
#include "tests/engine/stamp_backend.h"

namespace cpvt {
namespace {

/// Tokens of width 256 with positions, and a mean: 1 KiB a token.
Graph small_graph() {
  Graph graph;
  ValueId x = graph.add("embed", ops::PatchEmbed{shape_only({256, 3, 4, 4}), shape_only({256}), std::nullopt});
  x = graph.add("position", ops::AddPosition{std::nullopt, 256}, {x});
  graph.set_output("tokens", x);
  graph.set_output("mean", graph.add("pool", ops::Pool{ops::Pool::Kind::kMean, 256}, {x}));
  return graph;
}

std::shared_ptr<const Executable> small_executable(size_t memory = size_t{1} << 30) {
  const Graph graph = small_graph();
  return std::make_shared<const Executable>(graph, make_stamp_backend(graph, memory));
}

const std::vector<std::string> kMean{"mean"};
const std::vector<std::string> kBoth{"tokens", "mean"};

/// Runs without pixels, which stamp kernels do not look at.
void run(Runner& runner, const std::vector<ImageSize>& sizes, const std::vector<std::string>& wanted) {
  std::vector<ImageView> images;
  images.reserve(sizes.size());
  for (const ImageSize size : sizes) images.push_back({nullptr, size});
  runner.run(images, wanted);
}

TEST(Runner, GivesWhatWasAskedFor) {
  Runner runner(small_executable());
  run(runner, {{8, 9}, {4, 4}}, kBoth);
  EXPECT_EQ(runner.output("tokens").size(), 5U * 256);
  EXPECT_EQ(runner.output("mean").size(), 2U * 256);
  EXPECT_EQ(runner.layout().rows, 5);
  run(runner, {{4, 4}}, kMean);
  EXPECT_EQ(runner.output("mean").size(), 256U);
  EXPECT_EQ(runner.layout().rows, 1);
}

TEST(Runner, RefusesBatchesByName) {
  Runner runner(small_executable());
  EXPECT_EQ(error_text([&] { run(runner, {}, kMean); }), "expected at least one image in a batch, found none");
  EXPECT_EQ(error_text([&] {
              run(runner, {{8, 8}, {3, 8}}, kMean);
            }),
            "image of 3x8 pixels: expected at least one patch of 4x4");
  EXPECT_EQ(error_text([&] { run(runner, {{8, 8}}, {"logits"}); }), "no output 'logits': the model has mean, tokens");
  run(runner, {{8, 8}}, kMean);  // and goes on
  EXPECT_EQ(runner.output("mean").size(), 256U);
}

TEST(Runner, RefusesOutputsThatWereNotMade) {
  Runner runner(small_executable());
  EXPECT_EQ(error_text([&] { runner.output("mean"); }), "there are no results: no run has come to its end");
  run(runner, {{8, 8}}, kMean);
  EXPECT_EQ(error_text([&] { runner.output("logits"); }), "no output 'logits': the model has mean, tokens");
  EXPECT_EQ(error_text([&] { runner.output("tokens"); }), "output 'tokens' was not asked for in the last run");
}

TEST(Runner, RefusesPixelsThatItCannotTake) {
  Runner runner(small_executable());
  const uint8_t byte = 0;
  const std::vector<ImageView> bytes{{nullptr, {4, 4}, &byte}};
  EXPECT_EQ(error_text([&] { runner.run(bytes, kMean); }),
            "the model does not tell mean and std: expected normalised floats, found bytes");
  const std::vector<ImageView> both{{nullptr, {4, 4}}, {nullptr, {4, 4}, &byte}};
  EXPECT_EQ(error_text([&] { runner.run(both, kMean); }), "expected a batch of floats or of bytes, found both");
  run(runner, {{8, 8}}, kMean);  // and goes on
  EXPECT_EQ(runner.output("mean").size(), 256U);
}

TEST(Runner, RunsInTwoSteps) {
  Runner runner(small_executable());
  const std::vector<ImageView> images{{nullptr, {8, 9}}, {nullptr, {4, 4}}};
  EXPECT_EQ(error_text([&] { runner.wait(); }), "no batch is under way: expected start() before wait()");
  runner.start(images, kBoth);
  EXPECT_EQ(error_text([&] { runner.output("mean"); }), "there are no results: no run has come to its end");
  const std::string busy = "a batch is under way: expected wait() before the next";
  EXPECT_EQ(error_text([&] { runner.start(images, kBoth); }), busy);
  EXPECT_EQ(error_text([&] { run(runner, {{8, 8}}, kMean); }), busy);
  runner.wait();
  EXPECT_EQ(runner.output("tokens").size(), 5U * 256);
  EXPECT_EQ(error_text([&] { runner.wait(); }), "no batch is under way: expected start() before wait()");
  EXPECT_EQ(runner.output("mean").size(), 2U * 256);
}

TEST(Runner, EndsWhatItBegan) {
  std::vector<std::string> heard;
  bool fails = false;
  const auto executable = [&] {
    StampTurns turns{.hear = [&](const std::string& event) {
      heard.push_back(event);
      if (fails && event.ends_with("ends")) throw Error("the device is gone");
    }};
    const Graph graph = small_graph();
    return std::make_shared<const Executable>(graph, make_stamp_backend(graph, size_t{1} << 30, turns));
  }();
  const std::vector<ImageView> images{{nullptr, {8, 9}}};
  Runner(executable).start(images, kMean);  // goes without a wait
  EXPECT_EQ(heard, (std::vector<std::string>{"1 begins 1 images", "1 ends"}));
  fails = true;
  Runner(executable).start(images, kMean);
  Runner runner(executable);
  runner.start(images, kMean);
  EXPECT_EQ(error_text([&] { runner.wait(); }), "the device is gone");
  EXPECT_EQ(error_text([&] { runner.output("mean"); }), "there are no results: no run has come to its end");
  fails = false;
  runner.run(images, kMean);  // and goes on
  EXPECT_EQ(runner.output("mean").size(), 256U);
}

// Planning another batch must not make the last run's results look like that batch's.
TEST(Runner, KeepsTheLastRunWhilePlanning) {
  Runner runner(small_executable());
  run(runner, {{8, 8}}, kMean);
  const std::vector<ImageSize> other{{4, 12}, {40, 40}};
  runner.plan(other, kBoth);
  EXPECT_EQ(runner.output("mean").size(), 256U);
  EXPECT_EQ(runner.layout().rows, 4);
  EXPECT_EQ(error_text([&] { runner.output("tokens"); }), "output 'tokens' was not asked for in the last run");
}

// A run that is refused leaves no results that could be taken for its own.
TEST(Runner, KeepsNothingOfARefusedRun) {
  Runner runner(small_executable());
  run(runner, {{8, 8}}, kMean);
  EXPECT_NE(error_text([&] { run(runner, {{2, 2}}, kMean); }), "");
  EXPECT_EQ(error_text([&] { runner.output("mean"); }), "there are no results: no run has come to its end");
}

TEST(Runner, RefusesWhatWouldNotFitWithTheFigures) {
  const std::vector<ImageSize> sizes{{8, 8}};
  size_t needed = 0;
  {
    Runner runner(small_executable());
    needed = runner.plan(sizes, kMean).bytes();
  }
  EXPECT_NO_THROW(Runner(small_executable(), needed).plan(sizes, kMean));
  Runner tight(small_executable(), needed - 1);
  EXPECT_NE(error_text([&] { tight.plan(sizes, kMean); }), "");

  // 1 KiB a token each for the rows and their positions, and 14 floats a token of the last kernel's workspace.
  Runner runner(small_executable(), 1 << 20);
  const std::vector<ImageSize> large{{400, 400}, {40, 80}};
  EXPECT_EQ(error_text([&] { runner.plan(large, kMean); }),
            "2 images, 10200 tokens: needs 20.5 MiB (weights 0.0, arena 10.5, tables 10.0), the limit is 1.0 MiB");
  run(runner, sizes, kMean);  // and goes on

  Runner without_limit(small_executable(1 << 20));
  EXPECT_EQ(error_text([&] { without_limit.plan(large, kMean); }),
            "2 images, 10200 tokens: needs 20.5 MiB (weights 0.0, arena 10.5, tables 10.0), there are 1.0 MiB");
}

// What others took between the plan and its run is seen again by the next attempt, and told with the figures.
TEST(Runner, ForgetsAPlanWhoseArenaCannotBeHad) {
  const std::vector<ImageSize> small{{40, 40}};
  const std::vector<ImageSize> large{{400, 400}};
  size_t needed = 0;
  {
    Runner runner(small_executable());
    needed = runner.plan(large, kMean).bytes();
  }
  const auto executable = small_executable(needed + (1 << 20));
  Runner runner(executable);
  run(runner, small, kMean);
  const size_t tables = runner.plan(small, kMean).table_bytes;
  runner.plan(large, kMean);
  {
    std::vector<std::unique_ptr<Runner>> others;  // whose arenas leave less than the large one needs
    for (int i = 0; i < 5; ++i) {
      others.push_back(std::make_unique<Runner>(executable));
      run(*others.back(), {{200, 200}}, kMean);
    }
    EXPECT_THAT(error_text([&] { run(runner, large, kMean); }), testing::StartsWith("stamp device: no room"));
    const std::string free = fmt::format(", there are {}", bytes_text(executable->backend().free_memory() + tables));
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(error_text([&] { run(runner, large, kMean); }), testing::EndsWith(free))
          << "of this runner's, the small plan's tables, which would make room";
    }
    run(runner, small, kMean);  // and goes on
  }
  run(runner, large, kMean);
}

// Tables of earlier geometries go before a new one is refused.
TEST(Runner, CountsItsCachedTablesAsFree) {
  const std::vector<ImageSize> large{{40, 40}};
  size_t needed = 0;
  {
    Runner runner(small_executable());
    needed = runner.plan(large, kMean).bytes();
  }
  Runner runner(small_executable(), needed);  // to the byte
  for (int side = 1; side <= 8; ++side) run(runner, {{4, 4 * side}}, kMean);
  EXPECT_NO_THROW(run(runner, large, kMean));
}

// The arena that a runner already has is memory that it may use.
TEST(Runner, CountsItsOwnArenaAsFree) {
  const std::vector<ImageSize> large{{40, 40}};
  size_t arena = 0;
  {
    Runner runner(small_executable());
    arena = runner.plan(large, kMean).arena_bytes;
  }
  Runner runner(small_executable(arena * 5 / 2));  // room for the arena and the rows, not for a second arena
  run(runner, large, kMean);
  for (int side = 1; side <= 20; ++side) run(runner, {{4, 4 * side}}, kMean);  // until the large plan is forgotten
  EXPECT_NO_THROW(run(runner, large, kMean));
}

// Tables of remembered plans are memory too.
TEST(Runner, StaysUnderItsLimitWhileRememberingPlans) {
  const size_t limit = 100 << 10;
  Runner runner(small_executable(), limit);
  std::vector<std::pair<std::weak_ptr<const std::byte>, size_t>> tables;
  for (int side = 1; side <= 16; ++side) {
    const std::vector<ImageSize> sizes{{4, 4 * side}};
    run(runner, sizes, kMean);
    const Plan& plan = runner.plan(sizes, kMean);
    tables.emplace_back(plan.tables, plan.table_bytes);
    size_t held = plan.arena_bytes;
    for (const auto& [table, bytes] : tables) {
      if (!table.expired()) held += bytes;
    }
    EXPECT_LE(held, limit) << side;
  }
}

// A stream of recurring sizes plans each but once.
TEST(Runner, RemembersPlans) {
  Runner runner(small_executable());
  const std::vector<ImageSize> a{{8, 8}};
  const std::vector<ImageSize> b{{12, 8}};
  const Plan* first = &runner.plan(a, kBoth);
  runner.plan(b, kBoth);
  EXPECT_EQ(&runner.plan(a, kBoth), first);
  EXPECT_NE(&runner.plan(a, kMean), first);  // other outputs, other lifetimes
  const std::vector<std::string> turned{"mean", "tokens"};
  EXPECT_EQ(&runner.plan(a, turned), first);  // the same ones
  const std::vector<ImageSize> same_grid{{11, 10}};
  EXPECT_EQ(&runner.plan(same_grid, kBoth), first);  // pixels that no patch reads
}

}  // namespace
}  // namespace cpvt
