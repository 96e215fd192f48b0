#include "kernels/cuda/linear.h"

#include <string>

#include "kernels/cuda/layernorm.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

struct Case {
  int64_t rows, n, k;
  bool norm = false;
  bool gelu = false;
  bool residual = false;
  float scale = 1;
  int64_t slack = 0;  // chunks of 16 bytes
};

std::string text(const Case& c, DType dtype) {
  return std::string(name(dtype)) + " " + std::to_string(c.rows) + " x " + std::to_string(c.n) + " x " +
         std::to_string(c.k) + (c.norm ? " norm" : "") + (c.gelu ? " gelu" : "") + (c.residual ? " residual" : "") +
         " scale " + std::to_string(c.scale) + " slack " + std::to_string(c.slack);
}

constexpr float kNormEps = 1e-5F;

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

/// A linear layer and rows to put through it.
class Layer {
 public:
  Layer(const Case& c, DType dtype)
      : case_(c),
        dtype_(dtype),
        // Rows away from zero, as a residual stream's are, so that a mean and a variance about zero are wrong.
        x_(dtype, c.rows, c.k, c.slack, shifted(noise(c.rows * c.k, 1), c.norm ? 2.0F : 0.0F)),
        weight_(DeviceMatrix::random(dtype, c.n, c.k, 0, 2)),
        bias_(DeviceMatrix::random(DType::kF32, 1, c.n, 0, 3)),
        gamma_(DType::kF32, 1, c.k, 0, shifted(noise(c.k, 4), 1.5F)),
        beta_(DeviceMatrix::random(DType::kF32, 1, c.k, 0, 5)),
        residual_(DeviceMatrix::random(dtype, c.rows, c.n, 2 * c.slack, 6, 3)) {}

  /// Rows [begin, begin + rows), into y.
  void run(int64_t begin, DeviceMatrix& y, const void* residual, int64_t residual_stride) {
    LinearArgs args = arguments(begin, y);
    args.residual = residual;
    args.residual_stride = residual_stride;
    launch(args, y);
  }
  void run(int64_t begin, DeviceMatrix& y) { launch(arguments(begin, y), y); }

  /// All rows through a LayerNorm of its own first.
  void run_apart(DeviceMatrix& y) {
    DeviceMatrix normed(dtype_, case_.rows, case_.k);
    LinearArgs args = arguments(0, y);
    EXPECT_CUDA(layernorm({.dtype = dtype_,
                           .x = args.x,
                           .x_stride = args.x_stride,
                           .gamma = args.gamma,
                           .beta = args.beta,
                           .eps = args.eps,
                           .y = normed.data(),
                           .y_stride = normed.stride(),
                           .rows = args.rows,
                           .width = args.k},
                          nullptr));
    args.x = normed.data();
    args.x_stride = normed.stride();
    args.gamma = args.beta = nullptr;
    launch(args, y);
  }

