#include "kernels/cuda/peg.h"

#include <string>

#include "kernels/cuda/layernorm.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

constexpr float kEpsilon = 1e-5F;

/// Weights of one width and kernel, on host and device.
struct Peg {
  DType dtype;
  int64_t width;
  int kernel;
  DeviceMatrix weight;  // [kernel * kernel, width]
  std::vector<float> bias, gamma, beta;
  DeviceArray<float> device_bias, device_gamma, device_beta;

  Peg(DType dtype, int64_t width, int kernel)
      : dtype(dtype),
        width(width),
        kernel(kernel),
        weight(DeviceMatrix::random(dtype, int64_t{kernel} * kernel, width, 0, 1)),
        bias(noise(width, 2)),
        gamma(noise(width, 3)),
        beta(noise(width, 4)),
        device_bias(bias),
        device_gamma(gamma),
        device_beta(beta) {}

  void run(const DeviceMatrix& x, const std::vector<PegTile>& tiles, DeviceMatrix& y, DeviceMatrix* normed) const {
    const DeviceArray<PegTile> device_tiles(tiles);
    const PegArgs args{dtype,
                       x.data(),
                       x.stride(),
                       weight.data(),
                       device_bias.data(),
                       kernel,
                       device_tiles.data(),
                       device_tiles.count(),
                       y.data(),
                       y.stride(),
                       device_gamma.data(),
                       device_beta.data(),
                       kEpsilon,
                       normed != nullptr ? normed->data() : nullptr,
                       normed != nullptr ? normed->stride() : 0,
                       width};
    EXPECT_CUDA(peg(args, nullptr));
    y.download();
    EXPECT_TRUE(y.guards_intact());
    if (normed == nullptr) return;
    normed->download();
    EXPECT_TRUE(normed->guards_intact());
  }

  /// Adds the outputs of one image to the comparison, against sums in double of the values as stored.
  void compare(const TokenGrid& image, const DeviceMatrix& x, const DeviceMatrix& y, Comparison& comparison) const {
    for (int64_t r = image.first_row; r < image.first_patch(); ++r) EXPECT_TRUE(y.same_row(r, x, r)) << "prefix " << r;
    const int64_t reach = kernel / 2;
    for (int64_t oy = 0; oy < image.height; ++oy) {
      for (int64_t ox = 0; ox < image.width; ++ox) {
        const int64_t row = image.first_patch() + oy * image.width + ox;
        for (int64_t c = 0; c < width; ++c) {
          double sum = static_cast<double>(x(row, c)) + bias[static_cast<size_t>(c)];
          double size = std::abs(x(row, c)) + std::abs(bias[static_cast<size_t>(c)]);
          int64_t taps = 1;
          for (int64_t iy = std::max<int64_t>(oy - reach, 0); iy <= std::min(oy + reach, image.height - 1); ++iy) {
            for (int64_t ix = std::max<int64_t>(ox - reach, 0); ix <= std::min(ox + reach, image.width - 1); ++ix) {
              const double product = static_cast<double>(x(image.first_patch() + iy * image.width + ix, c)) *
                                     weight((iy - oy + reach) * kernel + ix - ox + reach, c);
              sum += product;
              size += std::abs(product);
              ++taps;
            }
          }
          const double bound = (2 + std::sqrt(static_cast<double>(taps)) / 2) * cpu::testing::kEps * size +
                               epsilon(dtype) * std::abs(sum) + smallest_step(dtype);
          comparison.add(y(row, c), sum, bound);
        }
      }
    }
  }
};

