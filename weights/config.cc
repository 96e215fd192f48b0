#include "weights/config.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "weights/json.h"

namespace cpvt {

using nlohmann::json;

namespace {

// Far above every model there is, and low enough that no product of extents overflows an int64_t.
constexpr int kMaxEmbedDim = 1 << 16;
constexpr int kMaxHiddenDim = 1 << 20;
constexpr int kMaxDepth = 1024;
constexpr int kMaxPatchSize = 1024;
constexpr int kMaxChannels = 1024;
constexpr int kMaxClasses = 1 << 24;
constexpr int kMaxImageSize = 1 << 16;
constexpr double kMaxPixel = 1e6;  // for mean and std

// Keys without which the network is not known, and those that may be missing: the network is the same without them.
constexpr std::string_view kRequiredKeys[] = {"architecture", "embed_dim",  "depth",    "num_heads",
                                              "mlp_ratio",    "patch_size", "in_chans", "num_classes",
                                              "global_pool",  "pos_embed",  "img_size", "layer_norm_eps"};
constexpr std::string_view kOptionalKeys[] = {"peg", "label_names", "pretrained_cfg"};  // peg: required by pos_embed
constexpr std::string_view kPegKeys[] = {"after", "kernel"};
constexpr std::string_view kPretrainedKeys[] = {"mean", "std", "interpolation", "crop_pct", "crop_mode", "input_size"};

constexpr const char* kArchitectures = R"("cpvt", "vit" or "deit")";

// Keys of config.json that only describe: the sole ones that are read over.
constexpr std::string_view kDescriptiveKeys[] = {"_comment", "model_name", "label_descriptions"};

// The keys of timm's PretrainedCfg (timm/models/_pretrained.py) that say where weights come from, how they are adapted
// to other heads and sizes, and how they were tested; none of them changes what evaluation does to an image here.
constexpr std::string_view kDescriptivePretrainedKeys[] = {"url",
                                                           "file",
                                                           "state_dict",
                                                           "hf_hub_id",
                                                           "hf_hub_filename",
                                                           "source",
                                                           "architecture",
                                                           "tag",
                                                           "custom_load",
                                                           "test_input_size",
                                                           "min_input_size",
                                                           "fixed_input_size",
                                                           "test_crop_pct",
                                                           "num_classes",
                                                           "label_offset",
                                                           "label_names",
                                                           "label_descriptions",
                                                           "pool_size",
                                                           "test_pool_size",
                                                           "first_conv",
                                                           "classifier",
                                                           "license",
                                                           "description",
                                                           "origin_url",
                                                           "paper_name",
                                                           "paper_ids",
                                                           "notes"};

template <class Enum>
using Names = std::span<const std::pair<Enum, std::string_view>>;

constexpr std::pair<Config::GlobalPool, std::string_view> kGlobalPools[] = {{Config::GlobalPool::kToken, "token"},
                                                                            {Config::GlobalPool::kAvg, "avg"}};
constexpr std::pair<Config::PosEmbed, std::string_view> kPosEmbeds[] = {{Config::PosEmbed::kPeg, "peg"},
                                                                        {Config::PosEmbed::kLearned, "learned"},
                                                                        {Config::PosEmbed::kSincos, "sincos"},
                                                                        {Config::PosEmbed::kNone, "none"}};
constexpr std::pair<Config::Interpolation, std::string_view> kInterpolations[] = {
    {Config::Interpolation::kNearest, "nearest"},   {Config::Interpolation::kBox, "box"},
    {Config::Interpolation::kBilinear, "bilinear"}, {Config::Interpolation::kHamming, "hamming"},
    {Config::Interpolation::kBicubic, "bicubic"},   {Config::Interpolation::kLanczos, "lanczos"}};

template <class Enum>
std::string_view find_name(Names<Enum> names, Enum value) {
  return std::find_if(names.begin(), names.end(), [&](const auto& item) { return item.first == value; })->second;
}

using Keys = std::span<const std::string_view>;

/// Reads the members of one JSON object.
class Members {
 public:
  /// `prefix` is put before the names of keys in errors: "" or "peg.".
  Members(const json& object, std::string_view origin, std::string prefix)
      : object_(object), origin_(origin), prefix_(std::move(prefix)) {}

