#include "engine/token_layout.h"

#include "base/error.h"

namespace cpvt {

namespace {
// A side beyond this is a lie or a mistake, and products of two sides and a width stay far from overflow.
constexpr int64_t kLargestSide = 1 << 20;
}  // namespace

std::string size_text(ImageSize size) { return fmt::format("{}x{}", size.height, size.width); }

TokenLayout TokenLayout::of(std::span<const ImageSize> sizes, int64_t patch, bool class_token) {
  if (sizes.empty()) throw Error("expected at least one image in a batch, found none");
  TokenLayout layout;
  for (const ImageSize size : sizes) {
    if (size.height < patch || size.width < patch) {
      throw Error("image of {} pixels: expected at least one patch of {}x{}", size_text(size), patch, patch);
    }
    if (size.height > kLargestSide || size.width > kLargestSide) {
      throw Error("image of {} pixels: expected sides of at most {}", size_text(size), kLargestSide);
    }
    const TokenGrid grid{layout.rows, size.height / patch, size.width / patch, class_token ? 1 : 0};
    layout.images.push_back(grid);
    layout.rows += grid.rows();
  }
  return layout;
}

}  // namespace cpvt
