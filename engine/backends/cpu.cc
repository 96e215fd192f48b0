#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/free_memory.h"
#include "engine/backends/backend.h"
#include "engine/position.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/layernorm.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/patch_embed.h"
#include "kernels/cpu/peg.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/thread_pool.h"

namespace cpvt {

namespace {

int usable_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

class CpuStream final : public Stream {
 public:
  explicit CpuStream(int threads) : team(threads) {}

  std::byte* arena(size_t bytes) override {
    if (bytes <= size_) return arena_.get();
    arena_.reset();  // before the larger one is taken: both together may not fit
    size_ = 0;
    arena_.reset(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    if (!arena_) throw Error("cannot allocate an arena of {} bytes", bytes);
    size_ = bytes;
    return arena_.get();
  }

  cpu::ThreadPool team;

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> arena_;
  size_t size_ = 0;
};

cpu::ThreadPool& team(const Call& call) { return static_cast<CpuStream&>(call.stream).team; }
int threads(const Stream& stream) { return static_cast<const CpuStream&>(stream).team.threads(); }

const float* floats(const std::byte* p) { return reinterpret_cast<const float*>(p); }
float* floats(std::byte* p) { return reinterpret_cast<float*>(p); }

/// What GraphForm's defaults leave out.
template <class Op>
void refuse_forms_not_asked_for(const Op& op) {
  bool plain = true;
  if constexpr (requires { op.scale; }) plain = plain && op.scale == 1;
  if constexpr (requires { op.norm; }) plain = plain && !op.norm;
  if (!plain) throw Error("cpu: expected an operator without scale and LayerNorm of its own, as the cpu asks for none");
}

/// A small weight vector of the kernel's own, so that nothing points into the weights file any more.
std::shared_ptr<const std::vector<float>> own(const Tensor& tensor) {
  return std::make_shared<const std::vector<float>>(tensor.data.get(), tensor.data.get() + tensor.size());
}

size_t bytes_of(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }
size_t bytes(const std::shared_ptr<const std::vector<float>>& weights) { return weights->size() * sizeof(float); }

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) : threads_(threads > 0 ? threads : usable_cores()) {}

  std::string name() const override { return fmt::format("cpu, {} thread{}", threads_, threads_ == 1 ? "" : "s"); }

  size_t free_memory() const override { return cpvt::free_memory(); }

  std::unique_ptr<Stream> make_stream() const override { return std::make_unique<CpuStream>(threads_); }

  Kernel bind(const ops::PatchEmbed& op) const override {
    refuse_forms_not_asked_for(op);
    const auto packed = std::make_shared<const cpu::PackedPatchEmbed>(
        op.weight.data.get(), op.bias.data.get(), op.width(), op.in_chans(), op.patch(), op.mean, op.std);
    const auto class_token = op.class_token ? own(*op.class_token) : nullptr;
    Kernel kernel;
    kernel.run = [packed, class_token, width = op.width()](const Call& call) {
      std::vector<cpu::Image> images;
      for (const ImageView& image : call.images) {
        images.push_back({image.floats, image.size.height, image.size.width, image.bytes});
      }
      packed->run(images, call.layout.images, class_token ? class_token->data() : nullptr, floats(call.output), width,
                  floats(call.workspace), team(call));
    };
    kernel.workspace_bytes = [packed](const TokenLayout& layout, const Stream& stream) {
      int64_t patches = 0;
      for (const TokenGrid& grid : layout.images) patches += grid.patches();
      return bytes_of(packed->workspace_floats(patches, threads(stream)));
    };
    kernel.weight_bytes = packed->bytes() + (class_token ? bytes(class_token) : 0);
    return kernel;
  }

  Kernel bind(const ops::AddPosition& op) const override {
    refuse_forms_not_asked_for(op);
    Kernel kernel;
    kernel.run = [width = op.width](const Call& call) {
      std::vector<const float*> tables;
      for (const int64_t offset : PositionTables::of(call.layout, width).offset) {
        tables.push_back(floats(call.table.data()) + offset);
      }
      cpu::add_position(floats(call.inputs[0]), width, tables, call.layout.images, floats(call.output), width, width,
                        team(call));
    };
    kernel.table = std::make_shared<const GeometryTable>(GeometryTable{
        .bytes = [width = op.width](const TokenLayout& l) { return bytes_of(PositionTables::of(l, width).floats); },
        .fill =
            [op](const TokenLayout& layout, std::span<std::byte> bytes) {
              fill_positions(op, layout, {floats(bytes.data()), bytes.size() / sizeof(float)});
            }});
    return kernel;
  }

