#include "weights/config.h"

#include "tests/weights/support.h"

namespace cpvt {
namespace {

std::string error(const std::string& json) {
  return error_of([&] { Config::parse(json, "C"); });
}

std::string without(const std::string& key, const std::string& changes = "{}") {
  nlohmann::json config = nlohmann::json::parse(config_text(changes));
  EXPECT_EQ(config.erase(key), 1U) << key;
  return config.dump();
}

TEST(Config, ReadsTheReferenceModels) {
  const Config c = Config::parse(config_text(), "C");
  EXPECT_EQ(c.embed_dim, 192);
  EXPECT_EQ(c.depth, 12);
  EXPECT_EQ(c.num_heads, 3);
  EXPECT_EQ(c.hidden_dim(), 768);
  EXPECT_EQ(c.head_dim(), 64);
  EXPECT_EQ(c.patch_size, 16);
  EXPECT_EQ(c.in_chans, 3);
  EXPECT_EQ(c.num_classes, 1000);
  EXPECT_TRUE(c.has_class_token());
  EXPECT_EQ(c.pos_embed, Config::PosEmbed::kPeg);
  EXPECT_EQ(c.peg.after, std::vector<int>{0});
  EXPECT_EQ(c.peg.kernel, 3);
  EXPECT_EQ(c.layer_norm_eps, 1e-6);
  EXPECT_EQ(c.train_grid(), 14);
}

TEST(Config, NoKeyOfTheNetworkIsFilledIn) {
  for (const char* key : {"architecture", "embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "in_chans",
                          "num_classes", "global_pool", "pos_embed", "layer_norm_eps", "img_size"}) {
    EXPECT_EQ(error(without(key)), fmt::format("C: missing key {}", key));
  }
  EXPECT_EQ(error(without("peg")), R"(C: missing key peg, which pos_embed "peg" needs)");
  EXPECT_EQ(error(R"({"pos_embed": "none", "depth": 3, "in_chans": 3, "img_size": 32, "embed_dim": 32})"),
            "C: missing keys architecture, num_heads, mlp_ratio, patch_size, num_classes, global_pool, layer_norm_eps");
  nlohmann::json config = nlohmann::json::parse(config_text());
  config["peg"] = {{"after", {0}}};
  EXPECT_EQ(error(config.dump()), "C: missing key peg.kernel");
  config["peg"] = {{"kernel", 3}};
  EXPECT_EQ(error(config.dump()), "C: missing key peg.after");
  config["peg"] = nlohmann::json::object();
  EXPECT_EQ(error(config.dump()), "C: missing keys peg.after, peg.kernel");
}

TEST(Config, PreprocessingIsWhatIsTold) {
  const Config::Preprocessing none = Config::parse(config_text(), "C").pretrained_cfg;
  EXPECT_TRUE(none.mean.empty());
  EXPECT_TRUE(none.std.empty());
  EXPECT_FALSE(none.interpolation || none.crop_pct || none.input_size);
  const Config::Preprocessing some =
      Config::parse(config_text(R"({"pretrained_cfg": {"std": [2]}})"), "C").pretrained_cfg;
  EXPECT_TRUE(some.mean.empty());
  EXPECT_EQ(some.std, (std::vector<float>{2, 2, 2}));
}

TEST(Config, ReadsEveryKey) {
  const Config c = Config::parse(R"({
    "architecture": "cpvt", "embed_dim": 48, "depth": 4, "num_heads": 6, "mlp_ratio": 2.5, "patch_size": 4, "in_chans": 2,
    "num_classes": 2, "global_pool": "avg", "pos_embed": "peg", "peg": {"after": [-1, 0, 3], "kernel": 27},
    "layer_norm_eps": 1e-5, "img_size": 30, "label_names": ["Katze", "Hündin"], "_comment": ["any"], "model_name": "ours",
    "label_descriptions": {},
    "pretrained_cfg": {"mean": [0.5, 0.25], "std": [2], "interpolation": "lanczos", "crop_pct": 1, "crop_mode": "center",
                       "input_size": [2, 32, 28], "url": "", "tag": null, "num_classes": 1000}})",
                                 "C");
  EXPECT_EQ(c.embed_dim, 48);
  EXPECT_EQ(c.depth, 4);
  EXPECT_EQ(c.num_heads, 6);
  EXPECT_EQ(c.hidden_dim(), 120);
  EXPECT_EQ(c.in_chans, 2);
  EXPECT_EQ(c.num_classes, 2);
  EXPECT_FALSE(c.has_class_token());
  EXPECT_EQ(c.peg.after, (std::vector<int>{-1, 0, 3}));
  EXPECT_EQ(c.peg.kernel, 27);
  EXPECT_EQ(c.layer_norm_eps, 1e-5);
  EXPECT_EQ(c.train_grid(), 7);
  EXPECT_EQ(c.label_names[1], "Hündin");
  EXPECT_EQ(c.pretrained_cfg.mean, (std::vector<float>{0.5F, 0.25F}));
  EXPECT_EQ(c.pretrained_cfg.std, (std::vector<float>{2, 2}));
  EXPECT_EQ(c.pretrained_cfg.interpolation, Config::Interpolation::kLanczos);
  EXPECT_EQ(c.pretrained_cfg.crop_pct, 1.0);
  EXPECT_EQ(c.pretrained_cfg.input_size, (std::array<int, 3>{2, 32, 28}));
}

