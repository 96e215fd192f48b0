#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "weights/tensor.h"

/// The vocabulary: what a graph can say, one plain struct per operator. T is the number of token rows of a batch
/// (class tokens among them), B its number of images, D a width. Weights keep PyTorch's shapes; a backend packs them.
namespace cpvt::ops {

/// images -> [T, D]: each P×P patch of each [Cin, H, W] image through one matrix (a convolution with kernel = stride =
/// P, flooring), rows row-major over the grid, after the class token's row where there is one. timm: PatchEmbed.
/// Images of 8-bit pixels are normalised on the way: (v / 255 - mean) / std.
struct PatchEmbed {
  Tensor weight;                      // [D, Cin, P, P]
  Tensor bias;                        // [D]
  std::optional<Tensor> class_token;  // [1, 1, D]
  float scale = 1;                    // of all rows, the class token's too; engine/residual_scale.h
  std::vector<float> mean = {};       // [Cin], or empty: floats only
  std::vector<float> std = {};        // the same

  int64_t width() const { return weight.shape[0]; }
  int64_t in_chans() const { return weight.shape[1]; }
  int64_t patch() const { return weight.shape[2]; }
};

/// x [T, D] -> x + positions, made for each image's own grid (engine/position.h).
struct AddPosition {
  /// [1, prefix + h*w, D] of the square training grid, resampled as timm's resample_abs_pos_embed does; or none: sines
  /// and cosines as timm's build_sincos2d_pos_embed, which leave the class token as it is.
  std::optional<Tensor> learned;
  int64_t width;
  float scale = 1;  // of the positions
};

/// x [R, D] -> (x - mean) / sqrt(variance + eps) * gamma + beta over each row, variance without Bessel's correction.
struct LayerNorm {
  Tensor gamma, beta;  // [D]
  float eps;

  int64_t width() const { return gamma.shape[0]; }
};

/// x [T, D] -> x + dwconv_k(x) + scale * bias over each image's grid, zero padding (k-1)/2; class tokens pass by. CPVT,
/// section 3.2. With a norm it makes a second value, norm of the first.
struct Peg {
  Tensor weight;  // [D, 1, k, k]
  Tensor bias;    // [D]
  float scale = 1;
  std::optional<LayerNorm> norm = {};

  int64_t width() const { return weight.shape[0]; }
  int64_t kernel() const { return weight.shape[2]; }
};

enum class Activation { kNone, kGelu };  // kGelu: the exact erf form

/// x [R, K] (, residual [R, N]) -> scale * activation(norm(x) W^T + b) (+ residual).
struct Linear {
  Tensor weight;  // [N, K]
  Tensor bias;    // [N]
  Activation activation = Activation::kNone;
  bool residual = false;
  std::optional<LayerNorm> norm = {};
  float scale = 1;

  int64_t out() const { return weight.shape[0]; }
  int64_t in() const { return weight.shape[1]; }
};

/// x [R, D] -> x/2 (1 + erf(x/sqrt 2)).
struct Gelu {
  int64_t width;
};

/// a [R, D], b [R, D] -> a + b.
struct Add {
  int64_t width;
};

/// qkv [T, 3·heads·head_dim], a row holding q, k, v, each by heads -> softmax(q k^T · scale) v [T, heads·head_dim],
/// every image's tokens among themselves.
struct Attention {
  int64_t heads, head_dim;
  float scale;

  int64_t width() const { return heads * head_dim; }
};

/// x [T, D] -> [B, D]: the class token's row, or the mean over the grid's rows (global average pool; CPVT,
/// section 3.3), of norm(x).
struct Pool {
  enum class Kind { kClassToken, kMean } kind;
  int64_t width;
  std::optional<LayerNorm> norm = {};
};

}  // namespace cpvt::ops

namespace cpvt {

using Op = std::variant<ops::PatchEmbed, ops::AddPosition, ops::Peg, ops::LayerNorm, ops::Linear, ops::Gelu, ops::Add,
                        ops::Attention, ops::Pool>;

/// For `std::visit` with one lambda per operator.
template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;  // clang 14, which clang-tidy is, does not deduce this by itself

}  // namespace cpvt
