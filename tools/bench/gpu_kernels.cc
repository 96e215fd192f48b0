// Every CUDA operator alone at the shapes of CPVT-GAP Ti, S and B, and all operators of a forward pass in a row, by
// CUDA events; beside them the same problem by cuBLASLt (products) and cuDNN (depthwise convolution), where those are.
//   build/release/bin/bench_gpu_kernels [--models S] [--dtypes fp16] [--batches 1,64] [--only fc1,peg] [--json]
// A problem is launched 20 times as one CUDA graph, as the engine launches it, and replayed; the time is the
// median over the replays, divided. Operands lie where the last launch left them: in the second-level cache if they fit
// there, as they do between the operators of a forward pass. The libraries get the same treatment, and each of their
// algorithms is tried: the best is compared.

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <stdexcept>
#include <utility>

#include "kernels/cuda/plugin.h"
#include "tools/bench/vendor_libraries.h"

namespace {

using namespace cpvt::cuda;  // NOLINT(google-build-using-namespace): the operators are the subject
using cpvt::TokenGrid;
using cpvt::bench::Candidate;
using Clock = std::chrono::steady_clock;

constexpr int64_t kPatch = 16, kChannels = 3, kClasses = 1000;
constexpr float kEps = 1e-6F;

struct Options {
  std::vector<std::string> models{"Ti", "S", "B"}, dtypes{"fp16", "bf16", "fp32"}, only;
  std::vector<int> batches{1, 8, 64, 256};
  int size = 224, depth = 12, launches = 20;
  double milliseconds = 10;
  double deadline = 1e9;  // seconds
  bool json = false, once = false, no_vendor = false;
  std::string plugin;
};

void check(int error, const std::string& what) {
  if (error != 0) throw std::runtime_error(fmt::format("{}: error {}", what, error));
}

const Plugin& open_plugin(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  const auto entry = reinterpret_cast<CpvtCudaPluginEntry>(dlsym(library, kPluginEntry));
  if (entry == nullptr || entry()->version != kPluginVersion) throw std::runtime_error(path + ": another version");
  return *entry();
}

/// Device memory of one problem.
class Operands {
 public:
  Operands(const Plugin& plugin, DType dtype) : plugin_(plugin), dtype_(dtype) {}
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;
  ~Operands() {
    for (void* memory : memory_) plugin_.release(memory);
  }

  void* bytes(size_t count) {
    void* memory = nullptr;
    check(plugin_.allocate(&memory, std::max<size_t>(count, 16)), fmt::format("allocating {} bytes", count));
    memory_.push_back(memory);
    return memory;
  }
  template <class T>
  const T* table(const std::vector<T>& list) {
    return static_cast<const T*>(copied(list.data(), list.size() * sizeof(T), bytes(list.size() * sizeof(T))));
  }
  /// Uniform numbers in [-scale, scale], since a GPU is faster on zeros. They repeat themselves after a million.
  void* matrix(int64_t rows, int64_t width, float scale) { return filled(rows * stride(width), scale, dtype_); }
  float* floats(int64_t count, float scale) { return static_cast<float*>(filled(count, scale, DType::kF32)); }
  int64_t stride(int64_t width) const { return row_stride(width, dtype_); }
  DType dtype() const { return dtype_; }