  /// Refuses keys that are in none of the lists, then the lack of a required one. Those of `read_over` only describe.
  void check_keys(Keys required, Keys optional, Keys read_over = {}) const {
    std::set<std::string_view> known(required.begin(), required.end());
    known.insert(optional.begin(), optional.end());
    for (const auto& [key, value] : object_.items()) {
      if (known.contains(key) || std::find(read_over.begin(), read_over.end(), key) != read_over.end()) continue;
      throw Error("{}: unknown key {}{} with the value {}; known are {}", origin_, prefix_, in_quotes(key),
                  found_text(value), fmt::join(known, ", "));
    }
    std::vector<std::string> missing;
    for (const std::string_view key : required) {
      if (!object_.contains(key)) missing.push_back(prefix_ + std::string(key));
    }
    if (!missing.empty()) {
      throw Error("{}: missing key{} {}", origin_, missing.size() > 1 ? "s" : "", fmt::join(missing, ", "));
    }
  }

  const json* find(std::string_view key) const {
    const auto member = object_.find(key);
    return member == object_.end() ? nullptr : &*member;
  }

  void read(std::string_view key, int& value, int64_t low, int64_t high) const {
    if (const json* member = find(key)) value = integer(*member, key, low, high);
  }

  void read(std::string_view key, double& value) const {
    const json* member = find(key);
    if (member == nullptr) return;
    if (!member->is_number()) throw unexpected(key, "a number", *member);
    value = member->get<double>();
  }

  template <class Enum>
  void read(std::string_view key, Enum& value, Names<Enum> names) const {
    const json* member = find(key);
    if (member == nullptr) return;
    std::string expected;
    for (const auto& [candidate, name] : names) {
      if (member->is_string() && member->get_ref<const std::string&>() == name) {
        value = candidate;
        return;
      }
      expected += fmt::format("{}\"{}\"", expected.empty() ? "" : ", ", name);
    }
    throw unexpected(key, "one of " + expected, *member);
  }

  int integer(const json& value, std::string_view key, int64_t low, int64_t high) const {
    // Unsigned numbers beyond int64_t would wrap in get<int64_t>.
    const bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
    if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
      throw unexpected(key, fmt::format("an integer from {} to {}", low, high), value);
    }
    return value.get<int>();
  }

  Error unexpected(std::string_view key, std::string_view expected, const json& found) const {
    return Error("{}: {}{}: expected {}, found {}", origin_, prefix_, key, expected, found_text(found));
  }

