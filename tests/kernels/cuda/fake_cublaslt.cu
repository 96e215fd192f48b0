// A libcublasLt.so.13 for machines without a GPU: the entry points that kernels/cuda/linear_cublaslt.cc uses, as
// NVIDIA's documentation and header define them. Every argument is checked against what the documentation demands,
// refusals are told on stderr, and the product is a plain kernel, so that a stream may record it and the simulator
// checks its accesses. Where the documentation leaves a choice, the one is made that a caller likes least: the
// workspace is spoiled, C is not read where beta is 0, numbers that do not fit become infinite, and a sum is split in
// two, kept between in the coarsest type that the caller allows.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<int> chosen{0};
std::atomic<int> alive{0};

/// Of what the library has made all must be gone when the program ends.
struct AtTheEnd {
  ~AtTheEnd() {
    if (alive == 0) return;
    std::fprintf(stderr, "fake cuBLASLt: %d things were not destroyed\n", alive.load());
    std::abort();
  }
} at_the_end;

cublasStatus_t refuse(const char* text, ...) {
  std::va_list arguments;
  va_start(arguments, text);
  std::fprintf(stderr, "fake cuBLASLt: ");
  std::vfprintf(stderr, text, arguments);
  std::fprintf(stderr, "\n");
  va_end(arguments);
  return CUBLAS_STATUS_INVALID_VALUE;
}

// Descriptors as they are after their creation; the defaults are the header's. Each begins with its own mark.
struct Operation {
  static constexpr uint64_t kMark = 0x4f50;
  uint64_t mark = kMark;
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int32_t transpose_a = CUBLAS_OP_N;
  int32_t transpose_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;  // of D's type
};

struct Layout {
  static constexpr uint64_t kMark = 0x4c41;
  uint64_t mark = kMark;
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t leading;  // columns lie one after the other

  bool operator==(const Layout& other) const {
    return type == other.type && rows == other.rows && columns == other.columns && leading == other.leading;
  }
};

struct Preference {
  static constexpr uint64_t kMark = 0x5052;
  uint64_t mark = kMark;
  uint64_t workspace_bytes = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
};

struct Handle {
  static constexpr uint64_t kMark = 0x4841;
  uint64_t mark = kMark;
};

