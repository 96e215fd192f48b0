#include <algorithm>

#include "kernels/cuda/attention.h"

namespace cpvt::cuda {

// Blocks start in the order of the list: with the longest first, what is still running at the end is short.
std::vector<AttentionTile> attention_tiles(std::span<const TokenGrid> images) {
  std::vector<TokenGrid> sorted(images.begin(), images.end());
  std::ranges::stable_sort(sorted, std::ranges::greater{}, &TokenGrid::rows);
  std::vector<AttentionTile> tiles;
  for (const TokenGrid& image : sorted) {
    for (int64_t query = 0; query < image.rows(); query += kAttentionQueries) {
      tiles.push_back({.first_row = static_cast<int32_t>(image.first_row),
                       .tokens = static_cast<int32_t>(image.rows()),
                       .first_query = static_cast<int32_t>(query)});
    }
  }
  return tiles;
}

}  // namespace cpvt::cuda
