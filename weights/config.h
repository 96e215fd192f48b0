#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cpvt {

/// A model folder's config.json: the architecture, the labels, and how images are prepared.
/// The members' defaults are CPVT-Ti's, for code that makes one; a config.json tells every key itself.
struct Config {
  enum class GlobalPool { kToken, kAvg };
  enum class PosEmbed { kPeg, kLearned, kSincos, kNone };
  enum class Interpolation { kNearest, kBox, kBilinear, kHamming, kBicubic, kLanczos };

  struct Peg {
    std::vector<int> after{0};  // blocks that a PEG follows, strictly rising; -1: before the first block
    int kernel = 3;             // odd, 3 to 27
  };

  /// What timm's evaluation transform needs, as far as config.json tells it. A model without takes tensors only.
  struct Preprocessing {
    std::vector<float> mean, std;  // in_chans values, in units of pixel / 255; empty: not told
    std::optional<Interpolation> interpolation;
    std::optional<double> crop_pct;
    std::optional<std::array<int, 3>> input_size;  // C, H, W
  };

  int embed_dim = 192;
  int depth = 12;
  int num_heads = 3;
  double mlp_ratio = 4;
  int patch_size = 16;
  int in_chans = 3;
  int num_classes = 1000;
  GlobalPool global_pool = GlobalPool::kToken;
  PosEmbed pos_embed = PosEmbed::kPeg;
  Peg peg;  // meaningful only with PosEmbed::kPeg; `after` is empty otherwise
  double layer_norm_eps = 1e-6;
  int img_size = 224;                    // square side in pixels that the model was trained at
  std::vector<std::string> label_names;  // num_classes of them, or none
  Preprocessing pretrained_cfg;

  int head_dim() const { return embed_dim / num_heads; }
  int hidden_dim() const { return static_cast<int>(embed_dim * mlp_ratio); }
  bool has_class_token() const { return global_pool == GlobalPool::kToken; }
  /// Tokens along each side of the training image: the grid of a learned position table.
  int train_grid() const { return img_size / patch_size; }
  int peg_count() const { return static_cast<int>(peg.after.size()); }

  /// Reads a config.json's text. `origin` is named in errors: usually the path. Throws Error for text that is no strict
  /// JSON object, a key used twice, unknown, missing or of the wrong type, and a value outside its range. Only
  /// label_names, pretrained_cfg and the keys in it may be missing.
  static Config parse(std::string_view json, std::string_view origin);
  static Config load(const std::filesystem::path& path);

  /// Throws Error naming `origin` and the key where a value is outside its range or contradicts another one.
  void check(std::string_view origin) const;
};

std::string_view name_of(Config::GlobalPool value);
std::string_view name_of(Config::PosEmbed value);
std::string_view name_of(Config::Interpolation value);

}  // namespace cpvt
