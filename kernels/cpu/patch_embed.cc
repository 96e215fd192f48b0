#include "kernels/cpu/patch_embed.h"

#include <algorithm>
#include <vector>

#include "kernels/normalised_pixel.h"

namespace cpvt::cpu {

PackedPatchEmbed::PackedPatchEmbed(const float* weight, const float* bias, int64_t width, int64_t channels,
                                   int64_t patch, std::span<const float> mean, std::span<const float> std)
    : gemm_(weight, bias, width, channels * patch * patch), channels_(channels), patch_(patch) {
  for (size_t c = 0; c < mean.size(); ++c) {
    for (int v = 0; v < 256; ++v) pixels_.push_back(normalised_pixel(static_cast<uint8_t>(v), mean[c], std[c]));
  }
}

int64_t PackedPatchEmbed::workspace_floats(int64_t patches, int threads) const {
  return threads * gemm_.tile_floats() + (pixels_.empty() ? 0 : patches * gemm_.k());
}

std::vector<Image> PackedPatchEmbed::normalise(std::span<const Image> images, std::span<const TokenGrid> grids,
                                               float* floats, ThreadPool& pool) const {
  std::vector<Image> normalised;
  std::vector<int64_t> first{0};  // an image's first row among those of all
  for (const TokenGrid& grid : grids) {
    normalised.push_back({floats, grid.height * patch_, grid.width * patch_});
    floats += grid.patches() * gemm_.k();
    first.push_back(first.back() + normalised.back().height);
  }
  constexpr int64_t kRowsAtOnce = 16;
  pool.run((first.back() + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t item, int /*thread*/) {
    int64_t row = item * kRowsAtOnce;
    const int64_t end = std::min(row + kRowsAtOnce, first.back());
    auto i = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), row) - first.begin() - 1);
    for (; row < end; ++row) {
      while (row >= first[i + 1]) ++i;
      const int64_t y = row - first[i];
      const Image& to = normalised[i];
      for (int64_t c = 0; c < channels_; ++c) {
        const float* table = pixels_.data() + c * 256;
        const uint8_t* from = images[i].bytes + y * images[i].width * channels_ + c;
        float* out = const_cast<float*>(to.floats) + (c * to.height + y) * to.width;
        for (int64_t x = 0; x < to.width; ++x) out[x] = table[from[x * channels_]];
      }
    }
  });
  return normalised;
}

void PackedPatchEmbed::run(std::span<const Image> images, std::span<const TokenGrid> grids, const float* class_token,
                           float* y, int64_t y_stride, float* workspace, ThreadPool& pool) const {
  constexpr int64_t kRows = TileGemm::kRows;
  const int64_t width = gemm_.n();
  const int64_t k = gemm_.k();
  // Patches are numbered through the batch, so that small images share tiles: first[i] is the number of image i's
  // first.
  std::vector<int64_t> first(images.size() + 1, 0);
  for (size_t i = 0; i < images.size(); ++i) {
    first[i + 1] = first[i] + grids[i].patches();
    if (class_token != nullptr) std::copy_n(class_token, width, y + grids[i].first_row * y_stride);
  }
  const int64_t patches = first.back();
  std::vector<Image> normalised;
  if (images.front().bytes != nullptr) {
    normalised = normalise(images, grids, workspace, pool);
    images = normalised;
    workspace += patches * gemm_.k();
  }
  const int64_t tiles = (patches + kRows - 1) / kRows;
  const TileGemm::Borrowed gemm(gemm_, pool.threads());
  pool.run(tiles * gemm_.chunks(), [&](int64_t item, int thread) {
    const int64_t chunk = item / tiles;
    const int64_t begin = item % tiles * kRows;
    const int64_t here = std::min(kRows, patches - begin);
    float* product = workspace + thread * gemm_.tile_floats();
    float* tile = product + gemm_.product_floats();
    float* rows[kRows];  // where the tile's results go
    // Gathered anew for every chunk: 1 / chunk_width of the product's work.
    auto image = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1);
    for (int64_t i = 0; i < here; ++i) {
      while (begin + i >= first[image + 1]) ++image;
      const int64_t patch = begin + i - first[image];
      const Image& from = images[image];
      const float* corner =
          from.floats + patch / grids[image].width * patch_ * from.width + patch % grids[image].width * patch_;
      float* to = tile + i * k;
      for (int64_t c = 0; c < channels_; ++c) {
        for (int64_t dy = 0; dy < patch_; ++dy, to += patch_) {
          std::copy_n(corner + (c * from.height + dy) * from.width, patch_, to);
        }
      }
      rows[i] = y + (grids[image].first_patch() + patch) * y_stride;
    }
    std::fill(tile + here * k, tile + kRows * k, 0.0F);
    gemm.multiply(thread, chunk, tile, product);
    const int64_t column = gemm_.chunk_begin(chunk);
    const int64_t columns = gemm_.chunk_width(chunk);
    const float* bias = gemm_.bias() + column;
    for (int64_t i = 0; i < here; ++i) {
      for (int64_t c = 0; c < columns; ++c) rows[i][column + c] = product[i * columns + c] + bias[c];
    }
  });
}

}  // namespace cpvt::cpu