 private:
  void* copied(const void* from, size_t count, void* to) {
    check(plugin_.copy(to, from, count, nullptr), "copying");
    check(plugin_.synchronize(nullptr), "copying");
    return to;
  }
  void* filled(int64_t count, float scale, DType dtype) {
    constexpr int64_t kPeriod = 1 << 20;
    static std::mt19937 random(1);
    static std::map<std::pair<DType, float>, std::vector<std::byte>> encoded;
    std::vector<std::byte>& numbers = encoded[{dtype, scale}];
    if (numbers.empty()) {
      std::vector<float> values(kPeriod);
      for (float& v : values) v = scale * (static_cast<float>(random()) * 0x1p-31F - 1.0F);
      numbers.resize(values.size() * element_bytes(dtype));
      plugin_.encode(values.data(), kPeriod, dtype, numbers.data());
    }
    const auto size = [&](int64_t n) { return static_cast<size_t>(n) * element_bytes(dtype); };
    auto* memory = static_cast<std::byte*>(bytes(size(count)));
    auto at = static_cast<int64_t>(random() % kPeriod);  // so that no two are alike
    for (int64_t i = 0, n = 0; i < count; i += n, at = 0) {
      n = std::min(kPeriod - at, count - i);
      copied(numbers.data() + size(at), size(n), memory + size(i));
    }
    return memory;
  }

  const Plugin& plugin_;
  DType dtype_;
  std::vector<void*> memory_;
};

struct Network {
  std::string name;
  int64_t width, heads;
};
const Network kNetworks[] = {{"Ti", 192, 3}, {"S", 384, 6}, {"B", 768, 12}};  // CPVT, table 7

/// A batch of equal pictures, and the tables that kernels want of it.
struct Batch {
  Batch(Operands& memory, int64_t images, int64_t size) {
    const int64_t side = size / kPatch;
    for (int64_t i = 0; i < images; ++i) grids.push_back({i * side * side, side, side, 0});
    rows = images * side * side;
    most_rows = side * side;
    std::vector<PatchImage> places;
    for (int64_t i = 0; i < images; ++i) places.push_back({grids[static_cast<size_t>(i)], i * kChannels * size * size});
    const auto queries = attention_tiles(grids);
    const auto rectangles = peg_tiles(grids, 3);
    const auto patches = patch_tiles(grids);
    const auto chunks = pool_tiles(grids);
    device_grids = memory.table(grids);
    attention = memory.table(queries);
    attention_count = static_cast<int32_t>(queries.size());
    peg = memory.table(rectangles);
    peg_count = static_cast<int32_t>(rectangles.size());
    patch = memory.table(patches);
    patch_count = static_cast<int32_t>(patches.size());
    patch_images = memory.table(places);
    pool = memory.table(chunks);
    pool_count = static_cast<int32_t>(chunks.size());
  }
  std::vector<TokenGrid> grids;
  int64_t rows, most_rows;
  const TokenGrid* device_grids;
  const AttentionTile* attention;
  const PegTile* peg;
  const PatchTile* patch;
  const PatchImage* patch_images;
  const PoolTile* pool;
  int32_t attention_count, peg_count, patch_count, pool_count;
};

/// Makes the arguments of each operator, with weights of its own.
class Operators {
 public:
  Operators(Operands& memory, const Batch& batch, const Network& network, float residual_scale)
      : m_(memory), b_(batch), d_(network.width), heads_(network.heads), scale_(residual_scale) {}

