#pragma once

#include <cstdint>

namespace cpvt {

/// One image's rows in the token matrix [T, C]: `prefix` rows (its class token, when there is one), then the grid's
/// height*width rows, row-major. The only geometry that kernels know.
struct TokenGrid {
  int64_t first_row = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t prefix = 0;

  int64_t patches() const { return height * width; }
  int64_t rows() const { return prefix + patches(); }
  int64_t first_patch() const { return first_row + prefix; }

  bool operator==(const TokenGrid&) const = default;
};

}  // namespace cpvt
