#pragma once

#include <array>
#include <optional>
#include <vector>

#include "engine/image/image.h"
#include "engine/image/resize.h"

namespace cpvt {

/// timm's evaluation transform with crop_mode "center" (timm/data/transforms_factory.py, transforms_imagenet_eval).
struct EvalTransform {
  std::array<float, 3> mean = {0.485F, 0.456F, 0.406F};  ///< of red, green, blue in 0…1; for grey the first counts
  std::array<float, 3> std = {0.229F, 0.224F, 0.225F};
  Interpolation interpolation = Interpolation::bicubic;
  double crop_pct = 0.875;  ///< share of the resized image's sides that the crop keeps; above 1 the border is black
  std::optional<ImageSize> size = ImageSize{224, 224};  ///< the crop; without one the picture keeps its own size
};

/// What happens to a size that is no multiple of the patch.
enum class SizePolicy {
  floor,   ///< nothing here: the patch embedding's stride leaves the rest out
  pad,     ///< zeros after normalisation, right and below, up to the next multiple
  resize,  ///< to the nearest multiple on either side, at least one; halves go up
};

/// A normalised picture, the network's input.
struct Planes {
  ImageSize size;
  int channels = 0;
  std::vector<float> values;  ///< [channels, height, width]
};

/// Resize and centre crop; where transform.size is none, the image unchanged. The uint8 pixels are those of timm's
/// transform on the PIL image, to the last bit. Throws Error for a crop_pct or size that leaves no pixels.
Image resize_and_crop(Image image, const EvalTransform& transform);

/// (x / 255 - mean) / std in fp32, rounded at each step, as torchvision's ToTensor and Normalize.
Planes normalise(const Image& image, const EvalTransform& transform);

/// The multiples of `patch` that SizePolicy::resize takes for a size.
ImageSize nearest_multiple(ImageSize size, int patch);

/// Zeros right and below, up to the next multiples of `patch`.
Planes pad_to_multiple(Planes planes, int patch);

/// The 8-bit part of it: from a decoded RGB image to one of the network's size (`pad` comes after normalising) and
/// `channels` 3, or 1 (through to_grey).
Image fit(Image image, const EvalTransform& transform, int channels, SizePolicy policy, int patch);

/// All of it.
Planes preprocess(Image image, const EvalTransform& transform, int channels, SizePolicy policy, int patch);

}  // namespace cpvt
