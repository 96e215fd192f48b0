#include "engine/position.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"

namespace cpvt {

namespace {

/// Keys' cubic convolution kernel with a = -1/2, which PyTorch takes when it antialiases (and Pillow always).
float cubic(float x) {
  constexpr float a = -0.5F;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/// One output sample along an axis: weights of the input samples from `first` on.
struct Tap {
  int64_t first;
  std::vector<float> weights;
};

/// PyTorch's _upsample_bicubic2d_aa along one axis, align_corners off.
std::vector<Tap> taps(int64_t in, int64_t out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float stretch = std::max(scale, 1.0F);
  const float support = 2 * stretch;
  std::vector<Tap> result;
  for (int64_t i = 0; i < out; ++i) {
    const float center = scale * (static_cast<float>(i) + 0.5F);
    // Truncated after the half is added, as PyTorch does: rounding proper would differ below zero.
    // NOLINTBEGIN(bugprone-incorrect-roundings)
    const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5F), 0);
    const auto last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5F), in);
    // NOLINTEND(bugprone-incorrect-roundings)
    Tap tap{first, {}};
    float total = 0;
    for (int64_t j = first; j < last; ++j) {
      tap.weights.push_back(cubic((static_cast<float>(j) - center + 0.5F) / stretch));
      total += tap.weights.back();
    }
    for (float& w : tap.weights) w /= total;
    result.push_back(std::move(tap));
  }
  return result;
}

/// [side, side, D] -> [grid.height, grid.width, D], columns first, then rows.
void resample(const float* table, int64_t side, int64_t width, const TokenGrid& grid, float* rows) {
  const std::vector<Tap> across = taps(side, grid.width);
  const std::vector<Tap> down = taps(side, grid.height);
  std::vector<float> narrowed(static_cast<size_t>(side * grid.width * width), 0.0F);
  for (int64_t y = 0; y < side; ++y) {
    for (int64_t x = 0; x < grid.width; ++x) {
      float* to = &narrowed[static_cast<size_t>((y * grid.width + x) * width)];
      const Tap& tap = across[static_cast<size_t>(x)];
      for (size_t j = 0; j < tap.weights.size(); ++j) {
        const float* from = table + (y * side + tap.first + static_cast<int64_t>(j)) * width;
        for (int64_t c = 0; c < width; ++c) to[c] += tap.weights[j] * from[c];
      }
    }
  }
  std::fill_n(rows, grid.patches() * width, 0.0F);
  for (int64_t y = 0; y < grid.height; ++y) {
    const Tap& tap = down[static_cast<size_t>(y)];
    float* to = rows + y * grid.width * width;
    for (size_t j = 0; j < tap.weights.size(); ++j) {
      const float* from = &narrowed[static_cast<size_t>((tap.first + static_cast<int64_t>(j)) * grid.width * width)];
      for (int64_t c = 0; c < grid.width * width; ++c) to[c] += tap.weights[j] * from[c];
    }
  }
}

/// A row: sines of the row's and the column's phases, then their cosines, each over D/4 frequencies.
void sines_and_cosines(int64_t width, const TokenGrid& grid, float* rows) {
  const int64_t bands = width / 4;
  for (int64_t band = 0; band < bands; ++band) {
    const float frequency = 1.0F / std::pow(10000.0F, static_cast<float>(band) / static_cast<float>(bands));
    for (int64_t y = 0; y < grid.height; ++y) {
      for (int64_t x = 0; x < grid.width; ++x) {
        float* row = rows + (y * grid.width + x) * width + band;
        const float phases[2] = {static_cast<float>(y) * frequency, static_cast<float>(x) * frequency};
        for (int64_t axis = 0; axis < 2; ++axis) {
          row[axis * bands] = std::sin(phases[axis]);
          row[(2 + axis) * bands] = std::cos(phases[axis]);
        }
      }
    }
  }
}

}  // namespace

std::vector<float> position_rows(const ops::AddPosition& op, const TokenGrid& grid) {
  std::vector<float> rows(static_cast<size_t>(grid.rows() * op.width), 0.0F);
  float* patches = rows.data() + grid.prefix * op.width;
  if (!op.learned) {
    sines_and_cosines(op.width, grid, patches);
    return rows;
  }
  const float* table = op.learned->data.get();
  const int64_t trained = op.learned->shape[1] - grid.prefix;
  const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(trained))));
  if (side < 1 || side * side != trained) {
    throw Error("pos_embed: expected a square training grid, found {} patch rows", trained);
  }
  std::copy_n(table, grid.prefix * op.width, rows.data());
  table += grid.prefix * op.width;
  if (grid.height == side && grid.width == side) {
    std::copy_n(table, trained * op.width, patches);
  } else {
    resample(table, side, op.width, grid, patches);
  }
  return rows;
}

PositionTables PositionTables::of(const TokenLayout& layout, int64_t width) {
  PositionTables tables;
  std::map<std::pair<int64_t, int64_t>, int64_t> offset_of_shape;
  for (const TokenGrid& grid : layout.images) {
    const auto [shape, is_new] = offset_of_shape.insert({{grid.height, grid.width}, tables.floats});
    if (is_new) tables.floats += grid.rows() * width;
    tables.offset.push_back(shape->second);
  }
  return tables;
}

void fill_positions(const ops::AddPosition& op, const TokenLayout& layout, std::span<float> tables) {
  const PositionTables places = PositionTables::of(layout, op.width);
  int64_t filled = 0;
  for (size_t i = 0; i < layout.images.size(); ++i) {
    if (places.offset[i] < filled) continue;  // an earlier image's
    const std::vector<float> rows = position_rows(op, layout.images[i]);
    std::copy(rows.begin(), rows.end(), tables.begin() + places.offset[i]);
    filled = places.offset[i] + std::ssize(rows);
  }
}

}  // namespace cpvt
