#include "engine/image/resize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/image/weighted_rows.h"
#include "tests/engine/image/goldens.h"

namespace cpvt::testing {
namespace {

constexpr std::array all_interpolations = {Interpolation::nearest, Interpolation::box,     Interpolation::bilinear,
                                           Interpolation::hamming, Interpolation::bicubic, Interpolation::lanczos};

template <class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(WeightedRows, EveryLengthAndClipping) {
  const int32_t one = 1 << weight_bits;
  for (const int taps : {1, 2, 3, 7, 30}) {
    for (const size_t n : {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 197}) {
      const size_t stride = n + 3;
      const Image rows = noise({taps, static_cast<int>(stride)}, 1, static_cast<uint32_t>(taps * 1000) + n);
      std::vector<int32_t> weights(static_cast<size_t>(taps));
      int32_t rest = one;
      for (size_t k = 0; k + 1 < weights.size(); ++k) {
        weights[k] = (k % 3 == 0 ? -one : one) / 4 + static_cast<int32_t>(k * 12345);
        rest -= weights[k];
        if (k > 4) weights[k] /= 16;
      }
      weights.back() = taps > 5 ? one / 2 : rest;
      std::vector<uint8_t> out(n + 2, 0xAB);
      weighted_rows(rows.pixels.data(), stride, weights.data(), taps, n, out.data() + 1);
      EXPECT_EQ(out.front(), 0xAB);
      EXPECT_EQ(out.back(), 0xAB);
      for (size_t i = 0; i < n; ++i) {
        double sum = 0;
        for (size_t k = 0; k < weights.size(); ++k) sum += double{1} * weights[k] * rows.pixels[k * stride + i];
        const int expected = static_cast<int>(std::clamp(std::floor(sum / one + 0.5), 0.0, 255.0));
        ASSERT_EQ(int{out[i + 1]}, expected) << "taps " << taps << ", n " << n << ", byte " << i;
      }
    }
  }
}

TEST(Resize, ConstantStaysConstant) {
  for (const Interpolation interpolation : all_interpolations) {
    for (const auto& [from, to] :
         {std::pair{ImageSize{37, 53}, ImageSize{5, 71}}, {{1, 1}, {9, 33}}, {{200, 3}, {7, 7}}}) {
      Image image = make_image(from, 3);
      std::ranges::fill(image.pixels, uint8_t{201});
      const Image out = resize(image, to, interpolation);
      EXPECT_EQ(out.size, to);
      EXPECT_TRUE(std::ranges::all_of(out.pixels, [](uint8_t x) { return x == 201; }));
    }
  }
}

TEST(Resize, SameSizeIsTheSame) {
  const Image image = noise({17, 23}, 3, 5);
  for (const Interpolation interpolation : all_interpolations) {
    EXPECT_TRUE(same_pixels(resize(image, image.size, interpolation), image));
  }
}

TEST(Resize, GreyIsAChannelOfRgb) {
  const Image grey = noise({61, 40}, 1, 6);
  Image rgb = make_image(grey.size, 3);
  for (size_t i = 0; i < grey.pixels.size(); ++i)
    std::fill_n(rgb.pixels.begin() + static_cast<ptrdiff_t>(i * 3), 3, grey.pixels[i]);
  for (const Interpolation interpolation : all_interpolations) {
    const Image small_grey = resize(grey, {13, 50}, interpolation);
    const Image small_rgb = resize(rgb, {13, 50}, interpolation);
    for (size_t i = 0; i < small_grey.pixels.size(); ++i) ASSERT_EQ(small_rgb.pixels[i * 3 + 1], small_grey.pixels[i]);
  }
}

// The window is computed alone, and is what it would be in the whole; both orders of the passes are among these.
TEST(Resize, WindowIsAPartOfTheWhole) {
  struct Case {
    ImageSize from, to;
    Window window;
  };
  const std::vector<Case> cases = {
      {{61, 97}, {36, 57}, {2, 12, {32, 32}}},     {{173, 38}, {166, 36}, {67, 2, {32, 32}}},
      {{300, 50}, {40, 45}, {11, 7, {3, 30}}},     {{40, 33}, {90, 64}, {89, 63, {1, 1}}},
      {{64, 64}, {64, 20}, {10, 3, {50, 17}}},     {{64, 64}, {20, 64}, {3, 10, {17, 50}}},
      {{1, 200}, {16, 3000}, {0, 1400, {16, 16}}}, {{64, 64}, {64, 64}, {3, 10, {17, 50}}},
  };
  for (const Interpolation interpolation : all_interpolations) {
    for (const auto& [from, to, window] : cases) {
      for (const int channels : {1, 3}) {
        const Image image = noise(from, channels, 7);
        const Image whole = resize(image, to, interpolation);
        Image expected = make_image(window.size, channels);
        for (int y = 0; y < window.size.height; ++y) {
          std::copy_n(whole.row(window.top + y) + static_cast<ptrdiff_t>(window.left) * channels, expected.row_bytes(),
                      expected.row(y));
        }
        EXPECT_TRUE(same_pixels(resize(image, to, interpolation, window), expected))
            << from.height << "x" << from.width << " to " << to.height << "x" << to.width;
      }
    }
  }
}

TEST(Resize, Errors) {
  const Image image = noise({4, 5}, 3, 1);
  EXPECT_EQ(error_of([&] {
              resize(image, {0, 5}, Interpolation::bicubic);
            }),
            "resize: expected a target between 1x1 and 16777216x16777216, found 0x5");
  EXPECT_EQ(error_of([&] {
              resize(image, {5, 16777217}, Interpolation::nearest);
            }),
            "resize: expected a target between 1x1 and 16777216x16777216, found 5x16777217");
  EXPECT_EQ(error_of([&] {
              resize(Image{}, {5, 5}, Interpolation::nearest);
            }),
            "resize: expected an image between 1x1 and 16777216x16777216, found 0x0");
  EXPECT_EQ(error_of([&] {
              resize(image, {8, 8}, Interpolation::box, {3, 0, {6, 8}});
            }),
            "resize: expected a window within 8x8, found 6x8 at row 3, column 0");
  EXPECT_EQ(error_of([&] {
              resize(image, {8, 8}, Interpolation::box, {0, -1, {6, 8}});
            }),
            "resize: expected a window within 8x8, found 6x8 at row 0, column -1");
}

TEST(Resize, InterpolationNames) {
  EXPECT_EQ(parse_interpolation("bicubic"), Interpolation::bicubic);
  EXPECT_EQ(parse_interpolation("lanczos"), Interpolation::lanczos);
  EXPECT_EQ(error_of([] { parse_interpolation("random"); }),
            "interpolation: expected one of nearest, box, bilinear, hamming, bicubic, lanczos, found 'random'");
}

}  // namespace
}  // namespace cpvt::testing