TEST(Config, PlainViTs) {
  for (const char* name : {"vit", "deit"}) {
    const Config c =
        Config::parse(config_text(fmt::format(R"({{"architecture": "{}", "pos_embed": "learned"}})", name)), "C");
    EXPECT_EQ(c.pos_embed, Config::PosEmbed::kLearned);
    EXPECT_EQ(c.peg_count(), 0);
  }
}

TEST(Config, NamesOfValues) {
  EXPECT_EQ(name_of(Config::GlobalPool::kAvg), "avg");
  EXPECT_EQ(name_of(Config::PosEmbed::kSincos), "sincos");
  EXPECT_EQ(name_of(Config::Interpolation::kHamming), "hamming");
}

struct Case {
  const char* json;
  const char* error;
};

class NoConfig : public testing::TestWithParam<Case> {};

TEST_P(NoConfig, IsRefusedWithText) {
  const auto& [json, expected] = GetParam();
  EXPECT_EQ(error(json), expected) << json;
}

/// Values in an otherwise good configuration.
class Refused : public testing::TestWithParam<Case> {};

TEST_P(Refused, WithText) {
  const auto& [json, expected] = GetParam();
  EXPECT_EQ(error(config_text(json)), expected) << json;
}

INSTANTIATE_TEST_SUITE_P(
    Text, NoConfig,
    testing::Values(
        Case{"",
             "C: not valid JSON: parse error at line 1, column 1: syntax error while parsing value - unexpected end "
             "of input; expected '[', '{', or a literal"},
        Case{"[1]", "C: expected a JSON object, found [1]"},
        Case{R"({"depth": 1, "depth": 2})", "C: the name 'depth' is used twice in one object"},
        Case{"\xEF\xBB\xBF{}", "C: expected JSON, found a byte order mark before it"}));

INSTANTIATE_TEST_SUITE_P(
    Architecture, Refused,
    testing::Values(Case{R"({"architecture": "resnet50"})",
                         R"(C: architecture: expected "cpvt", "vit" or "deit", found "resnet50")"},
                    Case{R"({"architecture": 1})", R"(C: architecture: expected "cpvt", "vit" or "deit", found 1)"},
                    Case{R"({"architecture": "twins_svt_small"})",
                         R"(C: architecture 'twins_svt_small' is not yet supported; expected "cpvt", "vit" or "deit")"},
                    Case{R"({"architecture": "deit_tiny_patch16_224"})",
                         "C: architecture 'deit_tiny_patch16_224' is timm's, whose config.json leaves the extents "
                         "unsaid: convert the "
                         "model with weights/pytorch/export.py --timm deit_tiny_patch16_224"}));

INSTANTIATE_TEST_SUITE_P(
    Keys, Refused,
    testing::Values(
        Case{R"({"embed_dims": 3})",
             "C: unknown key 'embed_dims' with the value 3; known are architecture, depth, embed_dim, global_pool, "
             "img_size, in_chans, label_names, layer_norm_eps, mlp_ratio, num_classes, num_heads, patch_size, peg, "
             "pos_embed, pretrained_cfg"},
        Case{R"({"peg": {"kernel": 3, "size": 3}})",
             "C: unknown key peg.'size' with the value 3; known are after, kernel"},
        Case{R"({"pretrained_cfg": {"meen": []}})",
             "C: unknown key pretrained_cfg.'meen' with the value []; known are crop_mode, crop_pct, input_size, "
             "interpolation, mean, std"}));

