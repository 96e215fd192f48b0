#include "tools/cpvt/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "weights/safetensors.h"

namespace cpvt::cli {

void TokenFile::add(const Answer& answer) {
  logits_.insert(logits_.end(), answer.logits.begin(), answer.logits.end());
  features_.insert(features_.end(), answer.features.begin(), answer.features.end());
  rows_.push_back(answer.grid.rows());
  numbers_.push_back(begun_++);
}

bool TokenFile::same_rows() const {
  return std::all_of(rows_.begin(), rows_.end(), [&](int64_t rows) { return rows == rows_.front(); });
}

void TokenFile::write(const std::filesystem::path& path, bool ragged,
                      const std::map<std::string, std::string>& metadata) const {
  const int64_t classes = std::ssize(logits_) / images();
  const int64_t width = std::ssize(features_) / std::accumulate(rows_.begin(), rows_.end(), int64_t{0});
  std::vector<NamedTensor> tensors;
  if (begun_ == images()) tensors.push_back({"logits", {images(), classes}, logits_.data()});
  if (!ragged && !features_.empty()) {
    tensors.push_back({"features", {images(), rows_.front(), width}, features_.data()});
  }
  if (ragged) {
    const float* features = features_.data();
    for (int64_t i = 0; i < images(); ++i) {
      const int64_t rows = rows_[static_cast<size_t>(i)];
      const int64_t number = numbers_[static_cast<size_t>(i)];
      tensors.push_back({fmt::format("logits.{}", number), {1, classes}, logits_.data() + i * classes});
      if (!features_.empty()) tensors.push_back({fmt::format("features.{}", number), {1, rows, width}, features});
      features += rows * width;
    }
  }
  write_safetensors(path, tensors, metadata);
}

}  // namespace cpvt::cli
