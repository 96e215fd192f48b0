#pragma once

#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model.h"
#include "engine/plan.h"

namespace cpvt {

/// Runs an executable on batches of any sizes. One per thread; any number share an executable.
class Runner {
 public:
  /// `memory_limit`: bytes for weights, tables and arena; 0 takes what the device has free.
  explicit Runner(std::shared_ptr<const Executable> executable, size_t memory_limit = 0);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  /// The plan of a batch of these sizes, without running it; valid until the next call. `wanted` are names of the
  /// graph's outputs. Throws Error, with the figures, where it would not fit into the memory limit, and while a batch
  /// is under way. The last run's results stay.
  const Plan& plan(std::span<const ImageSize> sizes, std::span<const std::string> wanted);

  /// One forward pass. The results lie in the runner's memory until the next run. Throws Error for images that are
  /// smaller than a patch, for bytes where the graph's PatchEmbed has no mean and std, and as plan() does.
  void run(std::span<const ImageView> images, std::span<const std::string> wanted);

  /// run() in two: on a device that works by itself the batch is under way between them, and the host has time for
  /// another runner's. The images may go when start() returns. Throw Error as run() does, and when out of turn.
  void start(std::span<const ImageView> images, std::span<const std::string> wanted);
  void wait();

  /// A wanted result of the last run, [rows, width]: "logits" has a row per image, "features" a row per token.
  /// Throws Error where that run made no such output, or where none came to its end since the last start.
  std::span<const float> output(std::string_view name) const;

  /// The last run's batch. Throws Error as output() does.
  const TokenLayout& layout() const { return last_run().layout; }

 private:
  /// Plans of this many geometries are kept, so that a stream of recurring sizes plans each but once; fewer where their
  /// tables would not fit into the memory limit.
  static constexpr size_t kCachedPlans = 16;

  /// What is kept of a geometry.
  struct Prepared {
    std::shared_ptr<const Plan> plan;
    std::shared_ptr<void> recording;  // the stream's
  };

  /// The arena for the most recently used plan.
  std::byte* arena_of(const Plan& plan);
  const Plan& last_run() const;
  /// Of weights, an arena of so many bytes, and the plans' tables.
  size_t held_bytes(size_t arena) const;

  std::shared_ptr<const Executable> executable_;
  size_t memory_limit_;
  std::unique_ptr<Stream> stream_;
  std::list<Prepared> plans_;  // the most recently used first
  std::shared_ptr<const Plan> under_way_;
  std::shared_ptr<const Plan> last_run_;  // whose results the arena holds
  const std::byte* arena_ = nullptr;
  size_t arena_bytes_ = 0;  // the largest arena so far, which the stream keeps
};

}  // namespace cpvt
