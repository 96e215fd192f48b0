#include "kernels/cpu/linear.h"

#include <thread>

#include "kernels/cpu/elementwise.h"
#include "tests/kernels/cpu/reference.h"

namespace cpvt::cpu::testing {
namespace {

struct Shape {
  int64_t rows, n, k;
};

std::string text(const Shape& s) {
  return std::to_string(s.rows) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k);
}

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

Matrix run(const PackedLinear& linear, const Matrix& x, const Matrix* residual, int threads, int64_t y_stride) {
  ThreadPool pool(threads);
  Matrix y(x.rows(), linear.outputs(), y_stride);
  Matrix workspace(1, linear.workspace_floats(threads), linear.workspace_floats(threads));
  linear.run(x.data(), x.stride(), residual == nullptr ? nullptr : residual->data(),
             residual == nullptr ? 0 : residual->stride(), y.data(), y.stride(), x.rows(), workspace.data(), pool);
  EXPECT_TRUE(y.guards_intact() && workspace.guards_intact() && x.guards_intact());
  return y;
}

void check(const Shape& s, bool bias, Activation activation, bool residual, int64_t slack) {
  SCOPED_TRACE(text(s));
  const Matrix weight(s.n, s.k, s.k, 1);
  const Matrix b(1, s.n, s.n, 2);
  const Matrix x(s.rows, s.k, s.k + slack, 3);
  const Matrix r(s.rows, s.n, s.n + 2 * slack, 4);
  const PackedLinear linear(weight.data(), bias ? b.data() : nullptr, s.n, s.k, activation);
  const Matrix y = run(linear, x, residual ? &r : nullptr, 2, s.n + 3 * slack);
  Comparison comparison;
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = bias ? b(0, j) : 0;
      double size = std::abs(sum);
      for (int64_t c = 0; c < s.k; ++c) {
        const double product = static_cast<double>(x(i, c)) * weight(j, c);
        sum += product;
        size += std::abs(product);
      }
      // Rounding of a sum of k terms, then a gelu whose slope is at most 1.13, then one addition.
      double bound = (2 + std::sqrt(static_cast<double>(s.k)) / 2) * kEps * size;
      if (activation == Activation::gelu_erf) {
        bound = 1.13 * bound + 3 * kEps * std::abs(sum);
        sum = gelu(sum);
      }
      if (residual) {
        sum += r(i, j);
        bound += kEps * std::abs(sum);
      }
      comparison.add(y(i, j), sum, bound);
    }
  }
  comparison.expect_within("linear " + text(s));
}

TEST(Linear, MatchesTheDoubleReference) {
  for (const int64_t rows : {1, 9, 10, 11, 31}) {
    for (const int64_t n : {1, 7, 16, 33, 197}) {
      for (const int64_t k : {1, 17, 32, 197}) check({rows, n, k}, true, Activation::none, false, 3);
    }
  }
  for (const Shape& s : {Shape{197, 192, 192}, {20, 400, 768}, {21, 100, 3073}, {7, 10, 64}}) {
    for (const int64_t slack : {0, 5}) {
      check(s, false, Activation::none, false, slack);
      check(s, true, Activation::none, true, slack);
      check(s, true, Activation::gelu_erf, false, slack);
      check(s, false, Activation::gelu_erf, true, slack);
    }
  }
}

TEST(Linear, AddsToItselfInPlace) {
  const Matrix weight(33, 48, 48, 1);
  const Matrix x(23, 48, 48, 2);
  const Matrix r(23, 33, 40, 3);
  const PackedLinear linear(weight.data(), nullptr, 33, 48, Activation::none);
  const Matrix apart = run(linear, x, &r, 1, 33);
  Matrix y = r;
  ThreadPool pool(2);
  std::vector<float> workspace(static_cast<size_t>(linear.workspace_floats(2)));
  linear.run(x.data(), x.stride(), y.data(), y.stride(), y.data(), y.stride(), 23, workspace.data(), pool);
  EXPECT_TRUE(y.guards_intact());
  EXPECT_TRUE(same_bits(apart, y));
}

