// y = scale * (patches W^T + b), a convolution with kernel = stride = patch, and scale * class_token to the prefix row.
//
// A product [patches, k] x [width, k]^T with k = (channel, y, x), whose left side is never written down: a block of 64
// patches of one image and 32 or 128 columns goes through k by lines (gemm_tile.cuh: 64 numbers of 16 bits, or 32 of
// fp32). The weights' lines come through cp.async, three in flight; the patches' from the image into registers, while
// the product of the line before is under way, and from there, rounded to T, to the other of two places in shared
// memory. One barrier per line.
//
//            tile      threads  shared memory   registers        (sm_90a; no spills, no bank conflicts)
//   16 bits  64 x 128  256      64 KiB          up to 124
//            64 x 32   128      28 KiB          up to 128        where the large one would not fill 132 processors
//   fp32     64 x 64   128      40 KiB          up to 159
//            64 x 32   128      28 KiB          up to 144
//
// Floats are read 16 bytes at a time where the patch is a multiple of 4; bytes of three channels 12 at a time where it
// is a multiple of 8, for all three channels' lines at once; anything else number by number. Every number of y is
// summed over the lines in the same order, whatever the tile, the batch and the patch's neighbours: the same bits.
//
// Traffic: an image's pixels are read once for each tile of columns, the weights once for each 64 patches, nearly all
// of it out of the second-level cache. What ptxsim counts for 224 x 224 pixels, patch 16, 16-bit types, and the least
// possible, which is every pixel, weight and result once; floats / bytes:
//
//                   blocks  pixels, MB  weights, MB  least, MB  sectors/request of all loads
//   Ti, 1 image     24      4.7 / 1.2   1.2          1.0 / 0.5  13.3 / 10.0
//   Ti, 8 images    192     37.7 / 9.4  9.4          5.7 / 2.1  13.3 / 10.0
//   B,  1 image     96      18.9 / 4.7  4.7          2.1 / 1.6  13.3 / 10.0
//   B,  8 images    192     37.7 / 9.4  37.7         8.4 / 4.8  13.4 / 11.5
//
// 16 sectors a request are full 16-byte accesses. The last tile of 196 patches has four and repeats the last one's
// addresses; the three words of a thread's 12 bytes share their sectors, so come twice from the first-level cache.
// Expected limiter: the second-level cache at large batches; for one image the latency of its lines, 12 for patch 16,
// one after the other, which is why its tiles are small. A last tile's rows beyond the image are computed and dropped,
// 23 % at 196 patches.
// Tried: 64 x 64 tiles for all (half as much again from the cache for B, 8 images); every byte by itself (3.7 times the
// pixels' sectors).
#include "kernels/cuda/gemm_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/patch_embed.h"
#include "kernels/cuda/row_norm.cuh"

namespace cpvt::cuda {
namespace {

using gemm::kLine;
using gemm::kLineNumbers;

/// The launcher's arguments, the pixels' normalisation as one multiply-add per channel.
struct Arguments {
  const void* pixels;
  const PatchImage* images;
  const PatchTile* tiles;
  int channels, patch;
  float4 pixel_scale, pixel_shift;
  const void* weight;
  const float* bias;
  const float* class_token;
  float scale;
  void* y;
  int64_t y_stride, width;
};

/// How an image's pixels lie: numbers from one channel, row and column to the next.
struct Steps {
  int channel, row, column;

  __device__ Steps(float, const TokenGrid& grid, const Arguments& args) {
    const int width = static_cast<int>(grid.width) * args.patch;
    channel = static_cast<int>(grid.height) * args.patch * width, row = width, column = 1;
  }
  __device__ Steps(uint8_t, const TokenGrid& grid, const Arguments& args) {
    channel = 1, row = static_cast<int>(grid.width) * args.patch * args.channels, column = args.channels;
  }
};

/// Where number k of a patch is in it.
struct Place {
  int channel, y, x;

