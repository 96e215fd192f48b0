#include "kernels/cuda/attention.h"

#include <map>

#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// qkv and y are windows into wider rows: a chunk that is not theirs lies to the left of both.
int64_t lead(DType dtype) { return row_stride(1, dtype); }

float default_scale(int64_t head_dim) { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }

int launch(const DeviceMatrix& qkv, int32_t heads, int32_t head_dim, float scale,
           const DeviceArray<AttentionTile>& tiles, const DeviceMatrix& y) {
  const auto offset = static_cast<std::ptrdiff_t>(kRowAlignment);
  return attention({.dtype = qkv.dtype(),
                    .qkv = static_cast<const std::byte*>(qkv.data()) + offset,
                    .stride = qkv.stride(),
                    .rows = qkv.rows(),
                    .heads = heads,
                    .head_dim = head_dim,
                    .scale = scale,
                    .tiles = tiles.data(),
                    .tile_count = tiles.count(),
                    .y = static_cast<std::byte*>(y.data()) + offset,
                    .y_stride = y.stride()},
                   nullptr);
}

/// Not a number everywhere, also to the left.
DeviceMatrix unwritten(const DeviceMatrix& qkv, int64_t width, int64_t slack = 0) {
  return {qkv.dtype(), qkv.rows(), lead(qkv.dtype()) + width, slack};
}

void run(const DeviceMatrix& qkv, int32_t heads, int32_t head_dim, const std::vector<AttentionTile>& tiles,
         DeviceMatrix& y) {
  EXPECT_CUDA(launch(qkv, heads, head_dim, default_scale(head_dim), DeviceArray(tiles), y));
  EXPECT_CUDA(cudaDeviceSynchronize());
  y.download();
  EXPECT_TRUE(y.guards_intact());
  for (int64_t r = 0; r < y.rows(); ++r) {
    for (int64_t c = 0; c < lead(y.dtype()); ++c) EXPECT_TRUE(std::isnan(y(r, c)));
  }
}

/// `sizes` are those of q, k and v; rows of no image are no numbers.
DeviceMatrix random_qkv(DType dtype, int64_t rows, std::span<const TokenGrid> images, int64_t width, int64_t slack,
                        uint32_t seed, std::array<float, 3> sizes) {
  const int64_t left = lead(dtype);
  std::vector<float> values(static_cast<size_t>(rows * (left + 3 * width)), kNaN);
  for (const TokenGrid& image : images) {
    // By its own seed, so that the same image is the same in any company.
    const std::vector<float> own = noise(image.rows() * 3 * width, seed + static_cast<uint32_t>(image.rows()));
    for (int64_t r = 0; r < image.rows(); ++r) {
      for (int64_t c = 0; c < 3 * width; ++c) {
        values[static_cast<size_t>((image.first_row + r) * (left + 3 * width) + left + c)] =
            own[static_cast<size_t>(r * 3 * width + c)] * sizes[static_cast<size_t>(c / width)];
      }
    }
  }
  return {dtype, rows, left + 3 * width, slack, values};
}

/// Compares one query of one head with the plain formula in double.
void add_query(Comparison& comparison, const DeviceMatrix& qkv, const DeviceMatrix& y, int64_t heads, int64_t head_dim,
               const TokenGrid& image, int64_t query, int64_t head) {
  const DType dtype = qkv.dtype();
  const int64_t width = heads * head_dim;
  const int64_t column = lead(dtype) + head * head_dim;
  const double scale = default_scale(head_dim);
  std::vector<double> p(static_cast<size_t>(image.rows()));
  double most = -1e300;
  double size = 0;  // of the largest logit's terms: what its rounding is relative to
  for (int64_t j = 0; j < image.rows(); ++j) {
    double sum = 0;
    double terms = 0;
    for (int64_t d = 0; d < head_dim; ++d) {
      const double product =
          static_cast<double>(qkv(image.first_row + query, column + d)) * qkv(image.first_row + j, column + width + d);
      sum += product;
      terms += std::abs(product);
    }
    p[static_cast<size_t>(j)] = sum * scale;
    most = std::max(most, sum * scale);
    size = std::max(size, terms * scale);
  }
  double total = 0;
  for (double& v : p) total += v = std::exp(v - most);
  for (int64_t d = 0; d < head_dim; ++d) {
    double sum = 0;
    double terms = 0;
    double values = 0;
    for (int64_t j = 0; j < image.rows(); ++j) {
      const double v = qkv(image.first_row + j, column + 2 * width + d);
      sum += p[static_cast<size_t>(j)] / total * v;
      terms += p[static_cast<size_t>(j)] / total * std::abs(v);
      values += std::abs(v);
    }
    // In fp32: the logits' rounding and exponentials, two sums over the keys. Then, where storage is narrower, a
    // rounding of each weight (of which the largest is 1) and of the result.
    const double keys = std::sqrt(static_cast<double>(image.rows()));
    double bound = cpu::testing::kEps * terms * (6 + 2 * size + keys / 2);
    if (dtype != DType::kF32) {
      bound += epsilon(dtype) * (terms + std::abs(sum)) + smallest_step(dtype) * (values / total + 1);
    }
    comparison.add(y(image.first_row + query, column + d), sum, bound);
  }
}