/// What cublasLtMatmulAlgo_t holds: what was chosen, and for what, in short.
struct Algorithm {
  static constexpr uint64_t kMark = 0x414c;
  uint64_t mark;
  uint64_t problem;  // a hash
  uint32_t workspace_bytes;
  uint32_t coarse_sum;  // what is kept between has D's type
  uint32_t alignment_a, alignment_b, alignment_c, alignment_d, alignment_bias;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

template <class T, class Descriptor>
const T* known(Descriptor descriptor) {
  const auto* thing = reinterpret_cast<const T*>(descriptor);
  return thing != nullptr && thing->mark == T::kMark ? thing : nullptr;
}

template <class T, class Descriptor>
cublasStatus_t destroy(Descriptor descriptor) {
  auto* thing = reinterpret_cast<T*>(descriptor);
  if (known<T>(descriptor) == nullptr) return refuse("destroying what is no such descriptor");
  thing->mark = 0;
  delete thing;
  --alive;
  return CUBLAS_STATUS_SUCCESS;
}

/// Sets an attribute of the size that the header gives it.
template <class T>
cublasStatus_t set(T& attribute, const void* value, size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return refuse("an attribute of %zu bytes, not %zu", bytes, sizeof(T));
  std::memcpy(&attribute, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

bool supported(cudaDataType_t type) { return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF; }

uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  return address % 256 == 0 ? 256 : static_cast<uint32_t>(address & -address);
}

/// A product's descriptors, checked against one another.
struct Product {
  const Operation* operation;
  const Layout *a, *b, *c, *d;

  cublasStatus_t check() const {
    if (!operation || !a || !b || !c || !d) return refuse("a descriptor is missing, or of another kind");
    if (operation->compute != CUBLAS_COMPUTE_32F || operation->scale != CUDA_R_32F) return refuse("types of computing");
    if (!supported(a->type) || b->type != a->type || c->type != a->type || d->type != a->type) {
      return refuse("types of matrices: %d %d %d %d", a->type, b->type, c->type, d->type);
    }
    for (const int32_t transpose : {operation->transpose_a, operation->transpose_b}) {
      if (transpose != CUBLAS_OP_N && transpose != CUBLAS_OP_T) return refuse("transposition %d", transpose);
    }
    if (operation->epilogue != CUBLASLT_EPILOGUE_DEFAULT && operation->epilogue != CUBLASLT_EPILOGUE_BIAS) {
      return refuse("epilogue %u", operation->epilogue);
    }
    if ((operation->epilogue == CUBLASLT_EPILOGUE_BIAS) != (operation->bias != nullptr)) return refuse("bias");
    const uint64_t a_rows = operation->transpose_a == CUBLAS_OP_T ? a->columns : a->rows;
    const uint64_t b_columns = operation->transpose_b == CUBLAS_OP_T ? b->rows : b->columns;
    const uint64_t b_rows = operation->transpose_b == CUBLAS_OP_T ? b->columns : b->rows;
    if (a_rows != d->rows || b_columns != d->columns || k() != b_rows) {
      return refuse("op(A) is %zu x %zu, op(B) %zu x %zu, D %zu x %zu", a_rows, k(), b_rows, b_columns, d->rows,
                    d->columns);
    }
    if (c->rows != d->rows || c->columns != d->columns) return refuse("C and D differ in extent");
    return CUBLAS_STATUS_SUCCESS;
  }
  uint64_t k() const { return operation->transpose_a == CUBLAS_OP_T ? a->rows : a->columns; }

  /// Of all that an algorithm may depend on.
  uint64_t hash() const {
    uint64_t hash = 1469598103934665603U;
    const auto add = [&](auto value) { hash = (hash ^ static_cast<uint64_t>(value)) * 1099511628211U; };
    for (const Layout* l : {a, b, c, d}) {
      add(l->type), add(l->rows), add(l->columns), add(l->leading);
    }
    add(operation->transpose_a), add(operation->transpose_b), add(operation->epilogue);
    return hash;
  }
};

Product product(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  return {known<Operation>(operation), known<Layout>(a), known<Layout>(b), known<Layout>(c), known<Layout>(d)};
}

__device__ float number(float v) { return v; }
__device__ float number(__half v) { return __half2float(v); }
__device__ float number(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ void store(float& to, float v) { to = v; }
__device__ void store(__half& to, float v) { to = __float2half_rn(v); }
__device__ void store(__nv_bfloat16& to, float v) { to = __float2bfloat16_rn(v); }

struct Numbers {
  const void *a, *b, *c, *bias;
  void* d;
  int64_t a_row, a_column, b_row, b_column;  // from one number to the next, of op(A) and op(B)
  int64_t c_leading, d_leading;
  int64_t rows, columns, k;
  float alpha, beta;
  bool coarse_sum;
};

template <class T>
__global__ void fake_cublaslt_product(Numbers p) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t j = blockIdx.y;
  if (i >= p.rows) return;
  const auto* a = static_cast<const T*>(p.a) + i * p.a_row;
  const auto* b = static_cast<const T*>(p.b) + j * p.b_column;
  float sum = 0;
  for (int64_t k = 0; k < p.k; ++k) {
    if (k == p.k / 2 && p.coarse_sum) {
      T kept;
      store(kept, sum);
      sum = number(kept);
    }
    sum += number(a[k * p.a_column]) * number(b[k * p.b_row]);
  }
  sum *= p.alpha;
  if (p.beta != 0) sum += p.beta * number(static_cast<const T*>(p.c)[i + j * p.c_leading]);
  if (p.bias != nullptr) sum += number(static_cast<const T*>(p.bias)[i]);
  store(static_cast<T*>(p.d)[i + j * p.d_leading], sum);
}

template <class T>
cudaError_t launch(const Numbers& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.rows + 63) / 64), static_cast<unsigned>(p.columns));
  fake_cublaslt_product<T><<<grid, 64, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace

