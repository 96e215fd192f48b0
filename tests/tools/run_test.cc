// `cpvt run` and `cpvt features`: tensors out, bit for bit the same whatever the batch.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "tests/tools/fixtures.h"
#include "tests/tools/process.h"
#include "weights/safetensors.h"

namespace cpvt {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kClasses = 7;
constexpr int kWidth = 32;

struct Values {
  std::vector<int64_t> shape;
  std::vector<float> data;

  bool operator==(const Values&) const = default;
};

std::map<std::string, Values> read_tensors(const std::string& path) {
  const SafetensorsFile file(path);
  std::map<std::string, Values> tensors;
  for (const auto& [name, entry] : file.entries()) {
    const Tensor tensor = file.load(name);
    tensors[name] = {tensor.shape, {tensor.data.get(), tensor.data.get() + tensor.size()}};
  }
  return tensors;
}

void write_tensors(const std::string& path, const std::map<std::string, Values>& tensors) {
  std::vector<NamedTensor> named;
  for (const auto& [name, values] : tensors) named.push_back({name, values.shape, values.data.data()});
  write_safetensors(path, named);
}

Values noise(std::vector<int64_t> shape, uint32_t seed = 1) {
  const auto count = static_cast<size_t>(element_count(shape));
  return {std::move(shape), random_floats(count, seed)};
}

/// Images of a batch, one after the other in one tensor.
Values part(const Values& values, int64_t index) {
  std::vector<int64_t> shape = values.shape;
  const int64_t count = element_count(shape) / shape[0];
  shape[0] = 1;
  return {shape, {values.data.begin() + index * count, values.data.begin() + (index + 1) * count}};
}

class Run : public testing::Test {
 protected:
  Run() { write_model(model); }

  Outcome run(const std::map<std::string, Values>& input, const std::vector<std::string>& flags = {}) const {
    write_tensors(scratch / "in.safetensors", input);
    std::vector<std::string> words{"run", model, scratch / "in.safetensors", "-o", out};
    words.insert(words.end(), flags.begin(), flags.end());
    return run_cpvt(words);
  }

  std::map<std::string, Values> results(const std::map<std::string, Values>& input,
                                        const std::vector<std::string>& flags = {}) const {
    const Outcome outcome = run(input, flags);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
    return read_tensors(out);
  }

  ScratchFolder scratch;
  std::string model = scratch / "model";
  std::string out = scratch / "out.safetensors";
};

TEST_F(Run, WritesWhatWasAskedFor) {
  auto plain = results({{"input", noise({2, 3, 20, 33})}});
  ASSERT_EQ(plain.size(), 1U);
  EXPECT_THAT(plain["logits"].shape, ElementsAre(2, kClasses));

  auto with_features = results({{"input", noise({2, 3, 20, 33})}}, {"--features"});
  ASSERT_EQ(with_features.size(), 2U);
  EXPECT_EQ(with_features["logits"], plain["logits"]);
  EXPECT_THAT(with_features["features"].shape, ElementsAre(2, 5 * 8, kWidth));
}

TEST_F(Run, FeaturesBeginWithTheClassToken) {
  json config = tiny_config();
  config["global_pool"] = "token";
  write_model(model, config);
  auto tensors = results({{"input", noise({1, 3, 8, 12})}}, {"--features"});
  EXPECT_THAT(tensors["features"].shape, ElementsAre(1, 1 + 2 * 3, kWidth));
}

TEST_F(Run, ARaggedBatchIsEachImageAlone) {
  std::map<std::string, Values> ragged;
  std::vector<Values> images;
  for (int i = 0; i < 11; ++i) {
    images.push_back(noise({1, 3, 4 + 9 * i, 70 - 5 * i}, static_cast<uint32_t>(i)));
    ragged[fmt::format("input.{}", i)] = images.back();
  }
  ragged["input.3"].shape.erase(ragged["input.3"].shape.begin());  // [C, H, W] will do as well
  const auto together = results(ragged, {"--features"});
  EXPECT_THAT(together.at("logits").shape, ElementsAre(11, kClasses));
  EXPECT_EQ(together.size(), 1U + 2 * images.size());
  for (int i = 0; i < 11; ++i) {
    const auto alone = results({{"input", images[static_cast<size_t>(i)]}}, {"--features"});
    EXPECT_EQ(together.at(fmt::format("features.{}", i)), alone.at("features")) << i;
    EXPECT_EQ(together.at(fmt::format("logits.{}", i)), alone.at("logits")) << i;
    EXPECT_EQ(part(together.at("logits"), i), alone.at("logits")) << i;
  }
  for (const char* batch : {"1", "3", "64"}) EXPECT_EQ(results(ragged, {"--features", "--batch", batch}), together);
}

TEST_F(Run, ABatchIsEachImageAloneHoweverItIsCut) {
  const Values input = noise({9, 3, 16, 24});
  const auto together = results({{"input", input}}, {"--features"});
  for (const char* batch : {"1", "2", "100"}) {
    EXPECT_EQ(results({{"input", input}}, {"--features", "--batch", batch}), together) << batch;
  }
  const auto alone = results({{"input", part(input, 5)}}, {"--features"});
  EXPECT_EQ(part(together.at("features"), 5), alone.at("features"));
  EXPECT_EQ(part(together.at("logits"), 5), alone.at("logits"));
}

TEST_F(Run, PadIsZerosRightAndBelow) {
  const Values input = noise({1, 3, 5, 9});
  Values padded{{1, 3, 8, 12}, std::vector<float>(3 * 8 * 12)};
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < 5; ++y) std::copy_n(&input.data[(c * 5 + y) * 9], 9, &padded.data[(c * 8 + y) * 12]);
  }
  EXPECT_EQ(results({{"input", input}}, {"--policy", "pad"}), results({{"input", padded}}));
  EXPECT_NE(results({{"input", input}}), results({{"input", padded}}));
}

