#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/ops.h"
#include "engine/token_layout.h"

namespace cpvt {

/// One normalised picture: float32 [Cin, height, width], contiguous, borrowed from the caller.
struct ImageView {
  const float* data;
  ImageSize size;
};

/// Where one runner's work happens: its memory and its order of execution (a thread team; a CUDA stream).
class Stream {
 public:
  virtual ~Stream() = default;
  /// The arena: at least `bytes`, 64-byte aligned, kept until a larger one is asked for. Throws Error where it cannot
  /// be had.
  virtual std::byte* arena(size_t bytes) = 0;
};

/// What a kernel is given: matrices in the arena, where the plan put them, rows lying one after the other.
struct Call {
  Stream& stream;
  const TokenLayout& layout;
  int64_t rows;                             // of the output
  std::span<const ImageView> images;        // for PatchEmbed
  std::span<const float* const> positions;  // for AddPosition: per image, its position_rows
  std::span<const float* const> inputs;
  float* output;
  float* workspace;  // as large as the kernel asked for
};

/// An operator bound to a device: its weights packed, ready for any geometry. Immutable; runners share it.
struct Kernel {
  std::function<void(const Call&)> run;
  std::function<int64_t(const TokenLayout&, const Stream&)> workspace_floats = [](const auto&, const auto&) {
    return int64_t{0};
  };
  size_t weight_bytes = 0;
};

/// A device. Graphs are validated before they come here: no operator checks its shapes again.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  /// Bytes that runners may still take.
  virtual size_t free_memory() const = 0;
  virtual std::unique_ptr<Stream> make_stream() const = 0;

  virtual Kernel bind(const ops::PatchEmbed& op) const = 0;
  virtual Kernel bind(const ops::AddPosition& op) const = 0;
  virtual Kernel bind(const ops::Peg& op) const = 0;
  virtual Kernel bind(const ops::LayerNorm& op) const = 0;
  virtual Kernel bind(const ops::Linear& op) const = 0;
  virtual Kernel bind(const ops::Gelu& op) const = 0;
  virtual Kernel bind(const ops::Add& op) const = 0;
  virtual Kernel bind(const ops::Attention& op) const = 0;
  virtual Kernel bind(const ops::Pool& op) const = 0;
};

/// The CPU, with a team of `threads` per runner; 0: as many as this process may use.
std::unique_ptr<Backend> make_cpu_backend(int threads);

}  // namespace cpvt
