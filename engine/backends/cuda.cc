#include "engine/backends/cuda.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/free_memory.h"
#include "engine/backends/cuda_plugin.h"
#include "engine/backends/cuda_stream.h"
#include "engine/position.h"

namespace cpvt {

namespace {

using cuda::DType;
using cuda::Plugin;

CudaStream& stream(const Call& call) { return static_cast<CudaStream&>(call.stream); }

/// Where, behind a list of `count` that begins a kernel's table, the rest of the table begins: at a cache line.
template <class T>
size_t behind(size_t count) {
  return (count * sizeof(T) + 63) / 64 * 64;
}

template <class T>
void put(const std::vector<T>& list, std::byte* to) {
  std::memcpy(to, list.data(), list.size() * sizeof(T));
}

/// The list that a table is, or ends with.
template <class T>
struct List {
  const T* data;
  int32_t count;

  explicit List(std::span<const std::byte> bytes)
      : data(reinterpret_cast<const T*>(bytes.data())), count(static_cast<int32_t>(bytes.size() / sizeof(T))) {}
};

/// A table that is one list.
template <class T>
std::shared_ptr<const GeometryTable> list_table(std::function<std::vector<T>(const TokenLayout&)> list) {
  return std::make_shared<const GeometryTable>(GeometryTable{
      .bytes = [list](const TokenLayout& layout) { return list(layout).size() * sizeof(T); },
      .fill = [list](const TokenLayout& layout, std::span<std::byte> table) { put(list(layout), table.data()); }});
}

/// A table of two lists: an entry per image, and behind them the tiles.
template <class PerImage, class Tile>
std::shared_ptr<const GeometryTable> image_and_tile_table(
    std::function<std::vector<PerImage>(const TokenLayout&)> images,
    std::vector<Tile> (*tiles)(std::span<const TokenGrid>)) {
  const auto tiles_at = [](const TokenLayout& layout) { return behind<PerImage>(layout.images.size()); };
  return std::make_shared<const GeometryTable>(GeometryTable{
      .bytes = [tiles_at, tiles](
                   const TokenLayout& layout) { return tiles_at(layout) + tiles(layout.images).size() * sizeof(Tile); },
      .fill =
          [tiles_at, images, tiles](const TokenLayout& layout, std::span<std::byte> table) {
            put(images(layout), table.data());
            put(tiles(layout.images), table.data() + tiles_at(layout));
          }});
}

/// The tiles of such a table.
template <class PerImage, class Tile>
List<Tile> tiles_behind_images(const Call& call) {
  return List<Tile>(call.table.subspan(behind<PerImage>(call.layout.images.size())));
}

/// Pixels of a batch as patch_embed takes them, floats or bytes: of each image what whole patches cover.
struct PixelLayout {
  std::vector<cuda::PatchImage> images;
  size_t numbers = 0;

