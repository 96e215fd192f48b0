#include "tests/engine/models/golden.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace cpvt {

namespace {
const std::filesystem::path kFolder = CPVT_TEST_DATA "/models";
}  // namespace

Golden::Golden(const std::string& name)
    : model_(Model::load(kFolder / name)), file_(kFolder / name / "golden.safetensors") {
  while (has("input", pixels_.size())) pixels_.push_back(expected("input", pixels_.size()));
  std::transform(pixels_.begin(), pixels_.end(), std::back_inserter(images_), view);
  if (images_.empty()) throw Error("{}: no images", file_.path().string());
}

Tensor Golden::expected(const std::string& stage, size_t image) const {
  return file_.load(fmt::format("{}.{}", stage, image));
}

bool Golden::has(const std::string& stage, size_t image) const {
  return file_.entries().contains(fmt::format("{}.{}", stage, image));
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

ImageView view(const Tensor& pixels) {
  return {pixels.data.get(), {static_cast<int>(pixels.shape[1]), static_cast<int>(pixels.shape[2])}};
}

std::span<const float> values(const Tensor& tensor) { return {tensor.data.get(), static_cast<size_t>(tensor.size())}; }

}  // namespace cpvt
