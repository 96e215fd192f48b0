#include "tools/cpvt/answering.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace cpvt::cli {

namespace {

/// Tokens of a batch whose size is ours to choose: 40 images of 224 pixels. Enough to fill the threads and to read the
/// weights once for many rows; more only needs more memory.
constexpr int64_t kTokensPerBatch = 8192;

class Batcher {
 public:
  Batcher(Runner& runner, Wanted wanted, const std::function<void(const Answer&)>& receive)
      : runner_(runner), wanted_{"logits"}, receive_(receive) {
    if (wanted == Wanted::kLogitsAndFeatures) wanted_.emplace_back("features");
  }

  void answer(std::span<Input> inputs) {
    std::vector<ImageView> views;
    std::vector<ImageSize> sizes;
    for (const Input& input : inputs) {
      if (!input.error.empty()) continue;
      views.push_back(input.view);
      sizes.push_back(input.view.size);
    }
    if (!views.empty()) {
      try {
        runner_.run(views, wanted_);
      } catch (const Error& e) {
        refused(inputs, views.size(), e.what());
        return;
      }
    }
    hand_out(inputs);
  }

 private:
  void refused(std::span<Input> inputs, size_t images, const char* why) {
    if (images > 1) {
      const size_t half = inputs.size() / 2;
      answer(inputs.first(half));
      answer(inputs.subspan(half));
      return;
    }
    for (Input& input : inputs) {
      if (input.error.empty()) input.error = fmt::format("{}: {}", input.name, why);
    }
    hand_out(inputs);
  }

  /// Cuts the last run's results into those of its images, which are the inputs without an error.
  void hand_out(std::span<const Input> inputs) {
    size_t image = 0;
    for (const Input& input : inputs) {
      if (!input.error.empty()) {
        receive_({.input = input, .error = input.error, .grid = {}, .logits = {}, .features = {}});
        continue;
      }
      const TokenLayout& layout = runner_.layout();
      const TokenGrid& grid = layout.images[image];
      const std::span<const float> logits = runner_.output("logits");
      const size_t classes = logits.size() / layout.images.size();
      std::span<const float> features;
      if (wanted_.size() > 1) {
        features = runner_.output("features");
        const size_t width = features.size() / static_cast<size_t>(layout.rows);
        features =
            features.subspan(static_cast<size_t>(grid.first_row) * width, static_cast<size_t>(grid.rows()) * width);
      }
      receive_({.input = input,
                .error = {},
                .grid = grid,
                .logits = logits.subspan(image * classes, classes),
                .features = features});
      ++image;
    }
  }

  Runner& runner_;
  std::vector<std::string> wanted_;
  const std::function<void(const Answer&)>& receive_;
};

}  // namespace

bool is_finite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
}

void answer_all(Runner& runner, const Config& config, int batch, Wanted wanted,
                const std::function<std::optional<Input>()>& next, const std::function<void(const Answer&)>& receive) {
  const auto tokens_of = [&](const Input& input) {
    return int64_t{input.view.size.height / config.patch_size} * (input.view.size.width / config.patch_size);
  };
  Batcher batcher(runner, wanted, receive);
  std::optional<Input> ahead = next();
  while (ahead) {
    std::vector<Input> inputs;
    int64_t tokens = 0;
    const auto fits = [&] {
      return batch > 0 ? std::ssize(inputs) < batch : tokens + tokens_of(*ahead) <= kTokensPerBatch;
    };
    do {
      tokens += tokens_of(*ahead);
      inputs.push_back(std::move(*ahead));
      ahead = next();
    } while (ahead && fits());
    batcher.answer(inputs);
  }
}

}  // namespace cpvt::cli
