// What a person meets before anything is computed: help, wrong words, wrong values, wrong models.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/fixtures.h"
#include "tests/tools/process.h"
#include "weights/safetensors.h"

namespace cpvt {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(Usage, WithoutACommandListsThem) {
  const Outcome outcome = run_cpvt({});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr("expected a command: info, classify, run, features, eval, bench"));
}

TEST(Usage, AnUnknownCommandListsThem) {
  for (const char* name : {"clasify", "profile", "attention", "sweep"}) {
    const Outcome outcome = run_cpvt({name, "model"});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(outcome.err,
              fmt::format("cpvt: no command '{}'; there are info, classify, run, features, eval, bench\n", name));
  }
}

TEST(Usage, HelpIsAResult) {
  for (const char* command : {"", "info", "classify", "run", "features", "eval", "bench"}) {
    std::vector<std::string> words{command, "--help"};
    if (words.front().empty()) words.erase(words.begin());
    const Outcome outcome = run_cpvt(words);
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_THAT(outcome.out, HasSubstr("Usage: cpvt")) << command;
    EXPECT_THAT(outcome.err, IsEmpty()) << command;
  }
  const Outcome version = run_cpvt({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

struct WrongWords {
  std::vector<std::string> words;
  const char* message;
};

void PrintTo(const WrongWords& wrong, std::ostream* out) {
  *out << "cpvt";
  for (const std::string& word : wrong.words) *out << ' ' << word;
}

class Wrong : public testing::TestWithParam<WrongWords> {};

TEST_P(Wrong, IsToldAndExitsWithTwo) {
  const Outcome outcome = run_cpvt(GetParam().words);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr(GetParam().message));
  EXPECT_EQ(lines_of(outcome.err).size(), 1U) << outcome.err;
}

// None of these comes as far as looking for the model.
INSTANTIATE_TEST_SUITE_P(
    Words, Wrong,
    testing::Values(
        WrongWords{{"classify"}, "cpvt classify: MODEL is required; cpvt classify --help says more"},
        WrongWords{{"classify", "m"}, "IMAGE is required"},
        WrongWords{{"--foo"}, "cpvt: not expected: --foo; cpvt --help says more"},
        WrongWords{{"classify", "--foo"}, "cpvt classify: not expected: --foo; cpvt classify --help says more"},
        WrongWords{{"run", "m", "i", "-o", "o", "--size", "28"}, "not expected: --size 28"},
        WrongWords{{"run", "m", "i", "-o", "-"}, "--output: expected the name of a file to write, found -"},
        WrongWords{{"run", "m", "-", "-o", "o"}, "IN: expected a file, found -"},
        WrongWords{{"classify", "m", "-", "i", "-"}, "cpvt classify: IMAGE: expected - once, found it 2 times"},
        WrongWords{{"features", "m", "-", "-", "-", "-o", "o"}, "cpvt features: IMAGE: expected - once, found it 3"},
        WrongWords{{"run", "m", "in.safetensors"}, "--output is required"},
        WrongWords{{"info", "m", "--nonsense"}, "--nonsense"}, WrongWords{{"info", "m", "extra"}, "extra"},
        WrongWords{{"classify", "m", "i", "--topk", "0"},
                   "--topk: expected a whole number from 1 to 2147483647, found '0'"},
        WrongWords{{"classify", "m", "i", "--topk", "five"},
                   "--topk: expected a whole number from 1 to 2147483647, found 'five'"},
        WrongWords{{"classify", "m", "i", "--topk", "99999999999999999999"}, "--topk: expected"},
        WrongWords{{"classify", "m", "i", "--size", "x"},
                   "--size: expected native, N or HxW, in pixels from 1 to 65535"},
        WrongWords{{"classify", "m", "i", "--size", "224x"}, "found '224x'"},
        WrongWords{{"classify", "m", "i", "--size", "224x224x3"}, "found '224x224x3'"},
        WrongWords{{"classify", "m", "i", "--size", "0"}, "found '0'"},
        WrongWords{{"classify", "m", "i", "--size=-5"}, "found '-5'"},
        WrongWords{{"classify", "m", "i", "--size", "70000"}, "found '70000'"},
        WrongWords{{"info", "m", "--size", "native"},
                   "--size: expected N or HxW, in pixels from 1 to 65535, found 'native'"},
        WrongWords{{"classify", "m", "i", "--policy", "crop"}, "--policy: expected floor, pad or resize, found 'crop'"},
        WrongWords{{"run", "m", "i", "-o", "o", "--policy", "resize"},
                   "--policy: expected floor or pad (tensors are not"},
        WrongWords{{"classify", "m", "i", "--batch", "0"},
                   "--batch: expected a whole number from 1 to 65536, found '0'"},
        WrongWords{{"classify", "m", "i", "--threads", "0"}, "--threads: expected a whole number from 1 to 1024"},
        WrongWords{{"classify", "m", "i", "--max-pixels", "0"},
                   "--max-pixels: expected a whole number from 1 to 2^63 - 1, found '0'"},
        WrongWords{{"classify", "m", "i", "--memory-limit", "5T"}, "--memory-limit: expected a number of bytes from 1"},
        WrongWords{{"classify", "m", "i", "--memory-limit", "M"}, "found 'M'"},
        WrongWords{{"classify", "m", "i", "--memory-limit", "0"}, "found '0'"},
        WrongWords{{"classify", "m", "i", "--memory-limit", "9999999999999G"}, "found '9999999999999G'"},
        WrongWords{{"classify", "m", "i", "--device", "gpu"}, "--device: expected cpu, cuda, sim or auto, found 'gpu'"},
        WrongWords{{"info", "m", "--device", "sim", "--dtype", "int8"}, "dtype int8: devices cuda and sim have fp32, fp16 and bf16"},
        WrongWords{{"classify", "m", "i", "--dtype", "fp8"}, "--dtype: expected fp32, bf16, fp16 or int8, found 'fp8'"},
        WrongWords{{"bench", "m", "--device", "cpu", "--dtype", "bf16"},
                   "dtype bf16: device cpu has fp32 only, so far"},
        WrongWords{{"classify", "m", "i", "--gemm", "cublas"}, "--gemm: expected own or cublaslt, found 'cublas'"},
        WrongWords{{"bench", "m", "--device", "cpu", "--gemm", "cublaslt"},
                   "cpvt: gemm cublaslt: expected device cuda, found cpu"},
        WrongWords{{"bench", "m", "--device", "sim", "--gemm", "cublaslt"},
                   "cpvt: gemm cublaslt: expected device cuda, found sim"},
        WrongWords{{"bench", "m", "--repetitions", "0"}, "--repetitions: expected a whole number from 1"},
        WrongWords{{"bench", "m", "--seed=-1"}, "--seed: expected a whole number from 0"},
        WrongWords{{"classify", "m", "i", "--seed", "x"}, "--seed: expected a whole number from 0"},
        WrongWords{{"info", "m", "-v", "-q"}, "excludes"}, WrongWords{{"info", "/no/such/model"}, "/no/such/model"}));

TEST(Usage, AutoSaysTheDeviceOnlyWhenAsked) {
  const ScratchFolder scratch;
  write_model(scratch.path());
  const Outcome quiet = run_cpvt({"info", scratch.path()});
  EXPECT_EQ(quiet.code, 0) << quiet.err;
  EXPECT_THAT(quiet.err, IsEmpty());
  const Outcome verbose = run_cpvt({"info", scratch.path(), "-v"});
  EXPECT_THAT(verbose.err, HasSubstr("note: device auto: cpu"));
  EXPECT_THAT(run_cpvt({"info", scratch.path(), "-v", "--device", "cpu"}).err, Not(HasSubstr("device auto")));
}

TEST(Usage, EveryCommandTakesTheCommonFlags) {
  const std::vector<std::string> common{"--device",       "cpu", "--dtype", "fp32", "--threads", "1",
                                        "--memory-limit", "1G",  "--batch", "1",    "--policy",  "floor",
                                        "--seed",         "7",   "-q"};
  const ScratchFolder scratch;
  write_model(scratch.path() / "model");
  const std::string model = scratch / "model";
  const std::string picture = scratch / "pictures/class 0/a.png";
  std::filesystem::create_directories(scratch.path() / "pictures/class 0");
  write_text(picture, png_text({32, 32}, 1));
  const std::vector<float> pixels = random_floats(3 * 8 * 8, 1);
  write_safetensors(scratch / "in.safetensors", std::vector<NamedTensor>{{"input", {1, 3, 8, 8}, pixels.data()}}, {});
  for (std::vector<std::string> words : {std::vector<std::string>{"info", model},
                                         {"classify", model, picture},
                                         {"run", model, scratch / "in.safetensors", "-o", scratch / "out.safetensors"},
                                         {"features", model, picture, "-o", scratch / "out.safetensors"},
                                         {"eval", model, scratch / "pictures"},
                                         {"bench", model, "--repetitions", "1"}}) {
    const std::string command = words.front();
    words.insert(words.end(), common.begin(), common.end());
    const Outcome outcome = run_cpvt(words);
    EXPECT_EQ(outcome.code, 0) << command << ": " << outcome.err;
    EXPECT_THAT(outcome.err, IsEmpty()) << command;
  }
}

// Whether anybody hears it changes nothing of what is answered.
TEST(Usage, MessagesThatCannotBeWrittenAreNone) {
  const ScratchFolder scratch;
  write_model(scratch.path());
  write_text(scratch / "picture.png", png_text({32, 32}, 1));
  for (const char* error : {"/dev/full", "closed"}) {
    const Outcome outcome =
        run_cpvt({"classify", scratch.path(), scratch / "none.png", scratch / "picture.png", "-v"}, {.error = error});
    EXPECT_EQ(outcome.code, 1) << error << ", signal " << outcome.signal;
    EXPECT_EQ(lines_of(outcome.out).size(), 5U) << error;
    EXPECT_EQ(run_cpvt({"classify"}, {.error = error}).code, 2) << error;
  }
}

TEST(Usage, HelpThatCannotBeWrittenIsAFailure) {
  for (const char* word : {"--help", "--version"}) {
    const Outcome outcome = run_cpvt({word}, {.output = "/dev/full"});
    EXPECT_EQ(outcome.code, 2) << word;
    EXPECT_EQ(outcome.err, "cpvt: cannot write to standard output\n") << word;
  }
}

TEST(Usage, ASizeBelowAPatchIsNamed) {
  const ScratchFolder scratch;
  write_model(scratch.path());
  write_text(scratch / "picture.png", png_text({32, 32}, 1));
  const std::string model = scratch.path();
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"info", model}, {"bench", model}, {"classify", model, scratch / "picture.png"}}) {
    std::vector<std::string> with_size = words;
    with_size.insert(with_size.end(), {"--size", "3x40"});
    const Outcome outcome = run_cpvt(with_size);
    EXPECT_EQ(outcome.code, 2) << words[0];
    EXPECT_EQ(outcome.err, "cpvt: --size 3x40: expected at least one patch of 4x4 pixels\n") << words[0];
  }
}

