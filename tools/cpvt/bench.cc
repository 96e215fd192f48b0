#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/cost.h"
#include "engine/runner.h"
#include "tools/cpvt/commands.h"
#include "tools/cpvt/results.h"
#include "tools/cpvt/session.h"

namespace cpvt::cli {

namespace {

struct BenchOptions : Options {
  int repetitions = 0;  // 0: as many as fit into kSeconds
  bool json = false;
};

// Caches, clocks and lazily made plans need a moment; the median of fewer runs than kLeast says little.
constexpr std::chrono::milliseconds kWarmUp{300};
constexpr int kLeastWarmUp = 2;
constexpr std::chrono::seconds kSeconds{3};
constexpr int kLeast = 5;
constexpr int kMost = 10'000;

/// Of a sorted list: the value below which a share of it lies, linearly between neighbours.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], at - static_cast<double>(below));
}

/// Milliseconds of each repetition, sorted.
std::vector<double> measure(Runner& runner, std::span<const ImageView> images, int repetitions) {
  using Clock = std::chrono::steady_clock;
  const std::vector<std::string> wanted{"logits"};
  const auto warm_until = Clock::now() + kWarmUp;
  for (int i = 0; i < kLeastWarmUp || Clock::now() < warm_until; ++i) runner.run(images, wanted);

  std::vector<double> times;
  const auto until = Clock::now() + kSeconds;
  const auto enough = [&] {
    const auto done = std::ssize(times);
    if (repetitions > 0) return done >= repetitions;
    return done >= kMost || (done >= kLeast && Clock::now() >= until);
  };
  while (!enough()) {
    const auto start = Clock::now();
    runner.run(images, wanted);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times;
}

int bench(const BenchOptions& options) {
  Messages messages(options.level);
  const Session session(options, messages);
  const ImageSize size = network_size(options, session.config());
  const auto batch = static_cast<size_t>(std::max(options.batch, 1));
  Runner runner(session.executable, options.memory_limit);
  const std::vector<ImageSize> sizes(batch, size);
  const std::vector<std::string> wanted{"logits"};
  runner.plan(sizes, wanted);  // refuses what does not fit before the pixels are made

  const auto image_floats = static_cast<size_t>(session.config().in_chans) * static_cast<size_t>(size.height) *
                            static_cast<size_t>(size.width);
  std::vector<float> pixels(batch * image_floats);
  std::mt19937 random(static_cast<uint32_t>(options.seed));
  std::normal_distribution<float> normal;
  for (float& pixel : pixels) pixel = normal(random);
  std::vector<ImageView> images;
  for (size_t i = 0; i < batch; ++i) images.push_back({pixels.data() + i * image_floats, size});

  const std::vector<double> times = measure(runner, images, options.repetitions);
  const double median = quantile(times, 0.5);
  const double lower = quantile(times, 0.25);
  const double upper = quantile(times, 0.75);
  const double operations = flops(session.executable->graph(), runner.layout());
  const double images_per_second = static_cast<double>(batch) / (median * 1e-3);
  const double gflop_per_second = operations * 1e-9 / (median * 1e-3);
  if (options.json) {
    print_json({{"model", options.model.string()},
                {"device", session.device},
                {"dtype", session.dtype},
                {"gemm", options.gemm},
                {"threads", session.threads},
                {"size", {size.height, size.width}},
                {"batch", batch},
                {"tokens", runner.layout().rows},
                {"flops", whole_number(operations)},
                {"repetitions", times.size()},
                {"ms",
                 {{"median", median},
                  {"min", times.front()},
                  {"max", times.back()},
                  {"q1", lower},
                  {"q3", upper},
                  {"iqr", upper - lower}}},
                {"images_per_second", images_per_second},
                {"gflop_per_second", gflop_per_second}});
    return kDone;
  }
  print_line(fmt::format("{} pixels, batch {}, {} {}{}, {} threads, {} repetitions", size_text(size), batch,
                         session.device, session.dtype, options.gemm == "own" ? "" : " " + options.gemm,
                         session.threads, times.size()));
  print_line(fmt::format("median {:.3f} ms  (quartiles {:.3f} to {:.3f}, all {:.3f} to {:.3f})", median, lower, upper,
                         times.front(), times.back()));
  print_line(fmt::format("{:.1f} images/s  {:.1f} GFLOP/s", images_per_second, gflop_per_second));
  return kDone;
}

}  // namespace

Action add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  add_model_flags(app, *options);
  add_geometry_flags(app, *options);
  add_batch_flag(app, *options, "Images per forward pass (default: 1)");
  add_number(app, "--repetitions", options->repetitions, 1,
             fmt::format("Forward passes to measure, after a warm-up (default: {} seconds of them, at least {})",
                         kSeconds.count(), kLeast));
  app.add_flag("--json", options->json, "One JSON object");
  add_device_flags(app, *options);
  return [options] { return bench(*options); };
}

}  // namespace cpvt::cli
