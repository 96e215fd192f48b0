#include "kernels/cpu/peg.h"

#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

struct Peg {
  int64_t width;
  int kernel;
  std::vector<float> weight;    // [width, 1, kernel, kernel]
  std::vector<float> repacked;  // [kernel*kernel, width]
  std::vector<float> bias;

  Peg(int64_t width, int kernel)
      : width(width), kernel(kernel), weight(noise(width * kernel * kernel, 1)), bias(noise(width, 2)) {
    repacked.resize(weight.size());
    repack_peg_weight(weight.data(), width, kernel, repacked.data());
  }

  Matrix run(const Matrix& x, std::span<const TokenGrid> images, int threads, int64_t slack) const {
    ThreadPool pool(threads);
    Matrix y(x.rows(), width, width + slack);
    peg(x.data(), x.stride(), repacked.data(), bias.data(), kernel, images, y.data(), y.stride(), width, pool);
    EXPECT_TRUE(y.guards_intact() && x.guards_intact());
    return y;
  }
};

void check(int64_t width, int kernel, const std::vector<TokenGrid>& images, int64_t slack) {
  const Peg peg(width, kernel);
  const Matrix x(rows_of(images), width, width + slack, 3);
  const Matrix y = peg.run(x, images, 2, 2 * slack);
  Comparison comparison;
  for (const TokenGrid& g : images) {
    for (int64_t r = g.first_row; r < g.first_patch(); ++r) {
      for (int64_t c = 0; c < width; ++c) ASSERT_EQ(x(r, c), y(r, c));
    }
    for (int64_t oy = 0; oy < g.height; ++oy) {
      for (int64_t ox = 0; ox < g.width; ++ox) {
        for (int64_t c = 0; c < width; ++c) {
          const float centre = x(g.first_patch() + oy * g.width + ox, c);
          double sum = static_cast<double>(centre) + peg.bias[static_cast<size_t>(c)];
          double size = std::abs(centre) + std::abs(peg.bias[static_cast<size_t>(c)]);
          int64_t taps = 1;
          for (int dy = 0; dy < kernel; ++dy) {
            for (int dx = 0; dx < kernel; ++dx) {
              const int64_t iy = oy + dy - kernel / 2;
              const int64_t ix = ox + dx - kernel / 2;
              if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) continue;
              const double product = static_cast<double>(x(g.first_patch() + iy * g.width + ix, c)) *
                                     peg.weight[static_cast<size_t>((c * kernel + dy) * kernel + dx)];
              sum += product;
              size += std::abs(product);
              ++taps;
            }
          }
          const double bound = (2 + std::sqrt(static_cast<double>(taps)) / 2) * kEps * size;
          comparison.add(y(g.first_patch() + oy * g.width + ox, c), sum, bound);
        }
      }
    }
  }
  comparison.expect_within("peg, k = " + std::to_string(kernel) + ", width " + std::to_string(width));
}

TEST(Peg, MatchesTheDoubleReference) {
  const auto grids = layout({{0, 1, 1, 1}, {0, 1, 7, 0}, {0, 6, 1, 1}, {0, 3, 2, 2}, {0, 8, 9, 0}, {0, 5, 17, 1}}, 1);
  for (const int kernel : {1, 3, 5, 7, 9, 27}) {
    for (const int64_t width : {1, 7, 16, 33, 65}) check(width, kernel, grids, 3);
  }
  for (int64_t columns = 10; columns <= 34; ++columns) check(16, 3, layout({{0, 4, columns, 0}}), 0);
  check(64, 27, layout({{0, 14, 14, 1}}), 0);
  check(17, 11, layout({{0, 33, 31, 0}}), 0);
}

TEST(Peg, SameBitsInEveryCompany) {
  const auto images = layout({{0, 3, 5, 1}, {0, 14, 14, 1}, {0, 9, 1, 0}, {0, 1, 23, 1}});
  for (const int kernel : {3, 7, 27}) {
    const Peg peg(70, kernel);
    const Matrix x(rows_of(images), 70, 70, 4);
    const Matrix together = peg.run(x, images, 1, 0);
    for (const int threads : {2, 3, 5}) EXPECT_TRUE(same_bits(together, peg.run(x, images, threads, 1)));
    for (const TokenGrid& image : images) {
      TokenGrid alone = image;
      alone.first_row = 0;
      Matrix part(image.rows(), 70, 71);
      Matrix wanted(image.rows(), 70, 70);
      for (int64_t r = 0; r < image.rows(); ++r) {
        std::copy_n(x.row(image.first_row + r), 70, part.row(r));
        std::copy_n(together.row(image.first_row + r), 70, wanted.row(r));
      }
      EXPECT_TRUE(same_bits(wanted, peg.run(part, {&alone, 1}, 2, 0)));
    }
  }
}

TEST(Peg, IsTranslationEquivariantAwayFromTheBorder) {
  // The same picture one column further right: the same bits one column further right.
  const Peg peg(16, 5);
  const auto grid = layout({{0, 9, 20, 0}});
  const Matrix x(180, 16, 16, 4);
  Matrix shifted(180, 16, 16, 5);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 19; ++c) std::copy_n(x.row(r * 20 + c), 16, shifted.row(r * 20 + c + 1));
  }
  const Matrix a = peg.run(x, grid, 1, 0);
  const Matrix b = peg.run(shifted, grid, 1, 0);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 2; c < 17; ++c)
      EXPECT_TRUE(same_bits(a.row(r * 20 + c), b.row(r * 20 + c + 1), 16)) << r << ' ' << c;
  }
}

}  // namespace
}  // namespace cpvt::cpu::testing
