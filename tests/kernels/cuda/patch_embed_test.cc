#include "kernels/cuda/patch_embed.h"

#include <tuple>

#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

constexpr float kMean[4] = {0.485F, 0.456F, 0.406F, 0.5F};
constexpr float kStd[4] = {0.229F, 0.224F, 0.225F, 0.3F};

struct Shape {
  int channels, patch;
  int64_t width;
};

/// Images one after another, each 16-byte aligned, with numbers between them that no patch has.
struct Batch {
  std::vector<TokenGrid> grids;
  std::vector<PatchImage> images;
  std::vector<float> floats;   // planar, not a number between the images
  std::vector<uint8_t> bytes;  // interleaved
  Pixels type;
  Shape shape;

  Batch(Pixels pixels_type, Shape s, std::vector<TokenGrid> g, uint32_t seed = 0, int64_t gap = 16)
      : grids(std::move(g)), type(pixels_type), shape(s) {
    int64_t offset = gap;
    for (const TokenGrid& grid : grids) {
      images.push_back({grid, offset});
      const int64_t count = grid.patches() * shape.patch * shape.patch * shape.channels;
      floats.resize(static_cast<size_t>(offset), std::numeric_limits<float>::quiet_NaN());
      bytes.resize(static_cast<size_t>(offset), 255);
      const auto values = noise(count, seed + static_cast<uint32_t>(count + grid.width));
      for (const float v : values) {
        floats.push_back(v);
        bytes.push_back(static_cast<uint8_t>(127.99F * (v + 1)));
      }
      offset += (count + 15) / 16 * 16 + gap;
    }
    floats.resize(static_cast<size_t>(offset), std::numeric_limits<float>::quiet_NaN());
    bytes.resize(static_cast<size_t>(offset), 255);
  }

  size_t index(size_t image, int64_t c, int64_t y, int64_t x) const {
    const int64_t height = grids[image].height * shape.patch;
    const int64_t width = grids[image].width * shape.patch;
    return static_cast<size_t>(images[image].offset + (type == Pixels::kF32Planar
                                                           ? (c * height + y) * width + x
                                                           : (y * width + x) * shape.channels + c));
  }

  /// A pixel as the kernel multiplies it, in double, and how far the kernel's may be from that.
  std::pair<double, double> pixel(size_t at, int64_t c, DType dtype) const {
    if (type == Pixels::kF32Planar) {
      std::byte stored[4];
      encode(floats[at], dtype, stored);
      return {decode(stored, dtype), 0};
    }
    const double v = bytes[at] / 255.0 / kStd[c];
    const double shift = kMean[c] / static_cast<double>(kStd[c]);
    const double computed = 2 * cpu::testing::kEps * (v + shift);
    return {v - shift, computed + (dtype == DType::kF32 ? 0 : 1.01 * epsilon(dtype) * std::abs(v - shift))};
  }
};

struct Weights {
  DeviceMatrix weight;
  std::vector<float> bias, token;

  Weights(DType dtype, const Shape& shape)
      : weight(dtype, shape.width, shape.channels * shape.patch * shape.patch, 0,
               noise(shape.width * shape.channels * shape.patch * shape.patch, 1)),
        bias(noise(shape.width, 2)),
        token(noise(shape.width, 3)) {}
};

constexpr float kScale = 1.5F;

void run(const Batch& batch, const Weights& weights, bool class_token, DeviceMatrix& y) {
  const DeviceArray<float> floats(batch.floats);
  const DeviceArray<uint8_t> bytes(batch.bytes);
  const DeviceArray<PatchImage> images(batch.images);
  const DeviceArray<PatchTile> tiles(patch_tiles(batch.grids));
  const DeviceArray<float> bias(weights.bias);
  const DeviceArray<float> token(weights.token);
  const bool planar = batch.type == Pixels::kF32Planar;
  PatchEmbedArgs args{.dtype = y.dtype(),
                      .pixels_type = batch.type,
                      .pixels = planar ? static_cast<const void*>(floats.data()) : bytes.data(),
                      .images = images.data(),
                      .tiles = tiles.data(),
                      .tile_count = tiles.count(),
                      .channels = batch.shape.channels,
                      .patch = batch.shape.patch,
                      .mean = {},
                      .std = {},
                      .weight = weights.weight.data(),
                      .bias = bias.data(),
                      .class_token = class_token ? token.data() : nullptr,
                      .scale = kScale,
                      .y = y.data(),
                      .y_stride = y.stride(),
                      .width = y.width()};
  std::copy_n(kMean, 4, args.mean);
  std::copy_n(kStd, 4, args.std);
  EXPECT_CUDA(patch_embed(args, nullptr));
  EXPECT_CUDA(cudaDeviceSynchronize());
  y.download();
  EXPECT_TRUE(y.guards_intact());
}

