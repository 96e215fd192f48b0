#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cpvt {

/// Every element type of the safetensors format; which of them can be loaded is SafetensorsFile::load's business.
enum class DType {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

/// The format's own name, such as "BF16".
std::string_view dtype_name(DType dtype);

/// The inverse of dtype_name; nothing for a name that the format does not have.
std::optional<DType> parse_dtype(std::string_view name);

/// Bits, because F4 and F6 elements are no whole number of bytes.
int dtype_bits(DType dtype);

/// "[768, 3, 16, 16]"; "[]" for a scalar.
std::string shape_text(const std::vector<int64_t>& shape);

/// The product of the extents; 1 for a scalar. The extents must be known to be sane.
int64_t element_count(const std::vector<int64_t>& shape);

/// float32, C-contiguous. `data` either points into a mapped file, which it keeps alive, or owns its memory
/// (after a conversion, or where the file's bytes were not aligned to 4). Null only when size() is 0.
struct Tensor {
  std::vector<int64_t> shape;
  std::shared_ptr<const float[]> data;

  int64_t size() const { return element_count(shape); }
};

}  // namespace cpvt