 private:
  const json& object_;
  std::string_view origin_;
  std::string prefix_;
};

/// The members of an object that is itself a member; none where there is no such key.
const json* find_object(const Members& parent, std::string_view key) {
  const json* member = parent.find(key);
  if (member != nullptr && !member->is_object()) throw parent.unexpected(key, "an object", *member);
  return member;
}

/// The network that all of these names mean is the same.
void check_architecture(const Members& members, std::string_view origin) {
  const json* member = members.find("architecture");
  if (member == nullptr) return;
  if (!member->is_string()) throw members.unexpected("architecture", kArchitectures, *member);
  const auto& name = member->get_ref<const std::string&>();
  if (name == "cpvt" || name == "vit" || name == "deit") return;
  if (name.starts_with("twins_")) {
    throw Error("{}: architecture {} is not yet supported; expected {}", origin, in_quotes(name), kArchitectures);
  }
  if (name.starts_with("vit_") || name.starts_with("deit_")) {
    throw Error(
        "{}: architecture {} is timm's, whose config.json leaves the extents unsaid: "
        "convert the model with weights/pytorch/export.py --timm {}",
        origin, in_quotes(name), name.substr(0, 100));
  }
  throw members.unexpected("architecture", kArchitectures, *member);
}

void read_peg(const json& object, std::string_view origin, Config& config) {
  const Members members(object, origin, "peg.");
  members.check_keys(kPegKeys, {});
  members.read("kernel", config.peg.kernel, 3, 27);
  const json* after = members.find("after");
  if (!after->is_array()) throw members.unexpected("after", "an array", *after);
  config.peg.after.clear();
  for (const json& block : *after) config.peg.after.push_back(members.integer(block, "after", -1, config.depth - 1));
}

/// mean or std: in_chans numbers, or one for all channels as timm takes it.
std::vector<float> read_per_channel(const Members& members, std::string_view key, int channels) {
  const json* member = members.find(key);
  if (member == nullptr) return {};
  const std::string expected = fmt::format("{} numbers, or one for all channels", channels);
  if (!member->is_array() || member->empty()) throw members.unexpected(key, expected, *member);
  std::vector<float> values;
  for (const json& value : *member) {
    if (!value.is_number() || !(std::abs(value.get<double>()) <= kMaxPixel)) {
      throw members.unexpected(key, fmt::format("numbers from -{0} to {0}", kMaxPixel), value);
    }
    values.push_back(value.get<float>());
  }
  if (values.size() == 1) values.resize(static_cast<size_t>(channels), values[0]);
  if (values.size() != static_cast<size_t>(channels)) throw members.unexpected(key, expected, *member);
  return values;
}

void read_preprocessing(const json& object, std::string_view origin, Config& config) {
  const Members members(object, origin, "pretrained_cfg.");
  members.check_keys({}, kPretrainedKeys, kDescriptivePretrainedKeys);
  Config::Preprocessing& p = config.pretrained_cfg;
  p.mean = read_per_channel(members, "mean", config.in_chans);
  p.std = read_per_channel(members, "std", config.in_chans);
  if (members.find("interpolation") != nullptr) {
    members.read("interpolation", p.interpolation.emplace(), Names<Config::Interpolation>(kInterpolations));
  }
  if (members.find("crop_pct") != nullptr) members.read("crop_pct", p.crop_pct.emplace());
  if (const json* size = members.find("input_size")) {
    auto& extents = p.input_size.emplace();
    if (!size->is_array() || size->size() != extents.size()) {
      throw members.unexpected("input_size", "[channels, height, width]", *size);
    }
    for (size_t i = 0; i < extents.size(); ++i) {
      extents[i] = members.integer((*size)[i], "input_size", 1, kMaxImageSize);
    }
  }
  if (const json* mode = members.find("crop_mode"); mode != nullptr && *mode != "center") {
    throw members.unexpected("crop_mode", "\"center\", the only one supported", *mode);
  }
}

std::vector<std::string> read_labels(const Members& members) {
  std::vector<std::string> labels;
  const json* member = members.find("label_names");
  if (member == nullptr) return labels;
  if (!member->is_array()) throw members.unexpected("label_names", "an array of strings", *member);
  if (member->empty()) throw members.unexpected("label_names", "a name per class, or no such key", *member);
  for (const json& label : *member) {
    if (!label.is_string()) throw members.unexpected("label_names", "strings", label);
    labels.push_back(label.get<std::string>());
  }
  return labels;
}

template <class Value>
void check_range(std::string_view origin, std::string_view key, Value value, Value low, Value high) {
  // Written so that NaN fails.
  if (!(value >= low && value <= high)) {
    throw Error("{}: {}: expected {} to {}, found {}", origin, key, low, high, value);
  }
}

void check_peg(const Config& config, std::string_view origin) {
  const auto& [after, kernel] = config.peg;
  if (config.pos_embed != Config::PosEmbed::kPeg) {
    if (!after.empty()) {
      throw Error("{}: peg: expected none with pos_embed \"{}\", found one", origin, name_of(config.pos_embed));
    }
    return;
  }
  check_range(origin, "peg.kernel", kernel, 3, 27);
  if (kernel % 2 == 0) throw Error("{}: peg.kernel: expected an odd number, found {}", origin, kernel);
  if (after.empty()) throw Error("{}: peg.after: expected at least one place with pos_embed \"peg\", found []", origin);
  for (size_t j = 0; j < after.size(); ++j) {
    check_range(origin, "peg.after", after[j], -1, config.depth - 1);
    if (j > 0 && after[j] <= after[j - 1]) {
      throw Error("{}: peg.after: expected strictly rising blocks, found {} after {}", origin, after[j], after[j - 1]);
    }
  }
}

void check_preprocessing(const Config& config, std::string_view origin) {
  const Config::Preprocessing& p = config.pretrained_cfg;
  for (const auto* values : {&p.mean, &p.std}) {
    if (!values->empty() && values->size() != static_cast<size_t>(config.in_chans)) {
      throw Error("{}: pretrained_cfg.{}: expected {} values, found {}", origin, values == &p.mean ? "mean" : "std",
                  config.in_chans, values->size());
    }
  }
  for (const float deviation : p.std) {
    // A normalised pixel must stay finite in float32.
    check_range(origin, "pretrained_cfg.std", static_cast<double>(deviation), 1e-6, kMaxPixel);
  }
  if (p.crop_pct) check_range(origin, "pretrained_cfg.crop_pct", *p.crop_pct, 0.01, 1.0);
  if (!p.input_size) return;
  const auto& [channels, height, width] = *p.input_size;
  if (channels != config.in_chans) {
    throw Error("{}: pretrained_cfg.input_size: expected {} channels like in_chans, found {}", origin, config.in_chans,
                channels);
  }
  check_range(origin, "pretrained_cfg.input_size", height, 1, kMaxImageSize);
  check_range(origin, "pretrained_cfg.input_size", width, 1, kMaxImageSize);
}

}  // namespace

