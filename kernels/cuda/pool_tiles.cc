#include <algorithm>

#include "kernels/cuda/pool.h"

namespace cpvt::cuda {

std::vector<PoolTile> pool_tiles(std::span<const TokenGrid> images) {
  std::vector<PoolTile> tiles;
  for (size_t i = 0; i < images.size(); ++i) {
    for (int64_t patch = 0; patch < images[i].patches(); patch += kPoolChunk) {
      tiles.push_back({.first_row = images[i].first_patch() + patch,
                       .rows = static_cast<int32_t>(std::min<int64_t>(images[i].patches() - patch, kPoolChunk)),
                       .sums = static_cast<int32_t>(pool_first_sum(static_cast<int64_t>(i), images[i].first_row) +
                                                    patch / kPoolChunk)});
    }
  }
  return tiles;
}

}  // namespace cpvt::cuda