  PatchEmbedArgs patch_embed(const float* pixels, void* y) {
    PatchEmbedArgs a{};
    a.dtype = m_.dtype();
    a.pixels_type = Pixels::kF32Planar;
    a.pixels = pixels;
    a.images = b_.patch_images;
    a.tiles = b_.patch;
    a.tile_count = b_.patch_count;
    a.channels = kChannels;
    a.patch = kPatch;
    a.weight = m_.matrix(d_, kChannels * kPatch * kPatch, 0.05F);
    a.bias = m_.floats(d_, 0.1F);
    a.scale = scale_;
    a.y = y;
    a.y_stride = m_.stride(d_);
    a.width = d_;
    return a;
  }
  LinearArgs linear(const void* x, int64_t rows, int64_t k, int64_t n, void* y) {
    LinearArgs a{};
    a.dtype = m_.dtype();
    a.x = x;
    a.x_stride = m_.stride(k);
    a.weight = m_.matrix(n, k, 0.05F);
    a.bias = m_.floats(n, 0.1F);
    a.scale = 1;
    a.y = y;
    a.residual_stride = a.y_stride = m_.stride(n);
    a.rows = rows;
    a.n = n;
    a.k = k;
    return a;
  }
  /// The same Linear as it is in the network.
  LinearArgs with_norm(LinearArgs a) {
    a.gamma = m_.floats(a.k, 1);
    a.beta = m_.floats(a.k, 0.1F);
    a.eps = kEps;
    return a;
  }
  LinearArgs with_residual(LinearArgs a, const void* residual) {
    a.residual = residual;
    return a;
  }
  LinearArgs with_gelu(LinearArgs a) {
    a.gelu = true;
    return a;
  }
  LayerNormArgs layernorm(const void* x, void* y) {
    return {.dtype = m_.dtype(),
            .x = x,
            .x_stride = m_.stride(d_),
            .gamma = m_.floats(d_, 1),
            .beta = m_.floats(d_, 0.1F),
            .eps = kEps,
            .y = y,
            .y_stride = m_.stride(d_),
            .rows = b_.rows,
            .width = d_};
  }
  AttentionArgs attention(const void* qkv, void* y) const {
    const auto head_dim = static_cast<int32_t>(d_ / heads_);
    return {.dtype = m_.dtype(),
            .qkv = qkv,
            .stride = m_.stride(3 * d_),
            .rows = b_.rows,
            .heads = static_cast<int32_t>(heads_),
            .head_dim = head_dim,
            .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
            .tiles = b_.attention,
            .tile_count = b_.attention_count,
            .y = y,
            .y_stride = m_.stride(d_)};
  }
  /// `normed` is null where the next Linear normalises.
  PegArgs peg(const void* x, void* y, void* normed = nullptr) {
    PegArgs a{};
    a.dtype = m_.dtype();
    a.x = x;
    a.x_stride = a.y_stride = m_.stride(d_);
    a.weight = m_.matrix(9, d_, 0.3F);
    a.bias = m_.floats(d_, 0.1F);
    a.kernel = 3;
    a.tiles = b_.peg;
    a.tile_count = b_.peg_count;
    a.y = y;
    if (normed != nullptr) {
      a.gamma = m_.floats(d_, 1);
      a.beta = m_.floats(d_, 0.1F);
      a.eps = kEps;
      a.normed = normed;
      a.normed_stride = m_.stride(d_);
    }
    a.width = d_;
    return a;
  }
  PoolArgs pool(const void* x, void* y) {
    PoolArgs a{};
    a.dtype = m_.dtype();
    a.mean = true;
    a.x = x;
    a.x_stride = a.y_stride = m_.stride(d_);
    a.gamma = m_.floats(d_, 1);
    a.beta = m_.floats(d_, 0.1F);
    a.eps = kEps;
    a.images = b_.device_grids;
    a.image_count = static_cast<int32_t>(b_.grids.size());
    a.tiles = b_.pool;
    a.tile_count = b_.pool_count;
    a.workspace =
        static_cast<float*>(m_.bytes(pool_workspace_bytes(static_cast<int64_t>(b_.grids.size()), b_.rows, d_)));
    a.y = y;
    a.width = d_;
    return a;
  }

 private:
  Operands& m_;
  const Batch& b_;
  int64_t d_, heads_;
  float scale_;
};

/// Microseconds of one launch, and how far the quartiles of the replays lie apart, as a share of it.
struct Timing {
  double us = 0, spread = 0;
};

class Timer {
 public:
  Timer(const Plugin& plugin, double milliseconds) : plugin_(plugin), milliseconds_(milliseconds) {
    check(plugin.make_stream(&stream_), "making a stream");
    check(cudaEventCreate(&begin_), "making an event");
    check(cudaEventCreate(&end_), "making an event");
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    plugin_.destroy_stream(stream_);
  }

  void* stream() const { return stream_; }

  void once(const std::function<int()>& enqueue) {
    check(enqueue(), "launching");
    check(plugin_.synchronize(stream_), "running");
  }

