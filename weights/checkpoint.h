#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "weights/config.h"
#include "weights/safetensors.h"
#include "weights/tensor.h"

namespace cpvt {

/// A model's configuration and tensors, complete and checked against the schema. Immutable; safe to share by threads.
class Checkpoint {
 public:
  /// `model` is a folder with config.json and model.safetensors, or one .safetensors file, whose configuration is
  /// `config` if told, else the config.json lying beside it, else inferred from names and shapes (see assumptions()).
  /// `config`, where told, also takes the place of a folder's own config.json. Throws Error when something is missing,
  /// unreadable, or the tensors are not exactly the schema's: all differences in one message, each naming the tensor,
  /// what was expected and what was found. A weight that is not finite is an Error too, naming tensor and index: no
  /// trained model has one, and a whole batch of NaN logits would be a late way to learn of it.
  static Checkpoint load(const std::filesystem::path& model, const std::optional<std::filesystem::path>& config = {});

  const Config& config() const { return config_; }

  /// By the schema's canonical name, whatever the file's spelling. Throws Error for a name that the schema has not.
  const Tensor& tensor(const std::string& name) const;

  int64_t parameters() const { return parameters_; }  // elements of all tensors
  uint64_t bytes_on_disk() const { return file_.file_size(); }
  const std::filesystem::path& weights_path() const { return file_.path(); }

  /// Without a configuration: what the tensors do not prove, and was taken for granted, a sentence each. Nobody may be
  /// left not knowing it.
  const std::vector<std::string>& assumptions() const { return assumptions_; }

  /// What the user may want to know besides, a sentence each: where the configuration is from, what was left out.
  const std::vector<std::string>& notes() const { return notes_; }

  /// Lets the kernel take back the file's pages, once a backend has packed its own copy of the weights.
  void drop_pages() const { file_.drop_pages(); }

 private:
  Checkpoint(Config config, SafetensorsFile file) : config_(std::move(config)), file_(std::move(file)) {}
  void load_tensors();

  Config config_;
  SafetensorsFile file_;
  std::map<std::string, Tensor> tensors_;
  int64_t parameters_ = 0;
  std::vector<std::string> assumptions_;
  std::vector<std::string> notes_;
};

}  // namespace cpvt
