#include "kernels/cuda/elementwise.h"

#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

class Elementwise : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, Elementwise, ::testing::ValuesIn(kDTypes),
                         [](const auto& info) { return name(info.param); });

double gelu_of(double v) { return 0.5 * v * std::erfc(-v / std::sqrt(2.0)); }

void run_gelu(const DeviceMatrix& x, DeviceMatrix& y) {
  EXPECT_CUDA(gelu({.dtype = x.dtype(),
                    .x = x.data(),
                    .x_stride = x.stride(),
                    .y = y.data(),
                    .y_stride = y.stride(),
                    .rows = x.rows(),
                    .width = x.width()},
                   nullptr));
  EXPECT_CUDA(cudaDeviceSynchronize());
  y.download();
}

/// Eight fp32 roundings, more of the terms that cancel far below zero, and one rounding of the result.
void expect_gelu(const DeviceMatrix& x, const DeviceMatrix& y) {
  Comparison comparison;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.width(); ++c) {
      const double v = x(r, c);
      const double wanted = gelu_of(v);
      const double computed = cpu::testing::kEps * (8 * std::abs(wanted) + 2 * std::abs(v));
      comparison.add(y(r, c), wanted,
                     computed + 1.01 * epsilon(x.dtype()) * std::abs(wanted) + smallest_step(x.dtype()));
    }
  }
  comparison.expect_within("gelu");
}

TEST_P(Elementwise, GeluOfEveryWidth) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 1}, {3, 8}, {33, 31}, {17, 33}, {5, 197}, {2, 384}};
  for (const auto& [rows, width] : shapes) {
    const auto x = DeviceMatrix::random(GetParam(), rows, width, 2, 1, 5);
    DeviceMatrix y(GetParam(), rows, width, 1);
    run_gelu(x, y);
    EXPECT_TRUE(y.guards_intact()) << rows << " x " << width;
    expect_gelu(x, y);
    auto in_place = DeviceMatrix::random(GetParam(), rows, width, 1, 1, 5);
    run_gelu(in_place, in_place);
    EXPECT_TRUE(in_place.guards_intact() && in_place.same_bits(y));
  }
}

TEST_P(Elementwise, GeluFromEndToEnd) {
  std::vector<float> values;
  for (int i = -8 * 64; i <= 8 * 64; ++i) values.push_back(static_cast<float>(i) / 64);
  for (int e = -20; e <= 15; ++e) {
    values.push_back(std::ldexp(1.3F, e));
    values.push_back(-values.back());
  }
  const auto count = static_cast<int64_t>(values.size());
  const DeviceMatrix x(GetParam(), 1, count, 0, values);
  DeviceMatrix y(GetParam(), 1, count);
  run_gelu(x, y);
  expect_gelu(x, y);

  const DeviceMatrix ends(GetParam(), 1, 4, 0, {std::numeric_limits<float>::quiet_NaN(), INFINITY, 0.0F, -20.0F});
  DeviceMatrix at_ends(GetParam(), 1, 4);
  run_gelu(ends, at_ends);
  EXPECT_TRUE(std::isnan(at_ends(0, 0)));
  EXPECT_GE(at_ends(0, 1), 65504);
  EXPECT_EQ(at_ends(0, 2), 0);
  EXPECT_NEAR(at_ends(0, 3), 0, 1e-12);
}

struct PositionCase {
  std::vector<TokenGrid> grids;
  std::vector<PositionImage> images;
  std::vector<float> tables;

  /// `gap` floats between the tables, so that some begin at odd addresses.
  PositionCase(std::vector<TokenGrid> shapes, int64_t width, int64_t gap) : grids(std::move(shapes)) {
    int64_t offset = gap;
    for (const TokenGrid& grid : grids) {
      images.push_back({grid, offset});
      offset += grid.rows() * width + gap;
    }
    tables = noise(offset, 7);
  }

