#include "tools/bench/vendor_libraries.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>

namespace cpvt::bench {

namespace {

using cuda::DType;

constexpr size_t kWorkspaceBytes = size_t{64} << 20;  // what cuBLAS itself takes on Hopper is 32 MiB
constexpr int kMostAlgorithms = 8;

/// A shared library that stays open. Its functions are called through the types that its header gives them.
class Functions {
 public:
  explicit Functions(const char* file) : library_(dlopen(file, RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) problem_ = dlerror();
  }
  template <class F>
  void find(F*& function, const char* name) {
    function = library_ == nullptr ? nullptr : reinterpret_cast<F*>(dlsym(library_, name));
    if (function == nullptr && problem_.empty()) problem_ = fmt::format("has no {}", name);
  }
  const std::string& problem() const { return problem_; }

 private:
  void* library_;
  std::string problem_;
};

class Workspace {
 public:
  Workspace() {
    if (cudaMalloc(&data_, kWorkspaceBytes) != cudaSuccess) data_ = nullptr;
  }
  ~Workspace() { cudaFree(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return data_ == nullptr ? 0 : kWorkspaceBytes; }

 private:
  void* data_ = nullptr;
};

constexpr float kOne = 1, kZero = 0;

}  // namespace

#define FIND(name) functions.find(name, #name)

struct CublasLt::Library {
  explicit Library(void* s) : stream(static_cast<cudaStream_t>(s)) {
    FIND(cublasLtGetVersion);
    FIND(cublasLtCreate);
    FIND(cublasLtDestroy);
    FIND(cublasLtMatmulDescCreate);
    FIND(cublasLtMatmulDescSetAttribute);
    FIND(cublasLtMatrixLayoutCreate);
    FIND(cublasLtMatmulPreferenceCreate);
    FIND(cublasLtMatmulPreferenceSetAttribute);
    FIND(cublasLtMatmulAlgoGetHeuristic);
    FIND(cublasLtMatmul);
  }

