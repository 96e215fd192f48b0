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
  /// `memory_limit`: bytes for weights, position rows and arena; 0 takes what the device has free.
  explicit Runner(std::shared_ptr<const Executable> executable, size_t memory_limit = 0);

  /// The plan of a batch of these sizes, without running it; valid until the next call. `wanted` are names of the
  /// graph's outputs. Throws Error, with the figures, where it would not fit into the memory limit.
  const Plan& plan(std::span<const ImageSize> sizes, std::span<const std::string> wanted);

  /// One forward pass. The results lie in the runner's memory until the next call. Throws Error for images that are
  /// smaller than a patch, and as plan() does.
  void run(std::span<const ImageView> images, std::span<const std::string> wanted);

  /// A wanted result of the last run, [rows, width]: "logits" has a row per image, "features" a row per token.
  std::span<const float> output(std::string_view name) const;

  /// The last run's batch.
  const TokenLayout& layout() const { return plans_.front().layout; }

 private:
  /// Plans of this many geometries are kept, so that a stream of recurring sizes plans each but once.
  static constexpr size_t kCachedPlans = 16;

  std::shared_ptr<const Executable> executable_;
  size_t memory_limit_;
  std::unique_ptr<Stream> stream_;
  std::list<Plan> plans_;  // the most recently used first
  const std::byte* arena_ = nullptr;
};

}  // namespace cpvt
