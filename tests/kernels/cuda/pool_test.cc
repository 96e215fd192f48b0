#include "kernels/cuda/pool.h"

#include <set>

#include "kernels/cuda/layernorm.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

class Pool : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, Pool, ::testing::ValuesIn(kDTypes), [](const auto& info) { return name(info.param); });

constexpr float kNormEps = 1e-6F;

/// y: a row per image.
void run(const DeviceMatrix& x, const std::vector<TokenGrid>& grids, bool mean, bool normalise, DeviceMatrix& y) {
  const int64_t width = x.width();
  const DeviceArray<TokenGrid> images(grids);
  const DeviceArray<float> gamma(noise(width, 11));
  const DeviceArray<float> beta(noise(width, 12));
  const DeviceArray<PoolTile> tiles(pool_tiles(grids));
  const size_t bytes = pool_workspace_bytes(images.count(), rows_of(grids), width);
  const DeviceArray<float> workspace(std::vector<float>(bytes / 4, std::numeric_limits<float>::quiet_NaN()));
  EXPECT_CUDA(pool({.dtype = x.dtype(),
                    .mean = mean,
                    .x = x.data(),
                    .x_stride = x.stride(),
                    .gamma = normalise ? gamma.data() : nullptr,
                    .beta = normalise ? beta.data() : nullptr,
                    .eps = kNormEps,
                    .images = images.data(),
                    .image_count = images.count(),
                    .tiles = tiles.data(),
                    .tile_count = tiles.count(),
                    .workspace = workspace.data(),
                    .y = y.data(),
                    .y_stride = y.stride(),
                    .width = width},
                   nullptr));
  EXPECT_CUDA(cudaDeviceSynchronize());
  y.download();
  EXPECT_TRUE(y.guards_intact());
}

/// One row in double, normalised or not, and how large the numbers behind each result are.
struct Row {
  std::vector<double> value, size;

  Row(const DeviceMatrix& x, int64_t r, bool normalise) {
    const int64_t width = x.width();
    const auto count = static_cast<double>(width);
    double mean = 0;
    double variance = 0;
    double largest = 0;
    for (int64_t c = 0; c < width; ++c) {
      mean += x(r, c) / count;
      largest = std::max(largest, std::abs(static_cast<double>(x(r, c))));
    }
    for (int64_t c = 0; c < width; ++c) variance += (x(r, c) - mean) * (x(r, c) - mean) / count;
    const double inverse = 1 / std::sqrt(variance + kNormEps);
    const auto gamma = noise(width, 11);
    const auto beta = noise(width, 12);
    for (int64_t c = 0; c < width; ++c) {
      const auto i = static_cast<size_t>(c);
      const double v = x(r, c);
      value.push_back(normalise ? (v - mean) * inverse * gamma[i] + beta[i] : v);
      // The mean is off by a few roundings of the largest number, before it is multiplied by 1 / deviation.
      size.push_back(normalise ? (std::abs(v) + largest) * inverse * std::abs(gamma[i]) + std::abs(beta[i])
                               : std::abs(v));
    }
  }
};

void check(DType dtype, const std::vector<TokenGrid>& grids, int64_t width) {
  const auto x = DeviceMatrix::random(dtype, rows_of(grids), width, 1, 1, 3);
  for (const bool normalise : {false, true}) {
    std::vector<Row> rows;
    for (int64_t r = 0; r < x.rows(); ++r) rows.emplace_back(x, r, normalise);
    for (const bool mean : {false, true}) {
      DeviceMatrix y(x.dtype(), static_cast<int64_t>(grids.size()), x.width(), 1);
      run(x, grids, mean, normalise, y);
      Comparison comparison;
      for (size_t i = 0; i < grids.size(); ++i) {
        const int64_t begin = mean ? grids[i].first_patch() : grids[i].first_row;
        const int64_t count = mean ? grids[i].patches() : 1;
        for (int64_t c = 0; c < width; ++c) {
          double wanted = 0;
          double size = 0;
          for (int64_t r = begin; r < begin + count; ++r) {
            wanted += rows[static_cast<size_t>(r)].value[static_cast<size_t>(c)] / static_cast<double>(count);
            size += rows[static_cast<size_t>(r)].size[static_cast<size_t>(c)] / static_cast<double>(count);
          }
          comparison.add(
              y(static_cast<int64_t>(i), c), wanted,
              6 * cpu::testing::kEps * size + 1.01 * epsilon(dtype) * std::abs(wanted) + smallest_step(dtype));
        }
      }
      comparison.expect_within(std::string(mean ? "mean" : "class row") + (normalise ? ", normalised" : "") +
                               ", width " + std::to_string(width));
    }
  }
}