  Timing measure(const std::function<int()>& enqueue, int launches, double milliseconds) {
    once(enqueue);
    check(plugin_.begin_recording(stream_), "beginning a graph");
    int error = 0;
    for (int i = 0; i < launches && error == 0; ++i) error = enqueue();
    void* graph = nullptr;
    const int ended = plugin_.end_recording(stream_, &graph);
    check(error, "launching");
    check(ended, "recording a graph");
    std::vector<double> times;
    double sum = 0;
    for (int i = -1; i < 5 || (sum < milliseconds && i < 1000); ++i) {
      check(cudaEventRecord(begin_, static_cast<cudaStream_t>(stream_)), "recording an event");
      check(plugin_.replay(graph, stream_), "replaying");
      check(cudaEventRecord(end_, static_cast<cudaStream_t>(stream_)), "recording an event");
      check(plugin_.synchronize(stream_), "running");
      float took = 0;
      check(cudaEventElapsedTime(&took, begin_, end_), "reading the time");
      if (i < 0) continue;  // warm-up
      times.push_back(1e3 * static_cast<double>(took) / launches);
      sum += took;
    }
    plugin_.destroy_recording(graph);
    std::sort(times.begin(), times.end());
    const auto at = [&](double share) { return times[static_cast<size_t>(share * static_cast<double>(times.size()))]; };
    return {at(0.5), (at(0.75) - at(0.25)) / at(0.5)};
  }
  Timing measure(const std::function<int()>& enqueue, int launches) {
    return measure(enqueue, launches, milliseconds_);
  }

  /// The best of what a library offers; its name is empty where nothing of it ran.
  std::pair<std::string, Timing> best(const std::vector<Candidate>& candidates, int launches) {
    std::pair<std::string, Timing> best;
    for (const Candidate& candidate : candidates) {
      try {
        const Timing timing = measure(candidate.enqueue, launches, milliseconds_ / 4);
        if (best.first.empty() || timing.us < best.second.us) best = {candidate.name, timing};
      } catch (const std::runtime_error&) {  // heuristics offer what then refuses
        cudaGetLastError();
      }
    }
    return best;
  }

 private:
  const Plugin& plugin_;
  double milliseconds_;
  void* stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// What a problem is compared with.
struct Library {
  std::string library{};
  std::function<std::vector<Candidate>()> candidates{};
  std::string note{};
  /// Where both make the same numbers: reads them, after one and after the other.
  std::function<std::vector<float>()> result{};
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), plugin_(open_plugin(options.plugin)), timer_(plugin_, options.milliseconds) {
    if (!options.no_vendor && !options.once) {
      cublas_ = std::make_unique<cpvt::bench::CublasLt>(timer_.stream());
      cudnn_ = std::make_unique<cpvt::bench::Cudnn>(timer_.stream());
    }
    DeviceInfo device{};
    check(plugin_.describe(&device), "reading the device's properties");
    const auto library = [](const auto& l) {
      return l == nullptr ? "not asked for" : l->problem().empty() ? l->name() : "missing: " + l->problem();
    };
    // stderr, so that stdout is one kind of thing.
    fmt::print(stderr, "{}, compute capability {}.{}; cuBLASLt: {}; cuDNN: {}\n", device.name, device.major,
               device.minor, library(cublas_), library(cudnn_));
    if (!options.json && !options.once) {
      fmt::print("{:<6}{:<6}{:>5}  {:<18}{:>10}{:>8}{:>10}{:>10}{:>10}{:>7}  {}\n", "model", "dtype", "batch", "kernel",
                 "us", "spread", "GFLOP/s", "GB/s", "library", "ratio", "by");
    }
  }