class AttentionTest : public ::testing::TestWithParam<DType> {
 protected:
  /// sizes: of q, k and v, so that softmax is flat or sharp.
  void check(int32_t heads, int32_t head_dim, const std::vector<TokenGrid>& images, int64_t slack = 0,
             std::array<float, 3> sizes = {1, 1, 1}) const {
    const int64_t rows = rows_of(images) + 1;
    const DeviceMatrix qkv = random_qkv(GetParam(), rows, images, int64_t{heads} * head_dim, slack, 7, sizes);
    DeviceMatrix y = unwritten(qkv, int64_t{heads} * head_dim, slack);
    run(qkv, heads, head_dim, attention_tiles(images), y);
    Comparison comparison;
    for (const TokenGrid& image : images) {
      const int64_t step = image.rows() > 300 ? 17 : 1;  // of queries checked
      for (int64_t query = 0; query < image.rows(); query += step) {
        for (int64_t head = 0; head < heads; ++head) {
          add_query(comparison, qkv, y, heads, head_dim, image, query, head);
        }
      }
    }
    comparison.expect_within(std::string(name(GetParam())) + " attention, " + std::to_string(heads) + " heads of " +
                             std::to_string(head_dim) + ", " + std::to_string(rows) + " rows");
  }
};

TEST_P(AttentionTest, EveryHeadDimension) {
  // Each tile's width (32, 64, 96, 128), whole and not, and heads at 16-byte boundaries and not.
  for (const int32_t head_dim : {1, 8, 20, 31, 32, 33, 40, 63, 64, 65, 72, 80, 96, 127, 128}) {
    check(2, head_dim, layout({{0, 1, 1, 0}, {0, 3, 5, 1}, {0, 2, 33, 1}}, 2), head_dim % 3);
  }
}

TEST_P(AttentionTest, EveryLength) {
  // Around what tiles, warps, warpgroups, blocks and clusters of queries and keys end with.
  for (const int64_t patches :
       {1, 2, 15, 16, 17, 31, 32, 33, 49, 63, 64, 65, 80, 96, 112, 127, 128, 129, 191, 193, 196, 197, 255, 256, 257}) {
    check(1, 32, layout({{0, 1, patches, 0}}, 1));
    if (patches > 100) check(2, 64, layout({{0, 1, patches, 0}, {0, 1, 5, 0}}, 1));
  }
  check(3, 64, layout({{0, 14, 14, 1}}), 2);
  check(1, 64, layout({{0, 24, 24, 1}}));
  // Enough tiles for the wider blocks of large batches, which 16-bit numbers have.
  if (GetParam() == DType::kF32) return;
  for (const int32_t head_dim : {32, 64}) {
    check(20, head_dim, layout({{0, 1, 1, 0}, {0, 1, 33, 0}, {0, 1, 65, 0}, {0, 1, 129, 0}, {0, 1, 197, 0}}, 1), 1);
  }
}

TEST_P(AttentionTest, FlatAndSharp) {
  check(1, 64, layout({{0, 1, 150, 0}}), 0, {0.01F, 0.01F, 3});
  check(1, 64, layout({{0, 1, 150, 0}}), 0, {8, 8, 3});
  // |q k| of more than 1e5, beyond fp16: only a subtraction in fp32 keeps the exponentials finite, tile after tile.
  check(1, 32, layout({{0, 1, 200, 0}}), 0, {200, 200, 1});
}

