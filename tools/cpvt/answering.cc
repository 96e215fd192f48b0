#include "tools/cpvt/answering.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "base/error.h"

namespace cpvt::cli {

namespace {

/// Tokens of a batch whose size is ours to choose: 40 images of 224 pixels. Enough to fill the threads and to read the
/// weights once for many rows; more only needs more memory.
constexpr int64_t kTokensPerBatch = 8192;

/// Inputs in order, in batches, with as many of them under way as there are runners to take them in turn.
class Batcher {
 public:
  Batcher(const Batching& batching, const std::function<void(const Answer&)>& receive)
      : batching_(batching),
        most_runners_(batching.memory_limit != 0 ? 1 : batching.executable->backend().runners_in_turn()),
        wanted_{"logits"},
        receive_(receive) {
    if (batching.wanted == Wanted::kLogitsAndFeatures) wanted_.emplace_back("features");
  }

  void answer(std::vector<Input> inputs) {
    const std::vector<ImageView> views = views_of(inputs);
    std::unique_ptr<Runner> runner;
    if (!views.empty()) {
      try {
        runner = idle_runner();
        runner->start(views, wanted_);
      } catch (const Error&) {
        // The other runners hold memory too. Without them it may fit.
        end_all();
        idle_.clear();
        if (!runner) runner = make_runner();
        answer_alone(*runner, inputs);
        idle_.push_back(std::move(runner));
        return;
      }
    }
    under_way_.push_back({std::move(inputs), std::move(runner)});
    while (std::ssize(under_way_) >= most_runners_) end_oldest();
  }

  void end_all() {
    while (!under_way_.empty()) end_oldest();
  }

 private:
  struct Batch {
    std::vector<Input> inputs;
    std::unique_ptr<Runner> runner;  // none where no input is an image
  };

  static std::vector<ImageView> views_of(std::span<const Input> inputs) {
    std::vector<ImageView> views;
    for (const Input& input : inputs) {
      if (input.error.empty()) views.push_back(input.view);
    }
    return views;
  }

  std::unique_ptr<Runner> make_runner() const {
    return std::make_unique<Runner>(batching_.executable, batching_.memory_limit);
  }

  std::unique_ptr<Runner> idle_runner() {
    if (idle_.empty()) return make_runner();
    std::unique_ptr<Runner> runner = std::move(idle_.back());
    idle_.pop_back();
    return runner;
  }

  void end_oldest() {
    Batch batch = std::move(under_way_.front());
    under_way_.pop_front();
    if (!batch.runner) {
      hand_out_failed(batch.inputs);
      return;
    }
    bool done = true;
    try {
      batch.runner->wait();
    } catch (const Error&) {
      done = false;
    }
    if (done) {
      hand_out(batch.inputs, *batch.runner);
    } else {
      answer_alone(*batch.runner, batch.inputs);
    }
    idle_.push_back(std::move(batch.runner));
  }

  /// From beginning to end, and in halves where it fails.
  void answer_alone(Runner& runner, std::span<Input> inputs) {
    const std::vector<ImageView> views = views_of(inputs);
    std::string why;
    if (!views.empty()) {
      try {
        runner.run(views, wanted_);
      } catch (const Error& e) {
        why = e.what();
      }
    }
    if (views.empty()) {
      hand_out_failed(inputs);
    } else if (why.empty()) {
      hand_out(inputs, runner);
    } else if (views.size() > 1) {
      const size_t half = inputs.size() / 2;
      answer_alone(runner, inputs.first(half));
      answer_alone(runner, inputs.subspan(half));
    } else {
      for (Input& input : inputs) {
        if (input.error.empty()) input.error = fmt::format("{}: {}", input.name, why);
      }
      hand_out_failed(inputs);
    }
  }

  /// Cuts the runner's results into those of its images, which are the inputs without an error.
  void hand_out(std::span<const Input> inputs, const Runner& runner) {
    size_t image = 0;
    for (const Input& input : inputs) {
      if (!input.error.empty()) {
        hand_out_failed({&input, 1});
        continue;
      }
      const TokenLayout& layout = runner.layout();
      const TokenGrid& grid = layout.images[image];
      const std::span<const float> logits = runner.output("logits");
      const size_t classes = logits.size() / layout.images.size();
      std::span<const float> features;
      if (wanted_.size() > 1) {
        features = runner.output("features");
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

  /// Inputs that all have an error.
  void hand_out_failed(std::span<const Input> inputs) {
    for (const Input& input : inputs) {
      receive_({.input = input, .error = input.error, .grid = {}, .logits = {}, .features = {}});
    }
  }

  const Batching& batching_;
  const std::ptrdiff_t most_runners_;
  std::vector<std::string> wanted_;
  const std::function<void(const Answer&)>& receive_;
  std::deque<Batch> under_way_;  // the oldest first
  std::vector<std::unique_ptr<Runner>> idle_;
};

}  // namespace

bool is_finite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
}

void answer_all(const Batching& batching, const std::function<std::optional<Input>()>& next,
                const std::function<void(const Answer&)>& receive) {
  const auto tokens_of = [&](const Input& input) {
    return int64_t{input.view.size.height / batching.patch} * (input.view.size.width / batching.patch);
  };
  Batcher batcher(batching, receive);
  std::optional<Input> ahead = next();
  while (ahead) {
    std::vector<Input> inputs;
    int64_t tokens = 0;
    const auto fits = [&] {
      return batching.batch > 0 ? std::ssize(inputs) < batching.batch : tokens + tokens_of(*ahead) <= kTokensPerBatch;
    };
    do {
      tokens += tokens_of(*ahead);
      inputs.push_back(std::move(*ahead));
      ahead = next();
    } while (ahead && fits());
    batcher.answer(std::move(inputs));
  }
  batcher.end_all();
}

}  // namespace cpvt::cli
