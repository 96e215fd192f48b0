#include "engine/image/decode.h"

#include <algorithm>
#include <array>
#include <new>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "engine/image/exif.h"
#include "engine/image/formats.h"

namespace cpvt {

namespace {

using namespace std::string_view_literals;

/// The bytes that a format's files have at an offset from their beginning.
struct Signature {
  size_t offset;
  std::string_view bytes;

  bool matches(std::string_view head) const { return head.size() >= offset && head.substr(offset).starts_with(bytes); }
};

/// For telling people what they gave us instead.
constexpr std::array<std::pair<Signature, std::string_view>, 9> other_formats = {{
    {{0, "GIF8"sv}, "GIF"},
    {{0, "BM"sv}, "BMP"},
    {{0, "II*\0"sv}, "TIFF"},
    {{0, "MM\0*"sv}, "TIFF"},
    {{4, "ftypavif"sv}, "AVIF"},
    {{4, "ftyp"sv}, "HEIF or MP4"},
    {{0, "\0\0\0\x0CjP  "sv}, "JPEG 2000"},
    {{0, "\xFF\x0A"sv}, "JPEG XL"},
    {{0, "%PDF"sv}, "PDF"},
}};

std::string described(std::string_view head) {
  for (const auto& [signature, name] : other_formats) {
    if (signature.matches(head)) return std::string(name);
  }
  std::string bytes = "bytes";
  for (const char c : head.substr(0, 8)) bytes += fmt::format(" {:02x}", static_cast<unsigned char>(c));
  return bytes;
}

DecodedImage read(const EncodedImage& encoded) {
  const std::string_view head(reinterpret_cast<const char*>(encoded.bytes.data()),
                              std::min<size_t>(encoded.bytes.size(), 16));
  if (head.starts_with("\xFF\xD8\xFF"sv)) return read_jpeg(encoded);
  if (head.starts_with("\x89PNG\r\n\x1A\n"sv)) return read_png(encoded);
  if (head.starts_with("RIFF"sv) && Signature{8, "WEBP"sv}.matches(head)) return read_webp(encoded);
  if (head.empty()) throw Error("{}: expected a JPEG, PNG or WebP picture, found no bytes at all", encoded.name);
  throw Error("{}: expected a JPEG, PNG or WebP picture, found {}", encoded.name, described(head));
}

}  // namespace

ImageSize checked_size(const EncodedImage& encoded, int64_t height, int64_t width) {
  constexpr int64_t longest = 1 << 24;  // keeps products of two extents far from overflow
  if (height < 1 || width < 1 || height > longest || width > longest) {
    throw Error("{}: expected a picture between 1x1 and {}x{}, found {}x{}", encoded.name, longest, longest, height,
                width);
  }
  if (height * width > encoded.max_pixels) {
    throw Error("{}: {}x{} is {} pixels, the limit is {}", encoded.name, height, width, height * width,
                encoded.max_pixels);
  }
  return {static_cast<int>(height), static_cast<int>(width)};
}

Image decode(std::span<const std::byte> bytes, const DecodeOptions& options, std::string_view name) {
  try {
    DecodedImage decoded = read({.bytes = bytes, .name = name, .max_pixels = options.max_pixels});
    return upright(std::move(decoded.image), options.exif_orientation ? decoded.orientation : 1);
  } catch (const std::bad_alloc&) {
    throw Error("{}: not enough memory to decode it", name);
  }
}

Image decode_file(const std::filesystem::path& path, const DecodeOptions& options) {
  const MappedFile file(path);
  return decode(file.bytes(), options, path.string());
}

}  // namespace cpvt
