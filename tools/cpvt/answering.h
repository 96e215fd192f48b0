#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/runner.h"

namespace cpvt::cli {

/// One image on its way through the network, or why there is none.
struct Input {
  Input() = default;
  Input(Input&&) = default;
  Input& operator=(Input&&) = default;
  ~Input() = default;
  Input(const Input&) = delete;  // `view` would point into the other one's memory
  Input& operator=(const Input&) = delete;

  size_t index = 0;  // among the command's inputs
  std::string name;  // for messages: a path, a tensor's name
  ImageView view{};  // into `floats` or `bytes`, or memory that outlives this
  std::vector<float> floats;
  std::vector<uint8_t> bytes;
  std::vector<std::string> warnings;
  std::string error;  // not empty: no image, and why
};

/// What came out for an input; the spans are valid until the receiver returns.
struct Answer {
  const Input& input;
  std::string error;  // not empty: nothing came out, and why
  TokenGrid grid;
  std::span<const float> logits;    // [classes]
  std::span<const float> features;  // [grid.rows(), D], where asked for
};

/// Whether every logit is a finite number: what is ranked or counted must be.
bool is_finite(std::span<const float> logits);

enum class Wanted { kLogits, kLogitsAndFeatures };

/// How images are put through the network.
struct Batching {
  std::shared_ptr<const Executable> executable;
  size_t memory_limit = 0;  // as Runner's
  int patch;                // the model's
  int batch = 0;            // images; 0: as many as keep a batch's tokens in the caches' reach
  Wanted wanted = Wanted::kLogits;
};

/// Takes inputs from `next` until it has no more, runs them in ragged batches, and hands each one's answer to `receive`
/// in the same order. Answers do not depend on the batches, so one that memory forbids is cut in halves until what is
/// refused is a single image. Where the device takes runners in turn (Backend::runners_in_turn) and no limit is set,
/// one batch is collected, copied and begun while the one before is under way.
void answer_all(const Batching& batching, const std::function<std::optional<Input>()>& next,
                const std::function<void(const Answer&)>& receive);

}  // namespace cpvt::cli
