// Run under ptxsim with the tests' own libcublasLt.so.13 (fake_cublaslt.cu) in LD_LIBRARY_PATH, this needs no GPU; on a
// machine that has one it takes NVIDIA's.

#include "kernels/cuda/linear_cublaslt.h"

#include <dlfcn.h>

#include <optional>
#include <string>

#include "tests/kernels/cuda/device_matrix.h"

namespace cpvt::cuda::testing {
namespace {

struct Case {
  int64_t rows, n, k;
  bool gelu = false;
  enum class Residual { kNone, kApart, kInPlace } residual = Residual::kNone;
  float scale = 1;
  int64_t slack = 0;  // chunks of 16 bytes
};

std::string text(const Case& c, DType dtype) {
  return std::string(name(dtype)) + " " + std::to_string(c.rows) + " x " + std::to_string(c.n) + " x " +
         std::to_string(c.k) + (c.gelu ? " gelu" : "") +
         (c.residual == Case::Residual::kNone    ? ""
          : c.residual == Case::Residual::kApart ? " residual"
                                                 : " residual in place") +
         " scale " + std::to_string(c.scale) + " slack " + std::to_string(c.slack);
}

/// What a stream has of cuBLASLt's.
class Provider {
 public:
  Provider() {
    EXPECT_CUDA(cudaMalloc(&workspace_, kCublasLtWorkspaceBytes));
    const char* problem = open_cublaslt();
    EXPECT_EQ(problem, nullptr) << problem;
    EXPECT_EQ(problem == nullptr ? make_cublaslt(&cublaslt_) : 0, 0);
  }
  Provider(const Provider&) = delete;
  Provider& operator=(const Provider&) = delete;
  ~Provider() {
    if (cublaslt_ != nullptr) destroy_cublaslt(cublaslt_);
    EXPECT_CUDA(cudaFree(workspace_));
  }
  int run(CublasLtLinearArgs args, cudaStream_t stream = nullptr) {
    args.workspace = workspace_;
    return cublaslt_ == nullptr ? cudaErrorUnknown : linear_cublaslt(cublaslt_, args, stream);
  }

 private:
  void* cublaslt_ = nullptr;
  void* workspace_ = nullptr;
};

/// How often an algorithm was chosen; nothing where the library is NVIDIA's.
std::optional<int> chosen() {
  open_cublaslt();
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
  const auto count = reinterpret_cast<int (*)()>(library == nullptr ? nullptr : dlsym(library, "fake_cublaslt_chosen"));
  return count == nullptr ? std::nullopt : std::optional(count());
}

std::vector<float> times(std::vector<float> values, float factor) {
  for (float& v : values) v *= factor;
  return values;
}

class Layer {
 public:
  Layer(const Case& c, DType dtype)
      : case_(c),
        dtype_(dtype),
        x_(DeviceMatrix::random(dtype, c.rows, c.k, c.slack, 1)),
        weight_(DeviceMatrix::random(dtype, c.n, c.k, 0, 2)),
        bias_(dtype, 1, c.n, 0, times(noise(c.n, 3), c.scale)),
        residual_(DeviceMatrix::random(dtype, c.rows, c.n, 2 * c.slack, 4, 3)),
        // In place y begins as the residual, for which DeviceMatrix has the same numbers wherever they lie.
        y_(c.residual == Case::Residual::kInPlace ? DeviceMatrix::random(dtype, c.rows, c.n, c.slack, 4, 3)
                                                  : DeviceMatrix(dtype, c.rows, c.n, c.slack)) {}

  /// Of the rows from `begin` on.
  CublasLtLinearArgs arguments(int64_t begin = 0) const {
    const auto row = [&](const DeviceMatrix& matrix) {
      return static_cast<std::byte*>(matrix.data()) +
             static_cast<size_t>(begin * matrix.stride()) * element_bytes(dtype_);
    };
    CublasLtLinearArgs args{.dtype = dtype_,
                            .x = row(x_),
                            .x_stride = x_.stride(),
                            .weight = weight_.data(),
                            .bias = bias_.data(),
                            .gelu = case_.gelu,
                            .scale = case_.scale,
                            .residual = nullptr,
                            .residual_stride = 0,
                            .y = row(y_),
                            .y_stride = y_.stride(),
                            .rows = case_.rows - begin,
                            .n = case_.n,
                            .k = case_.k,
                            .workspace = nullptr};
    if (case_.residual != Case::Residual::kNone) {
      const DeviceMatrix& from = case_.residual == Case::Residual::kApart ? residual_ : y_;
      args.residual = row(from);
      args.residual_stride = from.stride();
    }
    return args;
  }

  /// y against a double reference, once it has been computed: the sum in fp32, one rounding to dtype, and with GELU one
  /// more, for y lies in memory before it.
  void expect_right(int64_t begin = 0) {
    y_.download();
    EXPECT_TRUE(y_.guards_intact());
    Comparison comparison;
    for (int64_t r = begin; r < case_.rows; ++r) {
      for (int64_t j = 0; j < case_.n; ++j) {
        double sum = bias_(0, j);
        double size = std::abs(sum);
        for (int64_t c = 0; c < case_.k; ++c) {
          const double term = case_.scale * static_cast<double>(x_(r, c)) * weight_(j, c);
          sum += term;
          size += std::abs(term);
        }
        double bound = (4 + std::sqrt(static_cast<double>(case_.k))) * cpu::testing::kEps * size;
        if (case_.residual != Case::Residual::kNone) sum += residual_(r, j);
        const auto round = [&] {
          bound += (epsilon(dtype_) + cpu::testing::kEps) * (std::abs(sum) + bound) + smallest_step(dtype_);
        };
        round();
        if (case_.gelu) {
          sum = 0.5 * sum * std::erfc(-sum / std::sqrt(2.0));
          bound = 1.13 * bound + 4 * cpu::testing::kEps * std::abs(sum);
          round();
        }
        comparison.add(y_(r, j), sum, bound);
      }
    }
    comparison.expect_within(text(case_, dtype_));
  }
  DeviceMatrix& y() { return y_; }

