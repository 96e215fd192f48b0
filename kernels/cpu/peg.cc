#include "kernels/cpu/peg.h"

#include <algorithm>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/peg.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpvt::cpu::HWY_NAMESPACE {

constexpr int kMostOutputs =
    HWY_TARGET <= HWY_AVX3 ? 16 : 8;  // columns of the grid that are summed side by side in registers
constexpr int kMostTaps = 3;          // taps of one kernel row held in registers beside them

/// What stays the same over one image and one vector of channels; x and y point at those channels of the grid's first
/// row.
struct Plane {
  const float* x;
  int64_t x_stride;
  float* y;
  int64_t y_stride;
  const float* weight;
  int64_t weight_stride;
  int kernel;
  int64_t height;
  int64_t width;
};

/// Adds kTaps taps of one kernel row to kOutputs neighbouring outputs. Each input is loaded once and meets every tap
/// and output that it belongs to; inputs outside the row are passed over. An output's taps come in rising order.
template <int kOutputs, int kTaps, class Access>
HWY_INLINE void add_taps(const float* row, int64_t x_stride, int64_t width, int64_t first, const float* weight,
                         int64_t weight_stride, Access access, Vec (&sum)[kOutputs]) {
  Vec w[kTaps];
  for (int t = 0; t < kTaps; ++t) w[t] = access.load(weight + t * weight_stride);
#pragma GCC unroll 32
  for (int j = 0; j < kOutputs + kTaps - 1; ++j) {
    if (static_cast<uint64_t>(first + j) >= static_cast<uint64_t>(width)) continue;
    const Vec in = access.load(row + (first + j) * x_stride);
#pragma GCC unroll 8
    for (int t = 0; t < kTaps; ++t) {
      const int o = j - t;
      if (o >= 0 && o < kOutputs) sum[o] = hn::MulAdd(w[t], in, sum[o]);
    }
  }
}

/// Outputs (oy, ox) to (oy, ox + kOutputs - 1).
template <int kOutputs, class Access>
void peg_outputs(const Plane& p, Vec bias, int64_t oy, int64_t ox, Access access) {
  const int64_t reach = p.kernel / 2;
  Vec sum[kOutputs];
  for (int o = 0; o < kOutputs; ++o) {
    sum[o] = hn::Add(bias, access.load(p.x + (oy * p.width + ox + o) * p.x_stride));
  }
  const int64_t dy_end = std::min<int64_t>(p.kernel, p.height + reach - oy);
  for (int64_t dy = std::max<int64_t>(0, reach - oy); dy < dy_end; ++dy) {
    const float* row = p.x + (oy + dy - reach) * p.width * p.x_stride;
    const float* weight = p.weight + dy * p.kernel * p.weight_stride;
    for (int64_t dx = 0; dx < p.kernel; dx += kMostTaps) {
      const int64_t first = ox + dx - reach;
      if (first >= p.width) break;
      if (first + kOutputs + kMostTaps - 1 <= 0) continue;
      const float* w = weight + dx * p.weight_stride;
      switch (std::min<int64_t>(kMostTaps, p.kernel - dx)) {
        case 1:
          add_taps<kOutputs, 1>(row, p.x_stride, p.width, first, w, p.weight_stride, access, sum);
          break;
        case 2:
          add_taps<kOutputs, 2>(row, p.x_stride, p.width, first, w, p.weight_stride, access, sum);
          break;
        default:
          add_taps<kOutputs, 3>(row, p.x_stride, p.width, first, w, p.weight_stride, access, sum);
      }
    }
  }
  for (int o = 0; o < kOutputs; ++o) access.store(sum[o], p.y + (oy * p.width + ox + o) * p.y_stride);
}

/// peg_outputs for a number of outputs known only now, 1 to kOutputs.
template <int kOutputs, class Access>
HWY_INLINE void peg_some_outputs(int64_t outputs, const Plane& p, Vec bias, int64_t oy, int64_t ox, Access access) {
  if constexpr (kOutputs > 1) {
    if (outputs < kOutputs) return peg_some_outputs<kOutputs - 1>(outputs, p, bias, oy, ox, access);
  }
  peg_outputs<kOutputs>(p, bias, oy, ox, access);
}

template <class Access>
void peg_row(const Plane& p, const float* bias, int64_t oy, Access access) {
  const Vec b = access.load(bias);
  // Blocks as even as they can be: 20 columns are 10 + 10, not 16 + 4.
  const int64_t blocks = (p.width + kMostOutputs - 1) / kMostOutputs;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t ox = p.width * block / blocks;
    peg_some_outputs<kMostOutputs>(p.width * (block + 1) / blocks - ox, p, b, oy, ox, access);
  }
}

/// Grid rows [oy_begin, oy_end) and channels [0, width) from where the pointers stand.
void peg_block(const float* x, int64_t x_stride, const float* weight, int64_t weight_stride, const float* bias,
               int kernel, float* y, int64_t y_stride, int64_t grid_height, int64_t grid_width, int64_t oy_begin,
               int64_t oy_end, int64_t width) {
  for_each_vector(width, [&](int64_t c, auto access) HWY_ATTR {
    const Plane plane{x + c, x_stride, y + c, y_stride, weight + c, weight_stride, kernel, grid_height, grid_width};
    for (int64_t oy = oy_begin; oy < oy_end; ++oy) peg_row(plane, bias + c, oy, access);
  });
}

}  // namespace cpvt::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt::cpu {

HWY_EXPORT(peg_block);

namespace {
constexpr int64_t kGridRows = 4;   // of one item
constexpr int64_t kChannels = 64;  // of one item
}  // namespace

void peg(const float* x, int64_t x_stride, const float* weight, const float* bias, int kernel,
         std::span<const TokenGrid> images, float* y, int64_t y_stride, int64_t width, ThreadPool& pool) {
  struct Item {
    const TokenGrid* grid;
    int64_t row;
  };
  std::vector<Item> bands;
  for (const TokenGrid& grid : images) {
    for (int64_t row = 0; row < grid.height; row += kGridRows) bands.push_back({&grid, row});
    for (int64_t row = grid.first_row; row < grid.first_patch(); ++row) {
      std::copy_n(x + row * x_stride, width, y + row * y_stride);
    }
  }
  const int64_t parts = (width + kChannels - 1) / kChannels;
  pool.run(static_cast<int64_t>(bands.size()) * parts, [&](int64_t item, int) {
    const auto [grid, row] = bands[static_cast<size_t>(item / parts)];
    const int64_t c = item % parts * kChannels;
    HWY_DYNAMIC_DISPATCH(peg_block)
    (x + grid->first_patch() * x_stride + c, x_stride, weight + c, width, bias + c, kernel,
     y + grid->first_patch() * y_stride + c, y_stride, grid->height, grid->width, row,
     std::min(grid->height, row + kGridRows), std::min(kChannels, width - c));
  });
}

void repack_peg_weight(const float* weight, int64_t width, int kernel, float* repacked) {
  const int64_t taps = static_cast<int64_t>(kernel) * kernel;
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t c = 0; c < width; ++c) repacked[tap * width + c] = weight[c * taps + tap];
  }
}

}  // namespace cpvt::cpu
#endif
