#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "tools/cpvt/commands.h"
#include "tools/cpvt/pictures.h"
#include "tools/cpvt/results.h"
#include "tools/cpvt/session.h"
#include "tools/cpvt/token_file.h"

namespace cpvt::cli {

namespace {

struct FeaturesOptions : Options {
  std::vector<std::string> images;
  std::filesystem::path output;
};

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

int features(const FeaturesOptions& options) {
  Messages messages(options.level);
  check_output_path(options.output);
  const Session session(options, messages);
  check_not_read(options.output, files_read(options, session, {options.images.begin(), options.images.end()}));

  TokenFile file(options.output);
  Json names = Json::array();
  Json sizes = Json::array();
  Json grids = Json::array();
  const auto keep = [&](const Answer& answer) {
    if (!answer.error.empty()) return;
    file.add(answer);
    names.push_back(answer.input.name);
    sizes.push_back({answer.input.view.size.height, answer.input.view.size.width});
    grids.push_back({answer.grid.height, answer.grid.width});
  };
  messages.progress().start(options.images.size());
  const size_t failed = answer_pictures(session, options, options.images, Wanted::kLogitsAndFeatures, messages, keep);

  if (file.images() > 0) {
    file.write(!file.same_rows(), {{"images", text_of(names)}, {"sizes", text_of(sizes)}, {"grids", text_of(grids)}});
    messages.note(fmt::format("{}: {} images", options.output.string(), file.images()));
  } else {
    messages.failure(fmt::format("{}: not written, for want of a picture", options.output.string()));
  }
  return failed == 0 ? kDone : kSomeInputsFailed;
}

}  // namespace

Action add_features(CLI::App& app) {
  auto options = std::make_shared<FeaturesOptions>();
  add_model_flags(app, *options);
  add_images_argument(app, options->images);
  app.add_option("-o,--output", options->output,
                 "The safetensors file to write: logits [B,classes] and the tokens after the final norm, features "
                 "[B,N,D]; where token counts differ, features.0… [1,N,D]. Metadata: images, sizes, grids (JSON "
                 "lists), of the pictures that could be read")
      ->required()
      ->type_name("OUT");
  add_image_flags(app, *options);
  add_batch_flag(app, *options, "Pictures per forward pass (default: by their sizes); the answers do not depend on it");
  add_device_flags(app, *options);
  return [options] { return features(*options); };
}

}  // namespace cpvt::cli
