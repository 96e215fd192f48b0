#include "tools/cpvt/class_folders.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>
#include <string_view>

#include "base/error.h"

namespace cpvt::cli {

namespace fs = std::filesystem;

namespace {

// torchvision's list (torchvision/datasets/folder.py, IMG_EXTENSIONS). Those that we cannot read are failures to be
// named, not files to be passed over: an accuracy over part of the pictures is another number.
constexpr std::array<std::string_view, 9> kEndings{".jpg", ".jpeg", ".png",  ".ppm", ".bmp",
                                                   ".pgm", ".tif",  ".tiff", ".webp"};

bool is_picture_name(const fs::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

std::vector<fs::path> class_folders(const fs::path& root) {
  std::error_code error;
  std::vector<fs::path> folders;
  for (fs::directory_iterator at(root, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;  // of links that lead nowhere
    if (at->is_directory(ignored)) folders.push_back(at->path());
  }
  if (error) throw Error("{}: cannot read this folder: {}", root.string(), error.message());
  if (folders.empty()) throw Error("{}: expected a folder per class, found no folder", root.string());
  std::sort(folders.begin(), folders.end(),
            [](const fs::path& a, const fs::path& b) { return a.filename().string() < b.filename().string(); });
  return folders;
}

/// A link to a folder that it lies in would be followed until the system has enough of it.
void refuse_circle(const fs::path& link) {
  const fs::path target = fs::canonical(link);
  const fs::path folder = fs::canonical(link.parent_path());
  const auto [in_target, in_folder] = std::mismatch(target.begin(), target.end(), folder.begin(), folder.end());
  if (in_target == target.end()) throw Error("{}: expected no link to a folder that it lies in", link.string());
}

/// The class of each folder.
std::vector<int> labels_of(const fs::path& root, const std::vector<fs::path>& folders, const Config& config) {
  const std::vector<std::string>& names = config.label_names;
  std::vector<int> by_name;
  std::vector<std::string> unknown;
  for (const fs::path& folder : folders) {
    const std::string name = folder.filename().string();
    const auto first = std::find(names.begin(), names.end(), name);
    if (first == names.end()) {
      unknown.push_back(name);
    } else if (std::find(first + 1, names.end(), name) != names.end()) {
      throw Error("{}: the model has more than one class of that name", folder.string());
    } else {
      by_name.push_back(static_cast<int>(first - names.begin()));
    }
  }
  if (unknown.empty()) return by_name;
  if (!by_name.empty()) {
    throw Error("{}: {} of {} folders have the name of a class, but not {}: expected all or none", root.string(),
                by_name.size(), folders.size(), fmt::join(unknown, ", "));
  }
  if (std::ssize(folders) != config.num_classes) {
    throw Error("{}: expected {} folders, one per class of the model, or folders with names of classes, found {}: {}",
                root.string(), config.num_classes, folders.size(), fmt::join(unknown, ", "));
  }
  std::vector<int> by_order(folders.size());
  std::iota(by_order.begin(), by_order.end(), 0);
  return by_order;
}

}  // namespace

ClassFolders ClassFolders::read(const fs::path& root, const Config& config) {
  const std::vector<fs::path> folders = class_folders(root);
  const std::vector<int> labels = labels_of(root, folders, config);
  ClassFolders result;
  for (size_t i = 0; i < folders.size(); ++i) {
    std::error_code error;
    std::vector<std::string> pictures;
    fs::recursive_directory_iterator at(folders[i], fs::directory_options::follow_directory_symlink, error);
    for (const fs::recursive_directory_iterator end; !error && at != end; at.increment(error)) {
      std::error_code ignored;  // of links that lead nowhere: a picture's cannot be opened, and is told then
      if (at->is_directory(ignored)) {
        if (at->is_symlink(ignored)) refuse_circle(at->path());
        continue;
      }
      if (is_picture_name(at->path())) {
        pictures.push_back(at->path().string());
      } else if (result.left_out++ == 0) {
        result.first_left_out = at->path().string();
      }
    }
    if (error) throw Error("{}: cannot read this folder: {}", folders[i].string(), error.message());
    std::sort(pictures.begin(), pictures.end());
    result.labels.insert(result.labels.end(), pictures.size(), labels[i]);
    result.pictures.insert(result.pictures.end(), pictures.begin(), pictures.end());
  }
  if (result.pictures.empty()) throw Error("{}: expected pictures in its folders, found none", root.string());
  return result;
}

}  // namespace cpvt::cli
