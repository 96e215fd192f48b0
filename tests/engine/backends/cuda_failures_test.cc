// What happens when the CUDA runtime refuses: the error says so, nothing is read that has gone, and the next run is as
// right as if nothing had been. The calls below are found before the runtime's, by the plugin too.

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <string_view>

#include "engine/backends/cuda.h"
#include "engine/runner.h"
#include "tests/engine/comparison.h"
#include "tests/engine/error_text.h"
#include "tests/engine/models/golden.h"
#include "tests/engine/random_graph.h"

namespace cpvt {
namespace {

/// The call that fails while this lives, and how often it was asked for.
class Refusal {
 public:
  explicit Refusal(const char* call) {
    asked_ = 0;
    call_ = call;
  }
  ~Refusal() { call_ = nullptr; }
  Refusal(const Refusal&) = delete;
  Refusal& operator=(const Refusal&) = delete;

  static int asked() { return asked_; }
  static bool of(std::string_view call) {
    const char* refused = call_;
    if (refused == nullptr || refused != call) return false;
    ++asked_;
    return true;
  }

 private:
  static inline std::atomic<const char*> call_ = nullptr;
  static inline std::atomic<int> asked_ = 0;
};

/// The runtime's own function of this name, which the plugin has opened, unless it is to be refused.
template <class... Parameters>
cudaError_t call_unless_refused(const char* name, cudaError_t refusal, Parameters... arguments) {
  if (Refusal::of(name)) return refusal;
  static void* const runtime = dlopen("libcudart.so.13", RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<cudaError_t (*)(Parameters...)>(dlsym(runtime, name))(arguments...);
}

}  // namespace
}  // namespace cpvt

using cpvt::call_unless_refused;

// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
extern "C" {
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return call_unless_refused("cudaMalloc", cudaErrorMemoryAllocation, memory, bytes);
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return call_unless_refused("cudaMallocHost", cudaErrorMemoryAllocation, memory, bytes);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call_unless_refused("cudaMemGetInfo", cudaErrorDevicesUnavailable, free, total);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call_unless_refused("cudaStreamBeginCapture", cudaErrorNotSupported, stream, mode);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return call_unless_refused("cudaGraphInstantiate", cudaErrorMemoryAllocation, executable, graph, flags);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void** arguments) {
  return call_unless_refused("cudaLaunchKernelExC", cudaErrorLaunchOutOfResources, config, kernel, arguments);
}
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)

namespace cpvt {
namespace {

const std::vector<std::string> kLogits{"logits"};

std::shared_ptr<const Backend> backend() { return make_cuda_backend(CudaRuntime::kReal, "fp16"); }

/// Pictures of one batch, and the logits of a runner that has seen nothing else.
struct Batch {
  std::vector<Tensor> pixels;
  std::vector<ImageView> views;
  std::vector<float> expected;

  Batch(const std::shared_ptr<const Executable>& executable, int channels, const std::vector<ImageSize>& sizes) {
    Random random(11);
    for (const ImageSize size : sizes) {
      pixels.push_back(random_tensor(random, {channels, size.height, size.width}, 1));
      views.push_back(view(pixels.back()));
    }
    Runner fresh(executable);
    fresh.run(views, kLogits);
    const auto logits = fresh.output("logits");
    expected.assign(logits.begin(), logits.end());
  }
};

/// Two batches of "token", whose class tokens make the arena of many small images larger than that of a large one,
/// whose pixels are more.
class CudaBackendFailures : public testing::Test {
 protected:
  static std::vector<ImageSize> of_patches(int images, int height, int width) {
    const int patch = golden().model()->config().patch_size;
    return std::vector<ImageSize>(static_cast<size_t>(images), ImageSize{height * patch, width * patch});
  }
  static const Golden& golden() {
    static const Golden golden("token");
    return golden;
  }

  void expect_right(Runner& runner, const Batch& batch, const std::string& when) {
    runner.run(batch.views, kLogits);
    EXPECT_TRUE(same_bits(runner.output("logits"), batch.expected)) << when;
  }

  std::shared_ptr<const Executable> executable = std::make_shared<const Executable>(golden().model(), backend());
  Batch small{executable, golden().model()->config().in_chans, of_patches(30, 1, 1)};
  Batch large{executable, golden().model()->config().in_chans, of_patches(1, 5, 7)};
};

// Pixels go to pinned memory; a batch that needs more of it frees what recordings of others pack into.
TEST_F(CudaBackendFailures, PinnedMemory) {
  Runner runner(executable);
  for (int i = 0; i < 3; ++i) expect_right(runner, small, "before");
  {
    const Refusal refusal("cudaMallocHost");
    EXPECT_NE(error_text([&] { runner.run(large.views, kLogits); }).find("bytes of pinned host memory"),
              std::string::npos);
    EXPECT_EQ(Refusal::asked(), 1);
    EXPECT_NE(error_text([&] { runner.run(small.views, kLogits); }).find("bytes of pinned host memory"),
              std::string::npos);
  }
  for (int i = 0; i < 3; ++i) {
    expect_right(runner, small, "after");
    expect_right(runner, large, "after");
  }
}

TEST_F(CudaBackendFailures, Arena) {
  Runner runner(executable);
  for (int i = 0; i < 3; ++i) expect_right(runner, large, "before");
  {
    const Refusal refusal("cudaMalloc");
    EXPECT_NE(error_text([&] { runner.run(small.views, kLogits); }).find("bytes of device memory"), std::string::npos);
    EXPECT_GT(Refusal::asked(), 0);
  }
  for (int i = 0; i < 3; ++i) {
    expect_right(runner, large, "after");
    expect_right(runner, small, "after");
  }
}

// A device that is there and yields no context: `--device auto` must learn it while there still is a choice.
TEST_F(CudaBackendFailures, ContextIsAskedForAtOnce) {
  const Refusal refusal("cudaMemGetInfo");
  EXPECT_NE(error_text([] { backend(); }), "");
}

// Graphs save launches and decide nothing: where they cannot be had, batches run without.
TEST_F(CudaBackendFailures, Graphs) {
  for (const char* call : {"cudaStreamBeginCapture", "cudaGraphInstantiate"}) {
    Runner runner(executable);
    {
      const Refusal refusal(call);
      for (int i = 0; i < 4; ++i) expect_right(runner, small, call);
      EXPECT_EQ(Refusal::asked(), 1) << call << ": asked again and again for a graph that cannot be had";
    }
    for (int i = 0; i < 4; ++i) expect_right(runner, large, call);
  }
}

TEST_F(CudaBackendFailures, Launches) {
  Runner runner(executable);
  for (int i = 0; i < 5; ++i) {  // while it runs by itself, is recorded, is replayed
    {
      const Refusal refusal("cudaLaunchKernelExC");
      const std::string error = error_text([&] { runner.run(small.views, kLogits); });
      EXPECT_EQ(!error.empty(), Refusal::asked() > 0) << i;
    }
    expect_right(runner, small, "after");
  }
}

}  // namespace
}  // namespace cpvt