  static PixelLayout of(const TokenLayout& layout, int64_t channels, int64_t patch) {
    constexpr int64_t kStep = 16;  // images begin at multiples of 16 bytes
    // What kernels number images and an image's pixels with.
    constexpr size_t kMostImages = 65535;
    constexpr int64_t kMostNumbers = (int64_t{1} << 31) - 1;
    if (layout.images.size() > kMostImages) {
      throw Error("cuda: a batch of {} images: expected at most {}", layout.images.size(), kMostImages);
    }
    PixelLayout pixels;
    int64_t offset = 0;
    for (const TokenGrid& grid : layout.images) {
      const int64_t numbers = channels * grid.patches() * patch * patch;
      if (numbers > kMostNumbers) {
        throw Error("cuda: an image of {} numbers ({} channels, {}x{} patches of {}x{}): expected less than 2^31",
                    numbers, channels, grid.height, grid.width, patch, patch);
      }
      pixels.images.push_back({grid, offset});
      offset += (numbers + kStep - 1) / kStep * kStep;
    }
    pixels.numbers = static_cast<size_t>(offset);
    return pixels;
  }
};

/// A row of patches of one image is a piece.
PixelPacking pixel_packing(const TokenLayout& layout, int64_t channels, int64_t patch, bool bytes) {
  PixelLayout pixels = PixelLayout::of(layout, channels, patch);
  struct Piece {
    int32_t image, row;
  };
  std::vector<Piece> pieces;
  for (size_t i = 0; i < layout.images.size(); ++i) {
    for (int32_t row = 0; row < layout.images[i].height; ++row) pieces.push_back({static_cast<int32_t>(i), row});
  }
  const size_t size = pixels.numbers * (bytes ? 1 : sizeof(float));
  const auto count = std::ssize(pieces);
  auto put = [places = std::move(pixels.images), pieces = std::move(pieces), channels, patch](
                 int64_t piece, std::span<const ImageView> images, std::byte* to) {
    const Piece at = pieces[static_cast<size_t>(piece)];
    const ImageView& image = images[static_cast<size_t>(at.image)];
    const cuda::PatchImage& place = places[static_cast<size_t>(at.image)];
    // Rows of pixels from each of `planes` planes.
    const auto copy = [&]<class Pixel>(const Pixel* from, int64_t planes, int64_t pixel) {
      const int64_t width = place.grid.width * patch * pixel;
      for (int64_t plane = 0; plane < planes; ++plane) {
        for (int64_t y = at.row * patch; y < (at.row + 1) * patch; ++y) {
          std::copy_n(from + (plane * image.size.height + y) * image.size.width * pixel, width,
                      reinterpret_cast<Pixel*>(to) + place.offset + (plane * place.grid.height * patch + y) * width);
        }
      }
    };
    if (image.bytes != nullptr) {
      copy(image.bytes, 1, channels);
    } else {
      copy(image.floats, channels, 1);
    }
  };
  return {.bytes = size, .pieces = count, .put = std::move(put)};
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(CudaRuntime runtime, DType dtype, Gemm gemm, int threads)
      : runtime_(runtime),
        plugin_(open_cuda_plugin(runtime)),
        dtype_(dtype),
        gemm_(gemm),
        threads_(threads),
        attention_table_(list_table<cuda::AttentionTile>(
            [](const TokenLayout& layout) { return cuda::attention_tiles(layout.images); })) {
    check(plugin_.describe(&info_), "reading the device's properties");
    if (info_.major < 8) {
      throw Error("cuda: {} has compute capability {}.{}, expected 8.0 or more", info_.name, info_.major, info_.minor);
    }
    if (gemm == Gemm::kCublasLt) {
      if (const char* problem = plugin_.open_cublaslt()) throw Error("gemm cublaslt: {}", problem);
    }
    // Makes the device's context, which may fail where the device itself was found: in use by others, say.
    static_cast<void>(CudaBackend::free_memory());
  }

  std::string name() const override { return fmt::format("cuda, {}", info_.name); }

  int runners_in_turn() const override { return 2; }

  size_t free_memory() const override {
    uint64_t bytes = 0;
    check(plugin_.free_memory(&bytes), "reading the free memory");
    constexpr uint64_t kOfCuda = 64 << 20;  // its code, its graphs, and what allocations are rounded up to
    bytes -= std::min(bytes, kOfCuda);
    // The simulated device may have more than the machine that it is simulated on.
    return runtime_ == CudaRuntime::kSimulator ? std::min<size_t>(bytes, cpvt::free_memory()) : bytes;
  }

  std::unique_ptr<Stream> make_stream() const override {
    return std::make_unique<CudaStream>(plugin_, dtype_, gemm_ == Gemm::kCublasLt, threads_);
  }

  GraphForm form() const override {
    // Normalising in the Linear costs every block of columns the statistics of its rows; above 384 columns a LayerNorm
    // of its own, which reads and writes once more, is less. cuBLASLt has none.
    return {.widest_normalised_linear = gemm_ == Gemm::kOwn ? 384 : 0,
            .normalised_pool = true,
            .normalised_peg = true,
            .residual_scale = dtype_ == DType::kF16 ? 0x1p-4F : 1.0F};
  }

  size_t row_bytes(int64_t width) const override {
    return static_cast<size_t>(cuda::row_stride(width, dtype_)) * element_bytes(dtype_);
  }

  Kernel bind(const ops::PatchEmbed& op) const override {
    const int64_t channels = op.in_chans();
    const int64_t patch = op.patch();
    cuda::PatchEmbedArgs args{};
    args.dtype = dtype_;
    args.channels = static_cast<int32_t>(channels);
    args.patch = static_cast<int32_t>(patch);
    args.scale = op.scale;
    args.width = op.width();
    args.y_stride = stride(op.width());
    const bool takes_bytes = !op.mean.empty() && op.mean.size() <= std::size(args.mean);
    if (takes_bytes) {
      std::ranges::copy(op.mean, args.mean);
      std::ranges::copy(op.std, args.std);
    }
    Kernel kernel;
    args.weight = matrix(kernel, op.weight.data.get(), op.width(), channels * patch * patch);
    args.bias = vector(kernel, op.bias);
    args.class_token = op.class_token ? vector(kernel, *op.class_token) : nullptr;

    kernel.table = image_and_tile_table<cuda::PatchImage>(
        [channels, patch](const TokenLayout& layout) { return PixelLayout::of(layout, channels, patch).images; },
        cuda::patch_tiles);
    kernel.workspace_bytes = [channels, patch](const TokenLayout& layout, const Stream&) {
      return PixelLayout::of(layout, channels, patch).numbers * sizeof(float);
    };
    kernel.run = [this, args, takes_bytes, channels, patch](const Call& call) {
      const bool bytes = call.images.front().bytes != nullptr;
      if (bytes && !takes_bytes) {
        throw Error("cuda: bytes of {} channels: expected at most {}, or floats", channels, std::size(args.mean));
      }
      stream(call).upload(call.images, call.workspace, pixel_packing(call.layout, channels, patch, bytes));
      const auto tiles = tiles_behind_images<cuda::PatchImage, cuda::PatchTile>(call);
      cuda::PatchEmbedArgs a = args;
      a.pixels_type = bytes ? cuda::Pixels::kU8Interleaved : cuda::Pixels::kF32Planar;
      a.pixels = call.workspace;
      a.images = reinterpret_cast<const cuda::PatchImage*>(call.table.data());
      a.tiles = tiles.data;
      a.tile_count = tiles.count;
      a.y = call.output;
      check(plugin_.patch_embed(a, stream(call).get()), "patch_embed");
    };
    return kernel;
  }

  Kernel bind(const ops::AddPosition& op) const override {
    const auto floats_of = [width = op.width](const TokenLayout& layout) {
      return static_cast<size_t>(PositionTables::of(layout, width).floats);
    };
    const auto tiles_at = [floats_of](const TokenLayout& layout) { return behind<float>(floats_of(layout)); };
    const auto tiles_of = [width = op.width](const TokenLayout& layout) {
      const PositionTables tables = PositionTables::of(layout, width);
      std::vector<cuda::PositionImage> images;
      for (size_t i = 0; i < layout.images.size(); ++i) images.push_back({layout.images[i], tables.offset[i]});
      return cuda::position_tiles(images, width);
    };
    Kernel kernel;
    kernel.table = std::make_shared<const GeometryTable>(
        GeometryTable{.bytes =
                          [tiles_at, tiles_of](const TokenLayout& layout) {
                            return tiles_at(layout) + tiles_of(layout).size() * sizeof(cuda::PositionTile);
                          },
                      .fill =
                          [floats_of, tiles_at, tiles_of, op](const TokenLayout& layout, std::span<std::byte> table) {
                            fill_positions(op, layout, {reinterpret_cast<float*>(table.data()), floats_of(layout)});
                            put(tiles_of(layout), table.data() + tiles_at(layout));
                          }});
    kernel.run = [this, tiles_at, width = op.width, scale = op.scale](const Call& call) {
      const List<cuda::PositionTile> tiles(call.table.subspan(tiles_at(call.layout)));
      const cuda::AddPositionArgs args{
          .dtype = dtype_,
          .x = call.inputs[0],
          .x_stride = stride(width),
          .tables = reinterpret_cast<const float*>(call.table.data()),
          .tiles = tiles.data,
          .tile_count = tiles.count,
          .scale = scale,
          .y = call.output,
          .y_stride = stride(width),
          .width = width,
      };
      check(plugin_.add_position(args, stream(call).get()), "add_position");
    };
    return kernel;
  }

  Kernel bind(const ops::Peg& op) const override {
    const auto taps = static_cast<size_t>(op.kernel() * op.kernel());
    const auto width = static_cast<size_t>(op.width());
    std::vector<float> channels_last(taps * width);
    for (size_t c = 0; c < width; ++c) {
      for (size_t tap = 0; tap < taps; ++tap) {
        channels_last[tap * width + c] = op.weight.data[static_cast<std::ptrdiff_t>(c * taps + tap)];
      }
    }
    const std::vector<float> bias = scaled(op.bias, op.scale);
    const auto k = static_cast<int>(op.kernel());
    Kernel kernel;
    cuda::PegArgs args{};
    args.dtype = dtype_;
    args.x_stride = args.y_stride = stride(op.width());
    args.weight = matrix(kernel, channels_last.data(), static_cast<int64_t>(taps), op.width());
    args.bias = vector(kernel, bias.data(), bias.size());
    args.kernel = k;
    args.width = op.width();
    if (op.norm) {
      set_norm(kernel, args, *op.norm);
      args.normed_stride = stride(op.width());
    }
    kernel.table =
        list_table<cuda::PegTile>([k](const TokenLayout& layout) { return cuda::peg_tiles(layout.images, k); });
    kernel.run = [this, args](const Call& call) {
      const List<cuda::PegTile> tiles(call.table);
      cuda::PegArgs a = args;
      a.x = call.inputs[0];
      a.tiles = tiles.data;
      a.tile_count = tiles.count;
      a.y = call.output;
      a.normed = call.second_output;
      check(plugin_.peg(a, stream(call).get()), "peg");
    };
    return kernel;
  }

  Kernel bind(const ops::LayerNorm& op) const override {
    if (op.width() > cuda::kWidestLayerNorm) {
      throw Error("cuda: a LayerNorm of {} columns is not supported, expected at most {}", op.width(),
                  cuda::kWidestLayerNorm);
    }
    Kernel kernel;
    cuda::LayerNormArgs args{};
    args.dtype = dtype_;
    args.x_stride = args.y_stride = stride(op.width());
    set_norm(kernel, args, op);
    args.width = op.width();
    kernel.run = [this, args](const Call& call) {
      cuda::LayerNormArgs a = args;
      a.x = call.inputs[0];
      a.y = call.output;
      a.rows = call.rows;
      check(plugin_.layernorm(a, stream(call).get()), "layernorm");
    };
    return kernel;
  }

  Kernel bind(const ops::Linear& op) const override {
    if (gemm_ == Gemm::kCublasLt) return bind_cublaslt(op);
    Kernel kernel;
    cuda::LinearArgs args{};
    args.dtype = dtype_;
    args.x_stride = stride(op.in());
    if (op.norm) set_norm(kernel, args, *op.norm);
    args.weight = matrix(kernel, op.weight.data.get(), op.out(), op.in());
    args.bias = vector(kernel, op.bias);
    args.gelu = op.activation == ops::Activation::kGelu;
    args.scale = op.scale;
    args.residual_stride = args.y_stride = stride(op.out());
    args.n = op.out();
    args.k = op.in();
    kernel.run = [this, args, residual = op.residual](const Call& call) {
      cuda::LinearArgs a = args;
      a.x = call.inputs[0];
      a.residual = residual ? call.inputs[1] : nullptr;
      a.y = call.output;
      a.rows = call.rows;
      check(plugin_.linear(a, stream(call).get()), "linear");
    };
    return kernel;
  }

  Kernel bind(const ops::Gelu& op) const override {
    Kernel kernel;
    kernel.run = [this, width = op.width](const Call& call) {
      const cuda::GeluArgs args{.dtype = dtype_,
                                .x = call.inputs[0],
                                .x_stride = stride(width),
                                .y = call.output,
                                .y_stride = stride(width),
                                .rows = call.rows,
                                .width = width};
      check(plugin_.gelu(args, stream(call).get()), "gelu");
    };
    return kernel;
  }

  Kernel bind(const ops::Add& /*op*/) const override {
    throw Error("cuda: an addition that is no Linear's residual is not supported");
  }

  Kernel bind(const ops::Attention& op) const override {
    if (op.head_dim > cuda::kLargestHeadDim) {
      throw Error("cuda: heads of {} are not supported, expected at most {}", op.head_dim, cuda::kLargestHeadDim);
    }
    const uint64_t shared_bytes = cuda::attention_shared_bytes(dtype_, op.head_dim);
    if (shared_bytes > info_.shared_bytes) {
      throw Error("cuda: heads of {} need {} bytes of shared memory in this dtype, {} has {}", op.head_dim,
                  shared_bytes, info_.name, info_.shared_bytes);
    }
    Kernel kernel;
    kernel.table = attention_table_;
    kernel.run = [this, op](const Call& call) {
      const List<cuda::AttentionTile> tiles(call.table);
      const cuda::AttentionArgs args{
          .dtype = dtype_,
          .qkv = call.inputs[0],
          .stride = stride(3 * op.width()),
          .rows = call.rows,
          .heads = static_cast<int32_t>(op.heads),
          .head_dim = static_cast<int32_t>(op.head_dim),
          .scale = op.scale,
          .tiles = tiles.data,
          .tile_count = tiles.count,
          .y = call.output,
          .y_stride = stride(op.width()),
      };
      check(plugin_.attention(args, stream(call).get()), "attention");
    };
    return kernel;
  }

  Kernel bind(const ops::Pool& op) const override {
    Kernel kernel;
    cuda::PoolArgs args{};
    args.dtype = dtype_;
    args.mean = op.kind == ops::Pool::Kind::kMean;
    args.x_stride = args.y_stride = stride(op.width);
    if (op.norm) set_norm(kernel, args, *op.norm);
    args.width = op.width;
    const auto grids = [](const TokenLayout& layout) { return layout.images; };
    kernel.table = args.mean ? image_and_tile_table<TokenGrid>(grids, cuda::pool_tiles) : list_table<TokenGrid>(grids);
    kernel.workspace_bytes = [width = op.width, mean = args.mean](const TokenLayout& layout, const Stream&) -> size_t {
      if (!mean) return 0;
      return cuda::pool_workspace_bytes(static_cast<int64_t>(layout.images.size()), layout.rows, width);
    };
    kernel.run = [this, args](const Call& call) {
      cuda::PoolArgs a = args;
      a.x = call.inputs[0];
      a.images = reinterpret_cast<const TokenGrid*>(call.table.data());
      a.image_count = static_cast<int32_t>(call.layout.images.size());
      if (args.mean) {
        const auto tiles = tiles_behind_images<TokenGrid, cuda::PoolTile>(call);
        a.tiles = tiles.data;
        a.tile_count = tiles.count;
      }
      a.workspace = reinterpret_cast<float*>(call.workspace);
      a.y = call.output;
      check(plugin_.pool(a, stream(call).get()), "pool");
    };
    return kernel;
  }

 private:
  Kernel bind_cublaslt(const ops::Linear& op) const {
    const bool gelu = op.activation == ops::Activation::kGelu;
    if (gelu && (op.residual || op.scale != 1)) {
      throw Error("cuda: with cuBLASLt a GELU that is scaled or added to is not supported");
    }
    const std::vector<float> bias = scaled(op.bias, op.scale);
    Kernel kernel;
    cuda::CublasLtLinearArgs args{};
    args.dtype = dtype_;
    args.x_stride = stride(op.in());
    args.weight = matrix(kernel, op.weight.data.get(), op.out(), op.in());
    args.bias = matrix(kernel, bias.data(), 1, op.out(), "bias");
    args.gelu = gelu;
    args.scale = op.scale;
    args.residual_stride = args.y_stride = stride(op.out());
    args.n = op.out();
    args.k = op.in();
    kernel.workspace_bytes = [](const auto&, const auto&) { return size_t{cuda::kCublasLtWorkspaceBytes}; };
    kernel.run = [this, args, residual = op.residual](const Call& call) {
      cuda::CublasLtLinearArgs a = args;
      a.x = call.inputs[0];
      a.residual = residual ? call.inputs[1] : nullptr;
      a.y = call.output;
      a.rows = call.rows;
      a.workspace = call.workspace;
      check(plugin_.linear_cublaslt(stream(call).cublaslt(), a, stream(call).get()), "linear by cuBLASLt");
    };
    return kernel;
  }

  int64_t stride(int64_t width) const { return cuda::row_stride(width, dtype_); }

  void check(int error, const char* what) const { check_cuda(plugin_, error, what); }

  /// A copy on the device that lives as long as the kernel, counted as its weights.
  const void* upload(Kernel& kernel, const void* from, size_t bytes) const {
    const auto memory = std::make_shared<CudaMemory>(plugin_, CudaMemory::Kind::kDevice, bytes);
    check(plugin_.copy(memory->data(), from, bytes, nullptr), "copying weights");
    check(plugin_.synchronize(nullptr), "copying weights");
    kernel.weight_bytes += bytes;
    kernel.weights.push_back(memory);
    return memory->data();
  }

  /// Biases, gamma and beta: fp32 in every dtype.
  const float* vector(Kernel& kernel, const float* values, size_t count) const {
    return static_cast<const float*>(upload(kernel, values, count * sizeof(float)));
  }
  const float* vector(Kernel& kernel, const Tensor& tensor) const {
    return vector(kernel, tensor.data.get(), static_cast<size_t>(tensor.size()));
  }

  template <class Args>
  void set_norm(Kernel& kernel, Args& args, const ops::LayerNorm& norm) const {
    args.gamma = vector(kernel, norm.gamma);
    args.beta = vector(kernel, norm.beta);
    args.eps = norm.eps;
  }

  static std::vector<float> scaled(const Tensor& tensor, float scale) {
    std::vector<float> values(tensor.data.get(), tensor.data.get() + tensor.size());
    for (float& v : values) v *= scale;
    return values;
  }

  /// Weights in the storage dtype, rows as kernels want them. Throws Error for what fp16 cannot hold.
  const void* matrix(Kernel& kernel, const float* values, int64_t rows, int64_t columns,
                     const char* what = "weight") const {
    if (dtype_ == DType::kF16) {
      const float* large = std::find_if(values, values + rows * columns, [](float v) { return std::abs(v) >= 65520; });
      if (large != values + rows * columns) {
        throw Error("{} [{}, {}] is {}: fp16 ends at 65504, bf16 would hold it", what, (large - values) / columns,
                    (large - values) % columns, *large);
      }
    }
    const size_t bytes_per_row = row_bytes(columns);
    std::vector<std::byte> packed(static_cast<size_t>(rows) * bytes_per_row);
    for (int64_t r = 0; r < rows; ++r) {
      plugin_.encode(values + r * columns, columns, dtype_, packed.data() + static_cast<size_t>(r) * bytes_per_row);
    }
    return upload(kernel, packed.data(), packed.size());
  }

  CudaRuntime runtime_;
  const Plugin& plugin_;
  DType dtype_;
  Gemm gemm_;
  int threads_;
  cuda::DeviceInfo info_;
  std::shared_ptr<const GeometryTable> attention_table_;
};

DType dtype_named(const std::string& name) {
  if (name == "fp32") return DType::kF32;
  if (name == "fp16") return DType::kF16;
  if (name == "bf16") return DType::kBF16;
  throw Error("dtype {}: devices cuda and sim have fp32, fp16 and bf16", name);
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(CudaRuntime runtime, const std::string& dtype, Gemm gemm, int threads) {
  return std::make_unique<CudaBackend>(runtime, dtype_named(dtype), gemm, threads);
}

}  // namespace cpvt
