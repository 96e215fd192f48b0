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

int as_orientation(uint32_t value) { return value >= 1 && value <= 8 ? static_cast<int>(value) : 1; }

/// The first number of a directory's entry: tag, type, count, and the values or, where they need more than four bytes,
/// where they are.
int tiff_value(const TiffNumbers& tiff, size_t entry) {
  const uint32_t type = tiff.u16(entry + 2);
  const uint32_t count = tiff.u32(entry + 4);
  const bool is_short = type == 3 || type == 8;  // unsigned or signed, which is the same from 1 to 8
  const bool is_long = type == 4 || type == 9;
  if (count == 0 || (!is_short && !is_long)) return 1;
  const bool inside = count <= (is_short ? 2U : 1U);
  const size_t at = inside ? entry + 8 : tiff.u32(entry + 8);
  return as_orientation(is_short ? tiff.u16(at) : tiff.u32(at));
}

bool begins_with(std::span<const uint8_t> bytes, std::initializer_list<uint8_t> prefix) {
  return bytes.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), bytes.begin());
}

}  // namespace

std::optional<int> exif_orientation(std::span<const uint8_t> exif) {
  constexpr uint32_t orientation_tag = 0x0112;
  constexpr size_t entry_bytes = 12;
  for (int i = 0; i < 2 && begins_with(exif, {'E', 'x', 'i', 'f', 0, 0}); ++i) exif = exif.subspan(6);
  // Some writers have the 42 in the other byte order.
  const bool little = begins_with(exif, {'I', 'I', 42, 0}) || begins_with(exif, {'I', 'I', 0, 42});
  if (!little && !begins_with(exif, {'M', 'M', 0, 42}) && !begins_with(exif, {'M', 'M', 42, 0})) return std::nullopt;
  const TiffNumbers tiff(exif, !little);
  const size_t directory = tiff.u32(4);
  const size_t entries = tiff.u16(directory);
  for (size_t entry = directory + 2; entry < directory + 2 + entries * entry_bytes; entry += entry_bytes) {
    if (entry + entry_bytes > exif.size()) return std::nullopt;  // cut off
    if (tiff.u16(entry) == orientation_tag) return tiff_value(tiff, entry);
  }
  return std::nullopt;
}

std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view name = "tiff:Orientation";
  for (size_t at = xmp.find(name); at != std::string_view::npos; at = xmp.find(name, at)) {
    at += name.size();
    std::string_view rest = xmp.substr(at);
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with(">")) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return as_orientation(static_cast<uint32_t>(rest[0] - '0'));
  }
  return std::nullopt;
}

int told_orientation(std::span<const uint8_t> exif, std::string_view xmp) {
  if (const auto orientation = exif_orientation(exif)) return *orientation;
  return xmp_orientation(xmp).value_or(1);
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