  /// False once the deadline has passed.
  bool problem(const Network& network, DType dtype, const std::string& dtype_name, int images) {
    network_ = &network;
    dtype_name_ = dtype_name;
    images_ = images;
    Operands memory(plugin_, dtype);
    const Batch batch(memory, images, options_.size);
    const int64_t d = network.width;
    const int64_t rows = batch.rows;
    const auto number = static_cast<double>(element_bytes(dtype));
    const auto token_bytes = [&](double widths) { return static_cast<double>(rows * d) * number * widths; };
    const bool fused_norm = d <= kWidestFusedNorm;
    Operators make(memory, batch, network, 1);
    const auto* pixels = memory.floats(images * kChannels * options_.size * int64_t{options_.size}, 1);
    void* x = memory.matrix(rows, d, 1);
    void* y = memory.matrix(rows, d, 1);
    void* wide = memory.matrix(rows, 4 * d, 1);

    const double patch_numbers = kChannels * kPatch * kPatch;
    run("patch_embed", 2.0 * static_cast<double>(rows * d) * patch_numbers,
        token_bytes(1) + static_cast<double>(rows) * patch_numbers * 4,
        [&, a = make.patch_embed(pixels, y)] { return plugin_.patch_embed(a, timer_.stream()); });
    // Two of everything that is fused: bare, as cuBLASLt has it, and as the network has it.
    linear("qkv", make.linear(x, rows, d, 3 * d, wide), memory);
    if (fused_norm) linear("qkv, norm", make.with_norm(make.linear(x, rows, d, 3 * d, wide)), memory);
    run("attention", 4.0 * static_cast<double>(rows * batch.most_rows * d), token_bytes(4),
        [&, a = make.attention(wide, y)] { return plugin_.attention(a, timer_.stream()); });
    linear("proj, residual", make.with_residual(make.linear(y, rows, d, d, x), x), memory);
    linear("fc1", make.linear(x, rows, d, 4 * d, wide), memory);
    linear(fused_norm ? "fc1, norm, gelu" : "fc1, gelu",
           make.with_gelu(fused_norm ? make.with_norm(make.linear(x, rows, d, 4 * d, wide))
                                     : make.linear(x, rows, d, 4 * d, wide)),
           memory);
    linear("fc2, residual", make.with_residual(make.linear(wide, rows, 4 * d, d, x), x), memory);
    const std::function<std::vector<Candidate>()> convolution = [&] {
      if (cudnn_ == nullptr) return std::vector<Candidate>{};
      const int64_t side = options_.size / kPatch;
      return cudnn_->candidates(
          {dtype, x, memory.matrix(d, 9, 0.3F), memory.matrix(rows, d, 1), images, side, side, d, 3});
    };
    run("peg", 2.0 * 9 * static_cast<double>(rows * d), token_bytes(2),
        [&, a = make.peg(x, y)] { return plugin_.peg(a, timer_.stream()); },
        {.library = "cuDNN", .candidates = convolution, .note = "cuDNN: without bias and x +"});
    run("layernorm", 8.0 * static_cast<double>(rows * d), token_bytes(2),
        [&, a = make.layernorm(x, y)] { return plugin_.layernorm(a, timer_.stream()); });
    void* pooled = memory.matrix(images, d, 1);
    run("pool, norm", 8.0 * static_cast<double>(rows * d), token_bytes(1),
        [&, a = make.pool(x, pooled)] { return plugin_.pool(a, timer_.stream()); });
    linear("head", make.linear(pooled, images, d, kClasses, memory.matrix(images, kClasses, 1)), memory);
    forward(memory, batch, network);
    return !late();
  }

 private:
  // engine/backends/cuda.cc, form().
  static constexpr int64_t kWidestFusedNorm = 384;

  bool late() const { return std::chrono::duration<double>(Clock::now() - start_).count() > options_.deadline; }
  bool wanted(const std::string& name) const {
    return options_.only.empty() || std::any_of(options_.only.begin(), options_.only.end(), [&](const std::string& o) {
             return name == o || name.starts_with(o + ",");
           });
  }

