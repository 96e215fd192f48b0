#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/runner.h"
#include "weights/safetensors.h"

namespace cpvt {

/// A case of tests/data/models, made by tests/data/make_models.py: a network, images, and what PyTorch makes of them.
class Golden {
 public:
  explicit Golden(const std::string& name);

  const std::shared_ptr<const Model>& model() const { return model_; }
  const std::vector<ImageView>& images() const { return images_; }

  /// Of image `image`: "logits" or "features", or an intermediate as CPVT.stages() in weights/pytorch/cpvt.py names it.
  Tensor expected(const std::string& stage, size_t image) const;
  bool has(const std::string& stage, size_t image) const;

 private:
  std::shared_ptr<const Model> model_;
  SafetensorsFile file_;
  std::vector<Tensor> pixels_;
  std::vector<ImageView> images_;
};

/// The names of all cases.
std::vector<std::string> golden_names();

/// A [C, H, W] tensor as an image.
ImageView view(const Tensor& pixels);

/// The values of a tensor.
std::span<const float> values(const Tensor& tensor);

}  // namespace cpvt
