#include "weights/checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <span>

#include "base/error.h"
#include "weights/infer.h"
#include "weights/json.h"
#include "weights/schema.h"

namespace cpvt {

namespace fs = std::filesystem;

namespace {

constexpr const char* kConfigName = "config.json";
constexpr const char* kWeightsName = "model.safetensors";
constexpr size_t kMaxListed = 8;  // differences of each kind that a message spells out

/// Everything in which a file differs from what the schema asks of it, told in one message.
class Differences {
 public:
  void missing(const TensorSpec& spec) {
    std::string line = fmt::format("missing tensor '{}' {}", spec.name, shape_text(spec.shape));
    if (spec.spellings.size() > 1) line += " (in any accepted spelling)";
    if (spec.name.ends_with("attn.qkv.bias")) line += " (a model without it is not supported: export zeros)";
    missing_.push_back(std::move(line));
  }
  void unknown(const std::string& name, const SafetensorsFile::Entry& entry) {
    unknown_.push_back(
        fmt::format("unknown tensor {}: {} {}", in_quotes(name), dtype_name(entry.dtype), shape_text(entry.shape)));
  }
  void mismatch(const std::string& name, const std::string& expected, const std::string& found) {
    mismatched_.push_back(fmt::format("tensor {}: expected {}, found {}", in_quotes(name), expected, found));
  }

  void throw_if_any(const std::string& path, const Config& config) const {
    if (missing_.empty() && unknown_.empty() && mismatched_.empty()) return;
    std::string text =
        fmt::format("{}: the tensors are not those of a {}-block model of {} channels, pos_embed {}, {}:", path,
                    config.depth, config.embed_dim, name_of(config.pos_embed),
                    config.has_class_token() ? "with class token" : "without class token");
    list(text, mismatched_, "mismatches");
    list(text, missing_, "missing");
    list(text, unknown_, "unknown");
    throw Error("{}", text);
  }

 private:
  static void list(std::string& text, const std::vector<std::string>& lines, const char* kind) {
    for (size_t i = 0; i < std::min(lines.size(), kMaxListed); ++i) text += "\n  " + lines[i];
    if (lines.size() > kMaxListed) text += fmt::format("\n  and {} more {}", lines.size() - kMaxListed, kind);
  }

