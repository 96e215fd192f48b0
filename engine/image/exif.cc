#include "engine/image/exif.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace cpvt {

namespace {

/// Unsigned numbers at an offset of a TIFF block, in its byte order; 0 beyond its end.
class TiffNumbers {
 public:
  TiffNumbers(std::span<const uint8_t> bytes, bool big_endian) : bytes_(bytes), big_endian_(big_endian) {}

  uint32_t u16(size_t at) const { return number(at, 2); }
  uint32_t u32(size_t at) const { return number(at, 4); }

 private:
  uint32_t number(size_t at, size_t size) const {
    if (at > bytes_.size() || bytes_.size() - at < size) return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8U | bytes_[at + (big_endian_ ? i : size - 1 - i)];
    return value;
  }

  std::span<const uint8_t> bytes_;
  bool big_endian_;
};

bool begins_with(std::span<const uint8_t> bytes, std::initializer_list<uint8_t> prefix) {
  return bytes.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), bytes.begin());
}

}  // namespace

int exif_orientation(std::span<const uint8_t> exif) {
  constexpr uint32_t orientation_tag = 0x0112;
  constexpr uint32_t type_short = 3;
  constexpr uint32_t type_long = 4;
  constexpr size_t entry_bytes = 12;
  if (begins_with(exif, {'E', 'x', 'i', 'f', 0, 0})) exif = exif.subspan(6);
  const bool little = begins_with(exif, {'I', 'I', 42, 0});
  if (!little && !begins_with(exif, {'M', 'M', 0, 42})) return 1;
  const TiffNumbers tiff(exif, !little);
  const size_t directory = tiff.u32(4);
  const size_t entries = tiff.u16(directory);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + i * entry_bytes;
    if (tiff.u16(entry) != orientation_tag) continue;
    const uint32_t type = tiff.u16(entry + 2);
    const uint32_t value = type == type_short ? tiff.u16(entry + 8) : type == type_long ? tiff.u32(entry + 8) : 0;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  // 5…8 swap the axes; and either axis of the stored picture may be read backwards.
  const bool swap = orientation >= 5;
  const bool rows_backwards = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool columns_backwards = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const ImageSize stored = image.size;
  Image out = make_image(swap ? ImageSize{stored.width, stored.height} : stored, image.channels);
  out.warnings = std::move(image.warnings);
  const auto channels = static_cast<ptrdiff_t>(image.channels);
  const auto row = static_cast<ptrdiff_t>(image.row_bytes());
  const ptrdiff_t first =
      (rows_backwards ? (stored.height - 1) * row : 0) + (columns_backwards ? (stored.width - 1) * channels : 0);
  const ptrdiff_t down = rows_backwards ? -row : row;
  const ptrdiff_t right = columns_backwards ? -channels : channels;
  const uint8_t* from_row = image.pixels.data() + first;
  uint8_t* to = out.pixels.data();
  for (int y = 0; y < out.size.height; ++y, from_row += swap ? right : down) {
    const uint8_t* from = from_row;
    for (int x = 0; x < out.size.width; ++x, from += swap ? down : right) to = std::copy_n(from, channels, to);
  }
  return out;
}

}  // namespace cpvt
