#include "kernels/cuda/linear_cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "kernels/cuda/elementwise.h"

// cuBLASLt's matrices are columns. A matrix of rows is the same numbers as its transpose of columns, the stride its
// leading dimension, so y^T = W x^T is asked for: D [n, rows] = alpha * A^T [n, k] * B [k, rows] + beta * C + bias,
// where A [k, n] is W, B x, C the residual, D y; the bias, of D's first extent, is added to each column after alpha.
// One pass over W, x, residual and y is the traffic, GELU's another over y.

namespace cpvt::cuda {

namespace {

/// The library, through the types that its header gives its functions.
class Library {
 public:
  Library() : library_(dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) {
      problem_ = dlerror();
      return;
    }
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(create_operation, "cublasLtMatmulDescCreate");
    find(destroy_operation, "cublasLtMatmulDescDestroy");
    find(set_operation, "cublasLtMatmulDescSetAttribute");
    find(create_layout, "cublasLtMatrixLayoutCreate");
    find(destroy_layout, "cublasLtMatrixLayoutDestroy");
    find(create_preference, "cublasLtMatmulPreferenceCreate");
    find(destroy_preference, "cublasLtMatmulPreferenceDestroy");
    find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
    find(choose, "cublasLtMatmulAlgoGetHeuristic");
    find(multiply, "cublasLtMatmul");
  }

  const std::string& problem() const { return problem_; }

  decltype(::cublasLtCreate)* create = nullptr;
  decltype(::cublasLtDestroy)* destroy = nullptr;
  decltype(::cublasLtMatmulDescCreate)* create_operation = nullptr;
  decltype(::cublasLtMatmulDescDestroy)* destroy_operation = nullptr;
  decltype(::cublasLtMatmulDescSetAttribute)* set_operation = nullptr;
  decltype(::cublasLtMatrixLayoutCreate)* create_layout = nullptr;
  decltype(::cublasLtMatrixLayoutDestroy)* destroy_layout = nullptr;
  decltype(::cublasLtMatmulPreferenceCreate)* create_preference = nullptr;
  decltype(::cublasLtMatmulPreferenceDestroy)* destroy_preference = nullptr;
  decltype(::cublasLtMatmulPreferenceSetAttribute)* set_preference = nullptr;
  decltype(::cublasLtMatmulAlgoGetHeuristic)* choose = nullptr;
  decltype(::cublasLtMatmul)* multiply = nullptr;

 private:
  template <class F>
  void find(F*& function, const char* name) {
    function = reinterpret_cast<F*>(dlsym(library_, name));
    if (function == nullptr && problem_.empty()) problem_ = dlerror();
  }

  void* library_;
  std::string problem_;
};

const Library& library() {
  static const Library opened;
  return opened;
}

/// What the caller tells failures by.
cudaError_t cuda_error(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return cudaErrorInitializationError;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_INVALID_VALUE:
      return cudaErrorInvalidValue;
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return cudaErrorNoKernelImageForDevice;
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return cudaErrorLaunchFailure;
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return cudaErrorNotSupported;
    default:
      return cudaErrorUnknown;
  }
}

/// Keeps the first failure; what comes after it is not tried.
class Steps {
 public:
  template <class F, class... Arguments>
  Steps& then(F* function, Arguments... arguments) {
    if (status_ == CUBLAS_STATUS_SUCCESS) status_ = function(arguments...);
    return *this;
  }
  cublasStatus_t status() const { return status_; }

 private:
  cublasStatus_t status_ = CUBLAS_STATUS_SUCCESS;
};

/// One of the library's descriptors, destroyed at the end.
template <class T>
class Descriptor {
 public:
  explicit Descriptor(cublasStatus_t (*destroy)(T)) : destroy_(destroy) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (descriptor_ != nullptr) destroy_(descriptor_);
  }
  T get() const { return descriptor_; }
  T* to_make() { return &descriptor_; }

 private:
  cublasStatus_t (*destroy_)(T);
  T descriptor_ = nullptr;
};

/// What an algorithm was chosen for: dtype, rows, n, k, the strides of x, C and y, and whether C is D.
using Shape = std::tuple<DType, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool>;

struct CublasLt {
  cublasLtHandle_t handle = nullptr;
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms;
};

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::kF32 ? CUDA_R_32F : dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
}