  __device__ Place(int k, int patch) : channel(k / patch / patch), y(k / patch % patch), x(k % patch) {}
  __device__ void advance(int patch) {
    if (++x < patch) return;
    x = 0;
    if (++y < patch) return;
    y = 0;
    ++channel;
  }
  __device__ int offset(const Steps& steps) const { return channel * steps.channel + y * steps.row + x * steps.column; }
};

__device__ float of_channel(const float4& v, int channel) {
  return channel == 0 ? v.x : channel == 1 ? v.y : channel == 2 ? v.z : v.w;
}

/// Byte i of v as a float: put behind the exponent of 2^23 and taken off that, which is exact, and cheaper than a
/// conversion.
__device__ float byte_of(uint32_t v, int i) {
  return __uint_as_float(__byte_perm(v, 0x4B000000, 0x7650 + i)) - 8388608.0F;
}

// Readers fetch four neighbours in k, always the same four of every line of k, from one patch after the other. An image
// has less than 2^31 numbers. A step
// of the product takes line(step); only where reads(step) is there something to be read, which then lasts. Where k has
// ended the weights are zeros, and so must the pixels be, for 0 * NaN is none.

/// Floats, 16 bytes at once: the patch is a multiple of 4.
class FloatQuads {
 public:
  using Pixel = float;
  using Raw = float4;

  __device__ static bool reads(int) { return true; }
  __device__ static int line(const Arguments&, int step, int) { return step; }
  __device__ void seek(const Arguments& args, const Steps& steps, int k, int) {
    const Place place(k, args.patch);
    offset_ = place.channel < args.channels ? place.offset(steps) : -1;
  }
  __device__ Raw read(const float* pixels, int corner) const {
    return offset_ < 0 ? Raw{} : *reinterpret_cast<const float4*>(pixels + (corner + offset_));
  }
  __device__ void values(const Raw& raw, float (&v)[4]) const {
    v[0] = raw.x, v[1] = raw.y, v[2] = raw.z, v[3] = raw.w;
  }

 private:
  int offset_;
};

/// Floats or bytes of any patch, one by one.
template <class Pixel_>
class Numbers {
 public:
  using Pixel = Pixel_;
  static constexpr bool kBytes = sizeof(Pixel) == 1;
  using Raw = std::conditional_t<kBytes, uint32_t, float4>;

  __device__ static bool reads(int) { return true; }
  __device__ static int line(const Arguments&, int step, int) { return step; }
  __device__ void seek(const Arguments& args, const Steps& steps, int k, int) {
    Place place(k, args.patch);
#pragma unroll
    for (int e = 0; e < 4; ++e, place.advance(args.patch)) {
      const bool inside = place.channel < args.channels;
      offset_[e] = inside ? place.offset(steps) : -1;
      if constexpr (kBytes) {
        scale_[e] = inside ? of_channel(args.pixel_scale, place.channel) : 0.0F;
        shift_[e] = inside ? of_channel(args.pixel_shift, place.channel) : 0.0F;
      }
    }
  }
  __device__ Raw read(const Pixel* pixels, int corner) const {
    Pixel p[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) p[e] = offset_[e] < 0 ? Pixel{} : pixels[corner + offset_[e]];
    if constexpr (kBytes) {
      return p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24;
    } else {
      return make_float4(p[0], p[1], p[2], p[3]);
    }
  }
  __device__ void values(const Raw& raw, float (&v)[4]) const {
    if constexpr (kBytes) {
#pragma unroll
      for (int e = 0; e < 4; ++e) v[e] = fmaf(byte_of(raw, e), scale_[e], shift_[e]);
    } else {
      v[0] = raw.x, v[1] = raw.y, v[2] = raw.z, v[3] = raw.w;
    }
  }

 private:
  int offset_[4];
  float scale_[kBytes ? 4 : 1], shift_[kBytes ? 4 : 1];
};

/// Bytes of three channels, 12 at once, which are four neighbours in k in each: lines of the three channels take turns.
/// The patch is a multiple of 8, so that a channel's numbers are whole lines.
class RgbQuads {
 public:
  using Pixel = uint8_t;
  struct Raw {
    uint32_t v[3];
  };