TEST_P(Pool, MatchesTheDoubleReference) {
  // Patches around one chunk of rows, and around the rows of its warps.
  check(GetParam(), layout({{0, 1, 1, 1}, {0, 3, 5, 1}, {0, 4, 4, 1}, {0, 17, 1, 1}, {0, 14, 14, 1}}, 1), 192);
  for (const int64_t width : {1, 7, 33, 128, 197, 264}) {
    check(GetParam(), layout({{0, 3, 11, 1}, {0, 1, 1, 0}, {0, 1, 9, 0}}, 2), width);
  }
  check(GetParam(), layout({{0, 3, 3, 1}}), 768);
}

TEST_P(Pool, NormalisesToTheBitsOfLayerNorm) {
  // A class row, and the mean over a single one.
  for (const int64_t width : {33, 192, 768, 1000}) {
    const auto grids = layout({{0, 1, 1, 1}});
    const auto x = DeviceMatrix::random(GetParam(), 2, width, 0, 3, 7);
    const DeviceArray<float> gamma(noise(width, 11));
    const DeviceArray<float> beta(noise(width, 12));
    DeviceMatrix wanted(GetParam(), 2, width);
    EXPECT_CUDA(layernorm({GetParam(), x.data(), x.stride(), gamma.data(), beta.data(), kNormEps, wanted.data(),
                           wanted.stride(), 2, width},
                          nullptr));
    wanted.download();
    for (const bool mean : {false, true}) {
      DeviceMatrix y(GetParam(), 1, width);
      run(x, grids, mean, true, y);
      EXPECT_TRUE(y.same_row(0, wanted, mean ? 1 : 0)) << width << (mean ? ", mean" : ", class row");
    }
  }
}

TEST_P(Pool, ConstantRowsBecomeBeta) {
  const auto grids = layout({{0, 3, 3, 1}});
  const DeviceMatrix x(GetParam(), 10, 48, 0, std::vector<float>(480, 3.0F));
  const auto beta = noise(48, 12);
  for (const bool mean : {false, true}) {
    DeviceMatrix y(x.dtype(), static_cast<int64_t>(grids.size()), x.width(), 1);
    run(x, grids, mean, true, y);
    for (int64_t c = 0; c < 48; ++c) {
      EXPECT_NEAR(y(0, c), beta[static_cast<size_t>(c)], 1.01 * epsilon(GetParam())) << c;
    }
  }
}

TEST(PoolWorkspace, GrowsWithTheRowsNotWithTheLargestImage) {
  // One image of 128 x 128 tokens among 63 of 14 x 14: the sums of 16 rows each, and one row for each image.
  EXPECT_EQ(pool_workspace_bytes(64, 128 * 128 + 63 * 196, 768), size_t{(16384 + 63 * 196) / 16 + 64} * 768 * 4);
}

TEST(PoolTiles, CoverEveryPatchRowOnceAndHaveSumsOfTheirOwn) {
  const auto images = layout({{0, 128, 128, 1}, {0, 1, 1, 0}, {0, 14, 14, 1}, {0, 0, 0, 1}, {0, 1, 17, 0}}, 5);
  std::vector<int> owners(static_cast<size_t>(rows_of(images)), 0);
  std::set<int32_t> sums;
  const auto tiles = pool_tiles(images);
  EXPECT_EQ(tiles.size(), 1024 + 1 + 13 + 0 + 2);  // blocks follow the rows, not the largest image
  for (const PoolTile& tile : tiles) {
    EXPECT_TRUE(tile.rows > 0 && tile.rows <= kPoolChunk);
    for (int64_t r = 0; r < tile.rows; ++r) ++owners[static_cast<size_t>(tile.first_row + r)];
    EXPECT_TRUE(sums.insert(tile.sums).second);
  }
  EXPECT_LT(*sums.rbegin(), pool_first_sum(static_cast<int64_t>(images.size()), rows_of(images)));
  std::vector<int> wanted(owners.size(), 0);
  for (const TokenGrid& image : images) {
    std::fill_n(wanted.begin() + static_cast<std::ptrdiff_t>(image.first_patch()), image.patches(), 1);
  }
  EXPECT_EQ(owners, wanted);
}

TEST_P(Pool, SameBitsInEveryCompany) {
  const auto grids = layout({{0, 5, 7, 1}, {0, 14, 14, 1}, {0, 1, 2, 1}}, 3);
  const auto x = DeviceMatrix::random(GetParam(), rows_of(grids), 70, 1, 5);
  for (const bool mean : {false, true}) {
    for (const bool normalise : {false, true}) {
      DeviceMatrix together(x.dtype(), static_cast<int64_t>(grids.size()), x.width(), 1);
      run(x, grids, mean, normalise, together);
      for (size_t i = 0; i < grids.size(); ++i) {
        DeviceMatrix alone(x.dtype(), 1, x.width(), 1);
        run(x, {grids[i]}, mean, normalise, alone);
        EXPECT_TRUE(alone.same_row(0, together, static_cast<int64_t>(i))) << i;
      }
    }
  }
}

}  // namespace
}  // namespace cpvt::cuda::testing
