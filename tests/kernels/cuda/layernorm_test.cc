#include "kernels/cuda/layernorm.h"

#include <string>

#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

constexpr float kEpsilon = 1e-6F;

struct Case {
  DType dtype;
  int64_t rows, width;
  float offset;   // added to numbers in [-1, 1]: what a second pass about the mean is for
  int64_t slack;  // chunks between rows
};

void check(const Case& test) {
  const auto [dtype, rows, width, offset, slack] = test;
  std::vector<float> values = noise(rows * width, 1);
  for (float& v : values) v += offset;
  DeviceMatrix x(dtype, rows, width, slack, values);
  const std::vector<float> gamma = noise(width, 2);
  const std::vector<float> beta = noise(width, 3);
  const DeviceArray<float> device_gamma(gamma);
  const DeviceArray<float> device_beta(beta);
  DeviceMatrix y(dtype, rows, width, slack * 2);
  LayerNormArgs args{dtype,      x.data(), x.stride(), device_gamma.data(), device_beta.data(), kEpsilon, y.data(),
                     y.stride(), rows,     width};
  EXPECT_CUDA(layernorm(args, nullptr));
  y.download();
  EXPECT_TRUE(y.guards_intact());

  Comparison comparison;
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0;
    double largest = 0;
    for (int64_t c = 0; c < width; ++c) {
      mean += x(r, c) / static_cast<double>(width);
      largest = std::max(largest, std::abs(static_cast<double>(x(r, c))));
    }
    double variance = 0;
    for (int64_t c = 0; c < width; ++c) variance += (x(r, c) - mean) * (x(r, c) - mean) / static_cast<double>(width);
    const double scale = 1 / std::sqrt(variance + kEpsilon);
    for (int64_t c = 0; c < width; ++c) {
      const double g = gamma[static_cast<size_t>(c)];
      const double b = beta[static_cast<size_t>(c)];
      const double normal = (x(r, c) - mean) * scale;
      const double wanted = normal * g + b;
      // The mean is good to a few roundings of the largest value; the rest to a few of its own; then one to dtype.
      const double bound =
          cpu::testing::kEps * (4 * largest * scale * std::abs(g) + 8 * std::abs(normal * g) + 2 * std::abs(b) + 1e-6) +
          epsilon(dtype) * std::abs(wanted) + smallest_step(dtype);
      comparison.add(y(r, c), wanted, bound);
    }
  }
  comparison.expect_within("layernorm " + std::string(name(dtype)) + ' ' + std::to_string(rows) + " x " +
                           std::to_string(width) + " about " + std::to_string(offset));

  args.y = x.data();
  args.y_stride = x.stride();
  EXPECT_CUDA(layernorm(args, nullptr));
  x.download();
  EXPECT_TRUE(x.guards_intact());
  EXPECT_TRUE(x.same_bits(y)) << "in place";
}

class LayerNorm : public ::testing::TestWithParam<DType> {};

TEST_P(LayerNorm, MatchesTheDoubleReference) {
  // Around a chunk, a warp's chunks and each step of what a lane holds, and the models' own.
  for (const int64_t width : {1,   3,   4,   7,   8,   9,   31,  32,  33,  63,  64,   65,   127,  128,  129, 192,
                              195, 255, 256, 257, 320, 384, 511, 513, 768, 769, 1023, 1025, 2049, 4095, 4096}) {
    check({GetParam(), 3, width, 0, 1});
  }
  for (const int64_t width : {17, 192, 768}) check({GetParam(), 5, width, 3, 0});
  for (const int64_t rows : {1, 2, 7, 8, 9, 31, 32, 33, 65, 197}) check({GetParam(), rows, 48, 1, 2});
}

TEST_P(LayerNorm, ConstantRowsGiveBeta) {
  const DeviceMatrix x(GetParam(), 2, 33, 0, std::vector<float>(66, 0.5F));
  DeviceMatrix y(GetParam(), 2, 33);
  const DeviceArray<float> gamma(noise(33, 2));
  const DeviceArray<float> beta(std::vector<float>(33, -0.75F));
  EXPECT_CUDA(layernorm(
      {GetParam(), x.data(), x.stride(), gamma.data(), beta.data(), kEpsilon, y.data(), y.stride(), 2, 33}, nullptr));
  y.download();
  for (int64_t c = 0; c < 33; ++c) EXPECT_NEAR(y(1, c), -0.75, 1e-4);
}

TEST_P(LayerNorm, SameBitsAloneAndAmongOthers) {
  for (const int64_t width : {60, 200, 390}) {
    DeviceMatrix whole(GetParam(), 21, width);
    const DeviceMatrix x = DeviceMatrix::random(GetParam(), 21, width, 0, 1);
    const DeviceArray<float> gamma(noise(width, 2));
    const DeviceArray<float> beta(noise(width, 3));
    LayerNormArgs args{GetParam(), x.data(),     x.stride(),     gamma.data(), beta.data(),
                       kEpsilon,   whole.data(), whole.stride(), 21,           width};
    EXPECT_CUDA(layernorm(args, nullptr));
    whole.download();
    for (const int64_t r : {0, 1, 20}) {
      DeviceMatrix alone(GetParam(), 1, width, 1);
      args.x =
          static_cast<const std::byte*>(x.data()) + static_cast<size_t>(r * x.stride()) * element_bytes(GetParam());
      args.y = alone.data();
      args.y_stride = alone.stride();
      args.rows = 1;
      EXPECT_CUDA(layernorm(args, nullptr));
      alone.download();
      EXPECT_TRUE(alone.same_row(0, whole, r)) << "row " << r << ", width " << width;
    }
  }
}

TEST_P(LayerNorm, RefusesWidthsThatItCannotHold) {
  LayerNormArgs args{};
  args.dtype = GetParam();
  args.rows = 1;
  for (const int64_t width : {0, 4097}) {
    args.width = width;
    EXPECT_EQ(layernorm(args, nullptr), cudaErrorInvalidValue);
  }
}

TEST_P(LayerNorm, NoRowsAreNoWork) {
  LayerNormArgs args{};
  args.dtype = GetParam();
  args.width = 64;
  EXPECT_CUDA(layernorm(args, nullptr));
}

INSTANTIATE_TEST_SUITE_P(EveryType, LayerNorm, ::testing::ValuesIn(kDTypes),
                         [](const auto& test) { return std::string(name(test.param)); });

}  // namespace
}  // namespace cpvt::cuda::testing
