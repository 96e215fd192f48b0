#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ptxsim {

/// What a CUtensorMap holds here. The driver's own layout is not public, and only the driver writes a map and only the
/// device reads it: so the simulator has one of its own. Dimension 0 is the innermost everywhere.
struct TensorMap {
  static constexpr uint32_t kMagic = 0x70616d74;  // "tmap"
  static constexpr size_t kMaxRank = 5;

  // The values that cuda.h gives them.
  enum class Type : uint8_t {
    kUint8,
    kUint16,
    kUint32,
    kInt32,
    kUint64,
    kInt64,
    kFloat16,
    kFloat32,
    kFloat64,
    kBfloat16,
    kFloat32Ftz,
    kTfloat32,
    kTfloat32Ftz,
  };
  enum class Interleave : uint8_t { kNone, k16Bytes, k32Bytes };
  enum class Swizzle : uint8_t { kNone, k32Bytes, k64Bytes, k128Bytes };
  enum class Fill : uint8_t { kZeros, kNan };

  uint32_t magic = kMagic;
  Type type = Type::kUint8;
  uint8_t rank = 0;
  Interleave interleave = Interleave::kNone;
  Swizzle swizzle = Swizzle::kNone;
  uint64_t address = 0;                    // of the tensor in global memory
  uint64_t strides[kMaxRank - 1] = {};     // bytes between neighbours along dimensions 1, 2…
  uint32_t last[kMaxRank] = {};            // largest index along each dimension: extent - 1
  uint16_t box[kMaxRank] = {};             // elements traversed along each dimension
  uint8_t element_strides[kMaxRank] = {};  // every n-th element of the box is taken
  uint8_t l2_promotion = 0;
  Fill fill = Fill::kZeros;
  uint8_t unused[43] = {};

  uint32_t element_bytes() const {
    constexpr uint8_t kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    return kBytes[static_cast<size_t>(type)];
  }
  uint64_t extent(size_t dimension) const { return uint64_t{last[dimension]} + 1; }
  /// Elements that the box holds along a dimension.
  uint32_t taken(size_t dimension) const {
    return (uint32_t{box[dimension]} + element_strides[dimension] - 1) / element_strides[dimension];
  }

  static TensorMap read(const void* map) {
    TensorMap result;
    std::memcpy(&result, map, sizeof result);
    return result;
  }
  bool valid() const { return magic == kMagic && rank >= 1 && rank <= kMaxRank; }
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace ptxsim
