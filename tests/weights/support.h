#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "weights/config.h"
#include "weights/safetensors.h"
#include "weights/schema.h"

namespace cpvt {

/// A folder of its own for each test, gone afterwards.
class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cpvt_weights_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw Error("cannot make {}", pattern);
    folder_ = pattern;
  }
  ~FolderTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    auto path = folder_ / name;
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  std::filesystem::path folder_;
};

/// A safetensors file's bytes: the header's length, the header, the data.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes.append(header).append(data);
}

/// What `action` throws, with every occurrence of `path` written as FILE; empty when it throws nothing. Anything but an
/// Error passes through and fails the test.
template <class Action>
std::string error_of(Action&& action, const std::filesystem::path& path = {}) {
  try {
    action();
  } catch (const Error& e) {
    std::string text = e.what();
    const std::string name = path.string();
    for (size_t at = 0; !name.empty() && (at = text.find(name, at)) != std::string::npos;)
      text.replace(at, name.size(), "FILE");
    return text;
  }
  return "";
}

/// A whole config.json, CPVT-Ti's, with the keys of `changes` put over its own; "peg" is left out of other encodings.
inline std::string config_text(const std::string& changes = "{}") {
  nlohmann::json config = nlohmann::json::parse(R"({
    "architecture": "cpvt", "embed_dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4, "patch_size": 16,
    "in_chans": 3, "num_classes": 1000, "global_pool": "token", "pos_embed": "peg", "peg": {"after": [0], "kernel": 3},
    "layer_norm_eps": 1e-6, "img_size": 224})");
  const nlohmann::json changed = nlohmann::json::parse(changes);
  if (changed.contains("pos_embed")) config.erase("peg");
  config.update(changed, true);
  return config.dump();
}

/// A checkpoint in memory: every tensor of the schema, its values recognisable (tensor number + index / 1024).
class FakeModel {
 public:
  explicit FakeModel(const Config& config) {
    for (const TensorSpec& spec : cpvt_schema(config)) add(spec.name, spec.shape);
  }

  void add(const std::string& name, const std::vector<int64_t>& shape) {
    std::vector<float>& values = values_.emplace_back(static_cast<size_t>(element_count(shape)));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(tensors_.size()) + static_cast<float>(i) / 1024;
    }
    tensors_.push_back({name, shape, values.data()});  // a vector's buffer stays where it is when the vector moves
  }

  void remove(const std::string& name) { tensors_.erase(tensors_.begin() + index(name)); }
  void rename(const std::string& from, const std::string& to) { tensors_[static_cast<size_t>(index(from))].name = to; }
  NamedTensor& at(const std::string& name) { return tensors_[static_cast<size_t>(index(name))]; }
  float& value(const std::string& name, size_t i) { return const_cast<float*>(at(name).data)[i]; }
  void save(const std::filesystem::path& path) const { write_safetensors(path, tensors_); }

 private:
  std::ptrdiff_t index(const std::string& name) const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].name == name) return static_cast<std::ptrdiff_t>(i);
    }
    throw Error("the test has no tensor {}", name);
  }

  std::vector<NamedTensor> tensors_;
  std::vector<std::vector<float>> values_;
};

}  // namespace cpvt
