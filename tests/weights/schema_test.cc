#include "weights/schema.h"

#include <algorithm>
#include <map>

#include "tests/weights/support.h"

namespace cpvt {
namespace {

std::map<std::string, std::vector<int64_t>> shapes(const Config& config) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const TensorSpec& spec : cpvt_schema(config)) {
    EXPECT_EQ(spec.spellings.at(0), spec.name);
    EXPECT_TRUE(shapes.emplace(spec.name, spec.shape).second) << spec.name << " twice";
  }
  return shapes;
}

std::vector<std::string> spellings(const Config& config, const std::string& name) {
  for (const TensorSpec& spec : cpvt_schema(config)) {
    if (spec.name == name) return spec.spellings;
  }
  return {};
}

TEST(Schema, ShapesOfTheTinyModel) {
  const auto tensors = shapes(Config{});
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(tensors.size(), 2U + 1 + 12 * 12 + 2 + 2 + 2);
  EXPECT_EQ(tensors.at("patch_embed.proj.weight"), (Shape{192, 3, 16, 16}));
  EXPECT_EQ(tensors.at("cls_token"), (Shape{1, 1, 192}));
  EXPECT_EQ(tensors.at("blocks.11.attn.qkv.weight"), (Shape{576, 192}));
  EXPECT_EQ(tensors.at("blocks.11.attn.qkv.bias"), (Shape{576}));
  EXPECT_EQ(tensors.at("blocks.0.mlp.fc1.weight"), (Shape{768, 192}));
  EXPECT_EQ(tensors.at("blocks.0.mlp.fc2.weight"), (Shape{192, 768}));
  EXPECT_EQ(tensors.at("blocks.0.mlp.fc2.bias"), (Shape{192}));
  EXPECT_EQ(tensors.at("pos_block.0.proj.0.weight"), (Shape{192, 1, 3, 3}));
  EXPECT_EQ(tensors.at("head.weight"), (Shape{1000, 192}));
  // What the paper's table says of CPVT-Ti: 6M parameters (5,717,416 of DeiT-Ti, no table, one PEG).
  int64_t parameters = 0;
  for (const auto& [name, shape] : tensors) parameters += element_count(shape);
  EXPECT_EQ(parameters, 5'717'416 - 197 * 192 + 192 * 10);
}

TEST(Schema, FollowsPoolAndPositionEncoding) {
  Config learned;
  learned.pos_embed = Config::PosEmbed::kLearned;
  learned.peg.after.clear();
  EXPECT_EQ(shapes(learned).at("pos_embed"), (std::vector<int64_t>{1, 197, 192}));
  EXPECT_FALSE(shapes(learned).contains("pos_block.0.proj.0.weight"));
  learned.global_pool = Config::GlobalPool::kAvg;
  EXPECT_EQ(shapes(learned).at("pos_embed"), (std::vector<int64_t>{1, 196, 192}));
  EXPECT_FALSE(shapes(learned).contains("cls_token"));
  learned.pos_embed = Config::PosEmbed::kSincos;
  EXPECT_FALSE(shapes(learned).contains("pos_embed"));
}

TEST(Schema, SpellingsOfASinglePeg) {
  EXPECT_EQ(spellings(Config{}, "pos_block.0.proj.0.bias"),
            (std::vector<std::string>{"pos_block.0.proj.0.bias", "pos_block.0.proj.bias", "blocks.0.peg.bias",
                                      "blocks.0.peg.proj.bias", "blocks.0.peg.proj.0.bias", "peg.bias", "peg.proj.bias",
                                      "peg.proj.0.bias"}));
}

TEST(Schema, SpellingsOfSeveralPegs) {
  Config c;
  c.peg.after = {-1, 5};
  EXPECT_EQ(spellings(c, "pos_block.0.proj.0.weight"),
            (std::vector<std::string>{"pos_block.0.proj.0.weight", "pos_block.0.proj.weight"}));
  EXPECT_EQ(spellings(c, "pos_block.1.proj.0.weight"),
            (std::vector<std::string>{"pos_block.1.proj.0.weight", "pos_block.1.proj.weight", "blocks.5.peg.weight",
                                      "blocks.5.peg.proj.weight", "blocks.5.peg.proj.0.weight"}));
}

TEST(Schema, TrainingOnlyKeys) {
  EXPECT_TRUE(is_training_only("mask_token"));
  EXPECT_TRUE(is_training_only("n_averaged"));
  for (const char* name : {"head_dist.weight", "dist_token", "mask_tokens", "", "norm.weight", "fc_norm.weight"}) {
    EXPECT_FALSE(is_training_only(name)) << name;
  }
}

}  // namespace
}  // namespace cpvt
