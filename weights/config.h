#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace cpvt {

/// A model folder's config.json: the architecture, the labels, and how images are prepared.
/// The defaults are those of weights/pytorch/cpvt.py (CPVT-Ti) and of timm's evaluation transform.
struct Config {
  enum class GlobalPool { kToken, kAvg };
  enum class PosEmbed { kPeg, kLearned, kSincos, kNone };
  enum class Interpolation { kNearest, kBox, kBilinear, kHamming, kBicubic, kLanczos };

  struct Peg {
    std::vector<int> after{0};  // blocks that a PEG follows, strictly rising; -1: before the first block
    int kernel = 3;             // odd, 3 to 27
  };

  /// What timm's evaluation transform needs. mean and std have in_chans values, in units of pixel / 255; they are empty
  /// where in_chans is not 3 and config.json does not tell them: such a model takes tensors, but no image files.
  struct Preprocessing {
    std::vector<float> mean{0.485F, 0.456F, 0.406F};
    std::vector<float> std{0.229F, 0.224F, 0.225F};
    Interpolation interpolation = Interpolation::kBicubic;
    double crop_pct = 0.9;
    std::array<int, 3> input_size{3, 224, 224};  // C, H, W; by default in_chans and img_size
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
  /// JSON object, a key used twice, unknown or of the wrong type, and a value outside its range.
  static Config parse(std::string_view json, std::string_view origin);
  static Config load(const std::filesystem::path& path);

  /// Throws Error naming `origin` and the key where a value is outside its range or contradicts another one.
  void check(std::string_view origin) const;

  /// Sets the defaults of pretrained_cfg that follow from in_chans and img_size.
  void follow_image();
};

std::string_view name_of(Config::GlobalPool value);
std::string_view name_of(Config::PosEmbed value);
std::string_view name_of(Config::Interpolation value);

}  // namespace cpvt
