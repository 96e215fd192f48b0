#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>

#include "tools/cpvt/class_folders.h"
#include "tools/cpvt/commands.h"
#include "tools/cpvt/pictures.h"
#include "tools/cpvt/results.h"
#include "tools/cpvt/session.h"

namespace cpvt::cli {

namespace {

struct EvalOptions : Options {
  std::filesystem::path folder;
  bool json = false;
};

/// Classes before the true one: those with a larger logit, and the earlier ones of those with the same.
int rank_of(std::span<const float> logits, int label) {
  const float own = logits[static_cast<size_t>(label)];
  int before = 0;
  for (int i = 0; i < std::ssize(logits); ++i) {
    const float other = logits[static_cast<size_t>(i)];
    if (other > own || (other == own && i < label)) ++before;
  }
  return before;
}

struct Score {
  static constexpr int kTop = 5;

  int64_t images = 0;
  int64_t first = 0;  // where the true class is the most probable one
  int64_t among = 0;  // where it is among the kTop most probable ones

  void add(int rank) {
    ++images;
    first += rank == 0 ? 1 : 0;
    among += rank < kTop ? 1 : 0;
  }
  double percent(int64_t hits) const {
    return images > 0 ? 100.0 * static_cast<double>(hits) / static_cast<double>(images) : 0;
  }
};

int eval(const EvalOptions& options) {
  Messages messages(options.level);
  const Session session(options, messages);
  const ClassFolders folders = ClassFolders::read(options.folder, session.config());
  if (folders.left_out > 0) {
    messages.warning(fmt::format("left out {} files whose names are no picture's, the first: {}", folders.left_out,
                                 folders.first_left_out));
  }

  Score score;
  Json failures = Json::array();
  const auto start = std::chrono::steady_clock::now();
  messages.progress().start(folders.pictures.size());
  const auto count = [&](const Answer& answer) {
    if (answer.error.empty()) {
      score.add(rank_of(answer.logits, folders.labels[answer.input.index]));
    } else {
      failures.push_back({{"image", answer.input.name}, {"error", answer.error}});
    }
  };
  answer_pictures(session, options, folders.pictures, Wanted::kLogits, messages, count);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const double top1 = score.percent(score.first);
  const double top5 = score.percent(score.among);
  const double rate = static_cast<double>(folders.pictures.size()) / seconds;
  if (options.json) {
    print_json({{"folder", options.folder.string()},
                {"images", score.images},
                {"top1", top1},
                {"top5", top5},
                {"seconds", seconds},
                {"images_per_second", rate},
                {"failures", failures}});
  } else {
    print_line(
        fmt::format("top-1 {:.2f} %  top-5 {:.2f} %  of {} images, {:.0f} images/s", top1, top5, score.images, rate));
  }
  if (!failures.empty())
    messages.failure(
        fmt::format("{} of {} images failed and are not counted", failures.size(), folders.pictures.size()));
  return failures.empty() ? kDone : kSomeInputsFailed;
}

}  // namespace

Action add_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  options->decode.exif_orientation = false;  // as timm's evaluation, which opens files with PIL and leaves them so
  options->pipes = false;                    // one that lies in a folder may never be written to
  add_model_flags(app, *options);
  app.add_option("FOLDER", options->folder,
                 "A folder per class, named as the model's labels, or sorted by name in the order of its classes")
      ->required()
      ->type_name("");
  app.add_flag("--json", options->json, "One JSON object; top1 and top5 in per cent");
  add_image_flags(app, *options);
  add_batch_flag(app, *options, "Pictures per forward pass (default: by their sizes); the answers do not depend on it");
  add_device_flags(app, *options);
  return [options] { return eval(*options); };
}

}  // namespace cpvt::cli