  void linear(const std::string& name, const LinearArgs& args, Operands& memory) {
    const double numbers = static_cast<double>(args.rows * args.k + args.n * args.k + args.rows * args.n) +
                           (args.residual == nullptr ? 0.0 : static_cast<double>(args.rows * args.n));
    const bool same = args.gamma == nullptr && !args.gelu;
    // y may be the residual, and would grow from launch to launch: results are compared from a residual of its own.
    LinearArgs a = args;
    if (a.residual == a.y) a.residual = memory.matrix(a.rows, a.n, 1);
    Library library{.library = "cuBLASLt", .note = same ? "" : "cuBLASLt: x W^T + b only"};
    library.candidates = [&, a] {
      if (cublas_ == nullptr) return std::vector<Candidate>{};
      std::vector<float> bias(static_cast<size_t>(a.n));
      check(plugin_.copy(bias.data(), a.bias, bias.size() * 4, timer_.stream()), "copying");
      check(plugin_.synchronize(timer_.stream()), "copying");
      std::vector<std::byte> encoded(bias.size() * element_bytes(a.dtype));
      plugin_.encode(bias.data(), a.n, a.dtype, encoded.data());
      return cublas_->candidates({a.dtype, a.x, a.x_stride, a.weight, a.x_stride, memory.table(encoded), a.residual,
                                  a.y, a.y_stride, a.rows, a.n, a.k});
    };
    if (same) {
      library.result = [&, a] {
        const int64_t count = std::min<int64_t>(a.rows, 512) * a.y_stride;
        std::vector<std::byte> stored(static_cast<size_t>(count) * element_bytes(a.dtype));
        check(plugin_.copy(stored.data(), a.y, stored.size(), timer_.stream()), "copying");
        check(plugin_.synchronize(timer_.stream()), "copying");
        std::vector<float> values(static_cast<size_t>(count));
        plugin_.decode(stored.data(), count, a.dtype, values.data());
        return values;
      };
    }
    run(
        name, 2.0 * static_cast<double>(a.rows * a.n * a.k), numbers * static_cast<double>(element_bytes(a.dtype)),
        [&, a] { return plugin_.linear(a, timer_.stream()); }, library);
  }

  void run(const std::string& name, double flops, double bytes, const std::function<int()>& enqueue,
           const Library& library = {}, int launches = 0) {
    if (launches == 0) launches = options_.launches;
    if (!wanted(name) || late()) return;
    try {
      if (options_.once) {
        timer_.once(enqueue);
        fmt::print("{} {} {} {}\n", network_->name, dtype_name_, images_, name);
        return;
      }
      const Timing ours = timer_.measure(enqueue, launches);
      std::vector<float> our_result;
      if (library.result) {
        timer_.once(enqueue);
        our_result = library.result();
      }
      std::pair<std::string, Timing> theirs;
      if (library.candidates) theirs = timer_.best(library.candidates(), launches);
      std::string note = library.candidates && theirs.first.empty() ? "" : library.note;
      if (library.result && !theirs.first.empty()) {
        // What was run last need not be what was best, but all of it is asked for the same numbers.
        const double apart = relative_distance(our_result, library.result());
        const double bound = dtype_name_ == "fp32" ? 1e-4 : dtype_name_ == "fp16" ? 4e-3 : 3e-2;
        if (!(apart <= bound)) {
          note = fmt::format("RESULTS DIFFER by {:.1e}", apart);
          disagreed_ = true;
        }
      }
      print(name, flops, bytes, ours, library, theirs, note);
    } catch (const std::runtime_error& error) {
      fmt::print(stderr, "{} {} {} {}: {}\n", network_->name, dtype_name_, images_, name, error.what());
      failed_ = true;
    }
    std::fflush(stdout);
  }

  static double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
    double largest = 0;
    double distance = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return INFINITY;
      largest = std::max(largest, std::abs(static_cast<double>(b[i])));
      distance = std::max(distance, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
    return distance / largest;
  }

