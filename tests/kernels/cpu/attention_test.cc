#include "kernels/cpu/attention.h"

#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

Matrix run(const Matrix& qkv, int heads, int head_dim, std::span<const TokenGrid> images, int threads, int64_t slack) {
  ThreadPool pool(threads);
  const int64_t width = static_cast<int64_t>(heads) * head_dim;
  Matrix y(qkv.rows(), width, width + slack);
  const int64_t floats = attention_workspace_floats(head_dim, threads);
  Matrix workspace(1, floats, floats);
  attention(qkv.data(), qkv.stride(), heads, head_dim, 1.0F / std::sqrt(static_cast<float>(head_dim)), images, y.data(),
            y.stride(), workspace.data(), pool);
  EXPECT_TRUE(y.guards_intact() && workspace.guards_intact() && qkv.guards_intact());
  return y;
}

/// spread: the size of the logits, so that softmax is flat or sharp.
void check(int heads, int head_dim, std::vector<TokenGrid> images, float spread, int64_t slack) {
  const int64_t width = static_cast<int64_t>(heads) * head_dim;
  const int64_t rows = rows_of(images);
  const Matrix qkv(rows, 3 * width, 3 * width + slack, 7, spread);
  const Matrix y = run(qkv, heads, head_dim, images, 2, slack);
  const double scale = 1 / std::sqrt(static_cast<float>(head_dim));
  Comparison comparison;
  for (const TokenGrid& image : images) {
    const int64_t step = image.rows() > 1000 ? 97 : 1;  // of queries checked
    for (int64_t i = 0; i < image.rows(); i += step) {
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = qkv.row(image.first_row + i) + h * head_dim;
        std::vector<double> p(static_cast<size_t>(image.rows()));
        double most = -1e300;
        double size = 0;  // of the largest logit's terms: what its rounding is relative to
        for (int64_t j = 0; j < image.rows(); ++j) {
          const float* k = qkv.row(image.first_row + j) + width + h * head_dim;
          double sum = 0;
          double terms = 0;
          for (int d = 0; d < head_dim; ++d) {
            sum += static_cast<double>(q[d]) * k[d];
            terms += std::abs(static_cast<double>(q[d]) * k[d]);
          }
          p[static_cast<size_t>(j)] = sum * scale;
          most = std::max(most, sum * scale);
          size = std::max(size, terms * scale);
        }
        double total = 0;
        for (double& v : p) total += v = std::exp(v - most);
        for (int d = 0; d < head_dim; ++d) {
          double sum = 0;
          double terms = 0;
          for (int64_t j = 0; j < image.rows(); ++j) {
            const float* v = qkv.row(image.first_row + j) + 2 * width + h * head_dim;
            sum += p[static_cast<size_t>(j)] / total * v[d];
            terms += p[static_cast<size_t>(j)] / total * std::abs(v[d]);
          }
          // Weights are off by the logits' rounding; then two sums over the keys.
          const double keys = std::sqrt(static_cast<double>(image.rows()));
          const double bound = kEps * terms * (6 + 2 * size + keys / 2);
          comparison.add(y(image.first_row + i, h * head_dim + d), sum, bound);
        }
      }
    }
  }
  comparison.expect_within("attention, " + std::to_string(heads) + " heads of " + std::to_string(head_dim) + ", " +
                           std::to_string(rows) + " rows");
}

TEST(Attention, MatchesTheDoubleReference) {
  for (const int head_dim : {1, 7, 8, 16, 17, 31, 32, 33, 64}) {
    check(2, head_dim, layout({{0, 1, 1, 0}, {0, 1, 1, 1}, {0, 3, 5, 0}, {0, 4, 4, 1}, {0, 2, 24, 1}}, 2), 1, 5);
  }
  for (const int64_t patches : {31, 32, 33, 47, 48, 49, 97, 196, 255, 256, 257, 511, 513}) {
    check(3, 16, layout({{0, 1, patches, 0}}), 2, 0);
  }
  check(3, 64, layout({{0, 14, 14, 1}}), 3, 0);
  check(1, 64, layout({{0, 1, 64, 0}}), 20, 0);  // nearly one-hot
  check(1, 8, layout({{0, 40, 50, 0}}), 4, 3);
}

TEST(Attention, SurvivesLargeScores) {
  // Scores around +-4e4: only subtraction of the maximum keeps them finite, tile after tile.
  Matrix qkv(600, 24, 24, 5);
  for (int64_t r = 0; r < 600; ++r) {
    for (int64_t c = 0; c < 16; ++c) qkv(r, c) *= 200;
  }
  const Matrix y = run(qkv, 1, 8, layout({{0, 20, 30, 0}}), 2, 0);
  for (int64_t r = 0; r < 600; ++r) {
    for (int64_t c = 0; c < 8; ++c) ASSERT_LE(std::abs(y(r, c)), 1.0F) << r << ' ' << c;
  }
}

TEST(Attention, SameBitsInEveryCompany) {
  for (const int head_dim : {16, 20, 64}) {
    const int heads = 3;
    const auto images = layout({{0, 3, 3, 1}, {0, 14, 14, 1}, {0, 17, 18, 0}, {0, 1, 1, 0}}, 1);
    const Matrix qkv(rows_of(images), int64_t{3} * heads * head_dim, int64_t{3} * heads * head_dim, 9, 2);
    const Matrix together = run(qkv, heads, head_dim, images, 1, 0);
    for (const int threads : {2, 3, 5}) {
      const Matrix again = run(qkv, heads, head_dim, images, threads, 3);
      for (const TokenGrid& image : images) {
        for (int64_t r = image.first_row; r < image.first_row + image.rows(); ++r) {
          ASSERT_TRUE(same_bits(together.row(r), again.row(r), int64_t{heads} * head_dim)) << threads;
        }
      }
    }
    for (const TokenGrid& image : images) {
      TokenGrid alone = image;
      alone.first_row = 0;
      Matrix part(image.rows(), qkv.width(), qkv.width() + 1);
      for (int64_t r = 0; r < image.rows(); ++r) std::copy_n(qkv.row(image.first_row + r), qkv.width(), part.row(r));
      const Matrix y = run(part, heads, head_dim, {&alone, 1}, 2, 0);
      for (int64_t r = 0; r < image.rows(); ++r) {
        ASSERT_TRUE(same_bits(y.row(r), together.row(image.first_row + r), int64_t{heads} * head_dim));
      }
    }
  }
}

TEST(Attention, LeavesOtherRowsAlone) {
  const auto images = layout({{0, 2, 2, 0}}, 2);
  const Matrix qkv(8, 48, 48, 1);
  const Matrix y = run(qkv, 2, 8, images, 1, 0);
  for (const int64_t r : {0, 1, 6, 7}) EXPECT_TRUE(std::isnan(y(r, 0)) && std::isnan(y(r, 15)));
}

TEST(Attention, PassesNaNOn) {
  const auto images = layout({{0, 4, 5, 0}});
  Matrix qkv(20, 24, 24, 1);
  qkv(3, 9) = std::numeric_limits<float>::quiet_NaN();  // a key
  const Matrix y = run(qkv, 1, 8, images, 1, 0);
  for (int64_t r = 0; r < 20; ++r) EXPECT_TRUE(std::isnan(y(r, 0)));
}

TEST(Attention, WorkspaceDoesNotGrowWithTheImage) {
  EXPECT_LT(attention_workspace_floats(64, 1) * 4, 128 * 1024);
  EXPECT_EQ(attention_workspace_floats(64, 4), 4 * attention_workspace_floats(64, 1));
}

}  // namespace
}  // namespace cpvt::cpu::testing
