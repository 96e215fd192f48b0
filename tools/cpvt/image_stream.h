#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/image/decode.h"
#include "engine/image/transform.h"
#include "tools/cpvt/answering.h"
#include "tools/cpvt/options.h"
#include "weights/config.h"

namespace cpvt::cli {

/// From a picture's file to the network's input.
struct Preparation {
  DecodeOptions decode;
  bool pipes;
  EvalTransform transform;
  int channels;
  SizePolicy policy;
  int patch;
  std::function<void(ImageSize)> check = [](ImageSize) {};  // throws Error for a size for which there is no room

  /// What the model's configuration and the flags say. Throws Error for a model whose inputs are no pictures, and for
  /// one that does not tell how they are prepared, naming the keys of config.json that are missing.
  static Preparation of(const Options& options, const Config& config);
};

/// Reads and prepares pictures on threads of its own, ahead of whoever takes them, and hands them out in their order.
class ImageStream {
 public:
  /// `paths` are files; "-" is standard input. `workers` is at least 1. Throws Error where the system has not so many
  /// threads.
  ImageStream(std::vector<std::string> paths, Preparation preparation, int workers);
  ~ImageStream();
  ImageStream(const ImageStream&) = delete;
  ImageStream& operator=(const ImageStream&) = delete;

  /// The next picture, or why it could not be had; nothing after the last one. To be called from one thread.
  std::optional<Input> next();

 private:
  void work();
  void end_workers();
  Input prepare(size_t index) const;
  bool may_start() const;  // with mutex_ held

  const std::vector<std::string> paths_;
  const Preparation preparation_;
  const size_t most_ahead_;  // pictures between the one that next() waits for and the last one begun

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t begun_ = 0;  // pictures before this one are done or in work
  size_t taken_ = 0;  // pictures before this one have been handed out
  size_t bytes_ = 0;  // of the pictures in done_
  bool stop_ = false;
  std::map<size_t, Input> done_;
  std::vector<std::thread> workers_;
};

}  // namespace cpvt::cli
