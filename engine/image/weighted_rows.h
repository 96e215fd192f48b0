#pragma once

#include <cstddef>
#include <cstdint>

namespace cpvt {

/// Binary places of a resampling weight: 8 bits of pixel and 2 of headroom leave 22 of an int32's 32.
constexpr int weight_bits = 32 - 8 - 2;

/// out[i] = clip to 0…255 of (sum over k of weights[k] * rows[k * stride + i]) / 2^weight_bits, rounded half up.
/// The inner loop of both passes of the resize. i < n, k < taps; the sum of |weights| must stay below 2^23.
void weighted_rows(const uint8_t* rows, size_t stride, const int32_t* weights, int taps, size_t n, uint8_t* out);

}  // namespace cpvt