  Functions functions{"libcublasLt.so.13"};
  decltype(::cublasLtGetVersion)* cublasLtGetVersion;
  decltype(::cublasLtCreate)* cublasLtCreate;
  decltype(::cublasLtDestroy)* cublasLtDestroy;
  decltype(::cublasLtMatmulDescCreate)* cublasLtMatmulDescCreate;
  decltype(::cublasLtMatmulDescSetAttribute)* cublasLtMatmulDescSetAttribute;
  decltype(::cublasLtMatrixLayoutCreate)* cublasLtMatrixLayoutCreate;
  decltype(::cublasLtMatmulPreferenceCreate)* cublasLtMatmulPreferenceCreate;
  decltype(::cublasLtMatmulPreferenceSetAttribute)* cublasLtMatmulPreferenceSetAttribute;
  decltype(::cublasLtMatmulAlgoGetHeuristic)* cublasLtMatmulAlgoGetHeuristic;
  decltype(::cublasLtMatmul)* cublasLtMatmul;
  cudaStream_t stream;
  cublasLtHandle_t handle = nullptr;
  Workspace workspace;
};

CublasLt::CublasLt(void* stream) : library_(std::make_unique<Library>(stream)) {
  Library& l = *library_;
  problem_ = l.functions.problem();
  if (!problem_.empty()) return;
  const cublasStatus_t status = l.cublasLtCreate(&l.handle);
  if (status != CUBLAS_STATUS_SUCCESS) problem_ = fmt::format("cublasLtCreate: status {}", static_cast<int>(status));
  const size_t version = l.cublasLtGetVersion();
  name_ = fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

CublasLt::~CublasLt() {
  if (library_->handle != nullptr) library_->cublasLtDestroy(library_->handle);
}

// Its matrices are columns, so y^T = W x^T is asked for: W transposed from its rows, n the first extent.
std::vector<Candidate> CublasLt::candidates(const GemmProblem& p) {
  if (!problem_.empty()) return {};
  Library& l = *library_;
  const cudaDataType_t type = p.dtype == DType::kF32 ? CUDA_R_32F : p.dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t b = nullptr;
  cublasLtMatrixLayout_t c = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  const size_t workspace = l.workspace.bytes();
  const auto extent = [](int64_t v) { return static_cast<uint64_t>(v); };
  const cublasStatus_t made[] = {
      l.cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
      l.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
      l.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
      l.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias),
      l.cublasLtMatrixLayoutCreate(&a, type, extent(p.k), extent(p.n), p.weight_stride),
      l.cublasLtMatrixLayoutCreate(&b, type, extent(p.k), extent(p.rows), p.x_stride),
      l.cublasLtMatrixLayoutCreate(&c, type, extent(p.n), extent(p.rows), p.y_stride),
      l.cublasLtMatmulPreferenceCreate(&preference),
      l.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                             sizeof workspace),
  };
  for (const cublasStatus_t status : made) {
    if (status != CUBLAS_STATUS_SUCCESS) return {};
  }
  cublasLtMatmulHeuristicResult_t found[kMostAlgorithms];
  int count = 0;
  if (l.cublasLtMatmulAlgoGetHeuristic(l.handle, operation, a, b, c, c, preference, kMostAlgorithms, found, &count) !=
      CUBLAS_STATUS_SUCCESS) {
    return {};
  }
  std::vector<Candidate> candidates;
  for (int i = 0; i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
    candidates.push_back({fmt::format("#{}", i), [&l, p, operation, a, b, c, algorithm = found[i].algo] {
                            const void* residual = p.residual == nullptr ? p.y : p.residual;
                            return static_cast<int>(l.cublasLtMatmul(
                                l.handle, operation, &kOne, p.weight, a, p.x, b, p.residual == nullptr ? &kZero : &kOne,
                                residual, c, p.y, c, &algorithm, l.workspace.data(), l.workspace.bytes(), l.stream));
                          }});
  }
  return candidates;
}

struct Cudnn::Library {
  explicit Library(void* s) : stream(static_cast<cudaStream_t>(s)) {
    FIND(cudnnGetVersion);
    FIND(cudnnCreate);
    FIND(cudnnDestroy);
    FIND(cudnnSetStream);
    FIND(cudnnCreateTensorDescriptor);
    FIND(cudnnSetTensor4dDescriptor);
    FIND(cudnnCreateFilterDescriptor);
    FIND(cudnnSetFilter4dDescriptor);
    FIND(cudnnCreateConvolutionDescriptor);
    FIND(cudnnSetConvolution2dDescriptor);
    FIND(cudnnSetConvolutionGroupCount);
    FIND(cudnnSetConvolutionMathType);
    FIND(cudnnFindConvolutionForwardAlgorithmEx);
    FIND(cudnnConvolutionForward);
  }

