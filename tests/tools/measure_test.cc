// The commands that answer with figures: info, eval, bench.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/tools/fixtures.h"
#include "tests/tools/process.h"

namespace cpvt {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class Measure : public testing::Test {
 protected:
  Measure() { write_model(model); }

  json json_of(std::vector<std::string> words) const {
    words.emplace_back("--json");
    const Outcome outcome = run_cpvt(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, IsEmpty());
    return json::parse(outcome.out);
  }

  ScratchFolder scratch;
  std::string model = scratch / "model";
};

using Info = Measure;

TEST_F(Info, SaysWhatTheModelIs) {
  const Outcome outcome = run_cpvt({"info", model, "--size", "40x24"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("2 blocks, width 32, 2 heads of 16, MLP 64, patch 4x4, 3 channels"),
                                 HasSubstr("PEG 3x3 after block 0"), HasSubstr("mean over tokens (GAP)"),
                                 HasSubstr("7: class 0, class 1, class 2, class 3, …"), HasSubstr("40x24 pixels"),
                                 HasSubstr("60 = 1 x (10x6)"), HasSubstr("GFLOP"), HasSubstr("arena")));
}

TEST_F(Info, WithoutPreprocessingSaysSo) {
  json config = tiny_config();
  config.erase("pretrained_cfg");
  write_model(model, config);
  const Outcome outcome = run_cpvt({"info", model});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("no input_size, no interpolation, no crop_pct, no mean, no std"),
                                 HasSubstr("32x32 pixels, batch 1")));
}

TEST_F(Info, JsonOfTheModelsOwnSize) {
  const json info = json_of({"info", model});
  EXPECT_EQ(info["size"], json({32, 32}));
  EXPECT_EQ(info["tokens"], 64);
  EXPECT_EQ(info["peg"], json({{"after", {0}}, {"kernel", 3}}));
  // patch 32*48+32, PEG 32*9+32, two blocks of 4 vectors, qkv, proj, fc1, fc2, final norm, head
  EXPECT_EQ(info["parameters"], 1568 + 320 + 2 * (4 * 32 + 96 * 33 + 32 * 33 + 64 * 33 + 32 * 65) + 64 + 7 * 33);
  EXPECT_GT(info["flops"], 2 * 64 * info["parameters"].get<int64_t>() / 2);
  const json& memory = info["memory_bytes"];
  EXPECT_EQ(memory["total"],
            memory["weights"].get<int64_t>() + memory["arena"].get<int64_t>() + memory["tables"].get<int64_t>());
}

TEST_F(Info, SizePolicyAndBatch) {
  EXPECT_EQ(json_of({"info", model, "--size", "30x41"})["grid"], json({7, 10}));
  EXPECT_EQ(json_of({"info", model, "--size", "30x41", "--policy", "pad"})["size"], json({32, 44}));
  EXPECT_EQ(json_of({"info", model, "--size", "30x41", "--policy", "resize"})["size"], json({32, 40}));
  EXPECT_EQ(json_of({"info", model, "--batch", "5"})["tokens"], 5 * 64);
  EXPECT_EQ(json_of({"info", model, "--batch", "5"})["flops"], 5 * json_of({"info", model})["flops"].get<int64_t>());
  const Outcome tiny = run_cpvt({"info", model, "--size", "3x8"});
  EXPECT_EQ(tiny.code, 2);
  EXPECT_THAT(tiny.err, HasSubstr("--size 3x8: expected at least one patch of 4x4 pixels"));
}

TEST_F(Info, OperationsOfTheLargestSizes) {
  json config = tiny_config();
  config["patch_size"] = 1;
  write_model(model, config);
  EXPECT_GT(json_of({"info", model, "--size", "65535"})["flops"].get<double>(), 1e19);
  EXPECT_THAT(run_cpvt({"info", model, "--size", "65535"}).out,
              testing::ContainsRegex("operations +[0-9]+\\.[0-9]+ GFLOP"));
}

TEST_F(Info, HoldsTheMemoryLimit) {
  const auto total = json_of({"info", model})["memory_bytes"]["total"].get<int64_t>();
  EXPECT_EQ(run_cpvt({"info", model, "--memory-limit", std::to_string(total)}).code, 0);
  const Outcome refused = run_cpvt({"info", model, "--memory-limit", std::to_string(total - 1)});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("needs"));
}

class Eval : public Measure {
 protected:
  Eval() { std::filesystem::create_directory(folder); }

  /// Puts the picture into the folder that the model's own answer names, or into the next class's.
  void add(const std::string& name, uint32_t seed, int shift, const std::string& prefix = "class ") const {
    const std::string text = png_text({32, 32}, seed);
    write_text(scratch / "picture.png", text);
    const json answer = json::parse(run_cpvt({"classify", model, scratch / "picture.png", "--json"}).out);
    const int label = (answer["topk"][0]["index"].get<int>() + shift) % 7;
    const std::filesystem::path place = folder / (prefix + std::to_string(label));
    std::filesystem::create_directories(place);
    write_text(place / name, text);
  }

  std::filesystem::path folder = scratch.path() / "set";
};

