#include "tools/cpvt/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "weights/safetensors.h"

namespace cpvt::cli {

void TokenFile::add(const Answer& answer) {
  logits_.insert(logits_.end(), answer.logits.begin(), answer.logits.end());
  if (!answer.features.empty()) {
    if (!features_) features_.emplace(path_);
    features_->append(std::as_bytes(answer.features));
  }
  rows_.push_back(answer.grid.rows());
  numbers_.push_back(begun_++);
}

bool TokenFile::same_rows() const {
  return std::all_of(rows_.begin(), rows_.end(), [&](int64_t rows) { return rows == rows_.front(); });
}

void TokenFile::write(bool ragged, const std::map<std::string, std::string>& metadata) {
  const int64_t classes = std::ssize(logits_) / images();
  const std::span<const std::byte> spooled = features_ ? features_->bytes() : std::span<const std::byte>();
  const std::span features(reinterpret_cast<const float*>(spooled.data()), spooled.size() / sizeof(float));
  const int64_t width = std::ssize(features) / std::accumulate(rows_.begin(), rows_.end(), int64_t{0});
  std::vector<NamedTensor> tensors;
  if (begun_ == images()) tensors.push_back({"logits", {images(), classes}, logits_.data()});
  if (!ragged && !features.empty()) {
    tensors.push_back({"features", {images(), rows_.front(), width}, features.data()});
  }
  if (ragged) {
    const float* of_image = features.data();
    for (int64_t i = 0; i < images(); ++i) {
      const int64_t rows = rows_[static_cast<size_t>(i)];
      const int64_t number = numbers_[static_cast<size_t>(i)];
      tensors.push_back({fmt::format("logits.{}", number), {1, classes}, logits_.data() + i * classes});
      if (!features.empty()) tensors.push_back({fmt::format("features.{}", number), {1, rows, width}, of_image});
      of_image += rows * width;
    }
  }
  write_safetensors(path_, tensors, metadata);
}

}  // namespace cpvt::cli