class PatchEmbed : public ::testing::TestWithParam<std::tuple<DType, Pixels>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  Pixels pixels() const { return std::get<1>(GetParam()); }

  void check(const Shape& shape, const std::vector<TokenGrid>& grids) const {
    const Batch batch(pixels(), shape, grids);
    const Weights weights(dtype(), shape);
    DeviceMatrix y(dtype(), rows_of(grids), shape.width, 1);
    run(batch, weights, true, y);
    const int64_t p = shape.patch;
    const int64_t k = shape.channels * p * p;
    const double sums = (2 + std::sqrt(static_cast<double>(k)) / 2) * cpu::testing::kEps;
    Comparison comparison;
    for (size_t i = 0; i < grids.size(); ++i) {
      const TokenGrid& grid = grids[i];
      for (int64_t n = 0; grid.prefix > 0 && n < shape.width; ++n) {
        const double wanted = static_cast<double>(kScale) * weights.token[static_cast<size_t>(n)];
        comparison.add(y(grid.first_row, n), wanted,
                       1.01 * (epsilon(dtype()) + cpu::testing::kEps) * std::abs(wanted) + smallest_step(dtype()));
      }
      std::vector<std::pair<double, double>> row(static_cast<size_t>(k));
      for (int64_t patch = 0; patch < grid.patches(); ++patch) {
        for (int64_t j = 0; j < k; ++j) {
          const int64_t c = j / (p * p);
          const size_t at = batch.index(i, c, patch / grid.width * p + j / p % p, patch % grid.width * p + j % p);
          row[static_cast<size_t>(j)] = batch.pixel(at, c, dtype());
        }
        for (int64_t n = 0; n < shape.width; ++n) {
          double sum = weights.bias[static_cast<size_t>(n)];
          double size = std::abs(sum);
          double input = 0;
          for (int64_t j = 0; j < k; ++j) {
            const auto& [value, error] = row[static_cast<size_t>(j)];
            const double w = weights.weight(n, j);
            sum += w * value;
            size += std::abs(w * value);
            input += std::abs(w) * error;
          }
          comparison.add(
              y(grid.first_patch() + patch, n), kScale * sum,
              kScale * (sums * size + input + 1.01 * epsilon(dtype()) * std::abs(sum)) + smallest_step(dtype()));
        }
      }
    }
    comparison.expect_within("patch embedding, patch " + std::to_string(p) + ", channels " +
                             std::to_string(shape.channels) + ", width " + std::to_string(shape.width));
    for (int64_t r = 0; r < grids[0].first_row; ++r) EXPECT_TRUE(std::isnan(y(r, 0))) << "row of nobody " << r;
  }
};

std::string case_name(const ::testing::TestParamInfo<std::tuple<DType, Pixels>>& info) {
  return std::string(name(std::get<0>(info.param))) +
         (std::get<1>(info.param) == Pixels::kF32Planar ? "_floats" : "_bytes");
}
INSTANTIATE_TEST_SUITE_P(DTypes, PatchEmbed,
                         ::testing::Combine(::testing::ValuesIn(kDTypes),
                                            ::testing::Values(Pixels::kF32Planar, Pixels::kU8Interleaved)),
                         case_name);

class PatchEmbedOfFloats : public PatchEmbed {};
INSTANTIATE_TEST_SUITE_P(DTypes, PatchEmbedOfFloats,
                         ::testing::Combine(::testing::ValuesIn(kDTypes), ::testing::Values(Pixels::kF32Planar)),
                         case_name);

TEST_P(PatchEmbed, MatchesTheDoubleReference) {
  // The models' own patches, with 1, 63, 64, 65 and 196 of them in an image.
  check({3, 16, 33}, layout({{0, 1, 1, 1}, {0, 2, 5, 0}}, 2));
  check({3, 4, 65}, layout({{0, 9, 7, 1}, {0, 8, 8, 1}, {0, 5, 13, 0}, {0, 14, 14, 1}}, 1));
  // k less than a line, a bit more than one, and of odd rows; every number of channels.
  check({1, 4, 1}, layout({{0, 3, 3, 1}}));
  check({1, 1, 31}, layout({{0, 4, 9, 0}}));
  check({3, 7, 40}, layout({{0, 3, 5, 1}, {0, 1, 2, 1}}, 1));
  check({2, 6, 7}, layout({{0, 6, 12, 1}}));
  check({4, 8, 64}, layout({{0, 2, 3, 1}}, 3));
  check({3, 8, 24}, layout({{0, 3, 3, 1}, {0, 1, 7, 1}}, 3));
  check({3, 14, 32}, layout({{0, 2, 2, 0}}));
  check({3, 32, 20}, layout({{0, 1, 3, 0}}));
}

