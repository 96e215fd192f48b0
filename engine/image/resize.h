#pragma once

#include <string_view>

#include "engine/image/image.h"

namespace cpvt {

/// Pillow's filters. All but `nearest` are antialiased: their support grows with the factor of reduction.
enum class Interpolation { nearest, box, bilinear, hamming, bicubic, lanczos };

/// From timm's name, e.g. "bicubic". Throws Error listing the known names.
Interpolation parse_interpolation(std::string_view name);

/// A rectangle of pixels that lies within an image.
struct Window {
  int top = 0;
  int left = 0;
  ImageSize size;
};

/// PIL.Image.resize to `target`, to the last bit. Warnings travel along.
/// Throws Error when an extent, of the image or the target, is below 1 or over 2^24.
Image resize(const Image& image, ImageSize target, Interpolation interpolation);

/// That window of the resized image, without computing the rest of it. Throws Error when it does not lie in `target`.
Image resize(const Image& image, ImageSize target, Interpolation interpolation, const Window& window);

}  // namespace cpvt
