#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cpvt {

/// Height and width in pixels; both at least 1 wherever one is taken or returned.
struct ImageSize {
  int height = 0;
  int width = 0;

  bool operator==(const ImageSize&) const = default;
};

/// An 8-bit picture: red, green, blue, or one channel of grey.
struct Image {
  ImageSize size;
  int channels = 3;             ///< 3 or 1
  std::vector<uint8_t> pixels;  ///< [height, width, channels]
  /// What the user should know of how the file was read (16 bit cut to 8, damaged data that was bridged); mostly empty.
  std::vector<std::string> warnings;

  size_t row_bytes() const { return static_cast<size_t>(size.width) * static_cast<size_t>(channels); }
  uint8_t* row(int y) { return pixels.data() + static_cast<size_t>(y) * row_bytes(); }
  const uint8_t* row(int y) const { return pixels.data() + static_cast<size_t>(y) * row_bytes(); }
};

/// Black, of that size.
Image make_image(ImageSize size, int channels);

/// PIL's convert("L"): the ITU-R 601-2 luma of RGB in 16-bit fixed point, rounded. A grey image stays what it is.
Image to_grey(Image image);

}  // namespace cpvt
