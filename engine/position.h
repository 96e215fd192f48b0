#pragma once

#include <vector>

#include "engine/ops.h"
#include "kernels/token_grid.h"

namespace cpvt {

/// The rows [grid.rows(), D] that AddPosition adds to one image.
/// Learned: bicubic (a = -1/2) with antialiasing, align_corners off, the class token's row apart, and the table itself
/// on its own grid: timm/layers/pos_embed.py, resample_abs_pos_embed. Sines and cosines:
/// timm/layers/pos_embed_sincos.py, build_sincos2d_pos_embed, temperature 10000; D must be a multiple of 4.
std::vector<float> position_rows(const ops::AddPosition& op, const TokenGrid& grid);

}  // namespace cpvt