TEST_P(AttentionTest, HugeScores) {
  // Of all numbers of few bits, so that scores are exact, but not scale times the largest: two keys have that, in
  // different tiles, and all others weigh nothing.
  const float most = GetParam() == DType::kF32 ? 0x1p60F : 0x1p15F;  // of q and of k: scores up to 2^36 (2^126)
  const int64_t left = lead(GetParam());
  for (const int32_t head_dim : {32, 64}) {
    for (const float sign : {1.0F, -1.0F}) {
      for (const float size : {1.0F, 0.5F, 0x1p-5F, 0x1p-10F}) {
        const int64_t tokens = 141;
        const int64_t width = left + 3 * head_dim;
        std::vector<float> values(static_cast<size_t>(tokens * width), 0.0F);
        for (int64_t r = 0; r < tokens; ++r) {
          float* const row = &values[static_cast<size_t>(r * width + left)];
          std::fill_n(row, head_dim, size * most);
          const int64_t rank = r == 20 || r == 139 ? 0 : 1 + r % 7;  // of the score, 0 being the largest
          std::fill_n(row + head_dim, head_dim, most * (sign * 0.640625F - static_cast<float>(rank) / 64));
          row[2 * head_dim] = static_cast<float>(r + 1);
        }
        const DeviceMatrix qkv(GetParam(), tokens, width, 0, values);
        DeviceMatrix y = unwritten(qkv, head_dim);
        run(qkv, 1, head_dim, attention_tiles(layout({{0, 1, tokens, 0}})), y);
        for (int64_t r = 0; r < tokens; ++r) {
          ASSERT_NEAR(y(r, left), (21 + 140) / 2.0, 81 * 2 * epsilon(GetParam())) << head_dim << ' ' << sign * size;
        }
      }
    }
  }
}

TEST_P(AttentionTest, LongImages) {
  // The first and the last queries of the longest image.
  constexpr int32_t kTokens = 16384;
  const std::vector<TokenGrid> images = layout({{0, 128, 128, 0}});
  const DeviceMatrix qkv = random_qkv(GetParam(), kTokens, images, 32, 0, 3, {3, 3, 1});
  DeviceMatrix y = unwritten(qkv, 32);
  run(qkv, 1, 32, {{0, kTokens, 0}, {0, kTokens, kTokens - 16}}, y);
  Comparison comparison;
  for (const int64_t query : {0, 127, kTokens - 16, kTokens - 1}) {
    add_query(comparison, qkv, y, 1, 32, images[0], query, 0);
  }
  comparison.expect_within(std::string(name(GetParam())) + " attention, 16384 rows");
  EXPECT_TRUE(std::isnan(y(kAttentionQueries, lead(GetParam()))) && std::isnan(y(kTokens - 17, lead(GetParam()))));
}

TEST_P(AttentionTest, SameBitsInEveryCompany) {
  // Together they are enough for the wider blocks of large batches, alone they aren't.
  const int32_t heads = GetParam() == DType::kF32 ? 2 : 24;
  for (const int32_t head_dim : {20, 32, 64}) {
    const int64_t width = heads * head_dim;
    const std::vector<TokenGrid> images = layout({{0, 3, 3, 1}, {0, 14, 14, 1}, {0, 1, 1, 0}, {0, 11, 12, 0}}, 1);
    const DeviceMatrix qkv = random_qkv(GetParam(), rows_of(images), images, width, 0, 9, {2, 2, 1});
    DeviceMatrix together = unwritten(qkv, width);
    run(qkv, heads, head_dim, attention_tiles(images), together);
    for (const TokenGrid& image : images) {
      TokenGrid alone = image;
      alone.first_row = 3;
      const DeviceMatrix own = random_qkv(GetParam(), image.rows() + 3, {&alone, 1}, width, 1, 9, {2, 2, 1});
      DeviceMatrix y = unwritten(own, width, 2);
      run(own, heads, head_dim, attention_tiles({&alone, 1}), y);
      for (int64_t r = 0; r < image.rows(); ++r) {
        ASSERT_TRUE(y.same_row(3 + r, together, image.first_row + r)) << head_dim << ' ' << image.rows() << ' ' << r;
      }
    }
  }
}

TEST_P(AttentionTest, OtherRowsDoNotMatterAndAreNotWritten) {
  // Around the image that is attended to, whose rows are not a whole tile, lie rows that are not numbers.
  for (const int32_t head_dim : {7, 32, 64}) {
    for (const int64_t tokens : {75, 139}) {
      for (const int64_t behind : {70, 0}) {
        const std::vector<TokenGrid> images = layout({{0, 1, tokens, 0}}, 70);
        const int64_t rows = 70 + tokens + behind;
        const DeviceMatrix qkv = random_qkv(GetParam(), rows, images, head_dim, 0, 1, {1, 1, 1});
        DeviceMatrix y = unwritten(qkv, head_dim);
        run(qkv, 1, head_dim, attention_tiles(images), y);
        for (int64_t r = 0; r < rows; ++r) {
          const bool own = r >= 70 && r < 70 + tokens;
          for (int64_t c = lead(GetParam()); c < y.width(); ++c) ASSERT_EQ(std::isnan(y(r, c)), !own) << r << ' ' << c;
        }
      }
    }
  }
}

