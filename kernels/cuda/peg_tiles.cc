#include <algorithm>

#include "kernels/cuda/peg.h"

namespace cpvt::cuda {
namespace {

// Below this many outputs the rectangles are cut smaller: a device has 100 to 150 multiprocessors, and each rectangle
// makes a block for every few channels.
constexpr int64_t kFewOutputs = 2048;

int64_t pieces(int64_t extent, int64_t largest) { return (extent + largest - 1) / largest; }

}  // namespace

std::vector<PegTile> peg_tiles(std::span<const TokenGrid> images, int kernel) {
  PegTileSize size = peg_largest_tile(kernel);
  int64_t count = 0;
  for (const TokenGrid& image : images) count += pieces(image.height, size.height) * pieces(image.width, size.width);
  if (count * size.height * size.width < kFewOutputs) {
    size.height /= 2;
    size.width = std::min(size.width, 8);  // the outputs that a thread sums side by side
  }

  std::vector<PegTile> tiles;
  for (const TokenGrid& image : images) {
    if (image.prefix > 0) tiles.push_back({image, 0, 0, 0, 0});
    const int64_t rows = pieces(image.height, size.height);
    const int64_t columns = pieces(image.width, size.width);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t top = image.height * i / rows;
      const int64_t height = image.height * (i + 1) / rows - top;
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t left = image.width * j / columns;
        const int64_t width = image.width * (j + 1) / columns - left;
        tiles.push_back({image, static_cast<int32_t>(top), static_cast<int32_t>(left), static_cast<int32_t>(height),
                         static_cast<int32_t>(width)});
      }
    }
  }
  return tiles;
}

}  // namespace cpvt::cuda