  void print(const std::string& name, double flops, double bytes, const Timing& ours, const Library& library,
             const std::pair<std::string, Timing>& theirs, const std::string& note) const {
    const std::string by = theirs.first.empty() ? "" : library.library + " " + theirs.first;
    if (options_.json) {
      fmt::print(
          R"({{"model":"{}","dtype":"{}","batch":{},"kernel":"{}","us":{:.3f},"spread":{:.3f},"gflop_per_second":)"
          R"({:.1f},"gb_per_second":{:.1f})",
          network_->name, dtype_name_, images_, name, ours.us, ours.spread, flops / ours.us * 1e-3,
          bytes / ours.us * 1e-3);
      if (!by.empty()) {
        fmt::print(R"(,"library":"{}","library_us":{:.3f},"ratio":{:.3f})", by, theirs.second.us,
                   theirs.second.us / ours.us);
      }
      fmt::print("{}}}\n", note.empty() ? "" : fmt::format(R"(,"note":"{}")", note));
      return;
    }
    fmt::print("{:<6}{:<6}{:>5}  {:<18}{:>10.2f}{:>7.1f}%{:>10.0f}{:>10.0f}{:>10}{:>7}  {}{}\n", network_->name,
               dtype_name_, images_, name, ours.us, 100 * ours.spread, flops / ours.us * 1e-3, bytes / ours.us * 1e-3,
               by.empty() ? "-" : fmt::format("{:.2f}", theirs.second.us),
               by.empty() ? "-" : fmt::format("{:.2f}", theirs.second.us / ours.us), by,
               note.empty() ? "" : "  (" + note + ")");
  }

  /// All operators of CPVT-GAP in a row, from pixels in device memory to logits there: what is left of a forward pass
  /// without the copies.
  void forward(Operands& memory, const Batch& batch, const Network& network) {
    if (!wanted("forward") || late()) return;
    const int64_t d = network.width;
    const int64_t rows = batch.rows;
    const bool fused_norm = d <= kWidestFusedNorm;
    Operators make(memory, batch, network, dtype_name_ == "fp16" ? 0x1p-4F : 1.0F);
    void* x = memory.matrix(rows, d, 1);
    void* y = memory.matrix(rows, d, 1);
    void* wide = memory.matrix(rows, 4 * d, 1);
    void* pooled = memory.matrix(images_, d, 1);
    void* stream = timer_.stream();
    std::vector<std::function<int()>> steps;
    const auto add_linear = [&](const LinearArgs& a) {
      steps.emplace_back([&, a] { return plugin_.linear(a, stream); });
    };
    // norm, then Linear: one step or two; the PEG before it may have done the first.
    void* normed = memory.matrix(rows, d, 1);
    bool done = false;
    const auto add_normed = [&](int64_t n, bool gelu) {
      LinearArgs a = make.linear(fused_norm ? x : normed, rows, d, n, wide);
      if (fused_norm) {
        a = make.with_norm(a);
      } else if (!std::exchange(done, false)) {
        steps.emplace_back([&, norm = make.layernorm(x, normed)] { return plugin_.layernorm(norm, stream); });
      }
      add_linear(gelu ? make.with_gelu(a) : a);
    };
    const auto* pixels = memory.floats(images_ * kChannels * options_.size * int64_t{options_.size}, 1);
    steps.emplace_back([&, a = make.patch_embed(pixels, x)] { return plugin_.patch_embed(a, stream); });
    for (int block = 0; block < options_.depth; ++block) {
      add_normed(3 * d, false);
      steps.emplace_back([&, a = make.attention(wide, y)] { return plugin_.attention(a, stream); });
      add_linear(make.with_residual(make.linear(y, rows, d, d, x), x));
      add_normed(4 * d, true);
      add_linear(make.with_residual(make.linear(wide, rows, 4 * d, d, x), x));
      if (block == 0) {
        steps.emplace_back([&, a = make.peg(x, y, fused_norm ? nullptr : normed)] { return plugin_.peg(a, stream); });
        done = !fused_norm;
        std::swap(x, y);
      }
    }
    steps.emplace_back([&, a = make.pool(x, pooled)] { return plugin_.pool(a, stream); });
    add_linear(make.linear(pooled, images_, d, kClasses, memory.matrix(images_, kClasses, 1)));

    const double per_block = 2.0 * static_cast<double>(12 * rows * d * d + 2 * rows * batch.most_rows * d);
    const double flops = options_.depth * per_block +
                         2.0 * static_cast<double>(rows * d * kChannels * kPatch * kPatch + images_ * kClasses * d);
    const double weights = 12.0 * options_.depth * static_cast<double>(d * d * element_bytes(memory.dtype()));
    run(
        "forward", flops, weights,
        [&] {
          int error = 0;
          for (size_t i = 0; i < steps.size() && error == 0; ++i) error = steps[i]();
          return error;
        },
        {.note = fmt::format("{} kernels; GB/s is of weights", steps.size())}, 1);
  }

