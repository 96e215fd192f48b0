#include "tests/engine/plain_backend.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <optional>
#include <vector>

#include "engine/position.h"

namespace cpvt {

namespace {

class PlainStream final : public Stream {
 public:
  std::byte* arena(size_t bytes) override {
    if (bytes > lines_.size() * sizeof(Line)) lines_.resize((bytes + sizeof(Line) - 1) / sizeof(Line));
    return reinterpret_cast<std::byte*>(lines_.data());
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines_;
};

const float* floats(const std::byte* p) { return reinterpret_cast<const float*>(p); }

/// `rows` rows of x, normalised where there is a norm.
std::vector<double> normalised(const std::optional<ops::LayerNorm>& norm, const float* x, int64_t rows, int64_t width) {
  std::vector<double> y(x, x + rows * width);
  for (int64_t r = 0; norm && r < rows; ++r) {
    double* row = y.data() + r * width;
    double mean = 0;
    for (int64_t c = 0; c < width; ++c) mean += row[c] / static_cast<double>(width);
    double variance = 0;
    for (int64_t c = 0; c < width; ++c) variance += (row[c] - mean) * (row[c] - mean) / static_cast<double>(width);
    for (int64_t c = 0; c < width; ++c) {
      row[c] = (row[c] - mean) / std::sqrt(variance + norm->eps) * norm->gamma.data[c] + norm->beta.data[c];
    }
  }
  return y;
}

double gelu(double x) { return x / 2 * (1 + std::erf(x / std::numbers::sqrt2)); }

/// A kernel from a function that computes the output, in doubles, before anything of it is stored: it may read its
/// input wherever the plan put the output.
Kernel kernel(int64_t width, std::function<void(const Call&, double*)> compute) {
  Kernel result;
  result.run = [width, compute = std::move(compute)](const Call& call) {
    std::vector<double> output(static_cast<size_t>(call.rows * width), 0);
    compute(call, output.data());
    std::transform(output.begin(), output.end(), reinterpret_cast<float*>(call.output),
                   [](double x) { return static_cast<float>(x); });
  };
  return result;
}

class PlainBackend final : public Backend {
 public:
  std::string name() const override { return "plain"; }
  size_t free_memory() const override { return size_t{1} << 30; }
  std::unique_ptr<Stream> make_stream() const override { return std::make_unique<PlainStream>(); }

  Kernel bind(const ops::PatchEmbed& op) const override {
    return kernel(op.width(), [op](const Call& call, double* y) {
      const int64_t patch = op.patch();
      for (size_t i = 0; i < call.images.size(); ++i) {
        const TokenGrid& grid = call.layout.images[i];
        const ImageView& image = call.images[i];
        for (int64_t c = 0; grid.prefix != 0 && c < op.width(); ++c) {
          y[grid.first_row * op.width() + c] = op.scale * op.class_token->data[c];
        }
        for (int64_t at = 0; at < grid.patches(); ++at) {
          for (int64_t c = 0; c < op.width(); ++c) {
            double sum = op.bias.data[c];
            for (int64_t k = 0; k < op.in_chans() * patch * patch; ++k) {
              const int64_t channel = k / (patch * patch);
              const int64_t row = at / grid.width * patch + k / patch % patch;
              const int64_t column = at % grid.width * patch + k % patch;
              sum += static_cast<double>(op.weight.data[c * op.in_chans() * patch * patch + k]) *
                     image.floats[(channel * image.size.height + row) * image.size.width + column];
            }
            y[(grid.first_patch() + at) * op.width() + c] = op.scale * sum;
          }
        }
      }
    });
  }

  Kernel bind(const ops::AddPosition& op) const override {
    return kernel(op.width, [op](const Call& call, double* y) {
      for (const TokenGrid& grid : call.layout.images) {
        const std::vector<float> positions = position_rows(op, grid);
        for (int64_t j = 0; j < grid.rows() * op.width; ++j) {
          const int64_t at = grid.first_row * op.width + j;
          y[at] = static_cast<double>(floats(call.inputs[0])[at]) + op.scale * positions[static_cast<size_t>(j)];
        }
      }
    });
  }

