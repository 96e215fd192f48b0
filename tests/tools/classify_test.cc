#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <thread>

#include "tests/tools/fixtures.h"
#include "tests/tools/process.h"

namespace cpvt {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::vector<json> objects_of(const std::string& text) {
  std::vector<json> objects;
  for (const std::string& line : lines_of(text)) objects.push_back(json::parse(line));
  return objects;
}

std::vector<std::string> keys_of(const json& object) {
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  return keys;
}

class Classify : public testing::Test {
 protected:
  Classify() { write_model(model); }

  std::string picture(const std::string& name, ImageSize size, uint32_t seed = 1) {
    write_text(scratch / name, png_text(size, seed));
    return scratch / name;
  }

  /// classify MODEL WORDS... --json
  Outcome classify(std::vector<std::string> words, const Surroundings& surroundings = {}) const {
    words.insert(words.begin(), {"classify", model, "--json"});
    return run_cpvt(words, surroundings);
  }

  ScratchFolder scratch;
  std::string model = scratch / "model";
};

TEST_F(Classify, JsonHasTheContractsShape) {
  const std::string image = picture("a.png", {40, 50});
  const Outcome outcome = classify({image, "--topk", "3"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, IsEmpty());
  const std::vector<json> objects = objects_of(outcome.out);
  ASSERT_EQ(objects.size(), 1U);
  EXPECT_THAT(keys_of(objects[0]), ElementsAre("image", "size", "topk"));
  EXPECT_EQ(objects[0]["image"], image);
  EXPECT_EQ(objects[0]["size"], json({32, 32}));
  ASSERT_EQ(objects[0]["topk"].size(), 3U);
  double last = 1;
  for (const json& entry : objects[0]["topk"]) {
    EXPECT_THAT(keys_of(entry), ElementsAre("index", "label", "probability"));
    EXPECT_EQ(entry["label"], fmt::format("class {}", entry["index"].get<int>()));
    EXPECT_LE(entry["probability"], last);
    last = entry["probability"];
  }
  EXPECT_THAT(outcome.out, StartsWith(R"({"image":)"));
}

TEST_F(Classify, ProbabilitiesOfAllClassesAddUpToOne) {
  const Outcome outcome = classify({picture("a.png", {32, 32}), "--topk", "1000"});
  const json topk = objects_of(outcome.out).at(0)["topk"];
  EXPECT_EQ(topk.size(), 7U) << "there are no more classes";
  double sum = 0;
  for (const json& entry : topk) sum += entry["probability"].get<double>();
  EXPECT_NEAR(sum, 1, 1e-12);
}

TEST_F(Classify, ALinePerImageAndLabel) {
  const Outcome outcome =
      run_cpvt({"classify", model, picture("a.png", {32, 32}), picture("longer.png", {32, 32}, 2), "--topk", "2"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 4U);
  for (const std::string& line : lines)
    EXPECT_THAT(line, testing::ContainsRegex("png +[0-9]+\\.[0-9][0-9] %  class [0-6]$"));
  EXPECT_THAT(lines[0], StartsWith(scratch / "a.png"));
  EXPECT_THAT(lines[3], StartsWith(scratch / "longer.png"));
}

TEST_F(Classify, WithoutLabelNamesTheIndexIsTheLabel) {
  json config = tiny_config();
  config.erase("label_names");
  write_model(model, config);
  const json topk = objects_of(classify({picture("a.png", {32, 32})}).out).at(0)["topk"];
  EXPECT_EQ(topk.size(), 5U);
  for (const json& entry : topk) {
    EXPECT_EQ(entry["label"], std::to_string(entry["index"].get<int>()));
  }
}

TEST_F(Classify, AFailureLeavesTheOthersAnsweredInTheirOrder) {
  const std::string first = picture("first.png", {20, 30});
  const std::string small = picture("small.png", {3, 30});
  const std::string last = picture("last.png", {64, 33}, 2);
  write_text(scratch / "broken.png", png_text({32, 32}, 1).substr(0, 200));
  write_text(scratch / "text.png", "not a picture");
  write_text(scratch / "empty.png", "");
  std::filesystem::create_directory(scratch / "folder");
  const std::vector<std::string> names{first, scratch / "missing.png", scratch / "broken.png", scratch / "text.png",
                                       small, scratch / "empty.png",   scratch / "folder",     last};
  std::vector<std::string> words = names;
  words.insert(words.end(), {"--size", "native"});
  const Outcome outcome = classify(words);
  EXPECT_EQ(outcome.code, 1);
  const std::vector<json> objects = objects_of(outcome.out);
  ASSERT_EQ(objects.size(), names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(objects[i]["image"], names[i]);
    if (i == 0 || i == names.size() - 1) {
      EXPECT_TRUE(objects[i].contains("topk")) << objects[i];
    } else {
      EXPECT_THAT(keys_of(objects[i]), ElementsAre("error", "image"));
      EXPECT_THAT(objects[i]["error"].get<std::string>(), StartsWith(names[i]));
      EXPECT_THAT(outcome.err, HasSubstr(objects[i]["error"].get<std::string>()));
    }
  }
  EXPECT_EQ(objects[0]["size"], json({20, 30}));
  EXPECT_THAT(objects[1]["error"].get<std::string>(), HasSubstr("No such file"));
  EXPECT_THAT(objects[4]["error"].get<std::string>(), HasSubstr("3x30 pixels: expected at least one patch of 4x4"));
  EXPECT_THAT(objects[6]["error"].get<std::string>(), HasSubstr("expected a picture, found a folder"));

  const Outcome all_failed = classify({scratch / "missing.png"});
  EXPECT_EQ(all_failed.code, 1);
}

TEST_F(Classify, TheSizeThatTheNetworkGets) {
  const std::string image = picture("a.png", {30, 41});
  const auto size = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> words{image};
    words.insert(words.end(), flags.begin(), flags.end());
    const Outcome outcome = classify(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return objects_of(outcome.out).at(0)["size"];
  };
  EXPECT_EQ(size({}), json({32, 32}));
  EXPECT_EQ(size({"--size", "20"}), json({20, 20}));
  EXPECT_EQ(size({"--size", "20x37"}), json({20, 37}));
  EXPECT_EQ(size({"--size", "native"}), json({30, 41}));
  EXPECT_EQ(size({"--size", "native", "--policy", "pad"}), json({32, 44}));
  EXPECT_EQ(size({"--size", "native", "--policy", "resize"}), json({32, 40}));
  EXPECT_EQ(size({"--size", "21", "--policy", "pad"}), json({24, 24}));
}

TEST_F(Classify, NeitherBatchNorThreadsChangeABit) {
  std::vector<std::string> words{"--size", "native", "--topk", "7"};
  for (uint32_t i = 0; i < 12; ++i) {
    words.push_back(picture(fmt::format("{}.png", i), {static_cast<int>(5 + 7 * i), static_cast<int>(90 - 6 * i)}, i));
  }
  const Outcome reference = classify(words);
  ASSERT_EQ(reference.code, 0) << reference.err;
  for (const std::vector<std::string>& flags : std::vector<std::vector<std::string>>{
           {"--batch", "1"}, {"--batch", "5"}, {"--batch", "100"}, {"--threads", "1"}, {"--threads", "3"}}) {
    std::vector<std::string> other = words;
    other.insert(other.end(), flags.begin(), flags.end());
    EXPECT_EQ(classify(other).out, reference.out) << flags[0] << ' ' << flags[1];
  }
}

TEST_F(Classify, StandardInputAndPipes) {
  const std::string image = picture("a.png", {32, 32});
  const json topk = objects_of(classify({image}).out).at(0)["topk"];

  const Outcome from_stdin = classify({"-"}, {.input = read_text(image)});
  EXPECT_EQ(from_stdin.code, 0) << from_stdin.err;
  EXPECT_EQ(objects_of(from_stdin.out).at(0), (json{{"image", "-"}, {"size", {32, 32}}, {"topk", topk}}));
  EXPECT_THAT(objects_of(classify({"-"}).out).at(0)["error"].get<std::string>(), StartsWith("standard input: "));

  const std::string fifo = scratch / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  std::thread writer([&] { write_text(fifo, read_text(image)); });
  const Outcome from_fifo = classify({fifo});
  writer.join();
  EXPECT_EQ(objects_of(from_fifo.out).at(0)["topk"], topk) << from_fifo.err;
}

TEST_F(Classify, WhatIsNoStreamOfAPicture) {
  const Outcome endless = classify({"/dev/zero"});
  EXPECT_EQ(endless.code, 1);
  EXPECT_EQ(endless.err, "cpvt: /dev/zero: expected a picture of at most 512.0 MiB, found no end\n");
  const Outcome folder = classify({"-"}, {.input_path = scratch.path()});
  EXPECT_EQ(folder.code, 1);
  EXPECT_EQ(folder.err, "cpvt: standard input: cannot be read: Is a directory\n");
}

TEST_F(Classify, AFullOrClosedStdoutIsNoSuccess) {
  const std::string image = picture("a.png", {32, 32});
  const Outcome full = classify({image}, {.output = "/dev/full"});
  EXPECT_EQ(full.code, 2);
  EXPECT_EQ(full.err, "cpvt: cannot write to standard output: No space left on device\n");
  const Outcome closed = classify({image}, {.output = "closed"});
  EXPECT_EQ(closed.code, 2);
  EXPECT_EQ(closed.err, "cpvt: cannot write to standard output: Bad file descriptor\n");
}

TEST_F(Classify, TheMemoryLimitIsKnownBeforeTheRun) {
  const std::string image = picture("a.png", {32, 32});
  const Outcome weights = classify({image, "--memory-limit", "10K"});
  EXPECT_EQ(weights.code, 2);
  EXPECT_THAT(weights.out, IsEmpty());
  EXPECT_EQ(weights.err,
            fmt::format("cpvt: {}: needs at least 0.1 MiB for the weights in fp32, the limit is 10240 bytes\n", model));
  const Outcome refused = classify({image, "--memory-limit", "100K"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.out, IsEmpty());
  EXPECT_THAT(refused.err, testing::ContainsRegex("needs [0-9.]+ MiB \\(weights [0-9.]+, arena [0-9.]+, tables"));

  // With sizes of their own, it is only the large one that does not fit; and a batch of two is cut to fit.
  const std::string large = picture("large.png", {88, 88});
  const json memory = json::parse(run_cpvt({"info", model, "--size", "64", "--json"}).out)["memory_bytes"];
  const Outcome outcome = classify({image, large, picture("b.png", {64, 64}), picture("c.png", {64, 64}), "--size",
                                    "native", "--batch", "4", "--memory-limit", memory["total"].dump()});
  EXPECT_EQ(outcome.code, 1);
  const std::vector<json> objects = objects_of(outcome.out);
  ASSERT_EQ(objects.size(), 4U);
  EXPECT_TRUE(objects[0].contains("topk"));
  EXPECT_THAT(objects[1]["error"].get<std::string>(), StartsWith(large + ": 1 images, 484 tokens: needs "));
  EXPECT_TRUE(objects[2].contains("topk"));
  EXPECT_TRUE(objects[3].contains("topk"));

  // What cannot fit whatever its batch is not even prepared: 22500 tokens of 128 bytes beside the weights.
  const Outcome huge = classify({picture("huge.png", {600, 600}), "--size", "native", "--memory-limit", "2M"});
  EXPECT_EQ(huge.code, 1);
  // 22,500 tokens of 128 bytes are 2.75 MiB; the rest are weights, which pack by the processor's vectors.
  EXPECT_THAT(huge.err,
              testing::ContainsRegex("huge.png: 600x600 pixels: needs at least 2\\.[89] MiB, the limit is 2\\.0 MiB"));
}

// However little memory there is: an answer or an error, never a hang, a signal or a silent end.
TEST_F(Classify, ThreadsThatTheSystemHasNotAreAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs all addresses";
#endif
  std::vector<std::string> words;
  for (uint32_t i = 0; i < 40; ++i) words.push_back(picture(fmt::format("{}.png", i), {32, 32}, i));
  words.insert(words.end(), {"--device", "cpu", "--threads", "8"});
  constexpr size_t kMebibyte = 1 << 20;
  int refused = 0;
  for (size_t limit = 60; limit <= 900; limit += 30) {
    const Outcome outcome = classify(words, {.address_space = limit * kMebibyte});
    EXPECT_EQ(outcome.signal, 0) << limit << " MiB: " << outcome.err;
    EXPECT_TRUE(outcome.code == 0 || !outcome.err.empty()) << limit;
    if (outcome.err.find("cannot start thread ") != std::string::npos) {
      EXPECT_EQ(outcome.code, 2) << outcome.err;
      EXPECT_THAT(outcome.out, IsEmpty());
      ++refused;
    }
  }
  EXPECT_GE(refused, 1);
  words.back() = "1024";
  const Outcome many = classify(words, {.address_space = 2000 * kMebibyte});
  EXPECT_EQ(many.code, 2);
  EXPECT_THAT(many.err, testing::ContainsRegex("cannot start thread [0-9]+ of 1024: "));
}

TEST_F(Classify, MaxPixels) {
  const std::string image = picture("a.png", {32, 32});
  EXPECT_EQ(classify({image, "--max-pixels", "1024"}).code, 0);
  const Outcome refused = classify({image, "--max-pixels", "1023"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("1023"));
}

TEST_F(Classify, AModelWhoseInputsAreNoPicturesIsWrongUsage) {
  json config = tiny_config();
  config["in_chans"] = 5;
  config["pretrained_cfg"] = {{"input_size", {5, 32, 32}}, {"mean", {0, 0, 0, 0, 0}}, {"std", {1, 1, 1, 1, 1}}};
  write_model(model, config);
  const Outcome outcome = classify({picture("a.png", {32, 32})});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("the model takes 5 channels; pictures have 3, or 1 in grey"));
}

TEST_F(Classify, AModelThatDoesNotTellHowPicturesArePreparedIsWrongUsage) {
  const std::string image = picture("a.png", {32, 32});
  const auto told = [&](const json& changes, const std::vector<std::string>& flags, const std::string& keys) {
    json config = tiny_config();
    config.update(changes);
    write_model(model, config);
    std::vector<std::string> words{image};
    words.insert(words.end(), flags.begin(), flags.end());
    const Outcome outcome = classify(words);
    EXPECT_EQ(outcome.code, keys.empty() ? 0 : 2) << outcome.err;
    EXPECT_THAT(outcome.err, keys.empty() ? testing::HasSubstr("") : HasSubstr(keys));
  };
  const std::string missing = ": the configuration misses key";
  const std::string tail = " of pretrained_cfg, which tells how pictures are prepared: ";
  json images = tiny_config()["pretrained_cfg"];
  for (const char* key : {"mean", "std", "interpolation", "crop_pct", "input_size"}) {
    json others = images;
    others.erase(key);
    told({{"pretrained_cfg", others}}, {}, missing + tail + key);
  }
  // Only what is read of it.
  told({{"pretrained_cfg", {{"mean", {0}}, {"std", {1}}}}}, {"--size", "native"}, "");
  told({{"pretrained_cfg", {{"mean", {0}}, {"std", {1}}}}}, {"--size", "native", "--policy", "resize"},
       missing + tail + "interpolation");
  told({{"pretrained_cfg", {{"mean", {0}}, {"std", {1}}}}}, {"--size", "20"},
       missing + "s" + tail + "interpolation, crop_pct");
  // Grey too: there are no mean and std to fall back on.
  told({{"in_chans", 1}, {"pretrained_cfg", {{"input_size", {1, 32, 32}}}}}, {},
       missing + "s" + tail + "mean, std, interpolation, crop_pct");
}

TEST_F(Classify, AnEmptyNameIsNamed) {
  const Outcome outcome = classify({""});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "cpvt: '': expected the name of a picture, found an empty one\n");
}

TEST_F(Classify, NamesAreTakenAsTheyAreTyped) {
  const std::vector<std::string> names{"[a,b]", "{}", "a,b", "%%", "[]", "x=y", "[a", "b]"};
  for (const std::string& name : names) picture(name, {32, 32});
  const Outcome outcome = classify(names, {.folder = scratch.path()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<json> objects = objects_of(outcome.out);
  ASSERT_EQ(objects.size(), names.size());
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(objects[i]["image"], names[i]);
  EXPECT_EQ(classify({"{}"}, {.folder = scratch.path()}).code, 0);
}

TEST_F(Classify, NamesDoNotSteerTheTerminal) {
  json config = tiny_config();
  for (json& label : config["label_names"]) label = "one\ntwo\x1b[31m";
  write_model(model, config);
  const Outcome outcome =
      run_cpvt({"classify", model, picture("a.png", {32, 32}), scratch / "no\x1b[2J", "--topk", "2"});
  EXPECT_EQ(lines_of(outcome.out).size(), 2U);
  EXPECT_THAT(outcome.out, HasSubstr("  one\\x0atwo\\x1b[31m\n"));
  EXPECT_THAT(outcome.err, HasSubstr("/no\\x1b[2J: cannot open"));
}

TEST_F(Classify, AFileNameThatIsNoUtf8StillMakesJson) {
  const std::string image = picture("caf\xe9.png", {32, 32});
  const Outcome outcome = classify({image});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(objects_of(outcome.out).at(0)["image"].get<std::string>(), HasSubstr("caf\xef\xbf\xbd.png"));
}

}  // namespace
}  // namespace cpvt