 private:
  Case case_;
  DType dtype_;
  DeviceMatrix x_, weight_, bias_, residual_, y_;
};

class LinearCublasLt : public ::testing::TestWithParam<DType> {
 protected:
  static void check(const Case& c) {
    SCOPED_TRACE(text(c, GetParam()));
    Provider provider;
    Layer layer(c, GetParam());
    EXPECT_CUDA(provider.run(layer.arguments()));
    EXPECT_CUDA(cudaDeviceSynchronize());
    layer.expect_right();
  }
};

INSTANTIATE_TEST_SUITE_P(DTypes, LinearCublasLt, ::testing::ValuesIn(kDTypes),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST_P(LinearCublasLt, OddExtentsAndStridesOfTheirOwn) {
  int64_t slack = 0;
  for (const int64_t rows : {1, 33}) {
    for (const int64_t n : {1, 31, 40}) {
      for (const int64_t k : {1, 65, 197}) check({.rows = rows, .n = n, .k = k, .slack = slack++ % 3});
    }
  }
}

TEST_P(LinearCublasLt, ScaleAndResidual) {
  using enum Case::Residual;
  check({.rows = 37, .n = 41, .k = 72, .scale = 0.0625F, .slack = 1});
  check({.rows = 37, .n = 41, .k = 72, .residual = kApart, .slack = 1});
  check({.rows = 37, .n = 41, .k = 72, .residual = kApart, .scale = 0.0625F, .slack = 2});
  check({.rows = 37, .n = 41, .k = 72, .residual = kInPlace, .scale = -3, .slack = 1});
}

// The library takes it that pointers are multiples of 256 bytes, unless it is told.
TEST_P(LinearCublasLt, MatricesThatBeginWhereRowsMay) {
  const Case c{.rows = 9, .n = 8, .k = 8, .residual = Case::Residual::kApart};
  Provider provider;
  Layer layer(c, GetParam());
  EXPECT_CUDA(provider.run(layer.arguments(1)));
  EXPECT_CUDA(cudaDeviceSynchronize());
  layer.expect_right(1);
}

TEST_P(LinearCublasLt, ExactGelu) { check({.rows = 37, .n = 41, .k = 72, .gelu = true, .slack = 1}); }

TEST_P(LinearCublasLt, IsRecordedAndReplayed) {
  const Case c{.rows = 19, .n = 24, .k = 40, .gelu = true};
  Provider provider;
  Layer layer(c, GetParam());
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  EXPECT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  EXPECT_CUDA(provider.run(layer.arguments(), stream));
  EXPECT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  EXPECT_CUDA(provider.run(layer.arguments(), stream));
  EXPECT_CUDA(cudaStreamEndCapture(stream, &graph));
  EXPECT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  EXPECT_CUDA(cudaMemsetAsync(layer.y().data(), 0xFF, static_cast<size_t>(c.n) * element_bytes(GetParam()), stream));
  EXPECT_CUDA(cudaGraphLaunch(executable, stream));
  EXPECT_CUDA(cudaStreamSynchronize(stream));
  layer.expect_right();
  EXPECT_CUDA(cudaGraphExecDestroy(executable));
  EXPECT_CUDA(cudaGraphDestroy(graph));
  EXPECT_CUDA(cudaStreamDestroy(stream));
}

TEST(LinearCublasLtChoice, OncePerShape) {
  const std::optional<int> before = chosen();
  if (!before) GTEST_SKIP() << "NVIDIA's library does not say how often it was asked";
  Provider provider;
  for (int i = 0; i < 3; ++i) {
    for (const int64_t rows : {3, 4}) {
      Layer layer({.rows = rows, .n = 8, .k = 8}, DType::kF16);
      EXPECT_CUDA(provider.run(layer.arguments()));
      EXPECT_CUDA(cudaDeviceSynchronize());
      layer.expect_right();
    }
  }
  EXPECT_EQ(*chosen() - *before, 2);
}

TEST(LinearCublasLtArguments, AreChecked) {
  Provider provider;
  Layer layer({.rows = 3, .n = 8, .k = 8, .gelu = true}, DType::kF32);
  CublasLtLinearArgs args = layer.arguments();
  args.scale = 2;
  EXPECT_EQ(provider.run(args), static_cast<int>(cudaErrorNotSupported));
  args.scale = 1;
  args.residual = args.y;
  EXPECT_EQ(provider.run(args), static_cast<int>(cudaErrorNotSupported));
  args.residual = nullptr;
  if (chosen()) {  // the library's own refusal comes through
    args.y_stride = args.n - 1;
    EXPECT_EQ(provider.run(args), static_cast<int>(cudaErrorInvalidValue));
  }
  args.rows = 0;
  EXPECT_CUDA(provider.run(args));
}

}  // namespace
}  // namespace cpvt::cuda::testing