std::string_view name_of(Config::GlobalPool value) { return find_name<Config::GlobalPool>(kGlobalPools, value); }
std::string_view name_of(Config::PosEmbed value) { return find_name<Config::PosEmbed>(kPosEmbeds, value); }
std::string_view name_of(Config::Interpolation value) {
  return find_name<Config::Interpolation>(kInterpolations, value);
}

void Config::check(std::string_view origin) const {
  check_range(origin, "embed_dim", embed_dim, 1, kMaxEmbedDim);
  check_range(origin, "depth", depth, 1, kMaxDepth);
  check_range(origin, "num_heads", num_heads, 1, embed_dim);
  if (embed_dim % num_heads != 0) {
    throw Error("{}: embed_dim: expected a multiple of num_heads {}, found {}", origin, num_heads, embed_dim);
  }
  // By the product, before hidden_dim() makes an int of it.
  const double hidden = embed_dim * mlp_ratio;
  if (!(hidden >= 1 && hidden <= kMaxHiddenDim)) {
    throw Error("{}: mlp_ratio: expected embed_dim * mlp_ratio from 1 to {}, found {} * {}", origin, kMaxHiddenDim,
                embed_dim, mlp_ratio);
  }
  check_range(origin, "patch_size", patch_size, 1, kMaxPatchSize);
  check_range(origin, "in_chans", in_chans, 1, kMaxChannels);
  check_range(origin, "num_classes", num_classes, 1, kMaxClasses);
  check_range(origin, "layer_norm_eps", layer_norm_eps, 1e-12, 1e-1);
  check_range(origin, "img_size", img_size, patch_size, kMaxImageSize);
  if (pos_embed == PosEmbed::kSincos && embed_dim % 4 != 0) {
    throw Error("{}: embed_dim: expected a multiple of 4 with pos_embed \"sincos\", found {}", origin, embed_dim);
  }
  check_peg(*this, origin);
  if (!label_names.empty() && label_names.size() != static_cast<size_t>(num_classes)) {
    throw Error("{}: label_names: expected {} names like num_classes, found {}", origin, num_classes,
                label_names.size());
  }
  check_preprocessing(*this, origin);
}

Config Config::parse(std::string_view text, std::string_view origin) {
  const json document = parse_strict_json(text, origin);
  if (!document.is_object()) throw Error("{}: expected a JSON object, found {}", origin, found_text(document));
  const Members members(document, origin, "");
  check_architecture(members, origin);  // first: other architectures have other keys
  members.check_keys(kRequiredKeys, kOptionalKeys, kDescriptiveKeys);
  Config config;
  members.read("embed_dim", config.embed_dim, 1, kMaxEmbedDim);
  members.read("depth", config.depth, 1, kMaxDepth);
  members.read("num_heads", config.num_heads, 1, kMaxEmbedDim);
  members.read("mlp_ratio", config.mlp_ratio);
  members.read("patch_size", config.patch_size, 1, kMaxPatchSize);
  members.read("in_chans", config.in_chans, 1, kMaxChannels);
  members.read("num_classes", config.num_classes, 1, kMaxClasses);
  members.read("global_pool", config.global_pool, Names<GlobalPool>(kGlobalPools));
  members.read("pos_embed", config.pos_embed, Names<PosEmbed>(kPosEmbeds));
  members.read("layer_norm_eps", config.layer_norm_eps);
  members.read("img_size", config.img_size, 1, kMaxImageSize);
  config.label_names = read_labels(members);
  if (const json* name = members.find("model_name"); name != nullptr && !name->is_string()) {
    throw members.unexpected("model_name", "a string", *name);
  }
  const bool with_peg = config.pos_embed == PosEmbed::kPeg;
  if (!with_peg) config.peg.after.clear();
  const json* peg = find_object(members, "peg");
  if (with_peg && peg == nullptr) throw Error("{}: missing key peg, which pos_embed \"peg\" needs", origin);
  if (!with_peg && peg != nullptr) {
    throw Error("{}: peg: expected none with pos_embed \"{}\", found {}", origin, name_of(config.pos_embed),
                found_text(*peg));
  }
  if (with_peg) read_peg(*peg, origin, config);
  if (const json* pretrained = find_object(members, "pretrained_cfg")) read_preprocessing(*pretrained, origin, config);
  config.check(origin);
  return config;
}

Config Config::load(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace cpvt
