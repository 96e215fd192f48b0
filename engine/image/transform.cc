#include "engine/image/transform.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "kernels/normalised_pixel.h"

namespace cpvt {

namespace {

/// The whole picture's size after timm's Resize: its short side, or for an oblong crop the side that is shorter in
/// proportion, fills 1 / crop_pct times the crop.
ImageSize resized_size(ImageSize image, ImageSize crop, double crop_pct) {
  const double filled_height = std::floor(crop.height / crop_pct);
  const double filled_width = std::floor(crop.width / crop_pct);
  double height = 0;
  double width = 0;
  if (filled_height == filled_width) {
    // torchvision's Resize with one number: the short side exactly, the long side truncated.
    const double side = filled_height;
    const bool tall = image.width <= image.height;
    height = tall ? std::floor(side * image.height / image.width) : side;
    width = tall ? side : std::floor(side * image.width / image.height);
  } else {
    // timm's ResizeKeepRatio: both sides rounded, halves to even as Python does.
    const double ratio = std::min(image.height / filled_height, image.width / filled_width);
    height = std::nearbyint(image.height / ratio);
    width = std::nearbyint(image.width / ratio);
  }
  constexpr double limit = 1 << 24;
  if (!(height >= 1 && width >= 1 && height <= limit && width <= limit)) {
    throw Error(
        "preprocessing: a {}x{} picture cropped to {}x{} with crop_pct {} would first be resized to {:.0f}x{:.0f}",
        image.height, image.width, crop.height, crop.width, crop_pct, height, width);
  }
  return {static_cast<int>(height), static_cast<int>(width)};
}

/// One axis of torchvision's centre crop, from `in` to `out` pixels.
struct CentreCrop {
  int from;    ///< first pixel taken from the picture
  int to;      ///< where it comes to lie
  int extent;  ///< pixels taken; the rest stays black
};

CentreCrop centre_crop(int in, int out) {
  if (in <= out) return {.from = 0, .to = (out - in) / 2, .extent = in};
  // Python's round: halves to even, so a rest of 1 is left out on the far side, a rest of 3 takes 2 from the near one.
  return {.from = static_cast<int>(std::nearbyint((in - out) / 2.0)), .to = 0, .extent = out};
}

int nearest_multiple(int extent, int patch) {
  return static_cast<int>(std::max<int64_t>(1, (int64_t{extent} + patch / 2) / patch)) * patch;
}

int next_multiple(int extent, int patch) { return static_cast<int>((int64_t{extent} + patch - 1) / patch) * patch; }

void check_patch(int patch) {
  if (patch < 1) throw Error("preprocessing: expected a patch size of at least 1, found {}", patch);
}

}  // namespace

Image resize_and_crop(Image image, const EvalTransform& transform) {
  if (!transform.size) return image;
  const ImageSize crop = *transform.size;
  if (crop.height < 1 || crop.width < 1) {
    throw Error("preprocessing: expected a size of at least 1x1, found {}x{}", crop.height, crop.width);
  }
  if (!(transform.crop_pct > 0)) {
    throw Error("preprocessing: expected a crop_pct above 0, found {}", transform.crop_pct);
  }
  const ImageSize resized = resized_size(image.size, crop, transform.crop_pct);
  const CentreCrop rows = centre_crop(resized.height, crop.height);
  const CentreCrop columns = centre_crop(resized.width, crop.width);
  const Window window = {.top = rows.from, .left = columns.from, .size = {rows.extent, columns.extent}};
  Image inner = resize(image, resized, transform.interpolation, window);
  if (inner.size == crop) return inner;
  Image out = make_image(crop, inner.channels);
  out.warnings = std::move(inner.warnings);
  for (int y = 0; y < inner.size.height; ++y) {
    std::copy_n(inner.row(y), inner.row_bytes(),
                out.row(rows.to + y) + static_cast<ptrdiff_t>(columns.to) * out.channels);
  }
  return out;
}

Planes normalise(const Image& image, const EvalTransform& transform) {
  Planes planes{image.size, image.channels, {}};
  const size_t plane = static_cast<size_t>(image.size.height) * static_cast<size_t>(image.size.width);
  const auto channels = static_cast<size_t>(image.channels);
  planes.values.resize(channels * plane);
  for (size_t c = 0; c < channels; ++c) {
    const float mean = transform.mean.at(c);
    const float std = transform.std.at(c);
    if (!(std > 0)) throw Error("preprocessing: expected a std above 0, found {} for channel {}", std, c);
    std::array<float, 256> table;
    for (size_t x = 0; x < table.size(); ++x) table.at(x) = normalised_pixel(static_cast<uint8_t>(x), mean, std);
    const uint8_t* from = image.pixels.data() + c;
    float* to = planes.values.data() + c * plane;
    for (size_t i = 0; i < plane; ++i) to[i] = table[from[i * channels]];
  }
  return planes;
}

ImageSize nearest_multiple(ImageSize size, int patch) {
  check_patch(patch);
  return {nearest_multiple(size.height, patch), nearest_multiple(size.width, patch)};
}

Planes pad_to_multiple(Planes planes, int patch) {
  check_patch(patch);
  const ImageSize size = {next_multiple(planes.size.height, patch), next_multiple(planes.size.width, patch)};
  if (size == planes.size) return planes;
  const auto height = static_cast<size_t>(planes.size.height);
  const auto width = static_cast<size_t>(planes.size.width);
  Planes out{size, planes.channels, {}};
  out.values.resize(static_cast<size_t>(out.channels) * static_cast<size_t>(size.height) *
                    static_cast<size_t>(size.width));
  for (size_t c = 0; c < static_cast<size_t>(out.channels); ++c) {
    for (size_t y = 0; y < height; ++y) {
      std::copy_n(planes.values.data() + (c * height + y) * width, width,
                  out.values.data() + (c * static_cast<size_t>(size.height) + y) * static_cast<size_t>(size.width));
    }
  }
  return out;
}

Image fit(Image image, const EvalTransform& transform, int channels, SizePolicy policy, int patch) {
  if (channels != 1 && channels != 3) {
    throw Error("preprocessing: pictures have 3 channels or 1, the model takes {}", channels);
  }
  if (channels == 1) image = to_grey(std::move(image));
  image = resize_and_crop(std::move(image), transform);
  if (policy == SizePolicy::resize) {
    const ImageSize multiple = nearest_multiple(image.size, patch);
    if (multiple != image.size) image = resize(image, multiple, transform.interpolation);
  }
  return image;
}

Planes preprocess(Image image, const EvalTransform& transform, int channels, SizePolicy policy, int patch) {
  Planes planes = normalise(fit(std::move(image), transform, channels, policy, patch), transform);
  return policy == SizePolicy::pad ? pad_to_multiple(std::move(planes), patch) : planes;
}

}  // namespace cpvt
