#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "engine/image/image.h"

/// Internal to engine/image: what decode.cc and the readers of the single formats say to each other.
namespace cpvt {

/// A picture's bytes, and what is asked of their reader.
struct EncodedImage {
  std::span<const std::byte> bytes;
  std::string_view name;  ///< for messages
  int64_t max_pixels;

  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(bytes.data()); }
};

struct DecodedImage {
  Image image;          ///< RGB, before `orientation` is applied
  int orientation = 1;  ///< EXIF's 1…8; 1 where the file says nothing
};

/// Throws Error when the size has no pixels, more than encoded.max_pixels or an extent over 2^24.
ImageSize checked_size(const EncodedImage& encoded, int64_t height, int64_t width);

/// These may assume that the bytes begin with the format's signature.
DecodedImage read_jpeg(const EncodedImage& encoded);
DecodedImage read_png(const EncodedImage& encoded);
DecodedImage read_webp(const EncodedImage& encoded);

}  // namespace cpvt