 public:
  bool failed() const { return failed_ || disagreed_; }

 private:
  Options options_;
  const Plugin& plugin_;
  Timer timer_;
  std::unique_ptr<cpvt::bench::CublasLt> cublas_;
  std::unique_ptr<cpvt::bench::Cudnn> cudnn_;
  Clock::time_point start_ = Clock::now();
  const Network* network_ = nullptr;
  std::string dtype_name_;
  int images_ = 0;
  bool failed_ = false, disagreed_ = false;
};

DType dtype_named(const std::string& name) {
  return name == "fp32" ? DType::kF32 : name == "fp16" ? DType::kF16 : DType::kBF16;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  options.plugin =
      std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "lib" / "libcpvt_cuda.so";
  CLI::App app{"Times every CUDA operator beside cuBLASLt and cuDNN"};
  app.add_option("--models", options.models, "Ti, S, B")->delimiter(',')->check(CLI::IsMember({"Ti", "S", "B"}));
  app.add_option("--dtypes", options.dtypes)->delimiter(',')->check(CLI::IsMember({"fp16", "bf16", "fp32"}));
  app.add_option("--batches", options.batches)->delimiter(',')->check(CLI::PositiveNumber);
  app.add_option("--only", options.only, "Kernels by the first word of their name, or 'forward'")->delimiter(',');
  app.add_option("--size", options.size, "Pixels of the square pictures")->check(CLI::Range(16, 4096));
  app.add_option("--depth", options.depth, "Blocks of 'forward'")->check(CLI::PositiveNumber);
  app.add_option("--launches", options.launches, "In a row, of each problem")->capture_default_str();
  app.add_option("--milliseconds", options.milliseconds, "To measure each problem")->capture_default_str();
  app.add_option("--deadline", options.deadline, "Seconds after which no further problem is begun");
  app.add_option("--plugin", options.plugin)->capture_default_str();
  app.add_flag("--json", options.json, "An object per line");
  app.add_flag("--once", options.once, "Launch everything once, untimed: for profilers and for ptxsim");
  app.add_flag("--no-libraries", options.no_vendor, "Ours alone");
  CLI11_PARSE(app, argc, argv);
  try {
    Bench bench(options);
    for (const std::string& dtype : options.dtypes) {
      for (const int batch : options.batches) {
        for (const Network& network : kNetworks) {
          if (std::find(options.models.begin(), options.models.end(), network.name) == options.models.end()) continue;
          if (!bench.problem(network, dtype_named(dtype), dtype, batch)) {
            fmt::print(stderr, "the deadline came before {} {} {} was whole\n", network.name, dtype, batch);
            return bench.failed() ? 1 : 0;
          }
        }
      }
    }
    return bench.failed() ? 1 : 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_gpu_kernels: {}\n", error.what());
    return 2;
  }
}