/// Compares y with the reference, and normed, from the same call, with the LayerNorm kernel's answer to that y: equal
/// bits. y must not depend on whether normed was asked for.
void check(DType dtype, int64_t width, int kernel, const std::vector<TokenGrid>& images, int64_t slack) {
  const Peg peg(dtype, width, kernel);
  const int64_t rows = rows_of(images);
  const DeviceMatrix x = DeviceMatrix::random(dtype, rows, width, slack, 5);
  const auto tiles = peg_tiles(images, kernel);
  DeviceMatrix y(dtype, rows, width, slack * 2);
  peg.run(x, tiles, y, nullptr);
  Comparison comparison;
  for (const TokenGrid& image : images) peg.compare(image, x, y, comparison);
  const std::string what =
      "peg " + std::string(name(dtype)) + ", k = " + std::to_string(kernel) + ", width " + std::to_string(width);
  comparison.expect_within(what);

  DeviceMatrix y_again(dtype, rows, width, 0);
  DeviceMatrix normed(dtype, rows, width, slack);
  peg.run(x, tiles, y_again, &normed);
  DeviceMatrix wanted(dtype, rows, width);
  EXPECT_CUDA(layernorm({dtype, y.data(), y.stride(), peg.device_gamma.data(), peg.device_beta.data(), kEpsilon,
                         wanted.data(), wanted.stride(), rows, width},
                        nullptr));
  wanted.download();
  for (const TokenGrid& image : images) {
    for (int64_t r = image.first_row; r < image.first_row + image.rows(); ++r) {
      EXPECT_TRUE(y_again.same_row(r, y, r)) << what << ", row " << r;
      EXPECT_TRUE(normed.same_row(r, wanted, r)) << what << ", normed row " << r;
    }
  }
}

class PegOf : public ::testing::TestWithParam<DType> {};

TEST_P(PegOf, MatchesTheDoubleReference) {
  const auto grids = layout({{0, 1, 1, 1}, {0, 1, 7, 0}, {0, 6, 1, 1}, {0, 3, 2, 2}, {0, 8, 9, 0}, {0, 5, 17, 1}}, 1);
  for (const int64_t width : {1, 7, 65, 195}) check(GetParam(), width, 3, grids, 1);
  for (const int kernel : {5, 7, 9, 11, 27}) check(GetParam(), 33, kernel, grids, 1);
}

TEST_P(PegOf, TakesTheModelsShapes) {
  const auto image = layout({{0, 14, 14, 1}});
  check(GetParam(), 192, 3, image, 0);
  check(GetParam(), 192, 9, image, 0);
  check(GetParam(), 64, 27, image, 0);
}

TEST_P(PegOf, TakesRectanglesOfAllSizes) {
  // Enough of them that none is cut smaller; extents around a strip, a rectangle and the kernel's reach.
  check(GetParam(), 8, 3, layout({{0, 60, 31, 1}, {0, 33, 25, 0}}), 0);
  check(GetParam(), 9, 13, layout({{0, 15, 130, 1}, {0, 100, 33, 0}, {0, 17, 16, 0}}), 0);
  check(GetParam(), 2, 19, layout({{0, 121, 120, 0}}), 0);
}

TEST_P(PegOf, NormalisesApartWhatNoBlockCanKeep) { check(GetParam(), 1600, 3, layout({{0, 3, 5, 2}}), 0); }

TEST_P(PegOf, SameBitsAloneAndAmongOthers) {
  std::vector<TokenGrid> images = layout({{0, 3, 5, 1}, {0, 14, 14, 1}, {0, 9, 1, 0}, {0, 1, 23, 1}, {0, 80, 40, 0}});
  for (const int kernel : {3, 7, 27}) {
    const Peg peg(GetParam(), 20, kernel);
    const DeviceMatrix x = DeviceMatrix::random(GetParam(), rows_of(images), 20, 0, 5);
    DeviceMatrix together(GetParam(), x.rows(), 20);
    DeviceMatrix together_normed(GetParam(), x.rows(), 20);
    peg.run(x, peg_tiles(images, kernel), together, &together_normed);
    for (size_t i = 0; i < 4; ++i) {
      DeviceMatrix alone(GetParam(), x.rows(), 20);
      DeviceMatrix alone_normed(GetParam(), x.rows(), 20);
      peg.run(x, peg_tiles({&images[i], 1}, kernel), alone, &alone_normed);
      for (int64_t r = 0; r < x.rows(); ++r) {
        const bool own = r >= images[i].first_row && r < images[i].first_row + images[i].rows();
        EXPECT_EQ(alone.same_row(r, together, r), own) << "image " << i << ", row " << r;
        EXPECT_EQ(alone_normed.same_row(r, together_normed, r), own) << "image " << i << ", row " << r;
      }
    }
  }
}

