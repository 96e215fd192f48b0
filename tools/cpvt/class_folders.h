#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "weights/config.h"

namespace cpvt::cli {

/// The pictures of a folder with a folder per class, and the class of each: what torchvision calls an ImageFolder.
struct ClassFolders {
  std::vector<std::string> pictures;  // sorted by class folder, then by path
  std::vector<int> labels;            // of each picture
  size_t left_out = 0;                // files whose name is no picture's
  std::string first_left_out;

  /// Where the folders' names are label names of the model, these say the class; otherwise the folders' order does,
  /// sorted by name, and there must be one per class. Pictures are known by their names' endings and may lie deeper in
  /// a class's folder. Throws Error for a folder that cannot be read so, or holds no picture.
  static ClassFolders read(const std::filesystem::path& root, const Config& config);
};

}  // namespace cpvt::cli