/// How often an algorithm has been chosen, for the tests.
extern "C" int fake_cublaslt_chosen() { return chosen; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  ++alive;
  *handle = reinterpret_cast<cublasLtHandle_t>(new Handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy<Handle>(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t scale) {
  ++alive;
  *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Operation{.compute = compute, .scale = scale});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) { return destroy<Operation>(operation); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t descriptor, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  auto* operation = const_cast<Operation*>(known<Operation>(descriptor));
  if (operation == nullptr) return refuse("no operation");
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(operation->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(operation->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(operation->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(operation->bias, value, bytes);
    default:
      return refuse("operation's attribute %d is not here", attribute);
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  if (rows == 0 || columns == 0 || leading < static_cast<int64_t>(rows)) {
    return refuse("a layout of %zu x %zu, leading dimension %zd", rows, columns, leading);
  }
  ++alive;
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{.type = type, .rows = rows, .columns = columns, .leading = leading});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy<Layout>(layout); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  ++alive;
  *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy<Preference>(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t descriptor,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  auto* preference = const_cast<Preference*>(known<Preference>(descriptor));
  if (preference == nullptr) return refuse("no preference");
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(preference->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(preference->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(preference->alignment_a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(preference->alignment_b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(preference->alignment_c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(preference->alignment_d, value, bytes);
    default:
      return refuse("preference's attribute %d is not here", attribute);
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t descriptor, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  if (known<Handle>(handle) == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  const auto* preference = known<Preference>(descriptor);
  if (preference == nullptr || requested < 1 || results == nullptr || count == nullptr) return refuse("choosing");
  const Product p = product(operation, a, b, c, d);
  const cublasStatus_t status = p.check();
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  constexpr uint32_t kOutputType = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  // The pointers of matrices are not known yet; the bias's is, and of its own alignment.
  const Algorithm algorithm{
      .mark = Algorithm::kMark,
      .problem = p.hash(),
      .workspace_bytes = preference->workspace_bytes < (1 << 20) ? 0 : uint32_t{1} << 20,
      .coarse_sum = preference->reductions & kOutputType,
      .alignment_a = preference->alignment_a,
      .alignment_b = preference->alignment_b,
      .alignment_c = preference->alignment_c,
      .alignment_d = preference->alignment_d,
      .alignment_bias = alignment_of(p.operation->bias) < 16 ? alignment_of(p.operation->bias) : 16};
  ++chosen;
  *count = 1;
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = algorithm.workspace_bytes;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (known<Handle>(handle) == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  const Product p = product(operation, a_layout, b_layout, c_layout, d_layout);
  const cublasStatus_t status = p.check();
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (alpha == nullptr || beta == nullptr || algo == nullptr) return refuse("alpha, beta or the algorithm is missing");
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof algorithm);
  if (algorithm.mark != Algorithm::kMark) return refuse("an algorithm that was not chosen here");
  if (algorithm.problem != p.hash()) return refuse("an algorithm that was chosen for another problem");
  if (alignment_of(a) < algorithm.alignment_a || alignment_of(b) < algorithm.alignment_b ||
      alignment_of(c) < algorithm.alignment_c || alignment_of(d) < algorithm.alignment_d ||
      alignment_of(p.operation->bias) < algorithm.alignment_bias) {
    return refuse("pointers less aligned than the preferences said: %p %p %p %p, bias %p", a, b, c, d,
                  p.operation->bias);
  }
  if (workspace_bytes < algorithm.workspace_bytes || alignment_of(workspace) < 256) {
    return refuse("a workspace of %zu bytes at %p", workspace_bytes, workspace);
  }
  if (c == d && !(*p.c == *p.d)) return refuse("in place, but C and D are laid out differently");
  const bool a_transposed = p.operation->transpose_a == CUBLAS_OP_T;
  const bool b_transposed = p.operation->transpose_b == CUBLAS_OP_T;
  const Numbers numbers{.a = a,
                        .b = b,
                        .c = c,
                        .bias = p.operation->bias,
                        .d = d,
                        .a_row = a_transposed ? p.a->leading : 1,
                        .a_column = a_transposed ? 1 : p.a->leading,
                        .b_row = b_transposed ? p.b->leading : 1,
                        .b_column = b_transposed ? 1 : p.b->leading,
                        .c_leading = p.c->leading,
                        .d_leading = p.d->leading,
                        .rows = static_cast<int64_t>(p.d->rows),
                        .columns = static_cast<int64_t>(p.d->columns),
                        .k = static_cast<int64_t>(p.k()),
                        .alpha = *static_cast<const float*>(alpha),  // host memory: the pointer mode's default
                        .beta = *static_cast<const float*>(beta),
                        .coarse_sum = algorithm.coarse_sum != 0};
  cudaError_t error = cudaMemsetAsync(workspace, 0xFF, algorithm.workspace_bytes, stream);
  if (error == cudaSuccess) {
    error = p.d->type == CUDA_R_32F   ? launch<float>(numbers, stream)
            : p.d->type == CUDA_R_16F ? launch<__half>(numbers, stream)
                                      : launch<__nv_bfloat16>(numbers, stream);
  }
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