  void run(const DeviceMatrix& x, float scale, DeviceMatrix& y) const {
    const DeviceArray<float> device_tables(tables);
    const DeviceArray<PositionTile> tiles(position_tiles(images, x.width()));
    EXPECT_CUDA(add_position({.dtype = x.dtype(),
                              .x = x.data(),
                              .x_stride = x.stride(),
                              .tables = device_tables.data(),
                              .tiles = tiles.data(),
                              .tile_count = tiles.count(),
                              .scale = scale,
                              .y = y.data(),
                              .y_stride = y.stride(),
                              .width = x.width()},
                             nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
    y.download();
  }
};

TEST_P(Elementwise, EachImageHasItsPositions) {
  for (const auto& [width, gap] : {std::pair<int64_t, int64_t>{1, 1}, {31, 0}, {192, 4}, {192, 3}, {33, 2}}) {
    const PositionCase batch(layout({{0, 2, 3, 1}, {0, 1, 1, 0}, {0, 7, 5, 1}, {0, 4, 1, 2}, {0, 4, 4, 0}}, 2), width,
                             gap);
    const int64_t rows = rows_of(batch.grids);
    const float scale = 1.75F;
    const auto x = DeviceMatrix::random(GetParam(), rows, width, 1, 3);
    DeviceMatrix y(GetParam(), rows, width, 2);
    batch.run(x, scale, y);
    EXPECT_TRUE(y.guards_intact());
    Comparison comparison;
    for (size_t i = 0; i < batch.grids.size(); ++i) {
      const TokenGrid& grid = batch.grids[i];
      for (int64_t r = 0; r < grid.rows(); ++r) {
        for (int64_t c = 0; c < width; ++c) {
          const double term =
              scale * static_cast<double>(batch.tables[static_cast<size_t>(batch.images[i].offset + r * width + c)]);
          const double v = x(grid.first_row + r, c);
          comparison.add(y(grid.first_row + r, c), v + term,
                         2 * cpu::testing::kEps * (std::abs(v) + std::abs(term)) +
                             1.01 * epsilon(GetParam()) * std::abs(v + term) + smallest_step(GetParam()));
        }
      }
    }
    comparison.expect_within("add_position");
    for (int64_t c = 0; c < width; ++c) EXPECT_TRUE(std::isnan(y(0, c)) && std::isnan(y(1, c))) << "rows of nobody";

    auto in_place = DeviceMatrix::random(GetParam(), rows, width, 2, 3);
    batch.run(in_place, scale, in_place);
    EXPECT_TRUE(in_place.guards_intact());
    for (int64_t r = batch.grids[0].first_row; r < rows; ++r) EXPECT_TRUE(in_place.same_row(r, y, r)) << r;
  }
}

TEST(PositionTiles, CoverEveryRowOnceBesideItsTable) {
  const PositionCase batch(layout({{0, 128, 128, 1}, {0, 1, 1, 0}, {0, 0, 0, 0}, {0, 4, 4, 0}, {0, 4, 4, 1}}, 5), 7, 3);
  std::vector<int64_t> offsets(static_cast<size_t>(rows_of(batch.grids)), -1);
  const auto tiles = position_tiles(batch.images, 7);
  EXPECT_EQ(tiles.size(), 1025 + 1 + 0 + 1 + 2);  // blocks follow the rows, not the largest image
  for (const PositionTile& tile : tiles) {
    EXPECT_TRUE(tile.rows > 0 && tile.rows <= kPositionRows);
    for (int64_t r = 0; r < tile.rows; ++r) {
      int64_t& offset = offsets[static_cast<size_t>(tile.first_row + r)];
      EXPECT_EQ(offset, -1);
      offset = tile.offset + r * 7;
    }
  }
  std::vector<int64_t> wanted(offsets.size(), -1);
  for (const PositionImage& image : batch.images) {
    for (int64_t r = 0; r < image.grid.rows(); ++r) {
      wanted[static_cast<size_t>(image.grid.first_row + r)] = image.offset + r * 7;
    }
  }
  EXPECT_EQ(offsets, wanted);
}

TEST(ElementwiseLimits, RefusesMoreThanItCanNumber) {
  EXPECT_EQ(gelu({.dtype = DType::kF16,
                  .x = nullptr,
                  .x_stride = 8,
                  .y = nullptr,
                  .y_stride = 8,
                  .rows = int64_t{1} << 31,
                  .width = 8},
                 nullptr),
            cudaErrorInvalidValue);
  EXPECT_CUDA(
      gelu({.dtype = DType::kF16, .x = nullptr, .x_stride = 8, .y = nullptr, .y_stride = 8, .rows = 0, .width = 8},
           nullptr));
}

}  // namespace
}  // namespace cpvt::cuda::testing