TEST_F(Eval, MapsFoldersByTheirNames) {
  for (uint32_t i = 0; i < 6; ++i) add(fmt::format("{}.png", i), i, i < 4 ? 0 : 1);
  std::filesystem::create_directories(folder / "class 3");  // may be empty
  const json eval = json_of({"eval", model, folder});
  EXPECT_EQ(eval["images"], 6);
  EXPECT_NEAR(eval["top1"], 100 * 4 / 6.0, 1e-9);
  EXPECT_GE(eval["top5"], eval["top1"]);
  EXPECT_EQ(eval["failures"], json::array());

  const Outcome outcome = run_cpvt({"eval", model, folder, "--batch", "2"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("top-1 66.67 %"));
  EXPECT_THAT(outcome.err, IsEmpty()) << "no bar where stderr is no terminal";
}

TEST_F(Eval, MapsFoldersOfOtherNamesByTheirOrder) {
  for (int i = 0; i < 7; ++i) std::filesystem::create_directory(folder / fmt::format("{}-thing", i));
  for (int i = 0; i < 7; ++i) std::filesystem::create_directory(folder / fmt::format("{}-thing/deeper", i));
  for (uint32_t i = 0; i < 5; ++i) add(fmt::format("{}.PNG", i), i, 0, "tmp");
  for (int i = 0; i < 7; ++i) {
    const std::filesystem::path from = folder / fmt::format("tmp{}", i);
    if (std::filesystem::exists(from)) std::filesystem::rename(from, folder / fmt::format("{}-thing/deeper/x", i));
  }
  const json eval = json_of({"eval", model, folder});
  EXPECT_EQ(eval["images"], 5);
  EXPECT_EQ(eval["top1"], 100);
}

TEST_F(Eval, NamesWhatItCannotReadAndCountsTheRest) {
  for (uint32_t i = 0; i < 3; ++i) add(fmt::format("{}.png", i), i, 0);
  std::filesystem::create_directories(folder / "class 6");
  write_text(folder / "class 6/broken.jpg", "nothing");
  write_text(folder / "class 6/notes.txt", "not looked at");
  const Outcome outcome = run_cpvt({"eval", model, folder, "--json"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("broken.jpg: "), HasSubstr("left out 1 files"), HasSubstr("notes.txt"),
                                 HasSubstr("1 of 4 images failed and are not counted")));
  const json eval = json::parse(outcome.out);
  EXPECT_EQ(eval["images"], 3);
  EXPECT_EQ(eval["top1"], 100);
  EXPECT_EQ(eval["failures"][0]["image"], (folder / "class 6/broken.jpg").string());
}

TEST_F(Eval, APipeAmongThePicturesIsNotWaitedFor) {
  add("a.png", 1, 0);
  ASSERT_EQ(mkfifo((folder / "class 6.png").c_str(), 0600), 0);
  std::filesystem::create_directories(folder / "class 6");
  std::filesystem::rename(folder / "class 6.png", folder / "class 6/f.png");
  const Outcome outcome = run_cpvt({"eval", model, folder});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr((folder / "class 6/f.png").string() + ": expected a file, found a pipe"));
}

TEST_F(Eval, LinksInCirclesAreNamed) {
  add("a.png", 1, 0);
  std::filesystem::create_directories(folder / "class 6");
  std::filesystem::create_symlink("b.png", folder / "class 6/b.png");
  const Outcome picture = run_cpvt({"eval", model, folder});
  EXPECT_EQ(picture.code, 1);
  EXPECT_THAT(picture.err, HasSubstr((folder / "class 6/b.png").string() + ": cannot open: Too many levels"));
  std::filesystem::create_directory_symlink(".", folder / "class 6/again");
  const Outcome circle = run_cpvt({"eval", model, folder});
  EXPECT_EQ(circle.code, 2);
  EXPECT_THAT(circle.err,
              HasSubstr((folder / "class 6/again").string() + ": expected no link to a folder that it lies in"));
}

TEST_F(Eval, AFolderThatDoesNotFitTheModelIsTold) {
  const auto told = [&](const std::string& message) {
    const Outcome outcome = run_cpvt({"eval", model, folder});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, HasSubstr(message));
  };
  told("expected a folder per class, found no folder");
  std::filesystem::create_directory(folder / "class 1");
  told("expected pictures in its folders, found none");
  std::filesystem::create_directory(folder / "clas 2");
  told("1 of 2 folders have the name of a class, but not clas 2: expected all or none");
  std::filesystem::remove(folder / "class 1");
  told("expected 7 folders, one per class of the model, or folders with names of classes, found 1: clas 2");
  std::filesystem::remove_all(folder);
  told("cannot read this folder: No such file or directory");
}

using Bench = Measure;

TEST_F(Bench, MeasuresAndSaysHow) {
  const json bench =
      json_of({"bench", model, "--size", "16x24", "--batch", "3", "--repetitions", "7", "--threads", "1"});
  EXPECT_EQ(bench["size"], json({16, 24}));
  EXPECT_EQ(bench["batch"], 3);
  EXPECT_EQ(bench["tokens"], 3 * 24);
  EXPECT_EQ(bench["repetitions"], 7);
  EXPECT_EQ(bench["threads"], 1);
  const json& ms = bench["ms"];
  EXPECT_GT(ms["min"], 0);
  EXPECT_LE(ms["min"], ms["q1"]);
  EXPECT_LE(ms["q1"], ms["median"]);
  EXPECT_LE(ms["median"], ms["q3"]);
  EXPECT_LE(ms["q3"], ms["max"]);
  EXPECT_NEAR(bench["images_per_second"], 3e3 / ms["median"].get<double>(), 1e-6);
  EXPECT_NEAR(bench["gflop_per_second"], bench["flops"].get<double>() * 1e-6 / ms["median"].get<double>(), 1e-6);

  const Outcome table = run_cpvt({"bench", model, "--repetitions", "5"});
  EXPECT_THAT(table.out, AllOf(HasSubstr("32x32 pixels, batch 1, cpu fp32"), HasSubstr("median"), HasSubstr("images/s"),
                               HasSubstr("GFLOP/s")));
}

TEST_F(Bench, RefusesWhatDoesNotFit) {
  const Outcome outcome = run_cpvt({"bench", model, "--batch", "64", "--memory-limit", "100K"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("64 images, 4096 tokens: needs"));
}

}  // namespace
}  // namespace cpvt
