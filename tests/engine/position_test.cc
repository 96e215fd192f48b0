#include "engine/position.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

#include "tests/engine/comparison.h"
#include "tests/engine/error_text.h"
#include "tests/engine/random_graph.h"
#include "weights/safetensors.h"

namespace cpvt {
namespace {

const SafetensorsFile& goldens() {
  static const SafetensorsFile file(CPVT_TEST_DATA "/models/positions.safetensors");
  return file;
}

/// "learned.7.13x3" -> 7, 13, 3.
std::array<int64_t, 3> numbers(const std::string& name) {
  char* at = nullptr;
  const int64_t first = std::strtol(name.c_str() + name.find('.') + 1, &at, 10);
  const int64_t height = std::strtol(at + 1, &at, 10);
  return {first, height, std::strtol(at + 1, &at, 10)};
}

std::span<const float> values(const Tensor& tensor) { return {tensor.data.get(), static_cast<size_t>(tensor.size())}; }

TEST(Position, EqualsTimm) {
  std::map<std::string, double> worst;
  int cases = 0;
  for (const auto& [name, entry] : goldens().entries()) {
    if (name.ends_with("table")) continue;
    const std::string kind = name.substr(0, name.find('.'));
    const auto [first, height, width] = numbers(name);
    const Tensor expected = goldens().load(name);
    ops::AddPosition op{std::nullopt, expected.shape[1]};
    if (kind == "learned") op.learned = goldens().load(fmt::format("learned.{}.table", first));
    const std::vector<float> got = position_rows(op, TokenGrid{0, height, width, 0});
    const double error = relative_error(got, values(expected));
    worst[kind] = std::max(worst[kind], error);
    EXPECT_LE(error, 2e-6) << name;
    ++cases;
  }
  EXPECT_EQ(cases, 4 * 8 + 6);
  std::printf("worst error: learned %.1e, sines and cosines %.1e\n", worst["learned"], worst["sincos"]);
}

TEST(Position, KeepsTheTableOnItsOwnGridBitForBit) {
  Random random(3);
  const ops::AddPosition op{random_tensor(random, {1, 1 + 49, 5}), 5};
  EXPECT_TRUE(same_bits(position_rows(op, {0, 7, 7, 1}), values(*op.learned)));
}

TEST(Position, TreatsTheClassTokenApart) {
  Random random(4);
  const Tensor with = random_tensor(random, {1, 1 + 49, 8});
  const Tensor without{{1, 49, 8}, std::shared_ptr<const float[]>(with.data, with.data.get() + 8)};
  for (const auto& [height, width] : {std::pair{7, 7}, {5, 12}, {1, 1}}) {
    const std::vector<float> rows = position_rows({with, 8}, {0, height, width, 1});
    ASSERT_EQ(rows.size(), static_cast<size_t>((1 + height * width) * 8));
    EXPECT_TRUE(same_bits(std::span(rows).first(8), values(with).first(8)));
    EXPECT_TRUE(same_bits(std::span(rows).subspan(8), position_rows({without, 8}, {0, height, width, 0})));

    const std::vector<float> waves = position_rows({{}, 8}, {0, height, width, 1});
    EXPECT_TRUE(same_bits(std::span(waves).first(8), std::vector<float>(8, 0.0F)));
    EXPECT_TRUE(same_bits(std::span(waves).subspan(8), position_rows({{}, 8}, {0, height, width, 0})));
  }
}

// A constant stays what it is wherever it is resampled to: weights sum to one at the border too.
TEST(Position, ResamplesAConstantToItself) {
  const Tensor table{{1, 9, 1}, std::shared_ptr<const float[]>(new float[9]{2, 2, 2, 2, 2, 2, 2, 2, 2})};
  const std::vector<float> rows = position_rows({table, 1}, {0, 4, 17, 0});
  EXPECT_LE(relative_error(rows, std::vector<float>(68, 2.0F)), 2e-7);
}

TEST(Position, RefusesATableThatIsNoSquare) {
  const ops::AddPosition op{shape_only({1, 1 + 48, 8}), 8};
  EXPECT_EQ(error_text([&] {
              position_rows(op, {0, 6, 8, 1});
            }),
            "pos_embed: expected a square training grid, found 48 patch rows");
  const ops::AddPosition empty{shape_only({1, 1, 8}), 8};
  EXPECT_EQ(error_text([&] {
              position_rows(empty, {0, 1, 1, 1});
            }),
            "pos_embed: expected a square training grid, found 0 patch rows");
}

}  // namespace
}  // namespace cpvt
