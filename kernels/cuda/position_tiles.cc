#include <algorithm>

#include "kernels/cuda/elementwise.h"

namespace cpvt::cuda {

std::vector<PositionTile> position_tiles(std::span<const PositionImage> images, int64_t width) {
  std::vector<PositionTile> tiles;
  for (const PositionImage& image : images) {
    const int64_t rows = image.grid.rows();
    for (int64_t row = 0; row < rows; row += kPositionRows) {
      tiles.push_back({.first_row = image.grid.first_row + row,
                       .offset = image.offset + row * width,
                       .rows = std::min<int64_t>(rows - row, kPositionRows)});
    }
  }
  return tiles;
}

}  // namespace cpvt::cuda
