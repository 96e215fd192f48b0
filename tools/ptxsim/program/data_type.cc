#include "tools/ptxsim/program/data_type.h"

#include <array>

namespace ptxsim {

namespace {

struct Row {
  std::string_view name;
  DataType type;
  uint32_t bits;
  char kind;  // b, u, s, f
};

constexpr std::array kRows = {
    Row{"pred", DataType::kPred, 1, 'b'},      Row{"b8", DataType::kB8, 8, 'b'},
    Row{"b16", DataType::kB16, 16, 'b'},       Row{"b32", DataType::kB32, 32, 'b'},
    Row{"b64", DataType::kB64, 64, 'b'},       Row{"b128", DataType::kB128, 128, 'b'},
    Row{"u8", DataType::kU8, 8, 'u'},          Row{"u16", DataType::kU16, 16, 'u'},
    Row{"u32", DataType::kU32, 32, 'u'},       Row{"u64", DataType::kU64, 64, 'u'},
    Row{"s8", DataType::kS8, 8, 's'},          Row{"s16", DataType::kS16, 16, 's'},
    Row{"s32", DataType::kS32, 32, 's'},       Row{"s64", DataType::kS64, 64, 's'},
    Row{"f16", DataType::kF16, 16, 'f'},       Row{"f16x2", DataType::kF16x2, 32, 'f'},
    Row{"bf16", DataType::kBf16, 16, 'f'},     Row{"bf16x2", DataType::kBf16x2, 32, 'f'},
    Row{"tf32", DataType::kTf32, 32, 'f'},     Row{"f32", DataType::kF32, 32, 'f'},
    Row{"f32x2", DataType::kF32x2, 64, 'f'},   Row{"f64", DataType::kF64, 64, 'f'},
    Row{"u16x2", DataType::kU16x2, 32, 'u'},   Row{"s16x2", DataType::kS16x2, 32, 's'},
    Row{"e4m3", DataType::kE4m3, 8, 'f'},      Row{"e5m2", DataType::kE5m2, 8, 'f'},
    Row{"e4m3x2", DataType::kE4m3x2, 16, 'f'}, Row{"e5m2x2", DataType::kE5m2x2, 16, 'f'},
    Row{"u4", DataType::kU4, 4, 'u'},          Row{"s4", DataType::kS4, 4, 's'},
    Row{"b1", DataType::kB1, 1, 'b'},
};

const Row& row(DataType type) {
  for (const Row& r : kRows) {
    if (r.type == type) return r;
  }
  return kRows.front();
}

}  // namespace

std::optional<DataType> data_type(std::string_view modifier) {
  for (const Row& r : kRows) {
    if (r.name == modifier) return r.type;
  }
  return {};
}

uint32_t bits_of(DataType type) { return row(type).bits; }
bool is_signed(DataType type) { return row(type).kind == 's'; }
bool is_float(DataType type) { return row(type).kind == 'f'; }

}  // namespace ptxsim
