#include "kernels/cuda/patch_embed.h"

namespace cpvt::cuda {

std::vector<PatchTile> patch_tiles(std::span<const TokenGrid> grids) {
  std::vector<PatchTile> tiles;
  for (size_t i = 0; i < grids.size(); ++i) {
    for (int64_t patch = 0; patch < grids[i].patches(); patch += kPatchTile) {
      tiles.push_back({.image = static_cast<int32_t>(i), .first_patch = static_cast<int32_t>(patch)});
    }
  }
  return tiles;
}

}  // namespace cpvt::cuda
