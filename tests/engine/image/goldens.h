#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/image/decode.h"
#include "engine/image/image.h"

namespace cpvt::testing {

/// Where tests/data/make_images.py puts pictures, what is expected of them, and cases.json, which lists both.
inline const std::filesystem::path image_room = std::filesystem::path(CPVT_TEST_DATA) / "images";

inline std::vector<uint8_t> read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The cases of one kind: "decode", "transform", "normalise".
inline nlohmann::json image_cases(const char* kind) {
  return nlohmann::json::parse(std::ifstream(image_room / "cases.json")).at(kind);
}

inline Image decode_bytes(std::span<const uint8_t> bytes, const DecodeOptions& options = {}) {
  return decode(std::as_bytes(bytes), options);
}

/// Says how many bytes differ, the first of them and by how much at most; succeeds only when none does.
inline ::testing::AssertionResult same_pixels(const Image& got, const Image& expected) {
  if (got.size != expected.size || got.channels != expected.channels) {
    return ::testing::AssertionFailure() << "got " << got.size.height << "x" << got.size.width << "x" << got.channels
                                         << ", expected " << expected.size.height << "x" << expected.size.width << "x"
                                         << expected.channels;
  }
  if (got.pixels.size() != expected.pixels.size()) {
    return ::testing::AssertionFailure() << got.pixels.size() << " bytes, expected " << expected.pixels.size();
  }
  size_t different = 0;
  size_t first = 0;
  int largest = 0;
  for (size_t i = 0; i < got.pixels.size(); ++i) {
    if (got.pixels[i] == expected.pixels[i]) continue;
    if (different++ == 0) first = i;
    largest = std::max(largest, std::abs(int{got.pixels[i]} - int{expected.pixels[i]}));
  }
  if (different == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << different << " of " << got.pixels.size() << " bytes differ, by up to "
                                       << largest << "; the first is byte " << first << ": got "
                                       << int{got.pixels[first]} << ", expected " << int{expected.pixels[first]};
}

/// A picture of noise, the same for the same seed.
inline Image noise(ImageSize size, int channels, uint32_t seed) {
  Image image = make_image(size, channels);
  uint32_t state = seed * 2654435761U + 1;
  for (uint8_t& pixel : image.pixels) {
    state = state * 1664525U + 1013904223U;
    pixel = static_cast<uint8_t>(state >> 24U);
  }
  return image;
}

}  // namespace cpvt::testing
