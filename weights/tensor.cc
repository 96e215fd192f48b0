#include "weights/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

namespace cpvt {

namespace {

struct Row {
  DType dtype;
  std::string_view name;
  int bits;
};

// In the enum's order, which dtype_name and dtype_bits rely on.
constexpr std::array kTable{
    Row{DType::kBool, "BOOL", 8},
    Row{DType::kF4, "F4", 4},
    Row{DType::kF6E2M3, "F6_E2M3", 6},
    Row{DType::kF6E3M2, "F6_E3M2", 6},
    Row{DType::kU8, "U8", 8},
    Row{DType::kI8, "I8", 8},
    Row{DType::kF8E5M2, "F8_E5M2", 8},
    Row{DType::kF8E4M3, "F8_E4M3", 8},
    Row{DType::kF8E8M0, "F8_E8M0", 8},
    Row{DType::kF8E4M3FNUZ, "F8_E4M3FNUZ", 8},
    Row{DType::kF8E5M2FNUZ, "F8_E5M2FNUZ", 8},
    Row{DType::kI16, "I16", 16},
    Row{DType::kU16, "U16", 16},
    Row{DType::kF16, "F16", 16},
    Row{DType::kBF16, "BF16", 16},
    Row{DType::kI32, "I32", 32},
    Row{DType::kU32, "U32", 32},
    Row{DType::kF32, "F32", 32},
    Row{DType::kC64, "C64", 64},
    Row{DType::kF64, "F64", 64},
    Row{DType::kI64, "I64", 64},
    Row{DType::kU64, "U64", 64},
};

constexpr bool in_enum_order() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].dtype) != i) return false;
  }
  return true;
}
static_assert(in_enum_order());

}  // namespace

std::string_view dtype_name(DType dtype) { return kTable[static_cast<size_t>(dtype)].name; }

int dtype_bits(DType dtype) { return kTable[static_cast<size_t>(dtype)].bits; }

std::optional<DType> parse_dtype(std::string_view name) {
  const auto* row = std::find_if(kTable.begin(), kTable.end(), [&](const Row& r) { return r.name == name; });
  if (row == kTable.end()) return std::nullopt;
  return row->dtype;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t element_count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace cpvt