INSTANTIATE_TEST_SUITE_P(
    Extents, Refused,
    testing::Values(
        Case{R"({"embed_dim": 0})", "C: embed_dim: expected an integer from 1 to 65536, found 0"},
        Case{R"({"embed_dim": 65537})", "C: embed_dim: expected an integer from 1 to 65536, found 65537"},
        Case{R"({"embed_dim": 192.0})", "C: embed_dim: expected an integer from 1 to 65536, found 192.0"},
        Case{R"({"embed_dim": "192"})", "C: embed_dim: expected an integer from 1 to 65536, found \"192\""},
        Case{R"({"embed_dim": 18446744073709551615})",
             "C: embed_dim: expected an integer from 1 to 65536, found 18446744073709551615"},
        Case{R"({"embed_dim": 4294967488})", "C: embed_dim: expected an integer from 1 to 65536, found 4294967488"},
        Case{R"({"embed_dim": null})", "C: embed_dim: expected an integer from 1 to 65536, found null"},
        Case{R"({"depth": -1})", "C: depth: expected an integer from 1 to 1024, found -1"},
        Case{R"({"num_heads": 0})", "C: num_heads: expected an integer from 1 to 65536, found 0"},
        Case{R"({"num_heads": 5})", "C: embed_dim: expected a multiple of num_heads 5, found 192"},
        Case{R"({"num_heads": 384})", "C: num_heads: expected 1 to 192, found 384"},
        Case{R"({"mlp_ratio": "4"})", "C: mlp_ratio: expected a number, found \"4\""},
        Case{R"({"mlp_ratio": 0})", "C: mlp_ratio: expected embed_dim * mlp_ratio from 1 to 1048576, found 192 * 0"},
        Case{R"({"mlp_ratio": 1e300})",
             "C: mlp_ratio: expected embed_dim * mlp_ratio from 1 to 1048576, found 192 * 1e+300"},
        Case{R"({"patch_size": 0})", "C: patch_size: expected an integer from 1 to 1024, found 0"},
        Case{R"({"in_chans": 0})", "C: in_chans: expected an integer from 1 to 1024, found 0"},
        Case{R"({"num_classes": 0})", "C: num_classes: expected an integer from 1 to 16777216, found 0"},
        Case{R"({"img_size": 15})", "C: img_size: expected 16 to 65536, found 15"},
        Case{R"({"img_size": [224, 224]})", "C: img_size: expected an integer from 1 to 65536, found [224,224]"},
        Case{R"({"layer_norm_eps": 0})", "C: layer_norm_eps: expected 1e-12 to 0.1, found 0"},
        Case{R"({"layer_norm_eps": -1e-6})", "C: layer_norm_eps: expected 1e-12 to 0.1, found -1e-06"}));

INSTANTIATE_TEST_SUITE_P(
    Choices, Refused,
    testing::Values(Case{R"({"global_pool": "max"})", R"(C: global_pool: expected one of "token", "avg", found "max")"},
                    Case{R"({"pos_embed": true})",
                         R"(C: pos_embed: expected one of "peg", "learned", "sincos", "none", found true)"},
                    Case{R"({"pos_embed": "sincos", "embed_dim": 198})",
                         R"(C: embed_dim: expected a multiple of 4 with pos_embed "sincos", found 198)"},
                    Case{R"({"pos_embed": "none", "peg": {"after": [0]}})",
                         R"(C: peg: expected none with pos_embed "none", found {"after":[0]})"}));

