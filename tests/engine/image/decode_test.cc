#include "engine/image/decode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "base/error.h"
#include "engine/image/exif.h"
#include "tests/engine/image/goldens.h"

namespace cpvt::testing {
namespace {

std::span<const std::byte> as_span(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string error_of(std::span<const std::byte> bytes, const DecodeOptions& options = {}) {
  try {
    decode(bytes, options, "it");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of(const std::vector<uint8_t>& bytes, const DecodeOptions& options = {}) {
  return error_of(std::as_bytes(std::span(bytes)), options);
}

std::vector<uint8_t> input(const char* file) { return read_bytes(image_room / file); }

/// A PNG header that promises this; a broken checksum comes later than a broken size.
std::vector<uint8_t> png_header(uint32_t height, uint32_t width) {
  std::vector<uint8_t> png = input("plain.png");
  for (uint32_t i = 0; i < 4; ++i) {
    png[16 + i] = static_cast<uint8_t>(width >> (24 - 8 * i));
    png[20 + i] = static_cast<uint8_t>(height >> (24 - 8 * i));
  }
  uint32_t crc = ~0U;
  for (size_t i = 12; i < 29; ++i) {
    crc ^= png[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1U ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  for (uint32_t i = 0; i < 4; ++i) png[29 + i] = static_cast<uint8_t>(~crc >> (24 - 8 * i));
  return png;
}

TEST(Decode, PlainPngHasTheseBytes) {
  const Image image = decode_file(image_room / "plain.png");
  EXPECT_EQ(image.size, (ImageSize{37, 53}));
  EXPECT_EQ(image.pixels, read_bytes(image_room / "plain.rgb"));
}

TEST(Decode, EqualsPillow) {
  int cases = 0;
  for (const auto& golden : image_cases("decode")) {
    const std::string file = golden["file"];
    SCOPED_TRACE(file);
    const Image as_stored = decode_file(image_room / file, {.exif_orientation = false});
    EXPECT_TRUE(same_pixels(as_stored, decode_file(image_room / golden["pixels"])));
    EXPECT_EQ(as_stored.warnings.size(), golden["warns"].get<bool>() ? 1 : 0);
    for (const std::string& warning : as_stored.warnings) EXPECT_NE(warning.find(file), std::string::npos) << warning;
    const std::string upright = golden.value("upright", golden["pixels"].get<std::string>());
    EXPECT_TRUE(same_pixels(decode_file(image_room / file), decode_file(image_room / upright)));
    ++cases;
  }
  EXPECT_GT(cases, 60);
}

TEST(Decode, WarnsOfClampedGrey) {
  const Image image = decode_file(image_room / "grey16.png");
  ASSERT_EQ(image.warnings.size(), 1);
  EXPECT_NE(image.warnings[0].find("16-bit grey"), std::string::npos) << image.warnings[0];
  EXPECT_NE(image.warnings[0].find("of 286 pixels are above 255 and clamped to it"), std::string::npos);
}

TEST(Decode, SaysWhatItWasGivenInstead) {
  constexpr std::string_view expected = "it: expected a JPEG, PNG or WebP picture, found ";
  const auto found = [&](std::string_view text) {
    const std::string error = error_of(as_span(text));
    EXPECT_TRUE(error.starts_with(expected)) << error;
    return error.substr(std::min(error.size(), expected.size()));
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(found(""), "no bytes at all");
  EXPECT_EQ(found("GIF89a and so on"), "GIF");
  EXPECT_EQ(found("BM and so on"), "BMP");
  EXPECT_EQ(found("II*\0 and so on"sv), "TIFF");
  EXPECT_EQ(found("MM\0* and so on"sv), "TIFF");
  EXPECT_EQ(found("\0\0\0\x1c"
                  "ftypavif...."sv),
            "AVIF");
  EXPECT_EQ(found("\0\0\0\x1c"
                  "ftypheic...."sv),
            "HEIF or MP4");
  EXPECT_EQ(found("hello, world"), "bytes 68 65 6c 6c 6f 2c 20 77");
  EXPECT_EQ(found("\xff"), "bytes ff");
  EXPECT_EQ(found("RIFF\1\2\3\4WAVEfmt "), "bytes 52 49 46 46 01 02 03 04");
}

TEST(Decode, NamesTheFile) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "cpvt_not_a_picture.png";
  std::ofstream(path) << "GIF89a";
  try {
    decode_file(path);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), path.string() + ": expected a JPEG, PNG or WebP picture, found GIF");
  }
  std::filesystem::remove(path);
}

TEST(Decode, BytesCountAndNotNames) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "cpvt_png_named.jpg";
  std::filesystem::copy_file(image_room / "plain.png", path, std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(same_pixels(decode_file(path), decode_file(image_room / "plain.png")));
  std::filesystem::remove(path);
}

TEST(Decode, RefusesTruncatedFiles) {
  for (const auto& [file, format] : {std::pair{"420.jpg", "JPEG"},
                                     {"420_progressive.jpg", "JPEG"},
                                     {"cmyk_adobe.jpg", "JPEG"},
                                     {"plain.png", "PNG"},
                                     {"rgba16_interlaced.png", "PNG"},
                                     {"lossy.webp", "WebP"},
                                     {"lossless_alpha.webp", "WebP"},
                                     {"animated.webp", "WebP"}}) {
    std::vector<uint8_t> bytes = input(file);
    for (const size_t size : {size_t{16}, size_t{30}, bytes.size() / 4, bytes.size() / 2, bytes.size() * 3 / 4}) {
      SCOPED_TRACE(fmt::format("{} cut to {} bytes", file, size));
      const std::string error = error_of(std::as_bytes(std::span(bytes).first(size)));
      EXPECT_TRUE(error.starts_with(fmt::format("it: truncated {}: it ends ", format))) << error;
    }
  }
}

// Nothing of the picture is lost, and Pillow reads it too.
TEST(Decode, TakesPngThatEndsBehindItsPixels) {
  std::vector<uint8_t> png = input("plain.png");
  png.resize(png.size() - 12);
  const Image image = decode_bytes(png);
  EXPECT_EQ(image.pixels, read_bytes(image_room / "plain.rgb"));
  ASSERT_EQ(image.warnings.size(), 1);
  EXPECT_TRUE(image.warnings[0].starts_with("image: damaged PNG behind its pixels: ")) << image.warnings[0];
}

TEST(Decode, RefusesDamage) {
  std::vector<uint8_t> png = input("plain.png");
  png[png.size() / 2] ^= 0x10U;
  EXPECT_TRUE(error_of(png).starts_with("it: corrupt PNG: ")) << error_of(png);

  std::vector<uint8_t> jpeg = input("420.jpg");
  constexpr std::array<uint8_t, 2> start_of_frame = {0xFF, 0xC0};
  const auto frame = std::search(jpeg.begin(), jpeg.end(), start_of_frame.begin(), start_of_frame.end());
  ASSERT_NE(frame, jpeg.end());
  auto twelve_bits = jpeg;
  twelve_bits[static_cast<size_t>(frame - jpeg.begin()) + 4] = 12;
  EXPECT_EQ(error_of(twelve_bits), "it: corrupt JPEG: Unsupported JPEG data precision 12");

  std::vector<uint8_t> webp = input("lossless.webp");
  webp[20] ^= 0xFFU;  // the lossless signature
  EXPECT_TRUE(error_of(webp).starts_with("it: corrupt WebP: ")) << error_of(webp);
}

TEST(Decode, RefusesInsaneSizes) {
  EXPECT_EQ(error_of(input("plain.png"), {.max_pixels = 1960}), "it: 37x53 is 1961 pixels, the limit is 1960");
  EXPECT_EQ(error_of(input("420.jpg"), {.max_pixels = 100}), "it: 37x53 is 1961 pixels, the limit is 100");
  EXPECT_EQ(error_of(input("lossy.webp"), {.max_pixels = 100}), "it: 37x53 is 1961 pixels, the limit is 100");
  EXPECT_NO_THROW(decode_bytes(input("plain.png"), {.max_pixels = 1961}));
  EXPECT_EQ(error_of(png_header(20000, 30000)), "it: 20000x30000 is 600000000 pixels, the limit is 178956970");
  EXPECT_EQ(error_of(png_header(1, 0x2000000)),
            "it: expected a picture between 1x1 and 16777216x16777216, found 1x33554432");
  EXPECT_EQ(error_of(png_header(0, 5)), "it: corrupt PNG: invalid image height");
}

TEST(Exif, MalformedBlocksAreUpright) {
  const std::vector<uint8_t> good = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0};
  EXPECT_EQ(exif_orientation(good), 6);
  for (size_t size = 0; size < 20; ++size)
    EXPECT_EQ(exif_orientation(std::span(good).first(size)).value_or(1), 1) << size;
  for (const auto& [at, value] : {std::pair{0, 'X'}, {3, 43}, {4, 0xFF}, {7, 200}, {11, 0x13}, {13, 2}, {19, 9}}) {
    auto bad = good;
    bad[static_cast<size_t>(at)] = static_cast<uint8_t>(value);
    EXPECT_EQ(exif_orientation(bad).value_or(1), 1) << at;
  }
}

// Every input cut off and with single bits turned over: an Error or a picture, and under the sanitizers nothing else.
TEST(DecodeFuzz, DamageIsAnErrorOrAPicture) {
  int errors = 0;
  int pictures = 0;
  const auto attempt = [&](std::span<const uint8_t> bytes) {
    try {
      const Image image = decode_bytes(bytes, {.max_pixels = 1 << 20});
      EXPECT_GE(image.size.height, 1);
      EXPECT_GE(image.size.width, 1);
      EXPECT_EQ(image.pixels.size(),
                static_cast<size_t>(image.size.height) * static_cast<size_t>(image.size.width) * 3);
      ++pictures;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("image: ")) << error.what();
      ++errors;
    }
  };
  uint32_t state = 1;
  const auto random_below = [&state](size_t n) {
    state = state * 1664525U + 1013904223U;
    return static_cast<size_t>(state >> 8U) % n;
  };
  for (const auto& golden : image_cases("decode")) {
    const std::vector<uint8_t> whole = read_bytes(image_room / golden["file"]);
    for (int i = 0; i < 12; ++i) attempt(std::span(whole).first(random_below(whole.size())));
    for (int i = 0; i < 40; ++i) {
      std::vector<uint8_t> damaged = whole;
      // Half of the hits go into the headers, where sizes and offsets are.
      const size_t reach = i % 2 == 0 ? damaged.size() : std::min<size_t>(damaged.size(), 120);
      for (int hits = 0; hits <= i % 3; ++hits)
        damaged[random_below(reach)] ^= static_cast<uint8_t>(1U << random_below(8));
      attempt(damaged);
    }
  }
  std::cout << errors << " errors, " << pictures << " pictures\n";
  EXPECT_GT(errors, 1000);
  EXPECT_GT(pictures, 100);
}

}  // namespace
}  // namespace cpvt::testing
