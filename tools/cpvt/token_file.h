#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/spool.h"
#include "tools/cpvt/answering.h"

namespace cpvt::cli {

/// What `run` and `features` write: collects answers, then makes one safetensors file of them.
///
///   logits      [B, classes]
///   features    [B, N, D]     tokens after the final norm, row-major over the grid, the class token first where there
///                             is one; only where the answers have them
///
/// In a ragged file each image's results also, or for features instead, stand under its number, as if it were alone.
/// Where an image is missing only these are left: rows of a tensor over all would be taken for other images.
///
///   logits.I    [1, classes]
///   features.I  [1, N_I, D]
class TokenFile {
 public:
  /// Until the end the features lie beside `path`, in a file without a name: there may be more of them than memory.
  explicit TokenFile(std::filesystem::path path) : path_(std::move(path)) {}

  /// Keeps a copy of what came out for one more image.
  void add(const Answer& answer);
  /// Leaves out one image, whose number stays free.
  void skip() { ++begun_; }

  int64_t images() const { return static_cast<int64_t>(rows_.size()); }
  bool same_rows() const;  ///< whether all images have equally many tokens: what features [B, N, D] needs

  /// Throws Error where the file cannot be written; then there is none.
  void write(bool ragged, const std::map<std::string, std::string>& metadata);

 private:
  std::vector<float> logits_;
  std::filesystem::path path_;
  std::optional<Spool> features_;
  std::vector<int64_t> rows_;     // of each image, in features_
  std::vector<int64_t> numbers_;  // of each image
  int64_t begun_ = 0;             // images added or left out
};

}  // namespace cpvt::cli