  Kernel bind(const ops::Peg& op) const override {
    refuse_forms_not_asked_for(op);
    const auto k = static_cast<int>(op.kernel());
    const auto weight = std::make_shared<std::vector<float>>(static_cast<size_t>(op.weight.size()));
    cpu::repack_peg_weight(op.weight.data.get(), op.width(), k, weight->data());
    const auto bias = own(op.bias);
    Kernel kernel;
    kernel.run = [weight, bias, width = op.width(), k](const Call& call) {
      cpu::peg(floats(call.inputs[0]), width, weight->data(), bias->data(), k, call.layout.images, floats(call.output),
               width, width, team(call));
    };
    kernel.weight_bytes = bytes(weight) + bytes(bias);
    return kernel;
  }

  Kernel bind(const ops::LayerNorm& op) const override {
    const auto gamma = own(op.gamma);
    const auto beta = own(op.beta);
    Kernel kernel;
    kernel.run = [gamma, beta, eps = op.eps, width = op.width()](const Call& call) {
      cpu::layernorm(floats(call.inputs[0]), width, gamma->data(), beta->data(), eps, floats(call.output), width,
                     call.rows, width, team(call));
    };
    kernel.weight_bytes = bytes(gamma) + bytes(beta);
    return kernel;
  }

  Kernel bind(const ops::Linear& op) const override {
    refuse_forms_not_asked_for(op);
    const auto activation = op.activation == ops::Activation::kGelu ? cpu::Activation::gelu_erf : cpu::Activation::none;
    const auto packed = std::make_shared<const cpu::PackedLinear>(op.weight.data.get(), op.bias.data.get(), op.out(),
                                                                  op.in(), activation);
    Kernel kernel;
    kernel.run = [packed, in = op.in(), out = op.out(), residual = op.residual](const Call& call) {
      packed->run(floats(call.inputs[0]), in, residual ? floats(call.inputs[1]) : nullptr, out, floats(call.output),
                  out, call.rows, floats(call.workspace), team(call));
    };
    kernel.workspace_bytes = [packed](const TokenLayout&, const Stream& stream) {
      return bytes_of(packed->workspace_floats(threads(stream)));
    };
    kernel.weight_bytes = packed->bytes();
    return kernel;
  }

  Kernel bind(const ops::Gelu& op) const override {
    Kernel kernel;
    kernel.run = [width = op.width](const Call& call) {
      cpu::gelu_erf(floats(call.inputs[0]), width, floats(call.output), width, call.rows, width, team(call));
    };
    return kernel;
  }

  Kernel bind(const ops::Add& op) const override {
    Kernel kernel;
    kernel.run = [width = op.width](const Call& call) {
      cpu::add(floats(call.inputs[0]), width, floats(call.inputs[1]), width, floats(call.output), width, call.rows,
               width, team(call));
    };
    return kernel;
  }

  Kernel bind(const ops::Attention& op) const override {
    Kernel kernel;
    kernel.run = [op](const Call& call) {
      cpu::attention(floats(call.inputs[0]), 3 * op.width(), static_cast<int>(op.heads), static_cast<int>(op.head_dim),
                     op.scale, call.layout.images, floats(call.output), op.width(), floats(call.workspace), team(call));
    };
    kernel.workspace_bytes = [op](const TokenLayout&, const Stream& stream) {
      return bytes_of(cpu::attention_workspace_floats(static_cast<int>(op.head_dim), threads(stream)));
    };
    return kernel;
  }

  Kernel bind(const ops::Pool& op) const override {
    refuse_forms_not_asked_for(op);
    Kernel kernel;
    kernel.run = [op](const Call& call) {
      if (op.kind == ops::Pool::Kind::kMean) {
        cpu::mean_rows(floats(call.inputs[0]), op.width, call.layout.images, floats(call.output), op.width, op.width,
                       team(call));
      } else {
        cpu::class_rows(floats(call.inputs[0]), op.width, call.layout.images, floats(call.output), op.width, op.width);
      }
    };
    return kernel;
  }

 private:
  int threads_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int threads) { return std::make_unique<CpuBackend>(threads); }

}  // namespace cpvt
