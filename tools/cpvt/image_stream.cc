#include "tools/cpvt/image_stream.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <new>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/thread.h"

namespace cpvt::cli {

namespace {

constexpr size_t kAheadPerWorker = 8;
/// Prepared pictures may wait in this much memory; beyond it only the picture that is waited for is begun.
constexpr size_t kWaitingBytes = size_t{256} << 20;

/// Of a stream, which tells no size before its end.
constexpr size_t kLongestStream = size_t{512} << 20;

size_t size_of(const Input& input) { return input.bytes.size() + input.floats.size() * sizeof(float); }

struct OpenFile {
  int fd;
  explicit OpenFile(const std::string& path) : fd(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) throw Error("{}: cannot open: {}", path, std::strerror(errno));
  }
  ~OpenFile() { close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
};

/// From front to back, all there is.
std::vector<std::byte> read_stream(int fd, const std::string& name) {
  constexpr size_t kStep = 1 << 16;
  std::vector<std::byte> bytes;
  while (bytes.size() <= kLongestStream) {
    const size_t before = bytes.size();
    bytes.resize(before + kStep);
    const ssize_t got = read(fd, bytes.data() + before, kStep);
    if (got < 0 && errno != EINTR) throw Error("{}: cannot be read: {}", name, std::strerror(errno));
    bytes.resize(before + static_cast<size_t>(std::max(got, ssize_t{0})));
    if (got == 0) return bytes;
  }
  throw Error("{}: expected a picture of at most {}, found no end", name, bytes_text(kLongestStream));
}

/// A file, or what only can be read from front to back: standard input, or the shell's <(...).
Image read_picture(const std::string& path, const DecodeOptions& options, bool pipes) {
  namespace fs = std::filesystem;
  if (path.empty()) throw Error("'': expected the name of a picture, found an empty one");
  if (path == "-") {
    const std::string name = "standard input";
    return decode(read_stream(STDIN_FILENO, name), options, name);
  }
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (fs::is_directory(status)) {
    throw Error("{}: expected a picture, found a folder (cpvt eval takes a folder of classes)", path);
  }
  if (pipes && (fs::is_fifo(status) || fs::is_character_file(status))) {
    const OpenFile file(path);
    return decode(read_stream(file.fd, path), options, path);
  }
  return decode_file(path, options);
}

/// What is read of the model's preprocessing under these flags must be told: a guess would only look like an answer.
void require_told(const Options& options, const Config::Preprocessing& model) {
  const bool cropped = options.size.kind != InputSize::Kind::kNative;
  const bool resized = cropped || options.policy == SizePolicy::resize;
  std::vector<std::string_view> missing;
  if (model.mean.empty()) missing.emplace_back("mean");
  if (model.std.empty()) missing.emplace_back("std");
  if (resized && !model.interpolation) missing.emplace_back("interpolation");
  if (cropped && !model.crop_pct) missing.emplace_back("crop_pct");
  if (options.size.kind == InputSize::Kind::kModels && !model.input_size) missing.emplace_back("input_size");
  if (missing.empty()) return;
  throw Error(
      "{}: the configuration misses {} of pretrained_cfg, which tells how pictures are prepared: {} "
      "(cpvt run takes tensors)",
      options.model.string(), missing.size() > 1 ? "keys" : "key", fmt::join(missing, ", "));
}

}  // namespace

Preparation Preparation::of(const Options& options, const Config& config) {
  if (config.in_chans != 1 && config.in_chans != 3) {
    throw Error("the model takes {} channels; pictures have 3, or 1 in grey (cpvt run takes tensors)", config.in_chans);
  }
  const Config::Preprocessing& model = config.pretrained_cfg;
  require_told(options, model);
  EvalTransform transform;
  std::copy_n(model.mean.begin(), config.in_chans, transform.mean.begin());
  std::copy_n(model.std.begin(), config.in_chans, transform.std.begin());
  if (model.interpolation) transform.interpolation = parse_interpolation(name_of(*model.interpolation));
  if (model.crop_pct) transform.crop_pct = *model.crop_pct;
  switch (options.size.kind) {
    case InputSize::Kind::kModels:
      transform.size = ImageSize{model.input_size->at(1), model.input_size->at(2)};
      break;
    case InputSize::Kind::kFixed:
      transform.size = options.size.fixed;
      break;
    case InputSize::Kind::kNative:
      transform.size = std::nullopt;
      break;
  }
  return {.decode = options.decode,
          .pipes = options.pipes,
          .transform = transform,
          .channels = config.in_chans,
          .policy = options.policy,
          .patch = config.patch_size};
}

ImageStream::ImageStream(std::vector<std::string> paths, Preparation preparation, int workers)
    : paths_(std::move(paths)),
      preparation_(std::move(preparation)),
      most_ahead_(kAheadPerWorker * static_cast<size_t>(workers)) {
  const size_t useful = std::min(static_cast<size_t>(workers), paths_.size());
  workers_.reserve(useful);
  try {
    for (size_t i = 0; i < useful; ++i) workers_.push_back(start_thread(i + 1, useful, [this] { work(); }));
  } catch (...) {
    end_workers();  // those that did start
    throw;
  }
}

ImageStream::~ImageStream() { end_workers(); }

void ImageStream::end_workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::optional<Input> ImageStream::next() {
  std::unique_lock lock(mutex_);
  if (taken_ == paths_.size()) return std::nullopt;
  changed_.wait(lock, [this] { return done_.contains(taken_); });
  Input input = std::move(done_.extract(taken_).mapped());
  bytes_ -= size_of(input);
  ++taken_;
  changed_.notify_all();
  return input;
}

bool ImageStream::may_start() const {
  const bool waited_for = begun_ == taken_;
  return waited_for || (begun_ - taken_ < most_ahead_ && bytes_ < kWaitingBytes);
}

void ImageStream::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || begun_ == paths_.size() || may_start(); });
    if (stop_ || begun_ == paths_.size()) return;
    const size_t index = begun_++;
    lock.unlock();
    Input input = prepare(index);
    lock.lock();
    bytes_ += size_of(input);
    done_.emplace(index, std::move(input));
    changed_.notify_all();
  }
}

Input ImageStream::prepare(size_t index) const {
  Input input;
  input.index = index;
  input.name = paths_[index];
  // Whatever goes wrong, the message begins with the picture's name.
  const auto failed = [&](std::string_view why) {
    const bool named = input.name == "-" || why.starts_with(input.name);
    input.error = named ? std::string(why) : fmt::format("{}: {}", input.name, why);
  };
  try {
    Image image = read_picture(input.name, preparation_.decode, preparation_.pipes);
    input.warnings = image.warnings;
    if (!preparation_.transform.size) preparation_.check(image.size);
    const Preparation& p = preparation_;
    if (p.policy == SizePolicy::pad) {  // its zeros are no pixel's
      Planes planes = preprocess(std::move(image), p.transform, p.channels, p.policy, p.patch);
      input.floats = std::move(planes.values);
      input.view = {input.floats.data(), planes.size};
    } else {
      image = fit(std::move(image), p.transform, p.channels, p.policy, p.patch);
      input.bytes = std::move(image.pixels);
      input.view = {nullptr, image.size, input.bytes.data()};
    }
  } catch (const std::bad_alloc&) {
    failed("out of memory");
  } catch (const std::exception& e) {
    failed(e.what());
  }
  return input;
}

}  // namespace cpvt::cli
