#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/token_layout.h"

namespace cpvt {

/// One picture, contiguous, borrowed from the caller: normalised floats, or bytes that PatchEmbed normalises. A batch
/// has pictures of one kind.
struct ImageView {
  const float* floats;  // [Cin, height, width], or null
  ImageSize size;
  const uint8_t* bytes = nullptr;  // [height, width, Cin]
};

/// Where one runner's work happens: its memory and its order of execution (a thread team; a CUDA stream). What is not
/// pure here is right for a device whose memory is the host's and whose kernels are done when they return.
class Stream {
 public:
  virtual ~Stream() = default;
  /// The arena: at least `bytes`, 64-byte aligned, in the device's memory, kept until a larger one is asked for. Throws
  /// Error where it cannot be had; then there is none.
  virtual std::byte* arena(size_t bytes) = 0;

  /// A plan's tables, brought to where kernels read them.
  virtual std::shared_ptr<const std::byte> keep(std::vector<std::byte> tables);

  /// Begins one batch, whose kernels `enqueue` calls in their order; what it needs of the host's memory it has taken
  /// when it returns, but it may still be under way. `recording` belongs to the batch's plan and is the stream's to
  /// fill: what it has recorded of an earlier run it may replay instead.
  virtual void begin(std::span<const ImageView> images, std::shared_ptr<void>& recording,
                     const std::function<void()>& enqueue);
  /// Returns when the batch that was begun is done; there is one at a time. Throws Error where it failed.
  virtual void finish();

  /// What a profiler shows as the name of everything until the pop; nested. `name` is not called on devices that no
  /// profiler of names knows.
  virtual void push_range(const std::function<std::string()>& name);
  virtual void pop_range();

  /// A value [rows, width] in the arena as fp32 in the host's memory, dense, valid until the next batch.
  virtual std::span<const float> read(const std::byte* value, int64_t rows, int64_t width);
};

/// What a kernel is given: matrices in the arena, where the plan put them, rows lying Backend::row_bytes apart.
struct Call {
  Stream& stream;
  const TokenLayout& layout;
  int64_t rows;                       // of the output
  std::span<const ImageView> images;  // for PatchEmbed
  std::span<const std::byte> table;   // the kernel's GeometryTable for this layout
  std::span<const std::byte* const> inputs;
  std::byte* output;
  std::byte* second_output;  // of a Peg with a norm
  std::byte* workspace;      // as large as the kernel asked for
};

/// What a kernel reads that depends on the batch's geometry alone: position rows, lists of work. Its size is known
/// before it is made. Kernels that share one share its bytes too.
struct GeometryTable {
  std::function<size_t(const TokenLayout&)> bytes;
  std::function<void(const TokenLayout&, std::span<std::byte>)> fill;
};

/// An operator bound to a device: its weights packed, ready for any geometry. Immutable; runners share it.
struct Kernel {
  std::function<void(const Call&)> run;
  std::function<size_t(const TokenLayout&, const Stream&)> workspace_bytes = [](const auto&, const auto&) {
    return size_t{0};
  };
  std::shared_ptr<const GeometryTable> table = nullptr;
  size_t weight_bytes = 0;
  std::vector<std::shared_ptr<void>> weights = {};  // what lives as long as the kernel
};

/// How a device wants graphs beyond what every device wants (engine/fusion.h). What a backend doesn't ask for it never
/// sees, and need not have.
struct GraphForm {
  int64_t widest_normalised_linear = 0;  // LayerNorm goes into the Linears that read it, up to this many columns
  bool normalised_pool = false;          // and into the Pool
  bool normalised_peg = false;           // what is left joins the Peg before it
  float residual_scale = 1;              // engine/residual_scale.h
};

/// A device. Graphs are validated before they come here: no operator checks its shapes again.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  /// Bytes that runners may still take.
  virtual size_t free_memory() const = 0;
  /// Runners that keep the device busy when one thread feeds them in turn: more than one where a batch's copies and
  /// the host's part of it can overlap with another's kernels.
  virtual int runners_in_turn() const { return 1; }
  virtual std::unique_ptr<Stream> make_stream() const = 0;
  virtual GraphForm form() const { return {}; }
  /// From one row of a value to the next.
  virtual size_t row_bytes(int64_t width) const { return static_cast<size_t>(width) * sizeof(float); }

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
