// PNG through libspng.

#include <spng.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
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

/// The last eXIf chunk, whatever it holds: libspng has the first one, and only such as the standard allows.
std::span<const uint8_t> last_exif(std::span<const std::byte> bytes) {
  const std::span<const uint8_t> file(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  constexpr size_t signature = 8;
  constexpr size_t around = 12;  // length, name and checksum
  constexpr std::array<uint8_t, 4> name = {'e', 'X', 'I', 'f'};
  std::span<const uint8_t> exif;
  for (size_t at = signature; file.size() >= around && at <= file.size() - around;) {
    const size_t length =
        size_t{file[at]} << 24U | size_t{file[at + 1]} << 16U | size_t{file[at + 2]} << 8U | file[at + 3];
    if (length > file.size() - around - at) break;
    if (std::equal(name.begin(), name.end(), &file[at + 4])) exif = file.subspan(at + 8, length);
    at += around + length;
  }
  return exif;
}

/// EXIF as ImageMagick writes it into a text: a line break, "exif", the length, then hexadecimal digits.
std::vector<uint8_t> raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  std::string digits;
  std::copy_if(text.begin(), text.end(), std::back_inserter(digits), [](char c) { return c != '\n' && c != ' '; });
  std::vector<uint8_t> bytes(digits.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char* pair = &digits[2 * i];
    if (std::from_chars(pair, pair + 2, bytes[i], 16).ptr != pair + 2) return {};
  }
  return bytes;
}

int orientation_of(const EncodedImage& encoded, spng_ctx* context) {
  std::span<const uint8_t> exif = last_exif(encoded.bytes);
  std::vector<uint8_t> profile;
  std::string_view xmp;
  uint32_t count = 0;
  std::vector<spng_text> texts;
  if (spng_get_text(context, nullptr, &count) == SPNG_OK) texts.resize(count);
  if (!texts.empty() && spng_get_text(context, texts.data(), &count) != SPNG_OK) texts.clear();
  for (const spng_text& text : texts) {
    const std::string_view keyword = text.keyword;
    const std::string_view value(text.text, text.length);
    if (keyword == "XML:com.adobe.xmp") xmp = value;
    if (keyword == "Raw profile type exif") profile = raw_profile(value);
  }
  return told_orientation(exif.empty() ? std::span<const uint8_t>(profile) : exif, xmp);
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
  out.orientation = orientation_of(encoded, context.get());
  return out;
}

}  // namespace cpvt