TEST(Linear, SameBitsInEveryCompany) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{192, 192}, {100, 768}, {65, 333}, {256, 256}, {48, 3072}}) {
    const Matrix weight(n, k, k, 1);
    const Matrix bias(1, n, n, 2);
    const PackedLinear linear(weight.data(), bias.data(), n, k, Activation::gelu_erf);
    const Matrix x(45, k, k, 3);
    const Matrix residual(45, n, n, 4);
    const Matrix whole = run(linear, x, &residual, 1, n);
    for (const int threads : {2, 3, 5}) EXPECT_TRUE(same_bits(whole, run(linear, x, &residual, threads, n + 1)));
    for (const int64_t begin : {0, 1, 4, 9, 10, 17, 44}) {
      for (const int64_t rows : {1, 2, 9, 10, 11, 28}) {
        if (begin + rows > x.rows()) continue;
        Matrix part(rows, k, k + begin % 2);
        Matrix part_residual(rows, n, n);
        Matrix wanted(rows, n, n);
        for (int64_t r = 0; r < rows; ++r) {
          std::copy_n(x.row(begin + r), k, part.row(r));
          std::copy_n(residual.row(begin + r), n, part_residual.row(r));
          std::copy_n(whole.row(begin + r), n, wanted.row(r));
        }
        EXPECT_TRUE(same_bits(wanted, run(linear, part, &part_residual, 2, n)))
            << n << " x " << k << ": rows " << begin << " + " << rows;
      }
    }
  }
}

TEST(Linear, EpiloguesEqualTheUnfusedOperators) {
  const Matrix weight(65, 40, 40, 1);
  const Matrix bias(1, 65, 65, 2);
  const Matrix x(21, 40, 40, 3, 4.0F);
  const Matrix residual(21, 65, 65, 4);
  const PackedLinear fused(weight.data(), bias.data(), 65, 40, Activation::gelu_erf);
  const PackedLinear plain(weight.data(), bias.data(), 65, 40, Activation::none);
  const Matrix y = run(fused, x, &residual, 2, 65);
  Matrix z = run(plain, x, nullptr, 2, 67);
  ThreadPool pool(2);
  gelu_erf(z.data(), z.stride(), z.data(), z.stride(), 21, 65, pool);
  add(z.data(), z.stride(), residual.data(), residual.stride(), z.data(), z.stride(), 21, 65, pool);
  EXPECT_TRUE(same_bits(y, z));
}

TEST(Linear, RunsOnSeveralThreadsAtOnce) {
  const Matrix weight(192, 96, 96, 1);
  const Matrix x(60, 96, 96, 3);
  const PackedLinear linear(weight.data(), nullptr, 192, 96, Activation::none);
  const Matrix wanted = run(linear, x, nullptr, 1, 192);
  std::vector<std::thread> runners;
  std::vector<int> good(3, 0);
  for (size_t i = 0; i < good.size(); ++i) {
    runners.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        good[i] += same_bits(wanted, run(linear, x, nullptr, static_cast<int>(i) + 1, 192)) ? 1 : 0;
      }
    });
  }
  for (auto& runner : runners) runner.join();
  EXPECT_EQ(good, std::vector<int>(3, 10));
}

TEST(Linear, KnowsItsSize) {
  const std::vector<float> weight(2048, 1.0F);
  const PackedLinear linear(weight.data(), nullptr, 64, 32, Activation::none);
  EXPECT_EQ(linear.outputs(), 64);
  EXPECT_EQ(linear.inputs(), 32);
  EXPECT_GE(linear.bytes(), size_t{2048 + 64} * sizeof(float));
  EXPECT_LE(linear.bytes(), 2 * size_t{2048 + 64} * sizeof(float));
}

}  // namespace
}  // namespace cpvt::cpu::testing