TEST_P(PatchEmbed, ManyPatchesTakeTheLargeTile) {
  // 133 tiles of patches are enough for it.
  check({3, 8, 33}, layout({{0, 92, 92, 1}}));
  check({1, 5, 40}, layout({{0, 92, 92, 0}}, 1));
  check({1, 4, 130}, layout({{0, 65, 66, 1}, {0, 1, 1, 1}}));
}

TEST_P(PatchEmbedOfFloats, ManyPlanes) {
  check({6, 4, 17}, layout({{0, 3, 4, 1}}));
  check({13, 3, 17}, layout({{0, 3, 4, 1}}));
}

TEST_P(PatchEmbed, SameBitsInEveryCompany) {
  for (const Shape& shape : {Shape{3, 8, 40}, Shape{1, 5, 40}}) {
    const Weights weights(dtype(), shape);
    // The last brings enough company for the large tile.
    const auto grids = layout({{0, 3, 5, 1}, {0, 10, 9, 1}, {0, 1, 1, 1}, {0, 7, 2, 0}, {0, 92, 92, 1}}, 1);
    DeviceMatrix together(dtype(), rows_of(grids), shape.width, 1);
    run(Batch(pixels(), shape, grids), weights, true, together);
    for (size_t i = 0; i < 4; ++i) {
      const TokenGrid& grid = grids[i];
      TokenGrid moved = grid;
      moved.first_row = 0;
      DeviceMatrix alone(dtype(), grid.rows(), shape.width, 0);
      run(Batch(pixels(), shape, {moved}, 0, 64), weights, true, alone);
      for (int64_t r = 0; r < grid.rows(); ++r) {
        ASSERT_TRUE(alone.same_row(r, together, grid.first_row + r)) << shape.patch << ' ' << r;
      }
    }
  }
}

TEST_P(PatchEmbedOfFloats, APatchIsAlone) {
  // What is in one patch is in no other's row, not even where it is not a number.
  for (const Shape& shape : {Shape{3, 8, 33}, Shape{1, 7, 33}}) {
    const Weights weights(dtype(), shape);
    const auto grids = layout({{0, 5, 7, 0}, {0, 6, 6, 0}});
    Batch batch(pixels(), shape, grids);
    DeviceMatrix clean(dtype(), rows_of(grids), shape.width);
    run(batch, weights, false, clean);
    const int64_t last = shape.patch - 1;
    batch.floats[batch.index(0, 0, 4 * shape.patch + last, 6 * shape.patch + last)] =
        std::numeric_limits<float>::quiet_NaN();  // the last patch, which the tile's missing rows repeat
    DeviceMatrix stained(dtype(), rows_of(grids), shape.width);
    run(batch, weights, false, stained);
    for (int64_t r = 0; r < clean.rows(); ++r) EXPECT_EQ(stained.same_row(r, clean, r), r != 34) << r;
    EXPECT_TRUE(std::isnan(stained(34, 0)) && std::isnan(stained(34, 32)));
  }
}

TEST_P(PatchEmbed, LeavesThePrefixRowWithoutAToken) {
  const Shape shape{3, 4, 20};
  const auto grids = layout({{0, 2, 2, 1}, {0, 1, 3, 1}});
  DeviceMatrix y(dtype(), rows_of(grids), shape.width);
  run(Batch(pixels(), shape, grids), Weights(dtype(), shape), false, y);
  for (int64_t r = 0; r < y.rows(); ++r) EXPECT_EQ(std::isnan(y(r, 0)), r == 0 || r == 5) << r;
}

TEST(PatchTiles, CoverEveryPatchOnce) {
  const auto grids = layout({{0, 1, 1, 1}, {0, 8, 8, 0}, {0, 5, 13, 1}, {0, 14, 14, 1}});
  std::vector<int64_t> next(grids.size(), 0);
  for (const PatchTile& tile : patch_tiles(grids)) {
    EXPECT_EQ(tile.first_patch, next[static_cast<size_t>(tile.image)]);
    next[static_cast<size_t>(tile.image)] += kPatchTile;
  }
  for (size_t i = 0; i < grids.size(); ++i) {
    EXPECT_GE(next[i], grids[i].patches());
    EXPECT_LT(next[i] - kPatchTile, grids[i].patches());
  }
  EXPECT_TRUE(patch_tiles({}).empty());
}

TEST(PatchEmbedLimits, RefusesBytesOfMoreThanFourChannels) {
  PatchEmbedArgs args{};
  args.dtype = DType::kF16;
  args.pixels_type = Pixels::kU8Interleaved;
  args.channels = 5;
  args.patch = 4;
  args.width = 8;
  EXPECT_EQ(patch_embed(args, nullptr), cudaErrorInvalidValue);
  args.channels = 3;
  EXPECT_CUDA(patch_embed(args, nullptr)) << "no tiles, nothing to do";
}

}  // namespace
}  // namespace cpvt::cuda::testing