TEST_P(PegOf, IsTranslationEquivariantAwayFromTheBorder) {
  // The same picture one column further right: the same bits one column further right.
  constexpr int64_t kColumns = 20;
  const Peg peg(GetParam(), 16, 5);
  const auto grid = layout({{0, 9, kColumns, 0}});
  const std::vector<float> picture = noise(9 * kColumns * 16, 4);
  std::vector<float> moved = noise(9 * kColumns * 16, 5);
  for (size_t row = 0; row < 9; ++row) {
    const auto begin = picture.begin() + static_cast<std::ptrdiff_t>(row * kColumns * 16);
    std::copy_n(begin, (kColumns - 1) * 16, moved.begin() + static_cast<std::ptrdiff_t>((row * kColumns + 1) * 16));
  }
  DeviceMatrix a(GetParam(), 9 * kColumns, 16);
  DeviceMatrix b(GetParam(), 9 * kColumns, 16);
  peg.run({GetParam(), 9 * kColumns, 16, 0, picture}, peg_tiles(grid, 5), a, nullptr);
  peg.run({GetParam(), 9 * kColumns, 16, 0, moved}, peg_tiles(grid, 5), b, nullptr);
  for (int64_t row = 0; row < 9; ++row) {
    for (int64_t c = 2; c < kColumns - 3; ++c) {
      EXPECT_TRUE(a.same_row(row * kColumns + c, b, row * kColumns + c + 1)) << row << ' ' << c;
    }
  }
}

TEST_P(PegOf, RefusesKernelsThatItDoesNotKnow) {
  PegArgs args{};
  args.dtype = GetParam();
  args.width = 8;
  for (const int kernel : {1, 4, 29}) {
    args.kernel = kernel;
    EXPECT_EQ(peg(args, nullptr), cudaErrorInvalidValue);
  }
  args.kernel = 3;
  EXPECT_CUDA(peg(args, nullptr));  // no rectangles: no work
}

INSTANTIATE_TEST_SUITE_P(EveryType, PegOf, ::testing::ValuesIn(kDTypes),
                         [](const auto& test) { return std::string(name(test.param)); });

TEST(PegTiles, CoverEveryRowOnce) {
  for (const int kernel : {3, 9, 11, 27}) {
    for (const int64_t extent : {1, 14, 300}) {
      const auto images = layout({{0, extent, 5, 1}, {0, 7, extent, 0}, {0, 33, 31, 2}}, 3);
      std::vector<int> owners(static_cast<size_t>(rows_of(images)), 0);
      for (const PegTile& tile : peg_tiles(images, kernel)) {
        EXPECT_LE(tile.height, peg_largest_tile(kernel).height);
        EXPECT_LE(tile.width, peg_largest_tile(kernel).width);
        if (tile.width == 0) {
          for (int64_t r = 0; r < tile.image.prefix; ++r) ++owners[static_cast<size_t>(tile.image.first_row + r)];
        }
        for (int64_t r = tile.top; r < tile.top + tile.height; ++r) {
          for (int64_t c = tile.left; c < tile.left + tile.width; ++c) {
            ++owners[static_cast<size_t>(tile.image.first_patch() + r * tile.image.width + c)];
          }
        }
      }
      for (size_t r = 0; r < owners.size(); ++r) EXPECT_EQ(owners[r], r >= 3 ? 1 : 0) << r;
    }
  }
}

}  // namespace
}  // namespace cpvt::cuda::testing
