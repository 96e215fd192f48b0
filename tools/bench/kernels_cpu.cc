// Every CPU operator alone, and the operators of a whole CPVT-GAP forward pass in a row, against what the machine can
// do. Times are the best of many runs: other programs on the machine only ever add. Rates are per second of that best
// time.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/layernorm.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/patch_embed.h"
#include "kernels/cpu/peg.h"
#include "kernels/cpu/pool.h"
#include "tools/bench/peak.h"

namespace {

using benchmark::State;
using cpvt::TokenGrid;
using namespace cpvt::cpu;  // NOLINT(google-build-using-namespace): the operators are the subject

std::vector<float> noise(int64_t count) {
  static std::mt19937 random(1);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = (static_cast<float>(random()) * 0x1p-31F - 1.0F) * 0.1F;
  return values;
}

double seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Runs `body` until the framework has had enough; reports its best time with the rates that follow.
template <class Body>
void measure(State& state, double flops, double bytes, const Body& body) {
  static const double peak = cpvt::bench::peak_gflops();
  const clockid_t clock = state.range(0) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  double best = 1e30;
  body();
  for (auto _ : state) {
    const double begin = seconds(clock);
    body();
    best = std::min(best, seconds(clock) - begin);
  }
  state.counters["best_us"] = best * 1e6;
  state.counters["GB/s"] = bytes / best / 1e9;
  state.counters["GFLOP/s"] = flops / best / 1e9;
  state.counters["of_peak"] = flops / best / 1e9 / peak / static_cast<double>(state.range(0));
}

void linear(State& state) {
  const int64_t rows = state.range(1);
  const int64_t n = state.range(2);
  const int64_t k = state.range(3);
  const auto weight = noise(n * k);
  const auto bias = noise(n);
  const auto x = noise(rows * k);
  std::vector<float> y(static_cast<size_t>(rows * n));
  ThreadPool pool(static_cast<int>(state.range(0)));
  const PackedLinear packed(weight.data(), bias.data(), n, k,
                            state.range(4) != 0 ? Activation::gelu_erf : Activation::none);
  std::vector<float> workspace(static_cast<size_t>(packed.workspace_floats(pool.threads())));
  measure(state, 2.0 * static_cast<double>(rows * n * k), 4.0 * static_cast<double>(n * k + rows * (n + k)),
          [&] { packed.run(x.data(), k, nullptr, 0, y.data(), n, rows, workspace.data(), pool); });
}
BENCHMARK(linear)->ArgNames({"threads", "rows", "n", "k", "gelu"})->ArgsProduct({{1, 2}, {196}, {192}, {192}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {576}, {192}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {768}, {192}, {0, 1}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {192}, {768}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {1536}, {384}, {0, 1}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {384}, {1536}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {2304}, {768}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {3072}, {768}, {0, 1}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {196}, {768}, {3072}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {197, 49, 1}, {768}, {192}, {0}});
BENCHMARK(linear)->ArgsProduct({{1, 2}, {1}, {1000}, {768}, {0}});

void attention(State& state) {
  const int64_t rows = state.range(1);
  const int heads = static_cast<int>(state.range(2));
  const int dim = static_cast<int>(state.range(3));
  const int64_t width = static_cast<int64_t>(heads) * dim;
  const auto qkv = noise(rows * 3 * width);
  std::vector<float> y(static_cast<size_t>(rows * width));
  ThreadPool pool(static_cast<int>(state.range(0)));
  std::vector<float> workspace(static_cast<size_t>(attention_workspace_floats(dim, pool.threads())));
  const TokenGrid grid{0, 1, rows, 0};
  measure(state, 4.0 * static_cast<double>(rows * rows * width), 16.0 * static_cast<double>(rows * width), [&] {
    cpvt::cpu::attention(qkv.data(), 3 * width, heads, dim, 0.125F, {&grid, 1}, y.data(), width, workspace.data(),
                         pool);
  });
}
BENCHMARK(attention)
    ->ArgNames({"threads", "rows", "heads", "dim"})
    ->ArgsProduct({{1, 2}, {49, 196, 197, 1024, 4096}, {3}, {64}})
    ->ArgsProduct({{1, 2}, {196}, {12}, {64}})
    ->ArgsProduct({{1, 2}, {196}, {6}, {32}});

void peg(State& state) {
  const int64_t side = state.range(1);
  const int64_t width = state.range(2);
  const int kernel = static_cast<int>(state.range(3));
  const auto x = noise(side * side * width);
  const auto weight = noise(width * kernel * int64_t{kernel});
  const auto bias = noise(width);
  std::vector<float> y(x.size());
  ThreadPool pool(static_cast<int>(state.range(0)));
  const TokenGrid grid{0, side, side, 0};
  int64_t taps = 0;  // along one axis, over all outputs: those that fall inside
  for (int64_t o = 0; o < side; ++o) {
    taps += std::min(side, o + kernel / 2 + 1) - std::max<int64_t>(0, o - kernel / 2);
  }
  measure(
      state, 2.0 * static_cast<double>(taps * taps * width),
      4.0 * static_cast<double>(2 * side * side * width + kernel * kernel * width), [&] {
        cpvt::cpu::peg(x.data(), width, weight.data(), bias.data(), kernel, {&grid, 1}, y.data(), width, width, pool);
      });
}
BENCHMARK(peg)
    ->ArgNames({"threads", "side", "width", "kernel"})
    ->ArgsProduct({{1, 2}, {14}, {192, 768}, {3, 7, 27}})
    ->ArgsProduct({{1, 2}, {64}, {384}, {3, 7, 27}});

void layernorm(State& state) {
  const int64_t rows = state.range(1);
  const int64_t width = state.range(2);
  const auto x = noise(rows * width);
  const auto gamma = noise(width);
  std::vector<float> y(x.size());
  ThreadPool pool(static_cast<int>(state.range(0)));
  measure(state, 7.0 * static_cast<double>(rows * width), 8.0 * static_cast<double>(rows * width), [&] {
    cpvt::cpu::layernorm(x.data(), width, gamma.data(), gamma.data(), 1e-6F, y.data(), width, rows, width, pool);
  });
}
BENCHMARK(layernorm)->ArgNames({"threads", "rows", "width"})->ArgsProduct({{1, 2}, {196}, {192, 384, 768}});

void gelu(State& state) {
  const int64_t rows = state.range(1);
  const int64_t width = state.range(2);
  const auto x = noise(rows * width);
  std::vector<float> y(x.size());
  ThreadPool pool(static_cast<int>(state.range(0)));
  measure(state, 43.0 * static_cast<double>(rows * width), 8.0 * static_cast<double>(rows * width),
          [&] { gelu_erf(x.data(), width, y.data(), width, rows, width, pool); });
}
BENCHMARK(gelu)->ArgNames({"threads", "rows", "width"})->ArgsProduct({{1, 2}, {196}, {768}});

void mean(State& state) {
  const int64_t width = state.range(1);
  const auto x = noise(196 * width);
  std::vector<float> y(static_cast<size_t>(width));
  ThreadPool pool(static_cast<int>(state.range(0)));
  const TokenGrid grid{0, 14, 14, 0};
  measure(state, static_cast<double>(196 * width), 4.0 * static_cast<double>(196 * width), [&] {
    mean_rows(x.data(), width, {&grid, 1}, y.data(), width, width, pool);
  });
}
BENCHMARK(mean)->ArgNames({"threads", "width"})->ArgsProduct({{1, 2}, {192, 768}});

/// CPVT-GAP at 224 px, patch 16, depth 12, PEG after block 0: what an engine without any overhead of its own would
/// take.
void forward(State& state) {
  constexpr int64_t kDepth = 12;
  constexpr int64_t kRows = 196;
  const int64_t d = state.range(1);
  const int heads = static_cast<int>(d / 64);
  ThreadPool pool(static_cast<int>(state.range(0)));
  struct Block {
    PackedLinear qkv, proj, fc1, fc2;
  };
  const auto make = [](int64_t n, int64_t k, Activation activation) {
    const auto weight = noise(n * k);
    return PackedLinear(weight.data(), nullptr, n, k, activation);
  };
  std::vector<Block> blocks;
  for (int64_t i = 0; i < kDepth; ++i) {
    blocks.push_back({make(3 * d, d, Activation::none), make(d, d, Activation::none),
                      make(4 * d, d, Activation::gelu_erf), make(d, 4 * d, Activation::none)});
  }
  const auto pixels = noise(int64_t{3} * 224 * 224);
  const auto embed_weight = noise(d * 768);
  const PackedPatchEmbed embed(embed_weight.data(), nullptr, d, 3, 16);
  const PackedLinear head = make(1000, d, Activation::none);
  const auto peg_weight = noise(9 * d);
  const auto gamma = noise(d);
  std::vector<float> x(static_cast<size_t>(kRows * d)), y(x.size()), normal(x.size()), wide(4 * x.size()),
      pooled(x.size());
  const TokenGrid grid{0, 14, 14, 0};
  std::vector<float> logits(1000);
  const auto floats =
      std::max({blocks[0].fc1.workspace_floats(pool.threads()), blocks[0].fc2.workspace_floats(pool.threads()),
                embed.workspace_floats(grid.patches(), pool.threads()), head.workspace_floats(pool.threads()),
                attention_workspace_floats(64, pool.threads())});
  std::vector<float> workspace(static_cast<size_t>(floats));
  const Image image{pixels.data(), 224, 224};
  float* const w = workspace.data();
  const double per_block = 2.0 * static_cast<double>(kRows * d * d * 12 + 2 * kRows * kRows * d);
  const double flops = kDepth * per_block + 2.0 * static_cast<double>(kRows * 768 * d + 1000 * d);
  measure(state, flops, 4.0 * static_cast<double>(12 * kDepth * d * d), [&] {
    const auto norm = [&](const std::vector<float>& from) {
      cpvt::cpu::layernorm(from.data(), d, gamma.data(), gamma.data(), 1e-6F, normal.data(), d, kRows, d, pool);
    };
    embed.run({&image, 1}, {&grid, 1}, nullptr, x.data(), d, w, pool);
    for (size_t i = 0; i < blocks.size(); ++i) {
      norm(x);
      blocks[i].qkv.run(normal.data(), d, nullptr, 0, wide.data(), 3 * d, kRows, w, pool);
      cpvt::cpu::attention(wide.data(), 3 * d, heads, 64, 0.125F, {&grid, 1}, normal.data(), d, w, pool);
      blocks[i].proj.run(normal.data(), d, x.data(), d, x.data(), d, kRows, w, pool);
      norm(x);
      blocks[i].fc1.run(normal.data(), d, nullptr, 0, wide.data(), 4 * d, kRows, w, pool);
      blocks[i].fc2.run(wide.data(), 4 * d, x.data(), d, x.data(), d, kRows, w, pool);
      if (i == 0) {
        cpvt::cpu::peg(x.data(), d, peg_weight.data(), gamma.data(), 3, {&grid, 1}, y.data(), d, d, pool);
        std::swap(x, y);
      }
    }
    norm(x);
    mean_rows(normal.data(), d, {&grid, 1}, pooled.data(), d, d, pool);
    head.run(pooled.data(), d, nullptr, 0, logits.data(), 1000, 1, w, pool);
  });
}
BENCHMARK(forward)
    ->ArgNames({"threads", "width"})
    ->ArgsProduct({{1, 2}, {192, 384, 768}})
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
