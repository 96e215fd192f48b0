// PNG through libspng.

#include <spng.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "base/error.h"
#include "engine/image/exif.h"
#include "engine/image/formats.h"

namespace cpvt {

namespace {

struct FreeContext {
  void operator()(spng_ctx* context) const { spng_ctx_free(context); }
};

void check(const EncodedImage& encoded, int status) {
  if (status == SPNG_OK) return;
  if (status == SPNG_EMEM) throw std::bad_alloc();
  if (status == SPNG_EOF || status == SPNG_IO_EOF) {
    throw Error("{}: truncated PNG: it ends before the picture is complete", encoded.name);
  }
  throw Error("{}: corrupt PNG: {}", encoded.name, spng_strerror(status));
}

/// 16-bit grey the way Pillow's convert goes (mode "I;16"): not scaled, but clamped.
void decode_grey16(const EncodedImage& encoded, spng_ctx* context, Image& image) {
  std::vector<uint16_t> samples(image.pixels.size() / 3);
  check(encoded, spng_decode_image(context, samples.data(), samples.size() * sizeof(uint16_t), SPNG_FMT_PNG, 0));
  size_t clamped = 0;
  uint8_t* rgb = image.pixels.data();
  for (const uint16_t sample : samples) {
    clamped += sample > 255 ? 1 : 0;
    rgb = std::fill_n(rgb, 3, static_cast<uint8_t>(std::min<uint16_t>(sample, 255)));
  }
  if (clamped > 0) {
    image.warnings.push_back(
        fmt::format("{}: 16-bit grey: {} of {} pixels are above 255 and clamped to it, as Pillow does", encoded.name,
                    clamped, samples.size()));
  }
}

int orientation_of(spng_ctx* context) {
  spng_exif exif{};
  if (spng_get_exif(context, &exif) != SPNG_OK) return 1;
  return exif_orientation({reinterpret_cast<const uint8_t*>(exif.data), exif.length});
}

}  // namespace

DecodedImage read_png(const EncodedImage& encoded) {
  const std::unique_ptr<spng_ctx, FreeContext> context(spng_ctx_new(0));
  if (context == nullptr) throw std::bad_alloc();
  // Profiles and texts are unpacked by libspng, wanted or not: no chunk may blow up beyond any sensible one.
  constexpr size_t chunk_limit = size_t{64} << 20U;
  check(encoded, spng_set_chunk_limits(context.get(), chunk_limit, chunk_limit));
  check(encoded, spng_set_png_buffer(context.get(), encoded.data(), encoded.bytes.size()));
  spng_ihdr header{};
  check(encoded, spng_get_ihdr(context.get(), &header));
  DecodedImage out{make_image(checked_size(encoded, header.height, header.width), 3)};
  Image& image = out.image;
  if (header.color_type == SPNG_COLOR_TYPE_GRAYSCALE && header.bit_depth == 16) {
    decode_grey16(encoded, context.get(), image);
  } else {
    // libspng's conversion is Pillow's: few bits are spread over 0…255, 16 keep the high byte, alpha is dropped.
    check(encoded, spng_decode_image(context.get(), image.pixels.data(), image.pixels.size(), SPNG_FMT_RGB8, 0));
  }
  // EXIF may also stand behind the pixels. What is broken there costs no pixel, so it is no error.
  if (const int status = spng_decode_chunks(context.get()); status != SPNG_OK) {
    image.warnings.push_back(fmt::format("{}: damaged PNG behind its pixels: {}", encoded.name, spng_strerror(status)));
  }
  out.orientation = orientation_of(context.get());
  return out;
}

}  // namespace cpvt