  __device__ static bool reads(int step) { return step % 3 == 0; }
  __device__ static int line(const Arguments& args, int step, int line_numbers) {
    return step % 3 * (args.patch * args.patch / line_numbers) + step / 3;
  }
  __device__ void seek(const Arguments& args, const Steps& steps, int k, int step) {
    const int channel = step % 3;
    if (channel == 0) offset_ = Place(k, args.patch).offset(steps);
    scale_ = of_channel(args.pixel_scale, channel);
    shift_ = of_channel(args.pixel_shift, channel);
    // Bytes c, c + 3, c + 6, c + 9 of 12, as far as they are in the first eight; then the rest of them.
    first_ = channel == 0 ? 0x0630 : channel == 1 ? 0x0741 : 0x0052;
    second_ = channel == 0 ? 0x5210 : channel == 1 ? 0x6210 : 0x7410;
  }
  __device__ Raw read(const uint8_t* pixels, int corner) const {
    const auto* words = reinterpret_cast<const uint32_t*>(pixels + (corner + offset_));
    return {{words[0], words[1], words[2]}};
  }
  __device__ void values(const Raw& raw, float (&v)[4]) const {
    const uint32_t four = __byte_perm(__byte_perm(raw.v[0], raw.v[1], first_), raw.v[2], second_);
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = fmaf(byte_of(four, e), scale_, shift_);
  }

 private:
  int offset_;
  float scale_, shift_;
  uint32_t first_, second_;
};

/// Brings the block's patches to shared memory, a line of each in a step: out of the image into registers, and then, as
/// T, to where the product wants it. A thread has the same four numbers of kCount patches. A warp has 16 neighbours in
/// k of eight patches: where patches lie side by side and are 16 wide, 512 bytes of floats on end.
template <class T, class Reader, int kRows, int kThreads>
class Patches {
 public:
  using Pixel = typename Reader::Pixel;

  __device__ Patches(const Arguments& args, const PatchImage& image, int first_patch)
      : args_(args), steps_(Pixel{}, image.grid, args), pixels_(static_cast<const Pixel*>(args.pixels) + image.offset) {
    const int across = static_cast<int>(image.grid.width);
    const int last = static_cast<int>(image.grid.height) * across - 1;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int patch = min(first_patch + row(i), last);  // beyond the last: again, and stored nowhere
      corner_[i] = (patch / across * steps_.row + patch % across * steps_.column) * args.patch;
    }
  }

  __device__ void load(int step) {
    reader_.seek(args_, steps_, Reader::line(args_, step, kLineNumbers<T>) * kLineNumbers<T> + quad() * 4, step);
    if (!Reader::reads(step)) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) raw_[i] = reader_.read(pixels_, corner_[i]);
  }

  /// Of the step that was loaded last.
  __device__ void store(char* lines) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float v[4];
      reader_.values(raw_[i], v);
      char* const line = lines + row(i) * kLine;
      const int key = row(i) % 8;
      if constexpr (sizeof(T) == 2) {
        *reinterpret_cast<uint2*>(line + gemm::chunk_offset(quad() / 2, key) + quad() % 2 * 8) =
            make_uint2(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]));
      } else {
        *reinterpret_cast<float4*>(line + gemm::chunk_offset(quad(), key)) = make_float4(v[0], v[1], v[2], v[3]);
      }
    }
  }

 private:
  static constexpr int kWarpsAcross = kLineNumbers<T> / 16;
  static constexpr int kWarpsDown = kThreads / 32 / kWarpsAcross;
  static constexpr int kCount = kRows / (8 * kWarpsDown);
  static_assert(kThreads % (32 * kWarpsAcross) == 0 && kRows % (8 * kWarpsDown) == 0);

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int quad() { return warp() % kWarpsAcross * 4 + lane() % 4; }
  /// The eight rows of a warp are taken with their number's bits reversed: then those that are stored together have
  /// keys which differ in the high bits, where the chunks of one row do not differ, and there are no bank conflicts.
  __device__ static int row(int i) {
    const int r = lane() / 4;
    return (i * kWarpsDown + warp() / kWarpsAcross) * 8 + (r % 2 * 4 + r / 2 % 2 * 2 + r / 4);
  }

  const Arguments& args_;
  const Steps steps_;
  Reader reader_;
  const Pixel* const pixels_;  // the image's
  int corner_[kCount];         // where the thread's patches begin
  typename Reader::Raw raw_[kCount];
};

