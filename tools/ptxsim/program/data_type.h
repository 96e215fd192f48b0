#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ptxsim {

/// The types that instructions name in their modifiers.
enum class DataType : uint8_t {
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF16x2,
  kBf16,
  kBf16x2,
  kTf32,
  kF32,
  kF32x2,
  kF64,
  kU16x2,
  kS16x2,
  kE4m3,
  kE5m2,
  kE4m3x2,
  kE5m2x2,
  kU4,
  kS4,
  kB1,
};

/// "f16x2" -> kF16x2; none for what is no type.
std::optional<DataType> data_type(std::string_view modifier);
uint32_t bits_of(DataType type);  // of a register that holds it: 32 for kF16x2, 32 for kTf32, 16 for kE4m3x2
bool is_signed(DataType type);
bool is_float(DataType type);

}  // namespace ptxsim
