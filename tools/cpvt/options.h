#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "engine/image/decode.h"
#include "engine/image/transform.h"
#include "tools/cpvt/messages.h"
#include "weights/config.h"

namespace cpvt::cli {

/// --size: the pixels that a picture has when the network gets it.
struct InputSize {
  enum class Kind {
    kModels,  ///< what the model's configuration says
    kFixed,   ///< `fixed`, by resize and crop
    kNative,  ///< the picture's own
  } kind = Kind::kModels;
  ImageSize fixed;
};

/// The flags that commands share, each with its default. A command offers the groups that mean something to it.
struct Options {
  // add_model_flags
  std::filesystem::path model;
  std::optional<std::filesystem::path> config;
  Messages::Level level = Messages::Level::kNormal;

  // add_device_flags
  std::string device = "auto";
  std::string dtype = "fp32";
  std::string gemm = "own";
  int threads = 0;          // 0: as many as this process may use
  size_t memory_limit = 0;  // bytes; 0: what the device has free
  int seed = 0;

  // add_batch_flag
  int batch = 0;  // images per forward pass; 0: the command's own choice

  // add_size_flags
  InputSize size;
  SizePolicy policy = SizePolicy::floor;

  // add_image_flags
  DecodeOptions decode;
  bool pipes = true;  // pictures may be pipes and devices, read from front to back: those that a person names
};

/// MODEL, --config, -v, -q.
void add_model_flags(CLI::App& app, Options& options);
/// --device, --dtype, --gemm, --threads, --memory-limit, --seed.
void add_device_flags(CLI::App& app, Options& options);
/// --batch; `meaning` says what happens without it.
void add_batch_flag(CLI::App& app, Options& options, const std::string& meaning);
/// --size and --policy, for commands that have no pictures whose own size could be taken.
void add_geometry_flags(CLI::App& app, Options& options);
/// IMAGE..., each as it was typed. Standard input can be read once: "-" given twice is wrong usage.
void add_images_argument(CLI::App& app, std::vector<std::string>& images);
/// --size (native too), --policy, --exif, --max-pixels, for commands that read pictures.
void add_image_flags(CLI::App& app, Options& options);
/// --policy, for commands that get tensors: `resize` is refused.
void add_tensor_policy_flag(CLI::App& app, Options& options);

/// A flag that takes a whole number from `least` to `most`; anything else is wrong usage, told with both bounds.
CLI::Option* add_number(CLI::App& app, const std::string& name, int& value, int least, const std::string& meaning,
                        int most = std::numeric_limits<int>::max());

/// The pixels that reach the network for a batch without pictures: of --size (by default the model's input size, or
/// where it tells none its img_size) under --policy.
ImageSize network_size(const Options& options, const Config& config);

}  // namespace cpvt::cli