TEST(Usage, ABrokenModelIsWrongUsage) {
  const ScratchFolder scratch;
  write_model(scratch.path());
  const std::string weights = scratch / "model.safetensors";
  write_text(weights, read_text(weights).substr(0, 1000));
  write_text(scratch / "picture.png", png_text({32, 32}, 1));
  const Outcome outcome = run_cpvt({"classify", scratch.path(), scratch / "picture.png"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("cpvt: "), HasSubstr(weights)));
}

TEST(Usage, AKeyThatTheConfigLacksIsNamed) {
  const ScratchFolder scratch;
  write_model(scratch.path());
  nlohmann::json config = tiny_config();
  config.erase("num_heads");
  write_text(scratch / "config.json", config.dump());
  const Outcome outcome = run_cpvt({"info", scratch.path()});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, fmt::format("cpvt: {}: missing key num_heads\n", scratch / "config.json"));
}

TEST(Usage, WhatABareWeightsFileLeavesOpenIsSaid) {
  const ScratchFolder scratch;
  nlohmann::json config = tiny_config();
  config["embed_dim"] = 64;
  write_model(scratch.path() / "model", config);
  const std::string weights = scratch / "weights.safetensors";
  std::filesystem::rename(scratch.path() / "model/model.safetensors", weights);
  const Outcome outcome = run_cpvt({"info", weights, "--device", "cpu"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* assumption :
       {"1 heads assumed: of 64 channels each", "PEG assumed to follow block 0", "img_size 224 assumed",
        "layer_norm_eps 1e-06 assumed", "pictures assumed to be prepared as ImageNet's: 224x224, bicubic, crop_pct 0.9",
        "mean 0.485 0.456 0.406, std 0.229 0.224 0.225 assumed: those of ImageNet"}) {
    EXPECT_THAT(outcome.err, HasSubstr(fmt::format("cpvt: warning: {}: {}\n", weights, assumption)));
  }
  EXPECT_EQ(lines_of(outcome.err).size(), 6U) << outcome.err;
  EXPECT_THAT(run_cpvt({"info", weights, "--device", "cpu", "-q"}).err, IsEmpty());
}

TEST(Usage, AWeightsFileTakesItsConfigFromTheFlag) {
  const ScratchFolder scratch;
  write_model(scratch.path() / "model");
  std::filesystem::rename(scratch.path() / "model/model.safetensors", scratch / "weights.safetensors");
  const Outcome outcome =
      run_cpvt({"info", scratch / "weights.safetensors", "--config", scratch / "model/config.json", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(nlohmann::json::parse(outcome.out)["num_heads"], 2);
}

}  // namespace
}  // namespace cpvt