 private:
  LinearArgs arguments(int64_t begin, const DeviceMatrix& y) const {
    const std::byte* residual = static_cast<const std::byte*>(residual_.data()) + begin * residual_.stride() * bytes();
    return LinearArgs{.dtype = dtype_,
                      .x = static_cast<const std::byte*>(x_.data()) + begin * x_.stride() * bytes(),
                      .x_stride = x_.stride(),
                      .gamma = case_.norm ? static_cast<const float*>(gamma_.data()) : nullptr,
                      .beta = case_.norm ? static_cast<const float*>(beta_.data()) : nullptr,
                      .eps = kNormEps,
                      .weight = weight_.data(),
                      .bias = static_cast<const float*>(bias_.data()),
                      .gelu = case_.gelu,
                      .scale = case_.scale,
                      .residual = case_.residual ? residual : nullptr,
                      .residual_stride = residual_.stride(),
                      .y = y.data(),
                      .y_stride = y.stride(),
                      .rows = y.rows(),
                      .n = case_.n,
                      .k = case_.k};
  }
  static void launch(const LinearArgs& args, DeviceMatrix& y) {
    EXPECT_CUDA(linear(args, nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
    y.download();
    EXPECT_TRUE(y.guards_intact());
  }

 public:
  /// Compares row r of y with a double reference. A bound in shares of one rounding of each step:
  /// the sum of k products in fp32 with the tensor cores' truncation (a unit each of the running sum, which is at most
  /// the sum of magnitudes: sqrt(k) of those are met), the normalised row's own rounding to dtype, GELU's slope of at
  /// most 1.13, one rounding of the result.
  void compare(int64_t r, const DeviceMatrix& y, int64_t y_row, Comparison& comparison) const {
    std::vector<double> x(static_cast<size_t>(case_.k));
    std::vector<double> x_error(x.size(), 0.0);
    for (int64_t c = 0; c < case_.k; ++c) x[static_cast<size_t>(c)] = x_(r, c);
    if (case_.norm) normalise(x, x_error);
    for (int64_t j = 0; j < case_.n; ++j) {
      double sum = bias_(0, j);
      double size = std::abs(sum);
      double bound = 0;
      for (size_t c = 0; c < x.size(); ++c) {
        const double w = weight_(j, static_cast<int64_t>(c));
        sum += x[c] * w;
        size += std::abs(x[c] * w);
        bound += x_error[c] * x_error[c] * w * w;
      }
      // The roundings of a row's numbers are independent: their sum is some standard deviations of one, not all of
      // them.
      bound = 4 * std::sqrt(bound) + (4 + std::sqrt(static_cast<double>(case_.k))) * cpu::testing::kEps * size;
      if (case_.gelu) {
        bound = 1.13 * bound + 4 * cpu::testing::kEps * std::abs(sum);
        sum = gelu(sum);
      }
      sum *= case_.scale;
      bound *= std::abs(case_.scale);
      if (case_.residual) sum += residual_(r, j);
      bound += cpu::testing::kEps * std::abs(sum);
      bound += epsilon(dtype_) * (std::abs(sum) + bound) + smallest_step(dtype_);
      comparison.add(y(y_row, j), sum, bound);
    }
  }

  const DeviceMatrix& residual() const { return residual_; }

  /// Makes the first number of a row not a number.
  void spoil_row(int64_t r) {
    const std::vector<std::byte> ones(element_bytes(dtype_), std::byte{0xFF});
    std::byte* row = static_cast<std::byte*>(x_.data()) + r * x_.stride() * bytes();
    EXPECT_CUDA(cudaMemcpy(row, ones.data(), ones.size(), cudaMemcpyHostToDevice));
  }

 private:
  static std::vector<float> shifted(std::vector<float> values, float by) {
    for (float& v : values) v += by;
    return values;
  }
  int64_t bytes() const { return static_cast<int64_t>(element_bytes(dtype_)); }

  void normalise(std::vector<double>& x, std::vector<double>& error) const {
    double mean = 0;
    for (const double v : x) mean += v / static_cast<double>(x.size());
    double variance = 0;
    for (const double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
    const double inverse = 1 / std::sqrt(variance + kNormEps);
    for (size_t c = 0; c < x.size(); ++c) {
      const auto column = static_cast<int64_t>(c);
      const double scaled = (x[c] - mean) * inverse * gamma_(0, column);
      // x - mean is as wrong as x's largest number's last place.
      const double fp32 = cpu::testing::kEps * (4 * std::abs(scaled) + 3 * inverse * std::abs(gamma_(0, column) * 4));
      x[c] = scaled + beta_(0, column);
      error[c] = fp32 + epsilon(dtype_) * std::abs(x[c]);
    }
  }

  Case case_;
  DType dtype_;
  DeviceMatrix x_, weight_, bias_, gamma_, beta_, residual_;
};

class Linear : public ::testing::TestWithParam<DType> {
 protected:
  /// All rows against the reference, or every `step`-th.
  static void check(const Case& c, int64_t step = 1) {
    SCOPED_TRACE(text(c, GetParam()));
    Layer layer(c, GetParam());
    DeviceMatrix y(GetParam(), c.rows, c.n, c.slack);
    layer.run(0, y);
    Comparison comparison;
    for (int64_t r = 0; r < c.rows; r += step) layer.compare(r, y, r, comparison);
    layer.compare(c.rows - 1, y, c.rows - 1, comparison);
    comparison.expect_within(text(c, GetParam()));
  }
};

INSTANTIATE_TEST_SUITE_P(DTypes, Linear, ::testing::ValuesIn(kDTypes),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST_P(Linear, OddExtents) {
  int64_t slack = 0;
  for (const int64_t rows : {1, 31, 33}) {
    for (const int64_t n : {1, 8, 31, 33}) {
      for (const int64_t k : {1, 8, 63, 65, 195}) {
        check({.rows = rows, .n = n, .k = k, .residual = n == 33, .slack = slack});
        check({.rows = rows, .n = n, .k = k, .norm = true, .gelu = n == 31, .slack = slack});
        slack = (slack + 1) % 3;
      }
    }
  }
}

/// Widths of whole fragments, which a machine with wgmma computes with that.
TEST_P(Linear, MultiplesOf32Columns) {
  int64_t turn = 0;
  for (const int64_t rows : {1, 63, 64, 65, 130}) {
    for (const int64_t n : {32, 64, 96, 192}) {
      for (const int64_t k : {8, 32, 64, 72, 192, 200}) {
        check({.rows = rows,
               .n = n,
               .k = k,
               .norm = turn % 2 == 1,
               .gelu = turn % 3 == 1,
               .residual = turn % 5 < 2,
               .scale = turn % 4 == 2 ? -0.375F : 1.0F,
               .slack = turn % 3},
              17);
        ++turn;
      }
    }
  }
}

TEST_P(Linear, Epilogues) {
  for (const bool gelu : {false, true}) {
    for (const bool residual : {false, true}) {
      for (const float scale : {1.0F, -0.375F}) {
        for (const int64_t n : {70, 96}) {
          check({.rows = 40, .n = n, .k = 100, .gelu = gelu, .residual = residual, .scale = scale, .slack = 1});
        }
      }
    }
  }
}

TEST_P(Linear, ModelShapes) {
  check({.rows = 197, .n = 576, .k = 192, .norm = true}, 13);
  check({.rows = 197, .n = 192, .k = 192, .residual = true}, 13);
  check({.rows = 50, .n = 192, .k = 768, .norm = true, .gelu = true}, 7);
  check({.rows = 50, .n = 1000, .k = 768, .residual = true}, 7);
  check({.rows = 65, .n = 192, .k = 768, .residual = true}, 13);
  check({.rows = 33, .n = 768, .k = 3072, .residual = true}, 7);
  check({.rows = 65, .n = 1536, .k = 384, .norm = true, .gelu = true}, 13);
}

TEST_P(Linear, AddsToItselfInPlace) {
  for (const int64_t n : {45, 64}) {
    const Case c{.rows = 137, .n = n, .k = 40, .residual = true, .scale = 0.5F};
    Layer layer(c, GetParam());
    DeviceMatrix apart(GetParam(), c.rows, c.n);
    layer.run(0, apart);
    std::vector<float> values;
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t j = 0; j < c.n; ++j) values.push_back(layer.residual()(r, j));
    }
    DeviceMatrix y(GetParam(), c.rows, c.n, 1, values);
    layer.run(0, y, y.data(), y.stride());
    EXPECT_TRUE(y.same_bits(apart)) << "n " << n;
  }
}

/// The launcher's tiles depend on the number of rows; the bits of a row must not. Every tile that it has is in here.
class LinearCompany : public Linear {
 protected:
  static void check_parts(const Case& c) {
    SCOPED_TRACE(text(c, GetParam()));
    Layer layer(c, GetParam());
    DeviceMatrix whole(GetParam(), c.rows, c.n);
    layer.run(0, whole);
    for (const auto& [begin, rows] : {std::pair<int64_t, int64_t>{0, 1}, {100, 29}, {300, 197}, {c.rows - 1, 1}}) {
      DeviceMatrix part(GetParam(), rows, c.n, 1);
      layer.run(begin, part);
      for (int64_t r = 0; r < rows; ++r) EXPECT_TRUE(part.same_row(r, whole, begin + r)) << begin << " + " << r;
    }
    Comparison comparison;
    for (int64_t r = 0; r < c.rows; r += 499) layer.compare(r, whole, r, comparison);
    layer.compare(c.rows - 1, whole, c.rows - 1, comparison);
    comparison.expect_within(text(c, GetParam()));
  }
};

INSTANTIATE_TEST_SUITE_P(DTypes, LinearCompany, ::testing::ValuesIn(kDTypes),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST_P(LinearCompany, Tiles128x128) {
  check_parts({.rows = 1400, .n = 1000, .k = 40, .gelu = true, .residual = true});
  check_parts({.rows = 1400, .n = 1000, .k = 72, .norm = true});
}

TEST_P(LinearCompany, Tiles128x96) {
  check_parts({.rows = 5600, .n = 190, .k = 40, .residual = true, .scale = 0.5F});
  check_parts({.rows = 5600, .n = 190, .k = 40, .norm = true, .gelu = true});
}

TEST_P(LinearCompany, Tiles64x64) {
  check_parts({.rows = 630, .n = 570, .k = 100});
  check_parts({.rows = 630, .n = 570, .k = 100, .norm = true});
}

TEST_P(LinearCompany, Tiles128x192OfWideNormalisedRows) {
  check_parts({.rows = 1000, .n = 2200, .k = 260, .norm = true});
}

/// Tiles of the products with wgmma: widths that they do not divide, and rows that leave blocks of a cluster without
/// any.
class LinearWarpgroups : public LinearCompany {};

INSTANTIATE_TEST_SUITE_P(DTypes, LinearWarpgroups, ::testing::Values(DType::kF16, DType::kBF16),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST_P(LinearWarpgroups, Tiles128x256) { check_parts({.rows = 1030, .n = 2144, .k = 136, .residual = true}); }

TEST_P(LinearWarpgroups, Tiles128x192) { check_parts({.rows = 1030, .n = 1440, .k = 72, .residual = true}); }

TEST_P(LinearWarpgroups, Tiles64x192) {
  check_parts({.rows = 620, .n = 1312, .k = 136, .residual = true, .scale = 0.5F});
  check_parts({.rows = 620, .n = 1312, .k = 136, .norm = true, .gelu = true});
}

TEST_P(LinearWarpgroups, Tiles64x128) { check_parts({.rows = 553, .n = 672, .k = 72, .residual = true}); }

TEST_P(LinearWarpgroups, Tiles64x64) {
  check_parts({.rows = 553, .n = 288, .k = 72, .gelu = true});
  check_parts({.rows = 553, .n = 480, .k = 72, .norm = true});
}

TEST_P(LinearWarpgroups, Tiles64x32) {
  check_parts({.rows = 553, .n = 32, .k = 1032, .residual = true});
  check_parts({.rows = 553, .n = 32, .k = 200, .norm = true});
}

/// Here the ring goes on from one tile to the next.
TEST_P(LinearWarpgroups, SeveralTilesToABlock) {
  check_parts({.rows = 8491, .n = 32, .k = 520, .residual = true});
  check_parts({.rows = 8229, .n = 64, .k = 264});
  check_parts({.rows = 8229, .n = 96, .k = 264, .gelu = true});
  check_parts({.rows = 5216, .n = 416, .k = 200, .residual = true});
  check_parts({.rows = 8229, .n = 416, .k = 200});
  check_parts({.rows = 8229, .n = 608, .k = 136, .residual = true});
  check_parts({.rows = 4299, .n = 96, .k = 200, .norm = true});
  check_parts({.rows = 4168, .n = 96, .k = 40, .norm = true});
  check_parts({.rows = 4299, .n = 288, .k = 136, .norm = true, .gelu = true});
}

/// A row with something in it that is not a number comes out as such, and the rows beside it as ever.
TEST_P(Linear, RowsKeepToThemselves) {
  for (const int64_t n : {40, 64}) {
    for (const bool norm : {false, true}) {
      const Case c{.rows = 33, .n = n, .k = 72, .norm = norm, .gelu = true};
      Layer layer(c, GetParam());
      DeviceMatrix y(GetParam(), c.rows, c.n);
      layer.run(0, y);
      layer.spoil_row(17);
      DeviceMatrix spoiled(GetParam(), c.rows, c.n);
      layer.run(0, spoiled);
      for (int64_t r = 0; r < c.rows; ++r) {
        if (r == 17) continue;
        EXPECT_TRUE(spoiled.same_row(r, y, r)) << r;
      }
      for (int64_t j = 0; j < c.n; ++j) EXPECT_TRUE(std::isnan(spoiled(17, j))) << j;
    }
  }
}

/// LayerNorm before the product and within it: the same bits.
TEST_P(Linear, FusedLayerNormIsTheOtherOne) {
  for (const int64_t n : {40, 64}) {
    for (const int64_t k : {7, 64, 195, 384, 700}) {
      // The one that is fused may be mma's and the other one wgmma's, whose sums may be rounded in another way.
      if (n % 32 == 0 && k > 384) continue;
      const Case c{.rows = 137, .n = n, .k = k, .norm = true};
      Layer layer(c, GetParam());
      DeviceMatrix fused(GetParam(), c.rows, c.n);
      layer.run(0, fused);
      DeviceMatrix apart(GetParam(), c.rows, c.n);
      layer.run_apart(apart);
      EXPECT_TRUE(fused.same_bits(apart)) << "n " << n << " k " << k;
    }
  }
}

TEST(LinearOfHalves, LargeResultsBecomeTheLargestHalf) {
  const Case c{.rows = 3, .n = 17, .k = 16, .scale = 1e6F};
  Layer layer(c, DType::kF16);
  DeviceMatrix y(DType::kF16, c.rows, c.n);
  layer.run(0, y);
  int largest = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t j = 0; j < c.n; ++j) {
      EXPECT_LE(std::abs(y(r, j)), 65504.0F);
      largest += std::abs(y(r, j)) == 65504.0F ? 1 : 0;
    }
  }
  EXPECT_GT(largest, 40) << "of 51";
}

TEST(LinearArguments, AreChecked) {
  float number = 0;
  LinearArgs args{};
  args.dtype = DType::kF16;
  args.gamma = args.beta = &number;
  args.rows = 1;
  args.n = 8;
  args.k = kWidestNormalisedLinear + 1;
  EXPECT_EQ(linear(args, nullptr), static_cast<int>(cudaErrorInvalidValue));
  args.rows = 0;
  args.k = 8;
  EXPECT_CUDA(linear(args, nullptr));
}

}  // namespace
}  // namespace cpvt::cuda::testing