constexpr int kWeightStages = 3;

/// Blocks that share a multiprocessor, as far as registers go: said aloud because ptxas otherwise aims higher, and
/// spills.
template <class Product>
constexpr int kBlocksAtOnce = (sizeof(typename Product::T) == 4 ? 384 : 512) / Product::kThreads;

template <class Product>
constexpr int kSharedBytes = (2 * Product::kRows + kWeightStages * Product::kColumns) * kLine;

/// y = scale * (product + b) on one tile, whose first patch is the image's first_patch.
template <class Product>
__device__ void store_tile(const Product& product, const Arguments& args, const PatchImage& image, int first_patch,
                           int first_column) {
  using T = typename Product::T;
  constexpr int kCount = Chunk<T>::kSize;
  const auto width = static_cast<int>(args.width);
  const int64_t patches = image.grid.height * image.grid.width - first_patch;
  T* const y = static_cast<T*>(args.y) + (image.grid.first_row + image.grid.prefix + first_patch) * args.y_stride;
#pragma unroll
  for (int chunk = 0; chunk < Product::kThreadChunks; ++chunk) {
    const int column = first_column + Product::column(chunk);
    float bias[kCount];
#pragma unroll
    for (int e = 0; e < kCount; ++e) bias[e] = column + e < width ? args.bias[column + e] : 0.0F;
#pragma unroll
    for (int i = 0; i < Product::kThreadRows; ++i) {
      const int row = Product::row() + i * Product::kRowStep;
      if (row >= patches) continue;
      Chunk<T> result;
#pragma unroll
      for (int e = 0; e < kCount; ++e) {
        result.at[e] = from_float<T>(args.scale * (product.at(i, chunk, e) + bias[e]));
      }
      store_chunk(result, y + row * args.y_stride, column, width);
    }
  }
}