/// A product as the library takes it, from the arguments.
class Product {
 public:
  explicit Product(const CublasLtLinearArgs& args)
      : args_(args),
        // Without a residual C is not read. In place C and D are one matrix, and must be told as one.
        c_(args.residual != nullptr ? args.residual : args.y),
        c_stride_(c_ == args.y ? args.y_stride : args.residual_stride) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t type = type_of(args.dtype);
    const auto n = static_cast<uint64_t>(args.n);
    const auto k = static_cast<uint64_t>(args.k);
    const auto rows = static_cast<uint64_t>(args.rows);
    made_.then(library().create_operation, operation_.to_make(), CUBLAS_COMPUTE_32F, CUDA_R_32F)
        .then(library().create_layout, a_layout_.to_make(), type, k, n, row_stride(args.k, args.dtype))
        .then(library().create_layout, b_layout_.to_make(), type, k, rows, args.x_stride)
        .then(library().create_layout, c_layout_.to_make(), type, n, rows, c_stride_)
        .then(library().create_layout, d_layout_.to_make(), type, n, rows, args.y_stride);
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
  }

  cublasStatus_t status() const { return made_.status(); }
  Shape shape() const {
    return {args_.dtype, args_.rows, args_.n, args_.k, args_.x_stride, c_stride_, args_.y_stride, c_ == args_.y};
  }

  /// What the library thinks fastest, of the algorithms that keep the sum of a product that they split in fp32 and need
  /// no more alignment than rows have.
  cublasStatus_t choose(cublasLtHandle_t handle, size_t workspace_bytes, cublasLtMatmulAlgo_t& algorithm) const {
    Descriptor<cublasLtMatmulPreference_t> preference(library().destroy_preference);
    Steps steps = made_;
    steps.then(library().create_preference, preference.to_make());
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      steps.then(library().set_preference, preference.get(), attribute, &value, sizeof value);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{workspace_bytes});
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      prefer(attribute, uint32_t{kRowAlignment});
    }
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    steps.then(library().choose, handle, operation_.get(), a_layout_.get(), b_layout_.get(), c_layout(),
               d_layout_.get(), preference.get(), 1, &found, &count);
    if (steps.status() != CUBLAS_STATUS_SUCCESS) return steps.status();
    if (count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    algorithm = found.algo;
    return found.state;
  }

  cublasStatus_t run(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
                     size_t workspace_bytes, void* stream) const {
    const float beta = args_.residual != nullptr ? 1 : 0;
    return library().multiply(handle, operation_.get(), &args_.scale, args_.weight, a_layout_.get(), args_.x,
                              b_layout_.get(), &beta, c_, c_layout(), args_.y, d_layout_.get(), &algorithm, workspace,
                              workspace_bytes, static_cast<cudaStream_t>(stream));
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    made_.then(library().set_operation, operation_.get(), attribute, &value, sizeof value);
  }

  cublasLtMatrixLayout_t c_layout() const { return c_ == args_.y ? d_layout_.get() : c_layout_.get(); }

  const CublasLtLinearArgs& args_;
  const void* c_;
  int64_t c_stride_;
  Descriptor<cublasLtMatmulDesc_t> operation_{library().destroy_operation};
  Descriptor<cublasLtMatrixLayout_t> a_layout_{library().destroy_layout}, b_layout_{library().destroy_layout},
      c_layout_{library().destroy_layout}, d_layout_{library().destroy_layout};
  Steps made_;
};

}  // namespace

const char* open_cublaslt() { return library().problem().empty() ? nullptr : library().problem().c_str(); }

int make_cublaslt(void** cublaslt) {
  auto made = std::make_unique<CublasLt>();
  const cublasStatus_t status = library().create(&made->handle);
  if (status == CUBLAS_STATUS_SUCCESS) *cublaslt = made.release();
  return cuda_error(status);
}

int destroy_cublaslt(void* cublaslt) {
  const std::unique_ptr<CublasLt> owned(static_cast<CublasLt*>(cublaslt));
  return cuda_error(library().destroy(owned->handle));
}

int linear_cublaslt(void* cublaslt, const CublasLtLinearArgs& args, void* stream) {
  if (args.gelu && (args.scale != 1 || args.residual != nullptr)) return cudaErrorNotSupported;
  if (args.rows == 0) return cudaSuccess;
  auto& [handle, algorithms] = *static_cast<CublasLt*>(cublaslt);
  // The library wants it at a multiple of 256 bytes.
  constexpr size_t kBytes = kCublasLtWorkspaceBytes - 256;
  const auto beyond = reinterpret_cast<uintptr_t>(args.workspace) % 256;
  void* workspace = static_cast<std::byte*>(args.workspace) + (256 - beyond) % 256;

  const Product product(args);
  cublasStatus_t status = product.status();
  auto chosen = algorithms.find(product.shape());
  if (status == CUBLAS_STATUS_SUCCESS && chosen == algorithms.end()) {
    cublasLtMatmulAlgo_t algorithm;
    status = product.choose(handle, kBytes, algorithm);
    if (status == CUBLAS_STATUS_SUCCESS) chosen = algorithms.emplace(product.shape(), algorithm).first;
  }
  if (status == CUBLAS_STATUS_SUCCESS) status = product.run(handle, chosen->second, workspace, kBytes, stream);
  if (status != CUBLAS_STATUS_SUCCESS || !args.gelu) return cuda_error(status);
  return gelu({.dtype = args.dtype,
               .x = args.y,
               .x_stride = args.y_stride,
               .y = args.y,
               .y_stride = args.y_stride,
               .rows = args.rows,
               .width = args.n},
              stream);
}

}  // namespace cpvt::cuda
