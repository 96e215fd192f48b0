#include "tools/cpvt/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "engine/token_layout.h"

namespace cpvt::cli {

namespace {

// A picture larger than this is refused when it is decoded; asking for one on purpose makes no more sense.
constexpr int kLargestSide = 65'535;

/// All of `text` as a whole number of at least 0; nothing for anything else.
std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<int> side(std::string_view text) {
  const auto value = whole_number(text);
  if (!value || *value < 1 || *value > kLargestSide) return std::nullopt;
  return static_cast<int>(*value);
}

/// A flag whose text `parse` turns into a value; where it returns nothing, `expected` goes into the message.
template <class T, class Parse>
CLI::Option* add_parsed(CLI::App& app, const std::string& name, T& value, const std::string& type,
                        const std::string& expected, const std::string& meaning, Parse parse) {
  const auto set = [&value, name, expected, parse](const std::string& text) {
    const std::optional<T> parsed = parse(text);
    if (!parsed) throw CLI::ValidationError(name, fmt::format("expected {}, found '{}'", expected, text));
    value = *parsed;
  };
  return app.add_option_function<std::string>(name, set, meaning)->type_name(type);
}

std::optional<InputSize> parse_size(std::string_view text, bool native) {
  if (native && text == "native") return InputSize{InputSize::Kind::kNative, {}};
  const size_t cross = text.find('x');
  const auto height = side(text.substr(0, cross));
  const auto width = cross == std::string_view::npos ? height : side(text.substr(cross + 1));
  if (!height || !width) return std::nullopt;
  return InputSize{InputSize::Kind::kFixed, {*height, *width}};
}

void add_size_flag(CLI::App& app, Options& options, bool native) {
  add_parsed(app, "--size", options.size, native ? "native|N|HxW" : "N|HxW",
             fmt::format("{}N or HxW, in pixels from 1 to {}", native ? "native, " : "", kLargestSide),
             native ? "Pixels for the network; native: each picture's own (default: the model's input size)"
                    : "Pixels for the network (default: the model's input size)",
             [native](std::string_view text) { return parse_size(text, native); });
}

void add_policy_flag(CLI::App& app, Options& options) {
  add_parsed(app, "--policy", options.policy, "floor|pad|resize", "floor, pad or resize",
             "A size that is no multiple of the patch: leave the rest out, pad with zeros, or resize to the nearest "
             "multiple (default: floor)",
             [](std::string_view text) -> std::optional<SizePolicy> {
               if (text == "floor") return SizePolicy::floor;
               if (text == "pad") return SizePolicy::pad;
               if (text == "resize") return SizePolicy::resize;
               return std::nullopt;
             });
}

/// "512M": bytes, or with a suffix units of 1024, 1024^2 or 1024^3 bytes.
std::optional<size_t> parse_bytes(std::string_view text) {
  int64_t unit = 1;
  for (const auto& [suffix, bytes] : {std::pair{'K', 1LL << 10}, {'M', 1LL << 20}, {'G', 1LL << 30}}) {
    if (!text.empty() && text.back() == suffix) {
      unit = bytes;
      text.remove_suffix(1);
      break;
    }
  }
  const auto count = whole_number(text);
  if (!count || *count == 0 || *count > std::numeric_limits<int64_t>::max() / unit) return std::nullopt;
  return static_cast<size_t>(*count * unit);
}

}  // namespace

void add_model_flags(CLI::App& app, Options& options) {
  app.add_option("MODEL", options.model, "A model's folder (config.json, model.safetensors), or a weights file")
      ->required()
      ->type_name("");
  app.add_option("--config", options.config, "The config.json to use, e.g. for a weights file alone")
      ->type_name("FILE");
  CLI::Option* verbose = app.add_flag_callback(
      "-v,--verbose", [&options] { options.level = Messages::Level::kVerbose; }, "Say on stderr what is going on");
  CLI::Option* quiet = app.add_flag_callback(
      "-q,--quiet", [&options] { options.level = Messages::Level::kQuiet; }, "Only failures on stderr");
  verbose->excludes(quiet);
}

void add_device_flags(CLI::App& app, Options& options) {
  const auto one_of = [](std::initializer_list<std::string_view> names) {
    return [names = std::vector<std::string_view>(names)](std::string_view text) -> std::optional<std::string> {
      if (std::find(names.begin(), names.end(), text) == names.end()) return std::nullopt;
      return std::string(text);
    };
  };
  add_parsed(app, "--device", options.device, "cpu|cuda|sim|auto", "cpu, cuda, sim or auto",
             "Where to compute (default: auto)", one_of({"cpu", "cuda", "sim", "auto"}));
  add_parsed(app, "--dtype", options.dtype, "fp32|bf16|fp16|int8", "fp32, bf16, fp16 or int8",
             "What to compute in (default: fp32)", one_of({"fp32", "bf16", "fp16", "int8"}));
  add_parsed(app, "--gemm", options.gemm, "own|cublaslt", "own or cublaslt",
             "On device cuda, whose products: this program's own, or NVIDIA's library's, whose last bits depend on the "
             "batch (default: own)",
             one_of({"own", "cublaslt"}));
  add_number(app, "--threads", options.threads, 1, "Threads to use (default: as many as the process may)", 1024);
  add_parsed(app, "--memory-limit", options.memory_limit, "BYTES[K|M|G]",
             "a number of bytes from 1 to 2^63 - 1, with K, M or G for units of 1024, 1024^2 or 1024^3",
             "Refuse what would need more for weights and activations (default: what is free)", parse_bytes);
  add_number(app, "--seed", options.seed, 0,
             "Of whatever is drawn at random: the pixels of bench, so far (default: 0)");
}

void add_batch_flag(CLI::App& app, Options& options, const std::string& meaning) {
  add_number(app, "--batch", options.batch, 1, meaning, 65'536);
}

void add_geometry_flags(CLI::App& app, Options& options) {
  add_size_flag(app, options, false);
  add_policy_flag(app, options);
}

void add_images_argument(CLI::App& app, std::vector<std::string>& images) {
  // The words themselves: CLI11's vectors would make none of a file named "{}". And a list that is never full, rather
  // than one that allows more, in which a file named "[a,b]" would be two.
  const auto take = [&images](const CLI::results_t& words) {
    images = words;
    const auto times = std::count(images.begin(), images.end(), "-");
    if (times > 1) throw CLI::ValidationError("IMAGE", fmt::format("expected - once, found it {} times", times));
    return true;
  };
  app.add_option("IMAGE", take, "JPEG, PNG or WebP pictures; - for standard input")
      ->required()
      ->expected(CLI::detail::expected_max_vector_size, CLI::detail::expected_max_vector_size)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->type_name("");
}

void add_image_flags(CLI::App& app, Options& options) {
  add_size_flag(app, options, true);
  add_policy_flag(app, options);
  app.add_flag("--exif,!--no-exif", options.decode.exif_orientation,
               fmt::format("Turn pictures as their EXIF orientation says, or take them as stored (default: {})",
                           options.decode.exif_orientation ? "--exif" : "--no-exif"));
  add_parsed(app, "--max-pixels", options.decode.max_pixels, "N", "a whole number from 1 to 2^63 - 1",
             fmt::format("Refuse pictures with more pixels (default: {})", options.decode.max_pixels),
             [](std::string_view text) {
               const auto value = whole_number(text);
               return value && *value > 0 ? value : std::nullopt;
             });
}

void add_tensor_policy_flag(CLI::App& app, Options& options) {
  add_parsed(app, "--policy", options.policy, "floor|pad",
             "floor or pad (tensors are not resized: how is for the maker of the tensor to say)",
             "A size that is no multiple of the patch: leave the rest out, or pad with zeros (default: floor)",
             [](std::string_view text) -> std::optional<SizePolicy> {
               if (text == "floor") return SizePolicy::floor;
               if (text == "pad") return SizePolicy::pad;
               return std::nullopt;
             });
}

CLI::Option* add_number(CLI::App& app, const std::string& name, int& value, int least, const std::string& meaning,
                        int most) {
  const std::string expected = fmt::format("a whole number from {} to {}", least, most);
  return add_parsed(app, name, value, "N", expected, meaning, [least, most](std::string_view text) {
    const auto parsed = whole_number(text);
    return parsed && *parsed >= least && *parsed <= most ? std::optional(static_cast<int>(*parsed)) : std::nullopt;
  });
}

ImageSize network_size(const Options& options, const Config& config) {
  const auto& [channels, height, width] =
      config.pretrained_cfg.input_size.value_or(std::array{config.in_chans, config.img_size, config.img_size});
  const ImageSize size = options.size.kind == InputSize::Kind::kFixed ? options.size.fixed : ImageSize{height, width};
  const int patch = config.patch_size;
  const auto up = [patch](int extent) { return (extent + patch - 1) / patch * patch; };
  switch (options.policy) {
    case SizePolicy::pad:
      return {up(size.height), up(size.width)};
    case SizePolicy::resize:
      return nearest_multiple(size, patch);
    case SizePolicy::floor:
      break;
  }
  if (size.height < patch || size.width < patch) {
    throw Error("{} {}: expected at least one patch of {}x{} pixels",
                options.size.kind == InputSize::Kind::kFixed ? "--size" : "the model's input size", size_text(size),
                patch, patch);
  }
  return size;
}

}  // namespace cpvt::cli
