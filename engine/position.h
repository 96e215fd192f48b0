#pragma once

#include <span>
#include <vector>

#include "engine/ops.h"
#include "engine/token_layout.h"

namespace cpvt {

/// The rows [grid.rows(), D] that AddPosition adds to one image.
/// Learned: bicubic (a = -1/2) with antialiasing, align_corners off, the class token's row apart, and the table itself
/// on its own grid: timm/layers/pos_embed.py, resample_abs_pos_embed. Sines and cosines:
/// timm/layers/pos_embed_sincos.py, build_sincos2d_pos_embed, temperature 10000; D must be a multiple of 4.
std::vector<float> position_rows(const ops::AddPosition& op, const TokenGrid& grid);

/// Where a batch's position rows lie: a table per grid shape, one after the other; images of one shape share one.
struct PositionTables {
  std::vector<int64_t> offset;  // per image, in floats
  int64_t floats = 0;           // of all

  static PositionTables of(const TokenLayout& layout, int64_t width);
};

/// Fills PositionTables::of(layout, op.width).floats floats.
void fill_positions(const ops::AddPosition& op, const TokenLayout& layout, std::span<float> tables);

}  // namespace cpvt
