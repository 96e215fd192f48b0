#include "kernels/cpu/patch_embed.h"

#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

struct Batch {
  std::vector<std::vector<float>> pixels;
  std::vector<Image> images;
  std::vector<TokenGrid> grids;

  Batch(int64_t channels, int64_t patch, int64_t prefix, const std::vector<std::pair<int64_t, int64_t>>& sizes) {
    int64_t row = 1;  // row 0 is nobody's
    for (const auto& [height, width] : sizes) {
      pixels.push_back(noise(channels * height * width, static_cast<uint32_t>(height * 1000 + width)));
      grids.push_back({row, height / patch, width / patch, prefix});
      row += grids.back().rows();
    }
    for (size_t i = 0; i < sizes.size(); ++i) images.push_back({pixels[i].data(), sizes[i].first, sizes[i].second});
  }
};

Matrix run(const PackedPatchEmbed& embed, const Batch& batch, const float* class_token, int64_t width, int threads) {
  ThreadPool pool(threads);
  Matrix y(rows_of(batch.grids), width, width + 2);
  int64_t patches = 0;
  for (const TokenGrid& grid : batch.grids) patches += grid.patches();
  const int64_t floats = embed.workspace_floats(patches, threads);
  Matrix workspace(1, floats, floats);
  embed.run(batch.images, batch.grids, class_token, y.data(), y.stride(), workspace.data(), pool);
  EXPECT_TRUE(y.guards_intact() && workspace.guards_intact());
  EXPECT_TRUE(std::isnan(y(0, 0)));
  return y;
}

void check(int64_t width, int64_t channels, int64_t patch, int64_t prefix,
           std::vector<std::pair<int64_t, int64_t>> sizes) {
  const int64_t k = channels * patch * patch;
  const auto weight = noise(width * k, 1);
  const auto bias = noise(width, 2);
  const auto token = noise(width, 3);
  const PackedPatchEmbed embed(weight.data(), bias.data(), width, channels, patch);
  const Batch batch(channels, patch, prefix, sizes);
  const Matrix y = run(embed, batch, prefix > 0 ? token.data() : nullptr, width, 2);
  Comparison comparison;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const TokenGrid& g = batch.grids[i];
    if (prefix > 0) {
      for (int64_t c = 0; c < width; ++c) ASSERT_EQ(y(g.first_row, c), token[static_cast<size_t>(c)]);
    }
    for (int64_t p = 0; p < g.patches(); ++p) {
      for (int64_t n = 0; n < width; ++n) {
        double sum = bias[static_cast<size_t>(n)];
        double size = std::abs(sum);
        for (int64_t c = 0; c < k; ++c) {
          const int64_t iy = p / g.width * patch + c / patch % patch;
          const int64_t ix = p % g.width * patch + c % patch;
          const double product = static_cast<double>(batch.pixels[i][static_cast<size_t>(
                                     (c / (patch * patch) * sizes[i].first + iy) * sizes[i].second + ix)]) *
                                 weight[static_cast<size_t>(n * k + c)];
          sum += product;
          size += std::abs(product);
        }
        comparison.add(y(g.first_patch() + p, n), sum, (2 + std::sqrt(static_cast<double>(k)) / 2) * kEps * size);
      }
    }
  }
  comparison.expect_within("patch embedding, patch " + std::to_string(patch));
}

TEST(PatchEmbed, MatchesTheDoubleReference) {
  check(33, 3, 16, 1, {{16, 16}, {47, 90}, {224, 33}});
  check(64, 1, 4, 0, {{28, 28}, {4, 4}, {7, 31}, {20, 21}});
  check(7, 2, 1, 0, {{3, 5}});
  check(20, 3, 7, 2, {{50, 63}});
  check(500, 3, 16, 0, {{64, 80}});
}

