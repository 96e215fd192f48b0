#include "engine/image/transform.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "base/error.h"
#include "tests/engine/image/goldens.h"

namespace cpvt::testing {
namespace {

template <class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

ImageSize size_of(const nlohmann::json& size) { return {size.at(0).get<int>(), size.at(1).get<int>()}; }

TEST(Transform, EqualsTimm) {
  int cases = 0;
  for (const auto& golden : image_cases("transform")) {
    SCOPED_TRACE(golden["pixels"].get<std::string>());
    const bool grey = golden["grey"];
    Image image = decode_file(image_room / golden["file"]);
    if (grey) image = to_grey(std::move(image));
    const Image got =
        resize_and_crop(image, {.interpolation = parse_interpolation(golden["interpolation"].get<std::string>()),
                                .crop_pct = golden["crop_pct"],
                                .size = size_of(golden["size"])});
    Image expected = decode_file(image_room / golden["pixels"]);
    if (grey) expected = to_grey(std::move(expected));  // grey as RGB is its own luma
    EXPECT_TRUE(same_pixels(got, expected));
    ++cases;
  }
  EXPECT_GT(cases, 40);
}

TEST(Transform, NormalisesLikeTorchvision) {
  const auto cases = image_cases("normalise");
  EXPECT_EQ(cases.size(), 2);
  for (const auto& golden : cases) {
    const int channels = golden["channels"];
    Image image = make_image({1, 256}, channels);
    for (size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<uint8_t>(i / static_cast<size_t>(channels));
    EvalTransform transform;
    for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
      transform.mean.at(c) = static_cast<float>(golden["mean"].at(c).get<double>());
      transform.std.at(c) = static_cast<float>(golden["std"].at(c).get<double>());
    }
    const Planes planes = normalise(image, transform);
    const std::vector<uint8_t> expected = read_bytes(image_room / golden["planes"]);
    ASSERT_EQ(planes.values.size() * sizeof(float), expected.size());
    EXPECT_EQ(std::memcmp(planes.values.data(), expected.data(), expected.size()), 0) << channels << " channels";
  }
}

TEST(Transform, NativeSizeIsUntouched) {
  const Image image = noise({19, 23}, 3, 3);
  EXPECT_TRUE(same_pixels(resize_and_crop(image, {.size = std::nullopt}), image));
}

TEST(Transform, WarningsTravelAlong) {
  Image image = noise({19, 23}, 3, 3);
  image.warnings = {"mind the gap"};
  for (const double crop_pct : {0.875, 1.3}) {
    EXPECT_EQ(resize_and_crop(to_grey(image), {.crop_pct = crop_pct, .size = ImageSize{16, 16}}).warnings,
              image.warnings);
  }
}

TEST(Transform, Errors) {
  const Image image = noise({4, 5}, 3, 1);
  EXPECT_EQ(error_of([&] {
              resize_and_crop(image, {.size = ImageSize{0, 5}});
            }),
            "preprocessing: expected a size of at least 1x1, found 0x5");
  EXPECT_EQ(error_of([&] { resize_and_crop(image, {.crop_pct = 0}); }),
            "preprocessing: expected a crop_pct above 0, found 0");
  EXPECT_EQ(error_of([&] { resize_and_crop(image, {.crop_pct = std::nan("")}); }),
            "preprocessing: expected a crop_pct above 0, found nan");
  EXPECT_EQ(error_of([&] {
              resize_and_crop(image, {.crop_pct = 2, .size = ImageSize{1, 1}});
            }),
            "preprocessing: a 4x5 picture cropped to 1x1 with crop_pct 2 would first be resized to 0x0");
  EXPECT_EQ(error_of([&] {
              resize_and_crop(noise({1, 90000}, 3, 1), {});
            }),
            "preprocessing: a 1x90000 picture cropped to 224x224 with crop_pct 0.875 would first be resized to "
            "256x23040000");
  EXPECT_EQ(error_of([&] {
              normalise(image, {.std = {1, 0, 1}});
            }),
            "preprocessing: expected a std above 0, found 0 for channel 1");
  EXPECT_EQ(error_of([&] { preprocess(image, {}, 4, SizePolicy::floor, 16); }),
            "preprocessing: pictures have 3 channels or 1, the model takes 4");
  EXPECT_EQ(error_of([&] { preprocess(image, {}, 3, SizePolicy::pad, 0); }),
            "preprocessing: expected a patch size of at least 1, found 0");
}

TEST(Policy, NearestMultiple) {
  const auto multiple = [](int extent, int patch) { return nearest_multiple({extent, patch}, patch).height; };
  EXPECT_EQ(multiple(1, 16), 16);
  EXPECT_EQ(multiple(7, 16), 16);
  EXPECT_EQ(multiple(23, 16), 16);
  EXPECT_EQ(multiple(24, 16), 32);
  EXPECT_EQ(multiple(32, 16), 32);
  EXPECT_EQ(multiple(22, 15), 15);
  EXPECT_EQ(multiple(23, 15), 30);
  EXPECT_EQ(multiple(5, 1), 5);
}

TEST(Policy, EachOnAnOddSize) {
  const Image image = noise({21, 40}, 3, 9);
  const EvalTransform native = {.size = std::nullopt};
  const Planes floor = preprocess(image, native, 3, SizePolicy::floor, 16);
  EXPECT_EQ(floor.size, (ImageSize{21, 40}));
  EXPECT_EQ(floor.values, normalise(image, native).values);

  const Planes pad = preprocess(image, native, 3, SizePolicy::pad, 16);
  EXPECT_EQ(pad.size, (ImageSize{32, 48}));
  ASSERT_EQ(pad.values.size(), 3 * 32 * 48);
  for (size_t c = 0; c < 3; ++c) {
    for (size_t y = 0; y < 32; ++y) {
      for (size_t x = 0; x < 48; ++x) {
        const float expected = y < 21 && x < 40 ? floor.values[(c * 21 + y) * 40 + x] : 0.0F;
        ASSERT_EQ(pad.values[(c * 32 + y) * 48 + x], expected) << c << " " << y << " " << x;
      }
    }
  }

  const Planes resized = preprocess(image, native, 3, SizePolicy::resize, 16);
  EXPECT_EQ(resized.size, (ImageSize{16, 48}));
  EXPECT_EQ(resized.values, normalise(resize(image, {16, 48}, Interpolation::bicubic), native).values);

  for (const SizePolicy policy : {SizePolicy::floor, SizePolicy::pad, SizePolicy::resize}) {
    EXPECT_EQ(preprocess(image, {.size = ImageSize{32, 32}}, 1, policy, 16).size, (ImageSize{32, 32}));
    EXPECT_EQ(preprocess(image, native, 1, policy, 16).channels, 1);
  }
}

}  // namespace
}  // namespace cpvt::testing
