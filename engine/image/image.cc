#include "engine/image/image.h"

#include <utility>

namespace cpvt {

Image make_image(ImageSize size, int channels) {
  Image image{size, channels, {}, {}};
  image.pixels.resize(static_cast<size_t>(size.height) * image.row_bytes());
  return image;
}

Image to_grey(Image image) {
  if (image.channels == 1) return image;
  Image grey = make_image(image.size, 1);
  grey.warnings = std::move(image.warnings);
  const uint8_t* rgb = image.pixels.data();
  for (uint8_t& y : grey.pixels) {
    // 0.299, 0.587, 0.114 times 2^16, rounded so that they add up to 2^16: grey stays grey.
    y = static_cast<uint8_t>((rgb[0] * 19595U + rgb[1] * 38470U + rgb[2] * 7471U + 0x8000U) >> 16U);
    rgb += 3;
  }
  return grey;
}

}  // namespace cpvt
