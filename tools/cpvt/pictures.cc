#include "tools/cpvt/pictures.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "tools/cpvt/image_stream.h"

namespace cpvt::cli {

namespace {

/// Where all pictures get one size, throws Error already here if not even one fits within --memory-limit.
void check_one_fits(const Session& session, const Options& options) {
  if (options.size.kind == InputSize::Kind::kNative) return;
  const std::vector<ImageSize> one{network_size(options, session.config())};
  const std::vector<std::string> wanted{"logits"};
  Runner(session.executable, options.memory_limit).plan(one, wanted);
}

/// Spares making the pixels of a picture that cannot be run: the weights, and its tokens once, are what it needs at
/// least, in any batch. What it really needs is the plan's to say.
void check_size(const Session& session, const Options& options, ImageSize size) {
  const Config& config = session.config();
  const auto tokens =
      static_cast<size_t>(size.height / config.patch_size) * static_cast<size_t>(size.width / config.patch_size);
  const Executable& executable = *session.executable;
  const size_t least = executable.weight_bytes() + tokens * executable.backend().row_bytes(config.embed_dim);
  if (least <= options.memory_limit) return;
  throw Error("{} pixels: needs at least {}, the limit is {}", size_text(size), bytes_text(least),
              bytes_text(options.memory_limit));
}

}  // namespace

size_t answer_pictures(const Session& session, const Options& options, const std::vector<std::string>& paths,
                       Wanted wanted, Messages& messages, const std::function<void(const Answer&)>& receive) {
  Preparation preparation = Preparation::of(options, session.config());
  if (options.memory_limit != 0) preparation.check = [&](ImageSize size) { check_size(session, options, size); };
  check_one_fits(session, options);
  ImageStream stream(paths, std::move(preparation), session.threads);
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
      {.executable = session.executable,
       .memory_limit = options.memory_limit,
       .patch = session.config().patch_size,
       .batch = options.batch,
       .wanted = wanted},
      [&] { return stream.next(); }, check);
  messages.progress().hide();
  return failed;
}

}  // namespace cpvt::cli