  Kernel bind(const ops::Peg& op) const override {
    Kernel result = kernel(op.width(), [op](const Call& call, double* y) {
      const int64_t width = op.width();
      const int64_t k = op.kernel();
      const float* x = floats(call.inputs[0]);
      std::copy_n(x, call.rows * width, y);
      for (const TokenGrid& grid : call.layout.images) {
        for (int64_t at = 0; at < grid.patches(); ++at) {
          for (int64_t c = 0; c < width; ++c) {
            double sum = op.scale * op.bias.data[c];
            for (int64_t tap = 0; tap < k * k; ++tap) {
              const int64_t row = at / grid.width + tap / k - k / 2;
              const int64_t column = at % grid.width + tap % k - k / 2;
              if (row < 0 || row >= grid.height || column < 0 || column >= grid.width) continue;
              sum += static_cast<double>(op.weight.data[c * k * k + tap]) *
                     x[(grid.first_patch() + row * grid.width + column) * width + c];
            }
            y[(grid.first_patch() + at) * width + c] += sum;
          }
        }
      }
    });
    if (!op.norm) return result;
    result.run = [op, peg = result.run](const Call& call) {
      peg(call);
      const std::vector<double> rows = normalised(op.norm, floats(call.output), call.rows, op.width());
      std::transform(rows.begin(), rows.end(), reinterpret_cast<float*>(call.second_output),
                     [](double x) { return static_cast<float>(x); });
    };
    return result;
  }

  Kernel bind(const ops::LayerNorm& op) const override {
    return kernel(op.width(), [op](const Call& call, double* y) {
      const std::vector<double> rows = normalised(op, floats(call.inputs[0]), call.rows, op.width());
      std::copy(rows.begin(), rows.end(), y);
    });
  }

  Kernel bind(const ops::Linear& op) const override {
    return kernel(op.out(), [op](const Call& call, double* y) {
      const std::vector<double> x = normalised(op.norm, floats(call.inputs[0]), call.rows, op.in());
      for (int64_t r = 0; r < call.rows; ++r) {
        for (int64_t n = 0; n < op.out(); ++n) {
          double sum = op.bias.data[n];
          for (int64_t k = 0; k < op.in(); ++k) {
            sum += op.weight.data[n * op.in() + k] * x[static_cast<size_t>(r * op.in() + k)];
          }
          if (op.activation == ops::Activation::kGelu) sum = gelu(sum);
          sum *= op.scale;
          if (op.residual) sum += floats(call.inputs[1])[r * op.out() + n];
          y[r * op.out() + n] = sum;
        }
      }
    });
  }

  Kernel bind(const ops::Gelu& op) const override {
    return kernel(op.width, [width = op.width](const Call& call, double* y) {
      for (int64_t i = 0; i < call.rows * width; ++i) y[i] = gelu(floats(call.inputs[0])[i]);
    });
  }

  Kernel bind(const ops::Add& op) const override {
    return kernel(op.width, [width = op.width](const Call& call, double* y) {
      for (int64_t i = 0; i < call.rows * width; ++i)
        y[i] = static_cast<double>(floats(call.inputs[0])[i]) + floats(call.inputs[1])[i];
    });
  }

  Kernel bind(const ops::Attention& op) const override {
    return kernel(op.width(), [op](const Call& call, double* y) {
      const int64_t width = op.width();
      const auto qkv = [&](int64_t row, int64_t which, int64_t c) {
        return static_cast<double>(floats(call.inputs[0])[row * 3 * width + which * width + c]);
      };
      for (const TokenGrid& grid : call.layout.images) {
        std::vector<double> weights(static_cast<size_t>(grid.rows()));
        for (int64_t job = 0; job < op.heads * grid.rows(); ++job) {
          const int64_t first = job % op.heads * op.head_dim;
          const int64_t query = grid.first_row + job / op.heads;
          for (int64_t key = 0; key < grid.rows(); ++key) {
            double score = 0;
            for (int64_t c = first; c < first + op.head_dim; ++c) {
              score += qkv(query, 0, c) * qkv(grid.first_row + key, 1, c);
            }
            weights[static_cast<size_t>(key)] = score * op.scale;
          }
          const double largest = *std::max_element(weights.begin(), weights.end());
          double total = 0;
          for (double& w : weights) total += w = std::exp(w - largest);
          for (int64_t key = 0; key < grid.rows(); ++key) {
            for (int64_t c = first; c < first + op.head_dim; ++c) {
              y[query * width + c] += weights[static_cast<size_t>(key)] / total * qkv(grid.first_row + key, 2, c);
            }
          }
        }
      }
    });
  }

  Kernel bind(const ops::Pool& op) const override {
    return kernel(op.width, [op](const Call& call, double* y) {
      for (const TokenGrid& grid : call.layout.images) {
        const bool mean = op.kind == ops::Pool::Kind::kMean;
        const int64_t first = mean ? grid.first_patch() : grid.first_row;
        const int64_t rows = mean ? grid.patches() : 1;
        const std::vector<double> x = normalised(op.norm, floats(call.inputs[0]) + first * op.width, rows, op.width);
        for (int64_t i = 0; i < rows * op.width; ++i) {
          y[i % op.width] += x[static_cast<size_t>(i)] / static_cast<double>(rows);
        }
        y += op.width;
      }
    });
  }
};

}  // namespace

std::unique_ptr<Backend> make_plain_backend() { return std::make_unique<PlainBackend>(); }

}  // namespace cpvt
