#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/backends/backend.h"
#include "engine/backends/cuda_plugin.h"
#include "kernels/cpu/thread_pool.h"

namespace cpvt {

/// Memory on the device, or pinned in the host's. Throws Error where there is none.
class CudaMemory {
 public:
  enum class Kind {
    kDevice,
    kPinned,
    kOnStream,  ///< the device's, in the order of a stream's work: neither taking nor releasing it waits for others
  };

  CudaMemory(const cuda::Plugin& plugin, Kind kind, size_t bytes, void* stream = nullptr);
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;
  ~CudaMemory();

  std::byte* data() const { return data_; }

 private:
  const cuda::Plugin& plugin_;
  Kind kind_;
  void* stream_;
  std::byte* data_;
};

/// Memory that is kept until more is asked for. What was in it is lost then.
class GrowingMemory {
 public:
  GrowingMemory(const cuda::Plugin& plugin, CudaMemory::Kind kind) : plugin_(plugin), kind_(kind) {}

  /// Throws Error where it cannot be had; then there is none.
  std::byte* at_least(size_t bytes);
  /// How often it has gone: whoever remembers an address remembers this too.
  uint64_t moves() const { return moves_; }

 private:
  const cuda::Plugin& plugin_;
  CudaMemory::Kind kind_;
  std::optional<CudaMemory> memory_;
  size_t bytes_ = 0;
  uint64_t moves_ = 0;
};

/// How a batch's pixels are laid out: in pieces, each of which `put` writes to its place, in any order.
struct PixelPacking {
  size_t bytes;
  int64_t pieces;
  std::function<void(int64_t piece, std::span<const ImageView> images, std::byte* pixels)> put;
};

/// A CUDA stream that a runner's batches run on. A geometry's second batch is recorded as a CUDA graph, and later ones
/// are launched from it: sizes that come once do not pay for one. Where a graph cannot be had, batches run without.
class CudaStream final : public Stream {
 public:
  /// `threads` pack large batches' pixels.
  CudaStream(const cuda::Plugin& plugin, cuda::DType dtype, bool cublaslt, int threads);
  ~CudaStream() override;
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void* get() const { return stream_; }
  void* cublaslt() const { return cublaslt_.get(); }

  std::byte* arena(size_t bytes) override { return arena_.at_least(bytes); }
  std::shared_ptr<const std::byte> keep(std::vector<std::byte> tables) override;
  void begin(std::span<const ImageView> images, std::shared_ptr<void>& recording,
             const std::function<void()>& enqueue) override;
  void finish() override { check(plugin_.synchronize(stream_), "running a batch"); }
  void push_range(const std::function<std::string()>& name) override { plugin_.push_range(name().c_str()); }
  void pop_range() override { plugin_.pop_range(); }
  std::span<const float> read(const std::byte* value, int64_t rows, int64_t width) override;

  /// Enqueues a batch's pixels: they are packed into pinned memory, now and before every replay, and copied to the
  /// device from there.
  void upload(std::span<const ImageView> images, std::byte* to, PixelPacking packing);

 private:
  struct Recording;

  void check(int error, const char* what) const { check_cuda(plugin_, error, what); }
  uint64_t memory_moves() const { return arena_.moves() + staging_.moves(); }
  std::byte* pack(std::span<const ImageView> images, const PixelPacking& packing);
  void run_now(const std::function<void()>& enqueue);
  void record(Recording& recording, const std::function<void()>& enqueue);

  const cuda::Plugin& plugin_;
  cuda::DType dtype_;
  int threads_;
  std::unique_ptr<void, int (*)(void*)> cublaslt_{nullptr, nullptr};
  void* stream_ = nullptr;
  GrowingMemory arena_;
  GrowingMemory staging_;
  PixelPacking packing_;                                    // of the last batch that was enqueued
  std::optional<cpu::ThreadPool> packers_;                  // from the first large batch on
  std::map<const std::byte*, std::vector<float>> results_;  // of the last batch, as far as they were read
};

}  // namespace cpvt
