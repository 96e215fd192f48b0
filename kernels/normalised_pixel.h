#pragma once

#include <cstdint>

namespace cpvt {

/// An 8-bit pixel as the network takes it, rounded at each step, as torchvision's ToTensor and Normalize.
inline float normalised_pixel(uint8_t pixel, float mean, float std) {
  return (static_cast<float>(pixel) / 255.0F - mean) / std;
}

}  // namespace cpvt
