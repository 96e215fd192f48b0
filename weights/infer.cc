#include "weights/infer.h"

#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/error.h"
#include "weights/json.h"

namespace cpvt {

namespace {

constexpr int kHeadDim = 64;  // of every ViT, DeiT and CPVT that was published

/// The number between `before` and the following '.', if the name starts like that: 3 in "blocks.3.norm1.weight".
std::optional<int> index_in(std::string_view name, std::string_view before) {
  if (!name.starts_with(before)) return std::nullopt;
  name.remove_prefix(before.size());
  int index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (error != std::errc() || index < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return index;
}

class Inference {
 public:
  Inference(const SafetensorsFile& file, std::vector<std::string>& assumptions)
      : file_(file), assumptions_(assumptions) {}

  Config run() {
    patch_embedding();
    blocks();
    config_.num_classes = extent("head.weight", 2, 0);
    config_.global_pool = has("cls_token") ? Config::GlobalPool::kToken : Config::GlobalPool::kAvg;
    heads();
    position_encoding();
    assume(fmt::format("layer_norm_eps {} assumed", config_.layer_norm_eps));
    preprocessing();
    const std::string origin = file_.path().string() + ": inferred configuration";
    config_.check(origin);
    return config_;
  }

 private:
  void assume(std::string sentence) { assumptions_.push_back(std::move(sentence)); }

  bool has(const std::string& name) const { return file_.entries().contains(name); }

  const std::vector<int64_t>& shape(const std::string& name, size_t rank) const {
    const auto found = file_.entries().find(name);
    if (found == file_.entries().end()) {
      throw Error("{}: the architecture cannot be inferred without the tensor '{}': give a config.json",
                  file_.path().string(), name);
    }
    const auto& shape = found->second.shape;
    if (shape.size() != rank) {
      throw Error("{}: tensor {}: expected {} extents, found {}", file_.path().string(), in_quotes(name), rank,
                  shape_text(shape));
    }
    return shape;
  }

  int extent(const std::string& name, size_t rank, size_t axis) const {
    const int64_t value = shape(name, rank)[axis];
    if (value < 1 || value > std::numeric_limits<int>::max()) {
      throw Error("{}: tensor {}: found the impossible extent {}", file_.path().string(), in_quotes(name), value);
    }
    return static_cast<int>(value);
  }

  int square_kernel(const std::string& name) const {
    const int height = extent(name, 4, 2);
    if (extent(name, 4, 3) != height) {
      throw Error("{}: tensor {}: expected a square kernel, found {}", file_.path().string(), in_quotes(name),
                  shape_text(shape(name, 4)));
    }
    return height;
  }

  void patch_embedding() {
    const std::string weight = "patch_embed.proj.weight";
    config_.embed_dim = extent(weight, 4, 0);
    config_.in_chans = extent(weight, 4, 1);
    config_.patch_size = square_kernel(weight);
  }

  void blocks() {
    int last = -1;
    for (const auto& [name, entry] : file_.entries()) last = std::max(last, index_in(name, "blocks.").value_or(-1));
    // A gap shows later, as tensors that are missing.
    config_.depth = last < std::numeric_limits<int>::max() ? last + 1 : last;
    const int hidden = extent("blocks.0.mlp.fc1.weight", 2, 0);
    config_.mlp_ratio = static_cast<double>(hidden) / config_.embed_dim;
    // The quotient may have been rounded down, and hidden_dim() rounds down once more.
    if (config_.embed_dim * config_.mlp_ratio < hidden) {
      config_.mlp_ratio = std::nextafter(config_.mlp_ratio, std::numeric_limits<double>::infinity());
    }
  }

  void heads() {
    if (config_.embed_dim % kHeadDim != 0) {
      throw Error("{}: the number of heads cannot be inferred: embed_dim {} is no multiple of {}; give a config.json",
                  file_.path().string(), config_.embed_dim, kHeadDim);
    }
    config_.num_heads = config_.embed_dim / kHeadDim;
    assume(fmt::format("{} heads assumed: of {} channels each", config_.num_heads, kHeadDim));
  }

  void position_encoding() {
    config_.peg.after.clear();
    if (has("pos_embed")) {
      learned_table();
    } else if (!pegs()) {
      config_.pos_embed = Config::PosEmbed::kNone;
      assume("no position encoding assumed: the file holds no table and no PEG");
    }
    if (config_.pos_embed != Config::PosEmbed::kLearned) {
      // Nothing depends on it but the default size of images, which cannot be less than a patch.
      config_.img_size = std::max(config_.img_size, config_.patch_size);
      assume(fmt::format("img_size {} assumed", config_.img_size));
    }
  }

  /// Of ImageNet, as CPVT and DeiT were trained. What grey or other channels would need is anybody's guess.
  void preprocessing() {
    Config::Preprocessing& p = config_.pretrained_cfg;
    p.interpolation = Config::Interpolation::kBicubic;
    p.crop_pct = 0.9;
    p.input_size = {config_.in_chans, config_.img_size, config_.img_size};
    assume(fmt::format("pictures assumed to be prepared as ImageNet's: {0}x{0}, {1}, crop_pct {2}", config_.img_size,
                       name_of(*p.interpolation), *p.crop_pct));
    if (config_.in_chans != 3) return;
    p.mean = {0.485F, 0.456F, 0.406F};
    p.std = {0.229F, 0.224F, 0.225F};
    assume(fmt::format("mean {}, std {} assumed: those of ImageNet", fmt::join(p.mean, " "), fmt::join(p.std, " ")));
  }

  void learned_table() {
    const int rows = extent("pos_embed", 3, 1) - (config_.has_class_token() ? 1 : 0);
    const int side = static_cast<int>(std::lround(std::sqrt(rows)));
    if (rows < 1 || int64_t{side} * side != rows) {
      throw Error("{}: tensor 'pos_embed': expected the rows of a square grid{}, found {}", file_.path().string(),
                  config_.has_class_token() ? " and one for the class token" : "", shape_text(shape("pos_embed", 3)));
    }
    config_.pos_embed = Config::PosEmbed::kLearned;
    if (int64_t{side} * config_.patch_size > std::numeric_limits<int>::max()) {
      throw Error("{}: tensor 'pos_embed': a grid of {} patches of {} pixels is too large", file_.path().string(), side,
                  config_.patch_size);
    }
    config_.img_size = side * config_.patch_size;
  }

  /// Finds the PEGs by whichever spelling the file has; false where there is none.
  bool pegs() {
    std::set<int> listed;     // J of pos_block.J
    std::set<int> following;  // I of blocks.I.peg
    std::string single;       // a weight of peg.*
    std::string any_weight;
    for (const auto& [name, entry] : file_.entries()) {
      if (!name.ends_with(".weight")) continue;
      const auto block = index_in(name, "blocks.");
      if (const auto j = index_in(name, "pos_block.")) {
        listed.insert(*j);
      } else if (block && name.starts_with(fmt::format("blocks.{}.peg.", *block))) {
        following.insert(*block);
      } else if (name.starts_with("peg.")) {
        single = name;
      } else {
        continue;
      }
      any_weight = name;
    }
    if (any_weight.empty()) return false;
    const int spellings = (listed.empty() ? 0 : 1) + (following.empty() ? 0 : 1) + (single.empty() ? 0 : 1);
    if (spellings > 1) {
      throw Error("{}: the places of the PEGs cannot be inferred from names of several kinds: give a config.json",
                  file_.path().string());
    }
    auto& after = config_.peg.after;
    if (!following.empty()) {
      after.assign(following.begin(), following.end());
    } else {
      const int count = single.empty() ? static_cast<int>(listed.size()) : 1;
      for (int j = 0; j < count; ++j) after.push_back(j);
      assume(count == 1 ? std::string("PEG assumed to follow block 0")
                        : fmt::format("PEGs assumed to follow blocks 0 to {}", count - 1));
    }
    config_.pos_embed = Config::PosEmbed::kPeg;
    config_.peg.kernel = square_kernel(any_weight);
    return true;
  }

  const SafetensorsFile& file_;
  std::vector<std::string>& assumptions_;
  Config config_;
};

}  // namespace

Config infer_config(const SafetensorsFile& file, std::vector<std::string>& assumptions) {
  return Inference(file, assumptions).run();
}

}  // namespace cpvt
