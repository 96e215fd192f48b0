#include "tools/cpvt/pictures.h"

#include <fmt/format.h>

#include <vector>

#include "tools/cpvt/image_stream.h"

namespace cpvt::cli {

namespace {

/// A runner within --memory-limit. Where all pictures get one size, throws Error already here if not even one fits.
Runner make_runner(const Session& session, const Options& options) {
  Runner runner(session.executable, options.memory_limit);
  if (options.size.kind != InputSize::Kind::kNative) {
    const std::vector<ImageSize> one{network_size(options, session.config())};
    const std::vector<std::string> wanted{"logits"};
    runner.plan(one, wanted);
  }
  return runner;
}

}  // namespace

size_t answer_pictures(const Session& session, const Options& options, const std::vector<std::string>& paths,
                       Wanted wanted, Messages& messages, const std::function<void(const Answer&)>& receive) {
  const Preparation preparation = Preparation::of(options, session.config());
  Runner runner = make_runner(session, options);
  ImageStream stream(paths, preparation, session.threads);
  size_t failed = 0;
  const auto check = [&](Answer answer) {
    for (const std::string& warning : answer.input.warnings) messages.warning(warning);
    if (answer.error.empty() && !is_finite(answer.logits)) {
      answer.error = fmt::format("{}: the network's logits are not finite", answer.input.name);
    }
    if (!answer.error.empty()) {
      ++failed;
      messages.failure(answer.error);
    }
    receive(answer);
    messages.progress().advance();
  };
  answer_all(
      runner, session.config(), options.batch, wanted, [&] { return stream.next(); }, check);
  messages.progress().hide();
  return failed;
}

}  // namespace cpvt::cli
