#pragma once

#include <span>

namespace cpvt {

/// max|got - expected| / max|expected|; infinity where lengths differ or any number is not finite, so that no bound
/// holds then. Equal zeros are without error.
double relative_error(std::span<const float> got, std::span<const float> expected);

/// Equal bit for bit: NaN equals itself, 0 is not -0.
bool same_bits(std::span<const float> a, std::span<const float> b);

}  // namespace cpvt