  Functions functions{"libcudnn.so.9"};
  decltype(::cudnnGetVersion)* cudnnGetVersion;
  decltype(::cudnnCreate)* cudnnCreate;
  decltype(::cudnnDestroy)* cudnnDestroy;
  decltype(::cudnnSetStream)* cudnnSetStream;
  decltype(::cudnnCreateTensorDescriptor)* cudnnCreateTensorDescriptor;
  decltype(::cudnnSetTensor4dDescriptor)* cudnnSetTensor4dDescriptor;
  decltype(::cudnnCreateFilterDescriptor)* cudnnCreateFilterDescriptor;
  decltype(::cudnnSetFilter4dDescriptor)* cudnnSetFilter4dDescriptor;
  decltype(::cudnnCreateConvolutionDescriptor)* cudnnCreateConvolutionDescriptor;
  decltype(::cudnnSetConvolution2dDescriptor)* cudnnSetConvolution2dDescriptor;
  decltype(::cudnnSetConvolutionGroupCount)* cudnnSetConvolutionGroupCount;
  decltype(::cudnnSetConvolutionMathType)* cudnnSetConvolutionMathType;
  decltype(::cudnnFindConvolutionForwardAlgorithmEx)* cudnnFindConvolutionForwardAlgorithmEx;
  decltype(::cudnnConvolutionForward)* cudnnConvolutionForward;
  cudaStream_t stream;
  cudnnHandle_t handle = nullptr;
  Workspace workspace;
};

Cudnn::Cudnn(void* stream) : library_(std::make_unique<Library>(stream)) {
  Library& l = *library_;
  problem_ = l.functions.problem();
  if (!problem_.empty()) return;
  cudnnStatus_t status = l.cudnnCreate(&l.handle);
  if (status == CUDNN_STATUS_SUCCESS) status = l.cudnnSetStream(l.handle, l.stream);
  if (status != CUDNN_STATUS_SUCCESS) problem_ = fmt::format("cudnnCreate: status {}", static_cast<int>(status));
  const size_t version = l.cudnnGetVersion();
  name_ = fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Cudnn::~Cudnn() {
  if (library_->handle != nullptr) library_->cudnnDestroy(library_->handle);
}

std::vector<Candidate> Cudnn::candidates(const DepthwiseProblem& p) {
  if (!problem_.empty()) return {};
  Library& l = *library_;
  const cudnnDataType_t type = p.dtype == DType::kF32   ? CUDNN_DATA_FLOAT
                               : p.dtype == DType::kF16 ? CUDNN_DATA_HALF
                                                        : CUDNN_DATA_BFLOAT16;
  const auto n = static_cast<int>(p.images);
  const auto h = static_cast<int>(p.height);
  const auto w = static_cast<int>(p.width);
  const auto c = static_cast<int>(p.channels);
  const int padding = (p.kernel - 1) / 2;
  std::vector<Candidate> candidates;
  for (const cudnnTensorFormat_t format : {CUDNN_TENSOR_NHWC, CUDNN_TENSOR_NCHW}) {
    cudnnTensorDescriptor_t tensor = nullptr;
    cudnnFilterDescriptor_t filter = nullptr;
    cudnnConvolutionDescriptor_t convolution = nullptr;
    const cudnnStatus_t made[] = {
        l.cudnnCreateTensorDescriptor(&tensor),
        l.cudnnSetTensor4dDescriptor(tensor, format, type, n, c, h, w),
        l.cudnnCreateFilterDescriptor(&filter),
        l.cudnnSetFilter4dDescriptor(filter, type, format, c, 1, p.kernel, p.kernel),
        l.cudnnCreateConvolutionDescriptor(&convolution),
        l.cudnnSetConvolution2dDescriptor(convolution, padding, padding, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION,
                                          CUDNN_DATA_FLOAT),
        l.cudnnSetConvolutionGroupCount(convolution, c),
        l.cudnnSetConvolutionMathType(convolution, p.dtype == DType::kF32 ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH),
    };
    bool usable = true;
    for (const cudnnStatus_t status : made) usable = usable && status == CUDNN_STATUS_SUCCESS;
    cudnnConvolutionFwdAlgoPerf_t found[kMostAlgorithms];
    int count = 0;
    if (!usable || l.cudnnFindConvolutionForwardAlgorithmEx(
                       l.handle, tensor, p.x, filter, p.weight, convolution, tensor, p.y, kMostAlgorithms, &count,
                       found, l.workspace.data(), l.workspace.bytes()) != CUDNN_STATUS_SUCCESS) {
      continue;
    }
    // The second best too: the measurement above was a single one.
    for (int i = 0; i < std::min(count, 2); ++i) {
      if (found[i].status != CUDNN_STATUS_SUCCESS || found[i].memory > l.workspace.bytes()) continue;
      const cudnnConvolutionFwdAlgo_t algorithm = found[i].algo;
      candidates.push_back(
          {fmt::format("{} algorithm {}", format == CUDNN_TENSOR_NHWC ? "NHWC" : "NCHW", static_cast<int>(algorithm)),
           [&l, p, tensor, filter, convolution, algorithm, math = found[i].mathType] {
             // A shared descriptor: of the two algorithms each sets its own kind of arithmetic.
             l.cudnnSetConvolutionMathType(convolution, math);
             return static_cast<int>(l.cudnnConvolutionForward(l.handle, &kOne, tensor, p.x, filter, p.weight,
                                                               convolution, algorithm, l.workspace.data(),
                                                               l.workspace.bytes(), &kZero, tensor, p.y));
           }});
    }
  }
  return candidates;
}

}  // namespace cpvt::bench
