#include "weights/checkpoint.h"

#include <cmath>

#include "tests/weights/support.h"

namespace cpvt {
namespace {

namespace fs = std::filesystem;

const std::string kSmallJson = config_text(
    R"({"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 4, "in_chans": 1, "num_classes": 3, "img_size": 28})");

Config small() { return Config::parse(kSmallJson, "small"); }

class CheckpointTest : public FolderTest {
 protected:
  fs::path weights() const { return folder_ / "model.safetensors"; }

  /// The error of loading the folder with the small configuration.
  std::string error(const FakeModel& model) const {
    model.save(weights());
    write("config.json", kSmallJson);
    return error_of([&] { Checkpoint::load(folder_); }, weights());
  }
};

constexpr const char* kHeadline =
    "FILE: the tensors are not those of a 2-block model of 8 channels, pos_embed peg, with class token:";

TEST_F(CheckpointTest, LoadsAFolder) {
  FakeModel(small()).save(weights());
  write("config.json", kSmallJson);
  const Checkpoint checkpoint = Checkpoint::load(folder_);
  EXPECT_EQ(checkpoint.config().embed_dim, 8);
  EXPECT_TRUE(checkpoint.notes().empty());
  EXPECT_EQ(checkpoint.bytes_on_disk(), fs::file_size(weights()));
  int number = 0;
  int64_t parameters = 0;
  for (const TensorSpec& spec : cpvt_schema(small())) {
    const Tensor& tensor = checkpoint.tensor(spec.name);
    EXPECT_EQ(tensor.shape, spec.shape) << spec.name;
    EXPECT_EQ(tensor.data[tensor.size() - 1], static_cast<float>(number) + static_cast<float>(tensor.size() - 1) / 1024)
        << spec.name;
    parameters += tensor.size();
    ++number;
  }
  EXPECT_EQ(checkpoint.parameters(), parameters);
  checkpoint.drop_pages();
  EXPECT_EQ(checkpoint.tensor("patch_embed.proj.weight").data[1], 1.0F / 1024);
  EXPECT_EQ(error_of([&] { checkpoint.tensor("head"); }, weights()), "FILE: the model has no tensor named 'head'");
}

TEST_F(CheckpointTest, CopiesOutliveEachOtherAndTheFile) {
  FakeModel(small()).save(weights());
  write("config.json", kSmallJson);
  std::optional<Checkpoint> first = Checkpoint::load(folder_);
  const Checkpoint second = *first;
  const Tensor kept = first->tensor("norm.bias");
  first.reset();
  fs::remove_all(folder_);
  EXPECT_EQ(second.tensor("norm.bias").data.get(), kept.data.get());
  EXPECT_EQ(kept.data[0], second.tensor("norm.bias").data[0]);
}

class Spelling : public CheckpointTest, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(OfThePeg, Spelling,
                         testing::Values("pos_block.0.proj.0", "pos_block.0.proj", "blocks.0.peg", "blocks.0.peg.proj",
                                         "blocks.0.peg.proj.0", "peg", "peg.proj", "peg.proj.0"));

TEST_P(Spelling, IsFoundByItsCanonicalName) {
  const std::string module = GetParam();
  FakeModel model(small());
  model.rename("pos_block.0.proj.0.weight", module + ".weight");
  model.rename("pos_block.0.proj.0.bias", module + ".bias");
  EXPECT_EQ(error(model), "");
  const Checkpoint checkpoint = Checkpoint::load(folder_);
  EXPECT_EQ(checkpoint.tensor("pos_block.0.proj.0.weight").data[0], model.at(module + ".weight").data[0]);
  EXPECT_EQ(checkpoint.tensor("pos_block.0.proj.0.bias").data[0], model.at(module + ".bias").data[0]);
}

TEST_F(CheckpointTest, OneTensorInTwoSpellings) {
  FakeModel model(small());
  model.add("peg.bias", {8});
  EXPECT_EQ(error(model), std::string(kHeadline) +
                              "\n  tensor 'pos_block.0.proj.0.bias': expected one spelling, found "
                              "'pos_block.0.proj.0.bias' and 'peg.bias'");
}

TEST_F(CheckpointTest, TwoSpellingsOfOneConvolution) {
  FakeModel model(small());
  model.rename("pos_block.0.proj.0.bias", "peg.bias");
  EXPECT_EQ(error(model), std::string(kHeadline) +
                              "\n  tensor 'peg.bias': expected 'pos_block.0.proj.0.bias' beside "
                              "'pos_block.0.proj.0.weight', found 'peg.bias'");
}

TEST_F(CheckpointTest, EveryDifferenceIsTold) {
  FakeModel model(small());
  model.remove("norm.weight");
  model.remove("blocks.1.attn.qkv.bias");
  model.remove("pos_block.0.proj.0.bias");
  model.at("head.weight").shape = {8, 3};
  model.at("cls_token").shape = {8};
  model.add("head_dist.weight", {3, 8});
  EXPECT_EQ(error(model),
            std::string(kHeadline) +
                "\n  tensor 'cls_token': expected [1, 1, 8], found [8]"
                "\n  tensor 'head.weight': expected [3, 8], found [8, 3]"
                "\n  missing tensor 'blocks.1.attn.qkv.bias' [24] (a model without it is not supported: export zeros)"
                "\n  missing tensor 'pos_block.0.proj.0.bias' [8] (in any accepted spelling)"
                "\n  missing tensor 'norm.weight' [8]"
                "\n  unknown tensor 'head_dist.weight': F32 [3, 8]");
}

TEST_F(CheckpointTest, LongListsAreCut) {
  FakeModel model(small());
  for (int i = 0; i < 20; ++i) model.add(fmt::format("extra.{:02}", i), {});
  const std::string text = error(model);
  EXPECT_NE(text.find("\n  unknown tensor 'extra.07': F32 []\n  and 12 more unknown"), std::string::npos) << text;
  EXPECT_EQ(text.find("extra.08"), std::string::npos);
}

TEST_F(CheckpointTest, WrongType) {
  const FakeModel model(small());
  model.save(weights());
  std::ifstream in(weights(), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const auto at = bytes.find(R"("norm.weight":{"dtype":"F32")");
  bytes.replace(bytes.find("F32", at), 3, "I32");
  write("model.safetensors", bytes);
  write("config.json", kSmallJson);
  EXPECT_EQ(error_of([&] { Checkpoint::load(folder_); }, weights()),
            std::string(kHeadline) + "\n  tensor 'norm.weight': expected F32, F16, BF16 or F64, found I32");
}

TEST_F(CheckpointTest, TrainingOnlyTensorsAreNoted) {
  FakeModel model(small());
  model.add("mask_token", {1, 1, 8});
  EXPECT_EQ(error(model), "");
  EXPECT_EQ(Checkpoint::load(folder_).notes(),
            std::vector<std::string>{"tensor 'mask_token' ignored: only training reads it"});
}

class NotFinite : public CheckpointTest, public testing::WithParamInterface<float> {};
INSTANTIATE_TEST_SUITE_P(Values, NotFinite, testing::Values(HUGE_VALF, -HUGE_VALF, NAN, -NAN));

TEST_P(NotFinite, IsNamed) {
  FakeModel model(small());
  model.value("blocks.1.mlp.fc2.weight", 77) = GetParam();
  EXPECT_EQ(
      error(model),
      fmt::format("FILE: tensor 'blocks.1.mlp.fc2.weight': expected finite values, found {} at index 77", GetParam()));
  model.value("blocks.1.mlp.fc2.weight", 77) = std::copysign(0x1.fffffep127F, GetParam());
  EXPECT_EQ(error(model), "");
}

TEST_F(CheckpointTest, WhereTheConfigurationComesFrom) {
  FakeModel(small()).save(weights());
  const auto told = write("told.json", kSmallJson);
  EXPECT_TRUE(Checkpoint::load(weights(), told).notes().empty());
  EXPECT_TRUE(Checkpoint::load(folder_, told).notes().empty());
  EXPECT_EQ(error_of([&] { Checkpoint::load(folder_); }, folder_),
            "FILE: expected config.json in the model folder, found none (to have it inferred from the tensors, give "
            "FILE/model.safetensors)");
  const auto lying = write("config.json", kSmallJson);
  EXPECT_EQ(Checkpoint::load(weights()).notes(), std::vector<std::string>{"configuration from " + lying.string()});
  const auto wrong = write("wrong.json", config_text(R"({"depth": 0})"));
  EXPECT_EQ(error_of([&] { Checkpoint::load(folder_, wrong); }, wrong),
            "FILE: depth: expected an integer from 1 to 1024, found 0");
}

TEST_F(CheckpointTest, NoModel) {
  const auto load_error = [&](const fs::path& path) { return error_of([&] { Checkpoint::load(path); }, folder_); };
  EXPECT_EQ(load_error(folder_ / "absent"), "FILE/absent: no such model folder or file");
  EXPECT_EQ(load_error(folder_), "FILE: expected model.safetensors in the model folder, found none");
  const std::string advice =
      ": a PyTorch file cannot be read yet: convert it with weights/pytorch/export.py, which makes "
      "a folder of config.json and model.safetensors";
  write("pytorch_model.bin", "PK");
  EXPECT_EQ(load_error(folder_), "FILE/pytorch_model.bin" + advice);
  for (const char* name : {"a.pth", "a.pt", "a.ckpt", "a.pth.tar"}) {
    EXPECT_EQ(load_error(write(name, "PK")), fmt::format("FILE/{}", name) + advice);
  }
}

Config inferable() {
  Config c;
  c.embed_dim = 128;
  c.num_heads = 2;
  c.depth = 3;
  c.patch_size = 8;
  c.in_chans = 2;
  c.num_classes = 5;
  c.mlp_ratio = 1.25;
  return c;
}

/// Two configurations that ask for the same network.
void expect_same(const Config& a, const Config& b) {
  EXPECT_EQ(a.embed_dim, b.embed_dim);
  EXPECT_EQ(a.num_heads, b.num_heads);
  EXPECT_EQ(a.depth, b.depth);
  EXPECT_EQ(a.patch_size, b.patch_size);
  EXPECT_EQ(a.in_chans, b.in_chans);
  EXPECT_EQ(a.num_classes, b.num_classes);
  EXPECT_EQ(a.hidden_dim(), b.hidden_dim());
  EXPECT_EQ(a.global_pool, b.global_pool);
  EXPECT_EQ(a.pos_embed, b.pos_embed);
  EXPECT_EQ(a.peg.after, b.peg.after);
  EXPECT_EQ(a.img_size, b.img_size);
  if (a.pos_embed == Config::PosEmbed::kPeg) {
    EXPECT_EQ(a.peg.kernel, b.peg.kernel);
  }
}

class Inferred : public CheckpointTest {
 protected:
  /// What had to be assumed.
  std::vector<std::string> expect_inferred(const Config& config) {
    FakeModel(config).save(weights());
    const Checkpoint checkpoint = Checkpoint::load(weights());
    expect_same(checkpoint.config(), config);
    EXPECT_EQ(checkpoint.notes(), std::vector<std::string>{"configuration inferred from the tensors"});
    return checkpoint.assumptions();
  }
  std::string infer_error(const FakeModel& model) {
    model.save(weights());
    return error_of([&] { Checkpoint::load(weights()); }, weights());
  }
};

TEST_F(Inferred, Pegs) {
  Config c = inferable();
  EXPECT_EQ(expect_inferred(c), (std::vector<std::string>{
                                    "2 heads assumed: of 64 channels each", "PEG assumed to follow block 0",
                                    "img_size 224 assumed", "layer_norm_eps 1e-06 assumed",
                                    "pictures assumed to be prepared as ImageNet's: 224x224, bicubic, crop_pct 0.9"}));
  c.in_chans = 3;
  EXPECT_EQ(expect_inferred(c).back(), "mean 0.485 0.456 0.406, std 0.229 0.224 0.225 assumed: those of ImageNet");
  c.in_chans = 2;
  c.peg = {{0, 1, 2}, 27};
  EXPECT_EQ(expect_inferred(c)[1], "PEGs assumed to follow blocks 0 to 2");
  c.global_pool = Config::GlobalPool::kAvg;
  expect_inferred(c);
}

TEST_F(Inferred, PegsInsideBlocks) {
  Config c = inferable();
  c.peg = {{0, 2}, 5};
  FakeModel model(c);
  for (int j = 0; j < 2; ++j) {
    for (const char* part : {"weight", "bias"}) {
      model.rename(fmt::format("pos_block.{}.proj.0.{}", j, part), fmt::format("blocks.{}.peg.proj.{}", 2 * j, part));
    }
  }
  model.save(weights());
  expect_same(Checkpoint::load(weights()).config(), c);
  model.rename("blocks.2.peg.proj.bias", "pos_block.1.proj.bias");
  model.rename("blocks.2.peg.proj.weight", "pos_block.1.proj.weight");
  EXPECT_EQ(infer_error(model),
            "FILE: the places of the PEGs cannot be inferred from names of several kinds: give a config.json");
}

TEST_F(Inferred, OtherPositionEncodings) {
  Config c = inferable();
  c.peg.after.clear();
  c.pos_embed = Config::PosEmbed::kNone;
  EXPECT_EQ(expect_inferred(c)[1], "no position encoding assumed: the file holds no table and no PEG");
  c.pos_embed = Config::PosEmbed::kLearned;
  c.img_size = 56;
  expect_inferred(c);
  c.global_pool = Config::GlobalPool::kAvg;
  c.img_size = 8;
  expect_inferred(c);
}

TEST_F(Inferred, HiddenWidthsThatTheRatioRoundsBelow) {
  // embed_dim * (hidden / embed_dim) must not round below hidden.
  Config c = inferable();
  c.embed_dim = 448;
  c.num_heads = 7;
  c.depth = 1;
  for (const int hidden : {1, 61, 115, 230, 447, 448, 453, 1792}) {
    c.mlp_ratio = std::nextafter(hidden / 448.0, 1e9);
    ASSERT_EQ(c.hidden_dim(), hidden);
    expect_inferred(c);
  }
}

TEST_F(Inferred, WhatCannotBe) {
  const auto without = [&](const char* name) {
    FakeModel model(inferable());
    model.remove(name);
    return infer_error(model);
  };
  for (const char* name : {"patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "head.weight"}) {
    EXPECT_EQ(
        without(name),
        fmt::format("FILE: the architecture cannot be inferred without the tensor '{}': give a config.json", name));
  }
  Config narrow = inferable();
  narrow.embed_dim = 96;
  EXPECT_EQ(infer_error(FakeModel(narrow)),
            "FILE: the number of heads cannot be inferred: embed_dim 96 is no multiple of 64; give a config.json");

  FakeModel flat(inferable());
  flat.at("patch_embed.proj.weight").shape = {128, 128};
  EXPECT_EQ(infer_error(flat), "FILE: tensor 'patch_embed.proj.weight': expected 4 extents, found [128, 128]");
  FakeModel oblong(inferable());
  oblong.at("patch_embed.proj.weight").shape = {128, 2, 4, 16};
  EXPECT_EQ(infer_error(oblong),
            "FILE: tensor 'patch_embed.proj.weight': expected a square kernel, found [128, 2, 4, 16]");
  FakeModel empty(inferable());
  empty.at("head.weight").shape = {0, 128};
  EXPECT_EQ(infer_error(empty), "FILE: tensor 'head.weight': found the impossible extent 0");
  FakeModel even(inferable());
  even.at("pos_block.0.proj.0.weight").shape = {128, 1, 2, 2};
  EXPECT_EQ(infer_error(even), "FILE: inferred configuration: peg.kernel: expected 3 to 27, found 2");

  FakeModel far(inferable());
  far.add("blocks.2147483647.norm1.weight", {1});
  EXPECT_EQ(infer_error(far), "FILE: inferred configuration: depth: expected 1 to 1024, found 2147483647");

  FakeModel table(inferable());
  table.add("pos_embed", {1, 12, 128});
  EXPECT_EQ(
      infer_error(table),
      "FILE: tensor 'pos_embed': expected the rows of a square grid and one for the class token, found [1, 12, 128]");
}

TEST_F(Inferred, GapsAreMissingTensors) {
  FakeModel model(inferable());
  model.rename("blocks.2.norm2.bias", "blocks.7.norm2.bias");
  const std::string text = infer_error(model);
  EXPECT_NE(text.find("8-block model"), std::string::npos) << text;
  EXPECT_NE(text.find("missing tensor 'blocks.2.norm2.bias' [128]"), std::string::npos) << text;
}

}  // namespace
}  // namespace cpvt
