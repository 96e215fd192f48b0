#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tools/cpvt/commands.h"
#include "tools/cpvt/pictures.h"
#include "tools/cpvt/results.h"
#include "tools/cpvt/session.h"

namespace cpvt::cli {

namespace {

struct ClassifyOptions : Options {
  std::vector<std::string> images;
  int topk = 5;
  bool json = false;
};

std::string label_of(const Config& config, int index) {
  return config.label_names.empty() ? std::to_string(index) : config.label_names[static_cast<size_t>(index)];
}

/// The contract's {"image", "size": [H, W], "topk": [{"index", "label", "probability"}]}.
Json to_json(const Config& config, const Answer& answer, const std::vector<RankedClass>& ranked) {
  Json topk = Json::array();
  for (const auto& [index, probability] : ranked) {
    topk.push_back({{"index", index}, {"label", label_of(config, index)}, {"probability", probability}});
  }
  const ImageSize size = answer.input.view.size;
  return {{"image", answer.input.name}, {"size", {size.height, size.width}}, {"topk", topk}};
}

int classify(const ClassifyOptions& options) {
  Messages messages(options.level);
  const Session session(options, messages);
  const Config& config = session.config();
  size_t longest_name = 0;
  for (const std::string& name : options.images) longest_name = std::max(longest_name, name.size());

  const auto print = [&](const Answer& answer) {
    if (!answer.error.empty()) {
      if (options.json) print_json({{"image", answer.input.name}, {"error", answer.error}});
      return;
    }
    const std::vector<RankedClass> ranked = top_classes(answer.logits, options.topk);
    if (options.json) {
      print_json(to_json(config, answer, ranked));
      return;
    }
    for (const auto& [index, probability] : ranked) {
      print_line(fmt::format("{:<{}}  {:6.2f} %  {}", answer.input.name, longest_name, 100 * probability,
                             label_of(config, index)));
    }
  };
  const size_t failed = answer_pictures(session, options, options.images, Wanted::kLogits, messages, print);
  return failed == 0 ? kDone : kSomeInputsFailed;
}

}  // namespace

Action add_classify(CLI::App& app) {
  auto options = std::make_shared<ClassifyOptions>();
  add_model_flags(app, *options);
  add_images_argument(app, options->images);
  add_number(app, "--topk", options->topk, 1, "Labels per picture (default: 5)");
  app.add_flag("--json", options->json, "One JSON object per picture and line");
  add_image_flags(app, *options);
  add_batch_flag(app, *options, "Pictures per forward pass (default: by their sizes); the answers do not depend on it");
  add_device_flags(app, *options);
  return [options] { return classify(*options); };
}

}  // namespace cpvt::cli
