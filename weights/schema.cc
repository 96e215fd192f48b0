#include "weights/schema.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace cpvt {

namespace {

/// `name`.weight of the given shape and its bias, which has the weight's first extent.
void add_layer(std::vector<TensorSpec>& schema, const std::string& name, std::vector<int64_t> weight_shape) {
  const std::vector<int64_t> bias_shape{weight_shape[0]};
  schema.push_back({name + ".weight", {name + ".weight"}, std::move(weight_shape)});
  schema.push_back({name + ".bias", {name + ".bias"}, bias_shape});
}

/// What people call the J-th PEG, which follows block I: by its place in a list (timm's Twins, the original code), by
/// the block it follows, or, when it is the only one, just so. The convolution is the module itself, its `proj`, or the
/// first of a sequence there.
std::vector<std::string> peg_modules(const Config& config, int j) {
  std::vector<std::string> modules{fmt::format("pos_block.{}.proj.0", j), fmt::format("pos_block.{}.proj", j)};
  std::vector<std::string> owners;
  if (const int block = config.peg.after[static_cast<size_t>(j)]; block >= 0) {
    owners.push_back(fmt::format("blocks.{}.peg", block));
  }
  if (config.peg_count() == 1) owners.emplace_back("peg");
  for (const std::string& owner : owners) {
    for (const char* suffix : {"", ".proj", ".proj.0"}) modules.push_back(owner + suffix);
  }
  return modules;
}

}  // namespace

std::vector<TensorSpec> cpvt_schema(const Config& config) {
  const int64_t dim = config.embed_dim;
  const int64_t hidden = config.hidden_dim();
  const int64_t patch = config.patch_size;
  const int64_t kernel = config.peg.kernel;
  std::vector<TensorSpec> schema;
  add_layer(schema, "patch_embed.proj", {dim, config.in_chans, patch, patch});
  if (config.has_class_token()) schema.push_back({"cls_token", {"cls_token"}, {1, 1, dim}});
  if (config.pos_embed == Config::PosEmbed::kLearned) {
    const int64_t side = config.train_grid();
    schema.push_back({"pos_embed", {"pos_embed"}, {1, side * side + (config.has_class_token() ? 1 : 0), dim}});
  }
  for (int i = 0; i < config.depth; ++i) {
    const std::string block = fmt::format("blocks.{}.", i);
    add_layer(schema, block + "norm1", {dim});
    add_layer(schema, block + "attn.qkv", {3 * dim, dim});
    add_layer(schema, block + "attn.proj", {dim, dim});
    add_layer(schema, block + "norm2", {dim});
    add_layer(schema, block + "mlp.fc1", {hidden, dim});
    add_layer(schema, block + "mlp.fc2", {dim, hidden});
  }
  for (int j = 0; j < config.peg_count(); ++j) {
    TensorSpec weight{"", {}, {dim, 1, kernel, kernel}};
    TensorSpec bias{"", {}, {dim}};
    for (const std::string& module : peg_modules(config, j)) {
      weight.spellings.push_back(module + ".weight");
      bias.spellings.push_back(module + ".bias");
    }
    weight.name = weight.spellings.front();
    bias.name = bias.spellings.front();
    schema.push_back(std::move(weight));
    schema.push_back(std::move(bias));
  }
  add_layer(schema, "norm", {dim});
  add_layer(schema, "head", {config.num_classes, dim});
  return schema;
}

bool is_training_only(std::string_view tensor_name) {
  static constexpr std::array kNames{
      std::string_view("mask_token"),  // stands for masked patches in self-supervised training; timm drops it too
      std::string_view("n_averaged"),  // the step counter of torch.optim.swa_utils.AveragedModel
  };
  for (const std::string_view name : kNames) {
    if (tensor_name == name) return true;
  }
  return false;
}

}  // namespace cpvt