template <class Product, class Reader>
__global__ void __launch_bounds__(Product::kThreads, kBlocksAtOnce<Product>) embed_patches(Arguments args) {
  ptx::follow_earlier_kernels();
  using T = typename Product::T;
  constexpr int kColumns = Product::kColumns;
  constexpr int kPatchBytes = Product::kRows * kLine;
  constexpr int kWeightBytes = kColumns * kLine;
  static_assert(Product::kRows == kPatchTile);
  extern __shared__ __align__(128) char patch_lines[];
  char* const weight_lines = patch_lines + 2 * kPatchBytes;

  // Blocks of one tile are neighbours, so that all but the first find its pixels in the cache.
  const auto across = static_cast<unsigned>((args.width + kColumns - 1) / kColumns);
  const PatchTile tile = args.tiles[blockIdx.x / across];
  const PatchImage image = args.images[tile.image];
  const int first_column = static_cast<int>(blockIdx.x % across) * kColumns;

  const int k = args.channels * args.patch * args.patch;
  const int steps = (k + kLineNumbers<T> - 1) / kLineNumbers<T>;
  const int64_t weight_stride = (k + Chunk<T>::kSize - 1) / Chunk<T>::kSize * Chunk<T>::kSize;
  const T* const weight = static_cast<const T*>(args.weight) + first_column * weight_stride;
  auto fetch_weight = [&](int step) {
    if (step < steps) {
      gemm::load_lines<kColumns, Product::kThreads>(
          weight_lines + step % kWeightStages * kWeightBytes, kLine, weight, weight_stride, args.width - first_column,
          Reader::line(args, step, kLineNumbers<T>) * kLineNumbers<T>, k, typename Product::WKey());
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int step = 0; step < kWeightStages - 1; ++step) fetch_weight(step);

  Patches<T, Reader, Product::kRows, Product::kThreads> patches(args, image, tile.first_patch);
  patches.load(0);
  Product product;
  product.clear();
  for (int step = 0; step < steps; ++step) {
    char* const lines = patch_lines + step % 2 * kPatchBytes;
    patches.store(lines);
    if (step + 1 < steps) patches.load(step + 1);
    ptx::cp_async_wait<kWeightStages - 2>();
    __syncthreads();  // this step's lines are here, and everybody is done with the last one's, which are filled next
    fetch_weight(step + kWeightStages - 1);
    product.step(lines, kLine, weight_lines + step % kWeightStages * kWeightBytes);
  }
  store_tile(product, args, image, tile.first_patch, first_column);

  if (args.class_token != nullptr && image.grid.prefix > 0 && tile.first_patch == 0) {
    const int column = first_column + static_cast<int>(threadIdx.x);
    if (static_cast<int>(threadIdx.x) < kColumns && column < args.width) {
      static_cast<T*>(args.y)[image.grid.first_row * args.y_stride + column] =
          from_float<T>(args.scale * args.class_token[column]);
    }
  }
}

template <class Large, class Small, class Reader>
int run(const Arguments& args, int64_t tiles, void* stream) {
  static_assert(Large::kThreads >= Large::kColumns && Small::kThreads >= Small::kColumns);
  const int64_t large = tiles * ceil_div(args.width, Large::kColumns);
  if (large >= kProcessors) {
    return launch(embed_patches<Large, Reader>, static_cast<unsigned>(large), Large::kThreads, kSharedBytes<Large>,
                  stream, args);
  }
  return launch(embed_patches<Small, Reader>, static_cast<unsigned>(tiles * ceil_div(args.width, Small::kColumns)),
                Small::kThreads, kSharedBytes<Small>, stream, args);
}

template <class Large, class Small>
int run(const Arguments& args, Pixels type, int64_t tiles, void* stream) {
  if (type == Pixels::kF32Planar) {
    return args.patch % 4 == 0 ? run<Large, Small, FloatQuads>(args, tiles, stream)
                               : run<Large, Small, Numbers<float>>(args, tiles, stream);
  }
  return args.patch % 8 == 0 && args.channels == 3 ? run<Large, Small, RgbQuads>(args, tiles, stream)
                                                   : run<Large, Small, Numbers<uint8_t>>(args, tiles, stream);
}

}  // namespace

int patch_embed(const PatchEmbedArgs& a, void* stream) {
  float scale[4] = {};
  float shift[4] = {};
  if (a.pixels_type == Pixels::kU8Interleaved) {
    if (a.channels > 4) return cudaErrorInvalidValue;
    for (int c = 0; c < a.channels; ++c) {
      scale[c] = static_cast<float>(1 / (255.0 * a.std[c]));
      shift[c] = static_cast<float>(-static_cast<double>(a.mean[c]) / a.std[c]);
    }
  }
  const Arguments args{.pixels = a.pixels,
                       .images = a.images,
                       .tiles = a.tiles,
                       .channels = a.channels,
                       .patch = a.patch,
                       .pixel_scale = make_float4(scale[0], scale[1], scale[2], scale[3]),
                       .pixel_shift = make_float4(shift[0], shift[1], shift[2], shift[3]),
                       .weight = a.weight,
                       .bias = a.bias,
                       .class_token = a.class_token,
                       .scale = a.scale,
                       .y = a.y,
                       .y_stride = a.y_stride,
                       .width = a.width};
  return for_dtype(a.dtype, [&](auto number) -> int {
    using T = decltype(number);
    if constexpr (sizeof(T) == 4) {
      using Large = gemm::FloatProduct<kPatchTile, 64, 8, 4>;
      using Small = gemm::FloatProduct<kPatchTile, 32, 4, 4>;
      return run<Large, Small>(args, a.pixels_type, a.tile_count, stream);
    } else {
      using Large = gemm::TensorProduct<T, kPatchTile, 128, 2, 4>;
      using Small = gemm::TensorProduct<T, kPatchTile, 32, 4, 1>;
      return run<Large, Small>(args, a.pixels_type, a.tile_count, stream);
    }
  });
}

}  // namespace cpvt::cuda
