#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/image/image.h"
#include "kernels/token_grid.h"

namespace cpvt {

std::string size_text(ImageSize size);  // "480x640"

/// Where each image of a batch has its rows in the token matrix: one after the other, whatever their sizes.
struct TokenLayout {
  std::vector<TokenGrid> images;
  int64_t rows = 0;

  /// Grids of floor(height / patch) × floor(width / patch). Throws Error for an empty batch or an image smaller than a
  /// patch.
  static TokenLayout of(std::span<const ImageSize> sizes, int64_t patch, bool class_token);

  bool operator==(const TokenLayout&) const = default;
};

}  // namespace cpvt
