#pragma once

#include "kernels/cuda/dtype.h"

/// The other provider of Linear's products: NVIDIA's cuBLASLt (--gemm cublaslt). It has not run on a GPU yet: what it
/// asks of the library has been checked against a stand-in of the tests' own (tests/kernels/cuda/fake_cublaslt.cu).
namespace cpvt::cuda {

/// y = scale * activation(x W^T + b) + residual, as LinearArgs has it, with these differences: no LayerNorm before;
/// GELU only with scale 1 and no residual, else cudaErrorNotSupported; fp16 that does not fit becomes infinite; and a
/// row of y depends, in its last bits, on how many rows there are. Its products accumulate in fp32, those of fp32
/// without TF32.
struct CublasLtLinearArgs {
  DType dtype;
  const void* x;  // [rows, k]
  int64_t x_stride;
  const void* weight;  // [n, k], stride row_stride(k, dtype)
  const void* bias;    // [n] in dtype, already times scale; at a multiple of kRowAlignment
  bool gelu;           // the exact erf form: a kernel of ours in place, for cuBLASLt's is the tanh form
  float scale;
  const void* residual;  // [rows, n] or null; may be y itself, then of its stride
  int64_t residual_stride;
  void* y;  // [rows, n]
  int64_t y_stride;
  int64_t rows, n, k;
  void* workspace;  // kCublasLtWorkspaceBytes, which nothing else on another stream uses
};

/// What NVIDIA recommends for Hopper (32 MiB; 4 would do elsewhere), and what may be lost in aligning it.
constexpr uint64_t kCublasLtWorkspaceBytes = (uint64_t{32} << 20) + 256;

/// Opens libcublasLt.so.13, which is no dependency of anything before; it stays open. Returns null, or in the loader's
/// words why it cannot be had. To be asked before the rest.
const char* open_cublaslt();

/// A handle, and the algorithms that were chosen with it: one for each stream.
int make_cublaslt(void** cublaslt);
int destroy_cublaslt(void* cublaslt);

/// A shape's first call chooses its algorithm, for which the stream must not be recording; later ones may be recorded.
int linear_cublaslt(void* cublaslt, const CublasLtLinearArgs& args, void* stream);

}  // namespace cpvt::cuda