TEST(PatchEmbed, SameBitsInEveryCompany) {
  const int64_t width = 70;
  const auto weight = noise(width * 48, 1);
  const auto token = noise(width, 3);
  const PackedPatchEmbed embed(weight.data(), nullptr, width, 3, 4);
  const std::vector<std::pair<int64_t, int64_t>> sizes = {{9, 14}, {28, 28}, {4, 5}, {13, 40}};
  const Batch batch(3, 4, 1, sizes);
  const Matrix together = run(embed, batch, token.data(), width, 1);
  for (const int threads : {2, 3, 5}) {
    const Matrix again = run(embed, batch, token.data(), width, threads);
    for (int64_t r = 1; r < together.rows(); ++r) ASSERT_TRUE(same_bits(together.row(r), again.row(r), width));
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Matrix alone = run(embed, Batch(3, 4, 1, {sizes[i]}), token.data(), width, 2);
    for (int64_t r = 0; r < batch.grids[i].rows(); ++r) {
      ASSERT_TRUE(same_bits(alone.row(1 + r), together.row(batch.grids[i].first_row + r), width)) << i << ' ' << r;
    }
  }
}

// Bytes are what their normalised floats are, to the bit, whatever they are beside.
TEST(PatchEmbed, TakesBytes) {
  for (const int64_t channels : {1, 3, 5}) {
    const int64_t width = 37;
    const int64_t patch = 5;
    const auto weight = noise(width * channels * patch * patch, 1);
    const auto token = noise(width, 3);
    std::vector<float> mean;
    std::vector<float> std;
    for (int64_t c = 0; c < channels; ++c) {
      mean.push_back(0.4F + 0.03F * static_cast<float>(c));
      std.push_back(0.2F + 0.05F * static_cast<float>(c));
    }
    const PackedPatchEmbed embed(weight.data(), nullptr, width, channels, patch, mean, std);
    Batch floats(channels, patch, 1, {{5, 5}, {33, 8}, {12, 61}, {64, 64}});
    Batch bytes = floats;
    std::vector<std::vector<uint8_t>> pixels;
    for (size_t i = 0; i < bytes.images.size(); ++i) {
      const Image& image = floats.images[i];
      pixels.emplace_back(static_cast<size_t>(image.height * image.width * channels));
      for (int64_t y = 0; y < image.height; ++y) {
        for (int64_t x = 0; x < image.width; ++x) {
          for (int64_t c = 0; c < channels; ++c) {
            const auto value = static_cast<uint8_t>(y * 31 + x * 7 + c * 101 + static_cast<int64_t>(i));
            pixels[i][static_cast<size_t>((y * image.width + x) * channels + c)] = value;
            floats.pixels[i][static_cast<size_t>((c * image.height + y) * image.width + x)] =
                (static_cast<float>(value) / 255.0F - mean[static_cast<size_t>(c)]) / std[static_cast<size_t>(c)];
          }
        }
      }
      bytes.images[i] = {nullptr, image.height, image.width, pixels[i].data()};
    }
    const Matrix expected = run(embed, floats, token.data(), width, 2);
    for (const int threads : {1, 2, 5}) {
      const Matrix y = run(embed, bytes, token.data(), width, threads);
      for (int64_t r = 1; r < y.rows(); ++r) ASSERT_TRUE(same_bits(y.row(r), expected.row(r), width)) << r;
    }
  }
}

TEST(PatchEmbed, IgnoresTheRemainder) {
  // NaN in every pixel that belongs to no whole patch.
  const auto weight = noise(128, 1);
  const PackedPatchEmbed embed(weight.data(), nullptr, 8, 1, 4);
  Batch batch(1, 4, 0, {{11, 14}});
  for (int64_t y = 0; y < 11; ++y) {
    for (int64_t x = 0; x < 14; ++x) {
      if (y >= 8 || x >= 12) batch.pixels[0][static_cast<size_t>(y * 14 + x)] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  const Matrix y = run(embed, batch, nullptr, 8, 1);
  for (int64_t r = 1; r < y.rows(); ++r) {
    for (int64_t c = 0; c < 8; ++c) EXPECT_TRUE(std::isfinite(y(r, c)));
  }
}

}  // namespace
}  // namespace cpvt::cpu::testing