TEST_F(Run, PadNeedsAPixel) {
  EXPECT_EQ(results({{"input", noise({2, 3, 3, 1})}}, {"--policy", "pad"}).at("logits").shape[0], 2);
  const Outcome outcome = run({{"input", noise({1 << 30, 3, 0, 8})}}, {"--policy", "pad"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("'input': images of 0x8 pixels: expected at least 1x1"));
}

TEST_F(Run, AnImageThatFailsLeavesTheOthersAnswered) {
  const std::map<std::string, Values> input{{"input.0", noise({3, 8, 8}, 1)},
                                            {"input.1", noise({3, 2, 8}, 2)},
                                            {"input.2", noise({3, 12, 8}, 3)},
                                            {"input.3", noise({3, 8, 0}, 4)}};
  const Outcome outcome = run(input, {"--features"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(
      lines_of(outcome.err),
      ElementsAre(
          testing::EndsWith("in.safetensors: input.1: image of 2x8 pixels: expected at least one patch of 4x4"),
          testing::EndsWith("in.safetensors: input.3: image of 8x0 pixels: expected at least one patch of 4x4")));
  const auto some = read_tensors(out);
  const auto all = results({{"input.0", input.at("input.0")}, {"input.1", input.at("input.2")}}, {"--features"});
  EXPECT_EQ(some.size(), 4U) << "no rows of logits that could be taken for other images";
  EXPECT_EQ(some.at("logits.0"), all.at("logits.0"));
  EXPECT_EQ(some.at("logits.2"), all.at("logits.1"));
  EXPECT_EQ(some.at("features.2"), all.at("features.1"));
}

TEST_F(Run, WithoutAnAnswerThereIsNoFile) {
  const Outcome outcome = run({{"input.0", noise({3, 2, 8})}});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("out.safetensors: not written, for want of an answer"));
  EXPECT_THAT(scratch.names(), ElementsAre("in.safetensors", "model"));
}

TEST_F(Run, NotANumberPassesThroughStaysInItsImageAndIsSaid) {
  Values input = noise({2, 3, 8, 8});
  const auto clean = results({{"input", input}});
  input.data[0] = std::numeric_limits<float>::quiet_NaN();
  const Outcome outcome = run({{"input", input}});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, testing::EndsWith("input[0]: the network's logits are not finite: written as they came\n"));
  EXPECT_EQ(lines_of(outcome.err).size(), 1U);
  const auto tensors = read_tensors(out);
  EXPECT_TRUE(std::isnan(tensors.at("logits").data[0]));
  EXPECT_EQ(part(tensors.at("logits"), 1), part(clean.at("logits"), 1));
}

TEST_F(Run, TensorsNeedNoPreprocessing) {
  json config = tiny_config();
  config.erase("pretrained_cfg");
  write_model(model, config);
  EXPECT_EQ(results({{"input", noise({1, 3, 8, 8})}}).size(), 1U);
}

TEST_F(Run, HalfPrecisionInputs) {
  // 1.0 and -0.5 as F16, over a [1, 3, 4, 4]; the same as F32.
  std::string halves;
  Values floats{{1, 3, 4, 4}, {}};
  for (int i = 0; i < 48; ++i) {
    halves += i % 3 == 0 ? std::string("\x00\x3c", 2) : std::string("\x00\xb8", 2);
    floats.data.push_back(i % 3 == 0 ? 1.0F : -0.5F);
  }
  std::string header = R"({"input":{"dtype":"F16","shape":[1,3,4,4],"data_offsets":[0,96]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string length(8, '\0');
  length[0] = static_cast<char>(header.size());
  write_text(scratch / "half.safetensors", length + header + halves);
  const Outcome outcome = run_cpvt({"run", model, scratch / "half.safetensors", "-o", scratch / "half.out"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_tensors(scratch / "half.out"), results({{"input", floats}}));
}

struct WrongInput {
  std::map<std::string, std::vector<int64_t>> shapes;
  const char* message;
};

void PrintTo(const WrongInput& wrong, std::ostream* out) {
  for (const auto& [name, shape] : wrong.shapes) *out << name << ' ' << shape_text(shape) << ' ';
}

class RunWrong : public Run, public testing::WithParamInterface<WrongInput> {};

TEST_P(RunWrong, IsToldAndWritesNothing) {
  std::map<std::string, Values> input;
  for (const auto& [name, shape] : GetParam().shapes) input[name] = noise(shape);
  const Outcome outcome = run(input);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("in.safetensors: "));
  EXPECT_THAT(outcome.err, HasSubstr(GetParam().message));
  EXPECT_THAT(scratch.names(), ElementsAre("in.safetensors", "model"));
}

INSTANTIATE_TEST_SUITE_P(
    Inputs, RunWrong,
    testing::Values(
        WrongInput{{}, "expected 'input', or 'input.0', 'input.1' and so on without gaps, found no tensor"},
        WrongInput{{{"pixels", {1, 3, 8, 8}}}, "found 'pixels'"},
        WrongInput{{{"input", {1, 3, 8, 8}}, {"input.0", {1, 3, 8, 8}}}, "found 'input.0' beside 'input'"},
        WrongInput{{{"input.0", {1, 3, 8, 8}}, {"input.2", {1, 3, 8, 8}}}, "found 'input.2'"},
        WrongInput{{{"input.1", {1, 3, 8, 8}}}, "found 'input.1'"},
        WrongInput{{{"input.00", {1, 3, 8, 8}}}, "found 'input.00'"},
        WrongInput{{{"input", {1, 4, 8, 8}}}, "'input': expected [B, 3, H, W], found [1, 4, 8, 8]"},
        WrongInput{{{"input", {3, 8, 8}}}, "'input': expected [B, 3, H, W], found [3, 8, 8]"},
        WrongInput{{{"input", {0, 3, 8, 8}}}, "'input': expected [B, 3, H, W], found [0, 3, 8, 8]"},
        WrongInput{{{"input", {}}}, "'input': expected [B, 3, H, W], found []"},
        WrongInput{{{"input.0", {2, 3, 8, 8}}}, "'input.0': expected [3, H, W] or [1, 3, H, W], found [2, 3, 8, 8]"},
        WrongInput{{{"input", {1, 3, 8, 0}}}, "'input': images of 8x0 pixels: expected at least 4x4"},
        WrongInput{{{"input", {1, 3, 3, 8}}}, "'input': images of 3x8 pixels: expected at least 4x4"},
        WrongInput{{{"input", {68'719'476'736, 3, 0, 0}}}, "'input': images of 0x0 pixels: expected at least 4x4"},
        WrongInput{{{"input", {68'719'476'736, 3, 0, 8}}}, "'input': images of 0x8 pixels: expected at least 4x4"},
        WrongInput{{{"input", {1, 3, 0, 99'999'999'999}}}, "expected sides of at most 1048576"}));

TEST_F(Run, AnUnreadableInputIsTold) {
  write_text(scratch / "in", "too short");
  for (const std::string& input : {scratch / "in", scratch / "missing", scratch.path().string()}) {
    const Outcome outcome = run_cpvt({"run", model, input, "-o", out});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.err, HasSubstr(input + ": "));
  }
  EXPECT_THAT(scratch.names(), ElementsAre("in", "model"));
}

TEST_F(Run, AnOutputThatCannotBeWrittenIsToldBeforeTheWork) {
  write_tensors(scratch / "in.safetensors", {{"input", noise({1, 3, 8, 8})}});
  const auto told = [&](const std::string& output, const std::string& message) {
    const Outcome outcome = run_cpvt({"run", model, scratch / "in.safetensors", "-o", output});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.err, HasSubstr(output + ": " + message));
  };
  told(scratch / "missing/out", "cannot write: there is no such folder");
  told(scratch.path(), "expected the name of a file to write, found a folder");
  EXPECT_EQ(run_cpvt({"run", model, scratch / "in.safetensors", "-o", ""}).err,
            "cpvt: --output: expected the name of a file to write, found ''\n");
  told("/dev/null", "expected the name of a file to write, found a device");
  told("/proc/out", "cannot");
  EXPECT_THAT(scratch.names(), ElementsAre("in.safetensors", "model"));
}

TEST_F(Run, AnOutputReplacesNothingThatItIsMadeFrom) {
  const std::string input = scratch / "in.safetensors";
  write_tensors(input, {{"input", noise({1, 3, 8, 8})}});
  std::filesystem::create_symlink(input, scratch / "link");
  const std::string weights = model + "/model.safetensors";
  for (const std::string& target : {input, scratch / "link", weights, model + "/config.json"}) {
    const std::string before = read_text(target);
    const Outcome outcome = run_cpvt({"run", model, input, "-o", target});
    EXPECT_EQ(outcome.code, 2) << target;
    EXPECT_EQ(outcome.err, "cpvt: " + target + ": cannot write: the output would replace what it is made from\n");
    EXPECT_EQ(read_text(target), before) << target;
  }
  const std::string picture = scratch / "picture.png";
  write_text(picture, png_text({32, 32}, 1));
  EXPECT_THAT(run_cpvt({"features", model, picture, "-o", picture}).err, HasSubstr("would replace"));
}

TEST_F(Run, WhatDoesNotFitIsRefusedWithItsFigure) {
  const Outcome outcome = run({{"input", noise({1, 3, 64, 64})}}, {"--memory-limit", "100K"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err,
              testing::ContainsRegex("input\\[0\\]: 1 images, 256 tokens: needs [0-9.]+ MiB .*the limit is 0.1 MiB"));
}

class Features : public Run {
 protected:
  std::string picture(const std::string& name, ImageSize size, uint32_t seed = 1) const {
    write_text(scratch / name, png_text(size, seed));
    return scratch / name;
  }

  Outcome features(std::vector<std::string> words) const {
    words.insert(words.begin(), {"features", model, "-o", out});
    return run_cpvt(words);
  }
};

TEST_F(Features, OfOneSizeAreOneTensor) {
  const Outcome outcome = features({picture("a.png", {32, 32}), picture("b.png", {50, 40}, 2)});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, IsEmpty());
  const auto tensors = read_tensors(out);
  EXPECT_EQ(tensors.size(), 2U);
  EXPECT_THAT(tensors.at("logits").shape, ElementsAre(2, kClasses));
  EXPECT_THAT(tensors.at("features").shape, ElementsAre(2, 64, kWidth));
  const auto metadata = SafetensorsFile(out).metadata();
  EXPECT_EQ(json::parse(metadata.at("images")), json({scratch / "a.png", scratch / "b.png"}));
  EXPECT_EQ(json::parse(metadata.at("sizes")), json({{32, 32}, {32, 32}}));
  EXPECT_EQ(json::parse(metadata.at("grids")), json({{8, 8}, {8, 8}}));
}

TEST_F(Features, OfManySizesHaveATensorEachAndFailuresNone) {
  const Outcome outcome =
      features({picture("a.png", {32, 20}), scratch / "missing.png", picture("b.png", {9, 40}, 2), "--size", "native"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("missing.png"));
  const auto tensors = read_tensors(out);
  EXPECT_THAT(tensors.at("logits").shape, ElementsAre(2, kClasses));
  EXPECT_THAT(tensors.at("features.0").shape, ElementsAre(1, 8 * 5, kWidth));
  EXPECT_THAT(tensors.at("features.1").shape, ElementsAre(1, 2 * 10, kWidth));
  const auto metadata = SafetensorsFile(out).metadata();
  EXPECT_EQ(json::parse(metadata.at("images")), json({scratch / "a.png", scratch / "b.png"}));
  EXPECT_EQ(json::parse(metadata.at("grids")), json({{8, 5}, {2, 10}}));
}

TEST_F(Features, AgreeWithClassify) {
  const std::string image = picture("a.png", {32, 20});
  ASSERT_EQ(features({image}).code, 0);
  const std::vector<float> logits = read_tensors(out).at("logits").data;
  const json topk = json::parse(run_cpvt({"classify", model, image, "--json"}).out)["topk"];
  const auto largest = std::max_element(logits.begin(), logits.end());
  EXPECT_EQ(topk[0]["index"], largest - logits.begin());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - *largest);
  EXPECT_NEAR(topk[0]["probability"], 1 / sum, 1e-12);
}

TEST_F(Features, WithoutAPictureThereIsNoFile) {
  const Outcome outcome = features({scratch / "missing.png"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("out.safetensors: not written, for want of a picture"));
  EXPECT_THAT(scratch.names(), ElementsAre("model"));
}

}  // namespace
}  // namespace cpvt
