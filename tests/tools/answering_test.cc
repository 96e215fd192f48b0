#include "tools/cpvt/answering.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/engine/random_graph.h"
#include "tests/engine/stamp_backend.h"

namespace cpvt::cli {
namespace {

using testing::ElementsAre;

/// 1 KiB a token, patches of 4.
Graph small_graph() {
  Graph graph;
  const ValueId x = graph.add("embed", ops::PatchEmbed{shape_only({256, 3, 4, 4}), shape_only({256}), std::nullopt});
  graph.set_output("features", x);
  graph.set_output("logits", graph.add("pool", ops::Pool{ops::Pool::Kind::kMean, 256}, {x}));
  return graph;
}

/// What a device heard, and what came out: each input's number, and its error or grid.
struct Course {
  std::vector<std::string> heard;
  std::vector<std::string> answers;
};

struct Case {
  std::vector<ImageSize> sizes;
  int batch = 1;
  int runners = 2;
  size_t memory = size_t{1} << 30;
  size_t limit = 0;
  std::function<void(const std::string&)> hear = [](const std::string&) {};
};

/// Sizes without pixels stand for inputs that could not be read.
Course course(const Case& c) {
  Course course;
  StampTurns turns{.runners = c.runners, .hear = [&](const std::string& event) {
                     course.heard.push_back(event);
                     c.hear(event);
                   }};
  const Graph graph = small_graph();
  const Batching batching{
      .executable = std::make_shared<const Executable>(graph, make_stamp_backend(graph, c.memory, turns)),
      .memory_limit = c.limit,
      .patch = 4,
      .batch = c.batch};
  size_t begun = 0;
  const auto next = [&]() -> std::optional<Input> {
    if (begun == c.sizes.size()) return std::nullopt;
    Input input;
    input.index = begun;
    input.name = fmt::format("image {}", begun);
    input.view.size = c.sizes[begun++];
    if (input.view.size.height == 0) input.error = input.name + ": cannot be read";
    return input;
  };
  const auto receive = [&](const Answer& answer) {
    course.answers.push_back(answer.error.empty()
                                 ? fmt::format("{}: {}x{}", answer.input.index, answer.grid.height, answer.grid.width)
                                 : fmt::format("{}: {}", answer.input.index, answer.error));
    EXPECT_EQ(answer.logits.size(), answer.error.empty() ? 256U : 0U);
  };
  answer_all(batching, next, receive);
  return course;
}

TEST(Answering, BeginsABatchWhileTheOneBeforeIsUnderWay) {
  const Course c = course({.sizes = {{4, 4}, {8, 4}, {4, 8}, {8, 8}, {12, 4}}, .batch = 2});
  EXPECT_THAT(c.heard,
              ElementsAre("1 begins 2 images", "2 begins 2 images", "1 ends", "1 begins 1 images", "2 ends", "1 ends"));
  EXPECT_THAT(c.answers, ElementsAre("0: 1x1", "1: 2x1", "2: 1x2", "3: 2x2", "4: 3x1"));
}

TEST(Answering, EndsABatchBeforeTheNextWithOneRunner) {
  const std::vector<ImageSize> sizes{{4, 4}, {8, 4}};
  const auto in_turn = ElementsAre("1 begins 1 images", "1 ends", "1 begins 1 images", "1 ends");
  EXPECT_THAT(course({.sizes = sizes, .runners = 1}).heard, in_turn);
  // Two runners would need twice the memory that was allowed.
  EXPECT_THAT(course({.sizes = sizes, .limit = size_t{1} << 20}).heard, in_turn);
}

TEST(Answering, KeepsTheOrderAroundInputsThatFail) {
  const Course c = course({.sizes = {{4, 4}, {0, 0}, {2, 4}, {4, 8}, {0, 0}}});
  EXPECT_THAT(c.answers, ElementsAre("0: 1x1", "1: image 1: cannot be read",
                                     "2: image 2: image of 2x4 pixels: expected at least one patch of 4x4", "3: 1x2",
                                     "4: image 4: cannot be read"));
}

// Room for one large image at a time: the other runner's memory is given up for it.
TEST(Answering, GoesOnAloneWhereMemoryHoldsOneBatch) {
  const Course c = course({.sizes = {{40, 40}, {40, 44}, {40, 40}}, .memory = size_t{300} << 10});
  EXPECT_THAT(c.answers, ElementsAre("0: 10x10", "1: 10x11", "2: 10x10"));
  EXPECT_EQ(c.heard.size(), 6U);
  const Course none = course({.sizes = {{40, 40}, {400, 40}, {40, 40}}, .memory = size_t{300} << 10});
  EXPECT_EQ(none.answers[0], "0: 10x10");
  EXPECT_THAT(none.answers[1], testing::HasSubstr("1 images, 1000 tokens: needs"));
  EXPECT_EQ(none.answers[2], "2: 10x10");
}

// What fails under way is tried again, in halves, and the batch behind it is not lost.
TEST(Answering, AnswersWhatFailedUnderWay) {
  int failures = 0;
  const auto fail_first = [&](const std::string& event) {
    if (event == "1 ends" && failures++ < 2) throw Error("the device stumbled");
  };
  const Course c = course({.sizes = {{4, 4}, {8, 4}, {4, 8}, {8, 8}}, .batch = 2, .hear = fail_first});
  EXPECT_THAT(c.answers, ElementsAre("0: 1x1", "1: 2x1", "2: 1x2", "3: 2x2"));
  EXPECT_EQ(failures, 4);  // the batch twice, its halves once each
}

TEST(Answering, NamesWhatAlwaysFails) {
  const auto fail = [](const std::string& event) {
    if (event.ends_with("ends")) throw Error("the device is gone");
  };
  const Course c = course({.sizes = {{4, 4}, {8, 4}, {4, 8}}, .batch = 2, .hear = fail});
  EXPECT_THAT(c.answers, ElementsAre("0: image 0: the device is gone", "1: image 1: the device is gone",
                                     "2: image 2: the device is gone"));
}

}  // namespace
}  // namespace cpvt::cli
