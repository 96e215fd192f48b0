#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/dtype.h"

namespace cpvt::bench {

/// One way of making a problem's result, to be enqueued on a stream again and again. Returns 0, or a status of the
/// library's.
struct Candidate {
  std::string name;
  std::function<int()> enqueue;
};

/// y = x W^T + bias + residual as cuBLASLt takes it. All but bias in device memory of `dtype`; bias too, of n numbers.
struct GemmProblem {
  cuda::DType dtype;
  const void* x;
  int64_t x_stride;
  const void* weight;  // [n, k]
  int64_t weight_stride;
  const void* bias;
  const void* residual;  // or null; of y's stride
  void* y;
  int64_t y_stride;
  int64_t rows, n, k;
};

/// A depthwise convolution of k x k, stride 1, padding (k - 1) / 2, over dense [images, height, width, channels];
/// without bias.
struct DepthwiseProblem {
  cuda::DType dtype;
  const void* x;
  const void* weight;  // [channels, k * k]: any numbers will do
  void* y;
  int64_t images, height, width, channels;
  int kernel;
};

/// NVIDIA's libraries, opened when they are first needed: nothing here is linked against them. Where one cannot be
/// opened or refuses, `problem` says why and there are no candidates.
class CublasLt {
 public:
  explicit CublasLt(void* stream);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  const std::string& name() const { return name_; }
  const std::string& problem() const { return problem_; }
  /// The algorithms that its heuristic likes best, in that order. They live as long as this.
  std::vector<Candidate> candidates(const GemmProblem& problem);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  std::string name_ = "cuBLASLt", problem_;
};

class Cudnn {
 public:
  explicit Cudnn(void* stream);
  ~Cudnn();
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  const std::string& name() const { return name_; }
  const std::string& problem() const { return problem_; }
  /// The fastest algorithms by cuDNN's own measurement, rows of tokens (NHWC) and planes (NCHW).
  std::vector<Candidate> candidates(const DepthwiseProblem& problem);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  std::string name_ = "cuDNN", problem_;
};

}  // namespace cpvt::bench
