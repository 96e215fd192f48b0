#include "kernels/cpu/linear.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpvt::cpu::HWY_NAMESPACE {

/// y = activation(product + bias) + residual on one tile; product is dense [rows, product_stride].
template <bool kGelu, bool kResidual>
void tile_epilogue(const float* product, int64_t product_stride, const float* bias, const float* residual,
                   int64_t residual_stride, float* y, int64_t y_stride, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row) {
    for_each_vector(width, [&](int64_t c, auto access) HWY_ATTR {
      Vec value = hn::Add(access.load(product + row * product_stride + c), access.load(bias + c));
      if constexpr (kGelu) value = gelu(value);
      if constexpr (kResidual) value = hn::Add(value, access.load(residual + row * residual_stride + c));
      access.store(value, y + row * y_stride + c);
    });
  }
}

void epilogue(const float* product, int64_t product_stride, const float* bias, bool gelu, const float* residual,
              int64_t residual_stride, float* y, int64_t y_stride, int64_t rows, int64_t width) {
  const bool add = residual != nullptr;
  const auto form = gelu ? (add ? tile_epilogue<true, true> : tile_epilogue<true, false>)
                         : (add ? tile_epilogue<false, true> : tile_epilogue<false, false>);
  form(product, product_stride, bias, residual, residual_stride, y, y_stride, rows, width);
}

}  // namespace cpvt::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt::cpu {

HWY_EXPORT(epilogue);

PackedLinear::PackedLinear(const float* weight, const float* bias, int64_t n, int64_t k, Activation activation)
    : gemm_(weight, bias, n, k), activation_(activation) {}

int64_t PackedLinear::workspace_floats(int threads) const { return threads * gemm_.tile_floats(); }

size_t PackedLinear::bytes() const { return gemm_.bytes(); }

void PackedLinear::run(const float* x, int64_t x_stride, const float* residual, int64_t residual_stride, float* y,
                       int64_t y_stride, int64_t rows, float* workspace, ThreadPool& pool) const {
  constexpr int64_t kRows = TileGemm::kRows;
  const int64_t k = gemm_.k();
  const int64_t tiles = (rows + kRows - 1) / kRows;
  const TileGemm::Borrowed gemm(gemm_, pool.threads());
  // Chunk by chunk, so that a chunk's weights stay in L2 while the rows pass by.
  pool.run(tiles * gemm_.chunks(), [&](int64_t item, int thread) {
    const int64_t chunk = item / tiles;
    const int64_t row = item % tiles * kRows;
    const int64_t here = std::min(kRows, rows - row);
    float* product = workspace + thread * gemm_.tile_floats();
    const float* x_tile = x + row * x_stride;
    if (here < kRows || x_stride != k) {
      float* copy = product + gemm_.product_floats();
      for (int64_t i = 0; i < here; ++i) std::copy_n(x_tile + i * x_stride, k, copy + i * k);
      std::fill(copy + here * k, copy + kRows * k, 0.0F);
      x_tile = copy;
    }
    gemm.multiply(thread, chunk, x_tile, product);
    const int64_t column = gemm_.chunk_begin(chunk);
    const int64_t width = gemm_.chunk_width(chunk);
    HWY_DYNAMIC_DISPATCH(epilogue)
    (product, width, gemm_.bias() + column, activation_ == Activation::gelu_erf,
     residual == nullptr ? nullptr : residual + row * residual_stride + column, residual_stride,
     y + row * y_stride + column, y_stride, here, width);
  });
}

}  // namespace cpvt::cpu
#endif