  std::vector<std::string> missing_, unknown_, mismatched_;
};

/// One pass over the exponents, without a branch, so that the compiler vectorises it: it runs at the speed of memory.
bool all_finite(std::span<const float> values) {
  uint32_t largest = 0;
  for (const float value : values) largest = std::max(largest, std::bit_cast<uint32_t>(value) & 0x7F800000U);
  return largest != 0x7F800000U;
}

void check_finite(const Tensor& tensor, const std::string& name, const std::string& path) {
  const std::span<const float> values(tensor.data.get(), static_cast<size_t>(tensor.size()));
  if (all_finite(values)) return;
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  throw Error("{}: tensor {}: expected finite values, found {} at index {}", path, in_quotes(name), *bad,
              bad - values.begin());
}

bool is_pytorch_file(const fs::path& path) {
  const auto extension = path.extension();
  return extension == ".pth" || extension == ".pt" || extension == ".bin" || extension == ".ckpt" ||
         path.string().ends_with(".pth.tar");
}

Error needs_conversion(const fs::path& path) {
  return Error(
      "{}: a PyTorch file cannot be read yet: convert it with weights/pytorch/export.py, which makes a folder of {} "
      "and {}",
      path.string(), kConfigName, kWeightsName);
}

/// The files that a MODEL argument means.
struct Parts {
  fs::path weights;
  std::optional<fs::path> config;
};

Parts find_in_folder(const fs::path& folder, const std::optional<fs::path>& told_config) {
  Parts parts{folder / kWeightsName, told_config ? *told_config : folder / kConfigName};
  if (!fs::exists(parts.weights)) {
    std::set<fs::path> others;  // sorted: a folder's own order is anybody's guess
    for (const auto& item : fs::directory_iterator(folder)) {
      if (is_pytorch_file(item.path())) others.insert(item.path());
    }
    if (!others.empty()) throw needs_conversion(*others.begin());
    throw Error("{}: expected {} in the model folder, found none", folder.string(), kWeightsName);
  }
  if (!told_config && !fs::exists(*parts.config)) {
    throw Error("{}: expected {} in the model folder, found none (to have it inferred from the tensors, give {})",
                folder.string(), kConfigName, parts.weights.string());
  }
  return parts;
}

Parts find_parts(const fs::path& model, const std::optional<fs::path>& told_config) {
  try {
    if (!fs::exists(model)) throw Error("{}: no such model folder or file", model.string());
    if (fs::is_directory(model)) return find_in_folder(model, told_config);
    if (is_pytorch_file(model)) throw needs_conversion(model);
    if (told_config) return {model, told_config};
    const fs::path beside = model.parent_path() / kConfigName;
    return {model, fs::exists(beside) ? std::optional(beside) : std::nullopt};
  } catch (const fs::filesystem_error& e) {
    throw Error("{}: cannot look for the model: {}", model.string(), e.code().message());
  }
}

}  // namespace

Checkpoint Checkpoint::load(const fs::path& model, const std::optional<fs::path>& told_config) {
  const Parts parts = find_parts(model, told_config);
  std::vector<std::string> assumptions;
  std::vector<std::string> notes;
  const SafetensorsFile file(parts.weights);
  Config config;
  if (parts.config) {
    config = Config::load(*parts.config);
    if (!told_config && !fs::is_directory(model)) notes.push_back("configuration from " + parts.config->string());
  } else {
    config = infer_config(file, assumptions);
    notes.emplace_back("configuration inferred from the tensors");
  }
  Checkpoint checkpoint(std::move(config), file);
  checkpoint.assumptions_ = std::move(assumptions);
  checkpoint.notes_ = std::move(notes);
  checkpoint.load_tensors();
  return checkpoint;
}

void Checkpoint::load_tensors() {
  const std::string path = file_.path().string();
  const auto& entries = file_.entries();
  Differences differences;
  std::set<std::string_view> known;
  std::map<std::string, std::string> spelling_of;  // canonical to the file's
  for (const TensorSpec& spec : cpvt_schema(config_)) {
    std::vector<std::map<std::string, SafetensorsFile::Entry>::const_iterator> present;
    for (const std::string& spelling : spec.spellings) {
      if (const auto found = entries.find(spelling); found != entries.end()) present.push_back(found);
    }
    if (present.empty()) {
      differences.missing(spec);
      continue;
    }
    for (const auto& found : present) known.insert(found->first);
    if (present.size() > 1) {
      differences.mismatch(spec.name, "one spelling",
                           in_quotes(present[0]->first) + " and " + in_quotes(present[1]->first));
      continue;
    }
    const auto& [name, entry] = *present[0];
    if (entry.shape != spec.shape) differences.mismatch(name, shape_text(spec.shape), shape_text(entry.shape));
    if (!SafetensorsFile::is_loadable(entry.dtype)) {
      differences.mismatch(name, "F32, F16, BF16 or F64", std::string(dtype_name(entry.dtype)));
    }
    spelling_of.emplace(spec.name, name);
  }
  for (const auto& [canonical, name] : spelling_of) {
    const std::string_view bias = ".bias";
    if (!canonical.ends_with(bias)) continue;
    const auto stem = [&](const std::string& full) { return full.substr(0, full.rfind('.')); };
    const auto weight = spelling_of.find(stem(canonical) + ".weight");
    if (weight == spelling_of.end() || stem(weight->second) == stem(name)) continue;
    // Halves of two convolutions, as likely as not.
    differences.mismatch(
        name,
        fmt::format("{} beside {}", in_quotes(stem(weight->second) + std::string(bias)), in_quotes(weight->second)),
        in_quotes(name));
  }
  for (const auto& [name, entry] : entries) {
    if (known.contains(name)) continue;
    if (is_training_only(name)) {
      notes_.push_back(fmt::format("tensor {} ignored: only training reads it", in_quotes(name)));
    } else {
      differences.unknown(name, entry);
    }
  }
  differences.throw_if_any(path, config_);

  for (const auto& [canonical, name] : spelling_of) {
    Tensor tensor = file_.load(name);
    check_finite(tensor, name, path);
    parameters_ += tensor.size();
    tensors_.emplace(canonical, std::move(tensor));
  }
}

const Tensor& Checkpoint::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw Error("{}: the model has no tensor named {}", file_.path().string(), in_quotes(name));
  }
  return found->second;
}

}  // namespace cpvt
