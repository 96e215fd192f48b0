#include "engine/backends/cuda_stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace cpvt {

using cuda::Plugin;

CudaMemory::CudaMemory(const Plugin& plugin, Kind kind, size_t bytes, void* stream)
    : plugin_(plugin), kind_(kind), stream_(stream) {
  const size_t taken = std::max<size_t>(bytes, 1);
  void* memory = nullptr;
  const int error = kind == Kind::kDevice   ? plugin.allocate(&memory, taken)
                    : kind == Kind::kPinned ? plugin.allocate_pinned(&memory, taken)
                                            : plugin.allocate_on(&memory, taken, stream);
  if (error != 0) {
    throw Error("cuda: cannot allocate {} bytes of {} memory: {}", bytes,
                kind == Kind::kPinned ? "pinned host" : "device", plugin.error_text(error));
  }
  data_ = static_cast<std::byte*>(memory);
}

CudaMemory::~CudaMemory() {
  switch (kind_) {
    case Kind::kDevice:
      plugin_.release(data_);
      break;
    case Kind::kPinned:
      plugin_.release_pinned(data_);
      break;
    case Kind::kOnStream:
      plugin_.release_on(data_, stream_);
      break;
  }
}

std::byte* GrowingMemory::at_least(size_t bytes) {
  if (bytes > bytes_ || !memory_) {
    memory_.reset();  // before the larger one is taken: both together may not fit
    bytes_ = 0;
    ++moves_;  // whether or not there will be another
    memory_.emplace(plugin_, kind_, bytes);
    bytes_ = bytes;
  }
  return memory_->data();
}

/// What a geometry's plan remembers: how it last ran, and its graph.
struct CudaStream::Recording {
  explicit Recording(const Plugin& p) : plugin(p) {}
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() { forget(); }

  void forget() {
    if (graph != nullptr) plugin.destroy_recording(std::exchange(graph, nullptr));
    refused = false;
  }

  const Plugin& plugin;
  uint64_t memory_moves = 0;  // at its last run
  bool bytes = false;         // what its pixels were
  void* graph = nullptr;
  bool refused = false;  // no graph could be made
  PixelPacking packing;
};

CudaStream::CudaStream(const Plugin& plugin, cuda::DType dtype, bool cublaslt, int threads)
    : plugin_(plugin),
      dtype_(dtype),
      threads_(threads),
      arena_(plugin, CudaMemory::Kind::kDevice),
      staging_(plugin, CudaMemory::Kind::kPinned) {
  if (cublaslt) {
    void* made = nullptr;
    check(plugin.make_cublaslt(&made), "starting cuBLASLt");
    cublaslt_ = {made, plugin.destroy_cublaslt};
  }
  check(plugin.make_stream(&stream_), "making a stream");
}

CudaStream::~CudaStream() {
  plugin_.synchronize(stream_);  // before the memory that it works in goes
  plugin_.destroy_stream(stream_);
}

std::shared_ptr<const std::byte> CudaStream::keep(std::vector<std::byte> tables) {
  const auto memory = std::make_shared<CudaMemory>(plugin_, CudaMemory::Kind::kOnStream, tables.size(), stream_);
  check(plugin_.copy(memory->data(), tables.data(), tables.size(), stream_), "copying tables");
  check(plugin_.synchronize(stream_), "copying tables");
  return {memory, memory->data()};
}

void CudaStream::begin(std::span<const ImageView> images, std::shared_ptr<void>& recording,
                       const std::function<void()>& enqueue) {
  results_.clear();
  if (!recording) recording = std::make_shared<Recording>(plugin_);
  auto& recorded = *static_cast<Recording*>(recording.get());
  // Only what has run in this very memory is recorded: what a recording may not do (allocating) is done then.
  const bool bytes = images.front().bytes != nullptr;
  const bool has_run = recorded.memory_moves == memory_moves() && recorded.bytes == bytes;
  if (!has_run) recorded.forget();
  if (recorded.graph != nullptr) {
    pack(images, recorded.packing);
  } else if (has_run && !recorded.refused) {
    record(recorded, enqueue);
  }
  if (recorded.graph != nullptr) {
    check(plugin_.replay(recorded.graph, stream_), "launching a graph");
    return;
  }
  run_now(enqueue);
  recorded.memory_moves = memory_moves();
  recorded.bytes = bytes;
}

/// Where enqueueing fails midway, what was enqueued still reads the pinned pixels: it ends before anybody goes on.
void CudaStream::run_now(const std::function<void()>& enqueue) {
  try {
    enqueue();
  } catch (...) {
    plugin_.synchronize(stream_);
    throw;
  }
}

/// Leaves `recording` with a graph, or refused. Why is not asked: what is wrong with the batch itself will be told when
/// it is run without one.
void CudaStream::record(Recording& recording, const std::function<void()>& enqueue) {
  recording.refused = true;
  if (plugin_.begin_recording(stream_) != 0) return;
  bool enqueued = true;
  try {
    enqueue();
  } catch (...) {  // whatever it is: the stream must not stay in its recording
    enqueued = false;
  }
  const bool ended = plugin_.end_recording(stream_, enqueued ? &recording.graph : nullptr) == 0;
  if (!enqueued || !ended) return;
  recording.refused = false;
  recording.packing = std::move(packing_);
}

std::span<const float> CudaStream::read(const std::byte* value, int64_t rows, int64_t width) {
  std::vector<float>& result = results_[value];
  if (!result.empty()) return result;
  const int64_t stride = cuda::row_stride(width, dtype_);
  const size_t row_bytes = static_cast<size_t>(stride) * element_bytes(dtype_);
  std::vector<std::byte> stored(static_cast<size_t>(rows) * row_bytes);
  check(plugin_.copy(stored.data(), value, stored.size(), stream_), "copying results");
  check(plugin_.synchronize(stream_), "copying results");
  result.resize(static_cast<size_t>(rows * width));
  for (int64_t r = 0; r < rows; ++r) {
    plugin_.decode(stored.data() + static_cast<size_t>(r) * row_bytes, width, dtype_, result.data() + r * width);
  }
  return result;
}

void CudaStream::upload(std::span<const ImageView> images, std::byte* to, PixelPacking packing) {
  packing_ = std::move(packing);
  check(plugin_.copy(to, pack(images, packing_), packing_.bytes, stream_), "copying pixels");
}

std::byte* CudaStream::pack(std::span<const ImageView> images, const PixelPacking& packing) {
  constexpr size_t kWorthThreads = 1 << 20;  // less is copied in the time that it takes to wake them
  std::byte* staging = staging_.at_least(packing.bytes);
  if (threads_ > 1 && packing.bytes >= kWorthThreads) {
    if (!packers_) packers_.emplace(threads_);
    packers_->run(packing.pieces, [&](int64_t piece, int /*thread*/) { packing.put(piece, images, staging); });
  } else {
    for (int64_t piece = 0; piece < packing.pieces; ++piece) packing.put(piece, images, staging);
  }
  return staging;
}

}  // namespace cpvt