TEST_P(AttentionTest, PassesNaNOn) {
  const std::vector<TokenGrid> images = layout({{0, 7, 10, 0}});
  const int64_t left = lead(GetParam());
  for (const int64_t row : {3, 69}) {  // of a key, in a whole tile and in a tail
    std::vector<float> values(static_cast<size_t>(70 * (left + 96)), 0.5F);
    values[static_cast<size_t>(row * (left + 96) + left + 32 + 9)] = kNaN;
    const DeviceMatrix qkv(GetParam(), 70, left + 96, 0, values);
    DeviceMatrix y = unwritten(qkv, 32);
    run(qkv, 1, 32, attention_tiles(images), y);
    for (int64_t r = 0; r < 70; ++r) EXPECT_TRUE(std::isnan(y(r, left)) && std::isnan(y(r, left + 31))) << r;
  }
}

TEST_P(AttentionTest, RefusesWhatItCannotDo) {
  const DeviceMatrix qkv(GetParam(), 1, 400);
  const DeviceMatrix y(GetParam(), 1, 400);
  const DeviceArray<AttentionTile> none({});
  EXPECT_EQ(launch(qkv, 1, 129, 1, none, y), static_cast<int>(cudaErrorInvalidValue));
  EXPECT_EQ(launch(qkv, 1, 0, 1, none, y), static_cast<int>(cudaErrorInvalidValue));
  EXPECT_EQ(launch(qkv, 1, 64, 0, none, y), static_cast<int>(cudaErrorInvalidValue));
  EXPECT_EQ(launch(qkv, 1, 64, kNaN, none, y), static_cast<int>(cudaErrorInvalidValue));
  const DeviceMatrix nothing(GetParam(), 0, 400);
  EXPECT_CUDA(launch(nothing, 1, 64, 1, none, y));  // an empty batch
}

INSTANTIATE_TEST_SUITE_P(DTypes, AttentionTest, ::testing::ValuesIn(kDTypes),
                         [](const auto& param) { return name(param.param); });

TEST(Attention, MoreTilesThanAGridHas) {
  std::vector<TokenGrid> images;
  for (int64_t i = 0; i < 33000; ++i) images.push_back({.first_row = i, .height = 1, .width = 1});
  const int64_t left = lead(DType::kF16);
  const DeviceMatrix qkv = DeviceMatrix::random(DType::kF16, 33000, left + 9, 0, 5);
  DeviceMatrix y(DType::kF16, 33000, left + 3);
  EXPECT_CUDA(launch(qkv, 1, 3, 1, DeviceArray(attention_tiles(images)), y));
  y.download();
  for (int64_t r = 0; r < 33000; ++r) ASSERT_EQ(y(r, left + 2), qkv(r, left + 8)) << r;  // one key: its value
}

TEST(AttentionTiles, CoverEveryQueryOnceTheLongestFirst) {
  const std::vector<TokenGrid> images =
      layout({{0, 1, 1, 0}, {0, 14, 14, 1}, {0, 0, 0, 0}, {0, 8, 8, 0}, {0, 14, 14, 1}, {0, 8, 8, 1}}, 5);
  std::map<int64_t, int> times;  // that a row is in a tile
  int32_t longest = std::numeric_limits<int32_t>::max();
  for (const AttentionTile& tile : attention_tiles(images)) {
    EXPECT_LE(tile.tokens, longest);
    longest = tile.tokens;
    EXPECT_TRUE(std::ranges::any_of(
        images, [&](const TokenGrid& i) { return i.first_row == tile.first_row && i.rows() == tile.tokens; }));
    const int64_t end = std::min<int64_t>(tile.first_query + kAttentionQueries, tile.tokens);
    EXPECT_LT(tile.first_query, end);
    for (int64_t q = tile.first_query; q < end; ++q) ++times[tile.first_row + q];
  }
  EXPECT_EQ(static_cast<int64_t>(times.size()), rows_of(images) - 5);
  EXPECT_TRUE(std::ranges::all_of(times, [](const auto& entry) { return entry.first >= 5 && entry.second == 1; }));
  EXPECT_TRUE(attention_tiles({}).empty());
}

}  // namespace
}  // namespace cpvt::cuda::testing