INSTANTIATE_TEST_SUITE_P(
    Peg, Refused,
    testing::Values(
        Case{R"({"peg": [0]})", "C: peg: expected an object, found [0]"},
        Case{R"({"peg": {"after": 0}})", "C: peg.after: expected an array, found 0"},
        Case{R"({"peg": {"after": []}})",
             R"(C: peg.after: expected at least one place with pos_embed "peg", found [])"},
        Case{R"({"peg": {"after": [12]}})", "C: peg.after: expected an integer from -1 to 11, found 12"},
        Case{R"({"peg": {"after": [-2]}})", "C: peg.after: expected an integer from -1 to 11, found -2"},
        Case{R"({"peg": {"after": [0, 0]}})", "C: peg.after: expected strictly rising blocks, found 0 after 0"},
        Case{R"({"peg": {"after": [3, 1]}})", "C: peg.after: expected strictly rising blocks, found 1 after 3"},
        Case{R"({"peg": {"kernel": 4}})", "C: peg.kernel: expected an odd number, found 4"},
        Case{R"({"peg": {"kernel": 1}})", "C: peg.kernel: expected an integer from 3 to 27, found 1"},
        Case{R"({"peg": {"kernel": 29}})", "C: peg.kernel: expected an integer from 3 to 27, found 29"}));

INSTANTIATE_TEST_SUITE_P(
    Images, Refused,
    testing::Values(
        Case{R"({"label_names": "a"})", "C: label_names: expected an array of strings, found \"a\""},
        Case{R"({"label_names": []})", "C: label_names: expected a name per class, or no such key, found []"},
        Case{R"({"model_name": 7})", "C: model_name: expected a string, found 7"},
        Case{R"({"label_names": [1]})", "C: label_names: expected strings, found 1"},
        Case{R"({"label_names": ["a"]})", "C: label_names: expected 1000 names like num_classes, found 1"},
        Case{R"({"pretrained_cfg": 1})", "C: pretrained_cfg: expected an object, found 1"},
        Case{R"({"pretrained_cfg": {"mean": 0.5}})",
             "C: pretrained_cfg.mean: expected 3 numbers, or one for all channels, found 0.5"},
        Case{R"({"pretrained_cfg": {"mean": [1, 2]}})",
             "C: pretrained_cfg.mean: expected 3 numbers, or one for all channels, found [1,2]"},
        Case{R"({"pretrained_cfg": {"mean": ["1"]}})",
             "C: pretrained_cfg.mean: expected numbers from -1000000 to 1000000, found \"1\""},
        Case{R"({"pretrained_cfg": {"std": [1, 0, 1]}})", "C: pretrained_cfg.std: expected 1e-06 to 1000000, found 0"},
        Case{R"({"pretrained_cfg": {"std": [-1]}})", "C: pretrained_cfg.std: expected 1e-06 to 1000000, found -1"},
        Case{
            R"({"pretrained_cfg": {"interpolation": "random"}})",
            R"(C: pretrained_cfg.interpolation: expected one of "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos", found "random")"},
        Case{R"({"pretrained_cfg": {"crop_pct": 0}})", "C: pretrained_cfg.crop_pct: expected 0.01 to 1, found 0"},
        Case{R"({"pretrained_cfg": {"crop_pct": 1.1}})", "C: pretrained_cfg.crop_pct: expected 0.01 to 1, found 1.1"},
        Case{R"({"pretrained_cfg": {"crop_mode": "squash"}})",
             R"(C: pretrained_cfg.crop_mode: expected "center", the only one supported, found "squash")"},
        Case{R"({"pretrained_cfg": {"input_size": [224, 224]}})",
             "C: pretrained_cfg.input_size: expected [channels, height, width], found [224,224]"},
        Case{R"({"pretrained_cfg": {"input_size": [3, 0, 224]}})",
             "C: pretrained_cfg.input_size: expected an integer from 1 to 65536, found 0"},
        Case{R"({"pretrained_cfg": {"input_size": [1, 224, 224]}})",
             "C: pretrained_cfg.input_size: expected 3 channels like in_chans, found 1"}));

using ConfigFile = FolderTest;

TEST_F(ConfigFile, IsNamedInErrors) {
  const auto path = write("config.json", config_text(R"({"depth": 0})"));
  EXPECT_EQ(error_of([&] { Config::load(path); }, path), "FILE: depth: expected an integer from 1 to 1024, found 0");
  EXPECT_EQ(error_of([&] { Config::load(folder_ / "no.json"); }, folder_),
            "FILE/no.json: cannot open: No such file or directory");
  EXPECT_EQ(Config::load(write("good.json", config_text(R"({"depth": 3})"))).depth, 3);
}

}  // namespace
}  // namespace cpvt
