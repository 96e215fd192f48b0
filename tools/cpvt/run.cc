#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tools/cpvt/answering.h"
#include "tools/cpvt/commands.h"
#include "tools/cpvt/results.h"
#include "tools/cpvt/session.h"
#include "tools/cpvt/token_file.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace cpvt::cli {

namespace {

struct RunOptions : Options {
  std::filesystem::path input;
  std::filesystem::path output;
  bool features = false;
};

/// The images of an input file.
struct InputTensors {
  struct Picture {
    std::string name;  // "input[2]", "input.2"
    ImageView view;    // into `tensors`
  };
  std::vector<Tensor> tensors;
  std::vector<Picture> images;
  bool ragged = false;
};

/// `input` [B, channels, H, W], or `input.0`, `input.1`… [channels, H, W] or [1, channels, H, W], and nothing else. The
/// images of `input` are all of one size: where no patch fits into it, there is nothing to be answered.
InputTensors read_inputs(const std::filesystem::path& path, int channels, int patch) {
  const SafetensorsFile file(path);
  const auto& entries = file.entries();
  const bool whole = entries.contains("input");
  const std::string names = "'input', or 'input.0', 'input.1' and so on without gaps";
  if (entries.empty()) throw Error("{}: expected {}, found no tensor", path.string(), names);

  InputTensors inputs;
  inputs.ragged = !whole;
  std::vector<std::string> order;
  if (whole) {
    order.emplace_back("input");
  } else {
    for (size_t i = 0; i < entries.size(); ++i) order.push_back(fmt::format("input.{}", i));
  }
  for (const auto& [name, entry] : entries) {
    if (std::find(order.begin(), order.end(), name) == order.end()) {
      throw Error("{}: expected {}, found {}{}", path.string(), names, in_quotes(name), whole ? " beside 'input'" : "");
    }
  }

  for (const std::string& name : order) {
    Tensor tensor = file.load(name);
    std::vector<int64_t> shape = tensor.shape;
    if (inputs.ragged && shape.size() == 3) shape.insert(shape.begin(), 1);
    const bool fits = shape.size() == 4 && shape[1] == channels && shape[0] >= 1 && (!inputs.ragged || shape[0] == 1);
    if (!fits) {
      throw Error("{}: '{}': expected {}, found {}", path.string(), name,
                  inputs.ragged ? fmt::format("[{0}, H, W] or [1, {0}, H, W]", channels)
                                : fmt::format("[B, {}, H, W]", channels),
                  shape_text(tensor.shape));
    }
    constexpr int64_t kLargestSide = 1 << 20;  // as for any image: engine/token_layout.cc
    if (shape[2] > kLargestSide || shape[3] > kLargestSide) {
      throw Error("{}: '{}': expected sides of at most {}, found {}", path.string(), name, kLargestSide,
                  shape_text(tensor.shape));
    }
    const ImageSize size{static_cast<int>(shape[2]), static_cast<int>(shape[3])};
    // Also what bounds B: without a pixel, a file of a few bytes may speak of any number of images.
    if (whole && (size.height < patch || size.width < patch)) {
      throw Error("{}: '{}': images of {} pixels: expected at least {}x{}", path.string(), name, size_text(size), patch,
                  patch);
    }
    for (int64_t i = 0; i < shape[0]; ++i) {
      const float* image = tensor.data.get() + i * channels * shape[2] * shape[3];
      inputs.images.push_back({inputs.ragged ? name : fmt::format("{}[{}]", name, i), {image, size}});
    }
    inputs.tensors.push_back(std::move(tensor));
  }
  return inputs;
}

/// The image as an input of the network: a view of its tensor, or a padded copy.
Input as_input(const InputTensors::Picture& image, SizePolicy policy, const Config& config) {
  Input input;
  input.name = image.name;
  input.view = image.view;
  if (policy == SizePolicy::pad && image.view.size.height > 0 && image.view.size.width > 0) {
    const ptrdiff_t count = ptrdiff_t{config.in_chans} * image.view.size.height * image.view.size.width;
    Planes planes = pad_to_multiple({image.view.size, config.in_chans, {image.view.floats, image.view.floats + count}},
                                    config.patch_size);
    input.floats = std::move(planes.values);
    input.view = {input.floats.data(), planes.size};
  }
  return input;
}

int run(const RunOptions& options) {
  Messages messages(options.level);
  check_output_path(options.output);
  if (options.input == "-") throw Error("IN: expected a file, found -: tensors are not read from standard input");
  const Session session(options, messages);
  check_not_read(options.output, files_read(options, session, {options.input}));
  const Config& config = session.config();
  const int smallest = options.policy == SizePolicy::pad ? 1 : config.patch_size;
  const InputTensors inputs = read_inputs(options.input, config.in_chans, smallest);

  TokenFile file(options.output);
  size_t begun = 0;
  const auto next = [&]() -> std::optional<Input> {
    if (begun == inputs.images.size()) return std::nullopt;
    return as_input(inputs.images[begun++], options.policy, config);
  };
  size_t failed = 0;
  const auto keep = [&](const Answer& answer) {
    if (answer.error.empty()) {
      file.add(answer);
      if (is_finite(answer.logits)) return;
      messages.failure(fmt::format("{}: {}: the network's logits are not finite: written as they came",
                                   options.input.string(), answer.input.name));
    } else if (inputs.ragged) {
      file.skip();
      messages.failure(fmt::format("{}: {}", options.input.string(), answer.error));
    } else {
      throw Error("{}: {}", options.input.string(), answer.error);  // and so of all others, which have the same size
    }
    ++failed;
  };
  answer_all({.executable = session.executable,
              .memory_limit = options.memory_limit,
              .patch = config.patch_size,
              .batch = options.batch,
              .wanted = options.features ? Wanted::kLogitsAndFeatures : Wanted::kLogits},
             next, keep);
  if (file.images() > 0) {
    file.write(inputs.ragged, {});
    messages.note(fmt::format("{}: {} images", options.output.string(), file.images()));
  } else {
    messages.failure(fmt::format("{}: not written, for want of an answer", options.output.string()));
  }
  return failed == 0 ? kDone : kSomeInputsFailed;
}

}  // namespace

Action add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  add_model_flags(app, *options);
  app.add_option("IN", options->input,
                 "A safetensors file with normalised images: input [B,C,H,W], or input.0, input.1… [C,H,W] or "
                 "[1,C,H,W] of any sizes")
      ->required()
      ->type_name("");
  app.add_option("-o,--output", options->output,
                 "The safetensors file to write: logits [B,classes]; for input.0… also logits.0… [1,classes], or only "
                 "these where an image failed")
      ->required()
      ->type_name("OUT");
  app.add_flag("--features", options->features,
               "Write the tokens after the final norm too: features [B,N,D]; for input.0… features.0… [1,N,D]");
  add_tensor_policy_flag(app, *options);
  add_batch_flag(app, *options, "Images per forward pass (default: by their sizes); the answers do not depend on it");
  add_device_flags(app, *options);
  return [options] { return run(*options); };
}

}  // namespace cpvt::cli
