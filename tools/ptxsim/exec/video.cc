#include <algorithm>
#include <string>
#include <type_traits>

#include "tools/ptxsim/exec/lanewise.h"

/// SIMD video instructions on two or four parts of 32 bits: vadd, vsub, vabsdiff, vmin, vmax. What CUDA's __vabsdiffu4
/// and __vsadu4 become; without masks and selectors of parts, which no compiler emits.
namespace ptxsim {

namespace {

enum class Operation : uint8_t { kAdd, kSubtract, kAbsoluteDifference, kMinimum, kMaximum };

int32_t apply(Operation operation, int32_t a, int32_t b) {
  switch (operation) {
    case Operation::kAdd:
      return a + b;
    case Operation::kSubtract:
      return a - b;
    case Operation::kAbsoluteDifference:
      return a < b ? b - a : a - b;
    case Operation::kMinimum:
      return std::min(a, b);
    case Operation::kMaximum:
      return std::max(a, b);
  }
  return 0;
}

/// Part `index` of a word, of so many bits.
int32_t part(uint32_t word, int index, int bits, bool is_signed) {
  const uint32_t top = word << (32 - bits * (index + 1));
  return is_signed ? static_cast<int32_t>(top) >> (32 - bits) : static_cast<int32_t>(top >> (32 - bits));
}

// The handler's flags.
constexpr int kOperation = 0, kParts = 1, kSigns = 2, kWhat = 3;
constexpr uint8_t kSignedResult = 1, kSignedA = 2, kSignedB = 4;  // kSigns
constexpr uint8_t kSaturate = 1, kAccumulate = 2;                 // kWhat

/// slots: d, a, b, c.
void video(Warp& w, const Instruction& in, Mask m) {
  const auto* a = w.lanes<uint32_t>(in.slots[1]);
  const auto* b = w.lanes<uint32_t>(in.slots[2]);
  const auto* c = w.lanes<uint32_t>(in.slots[3]);
  auto* d = w.lanes<uint32_t>(in.slots[0]);
  const auto operation = static_cast<Operation>(in.flags[kOperation]);
  const int parts = in.flags[kParts], bits = 32 / parts;
  const uint8_t signs = in.flags[kSigns], what = in.flags[kWhat];
  const bool is_signed = (signs & kSignedResult) != 0;
  const int32_t highest = (1 << (is_signed ? bits - 1 : bits)) - 1, lowest = is_signed ? -highest - 1 : 0;
  each_lane(m, [&](int l) {
    uint32_t packed = 0, sum = c[l];
    for (int i = 0; i < parts; ++i) {
      int32_t value =
          apply(operation, part(a[l], i, bits, (signs & kSignedA) != 0), part(b[l], i, bits, (signs & kSignedB) != 0));
      if ((what & kSaturate) != 0) value = std::clamp(value, lowest, highest);
      const uint32_t low = static_cast<uint32_t>(value) & ((uint32_t{1} << bits) - 1);
      packed |= low << (bits * i);
      sum += low;
    }
    d[l] = (what & kAccumulate) != 0 ? sum : packed;
  });
}

template <Operation kOp>
void lower_video(Lowering& l) {
  allow_modifiers(l, {"sat", "add"});
  expect_shape(l, 3, 4);
  for (size_t i = 0; i < 3; ++i) {
    if (l.type(i) != DataType::kU32 && l.type(i) != DataType::kS32) l.unknown();
  }
  // Sums only of what is sure to fit: differences without sign.
  if (l.has("add") && (l.has("sat") || kOp != Operation::kAbsoluteDifference || is_signed(l.type(0)))) l.unknown();
  const Slot a = l.read(1, 32), b = l.read(2, 32), c = l.read(3, 32);
  Instruction& in = l.emit(video, {l.write(0, 32), a, b, c});
  in.flags[kOperation] = static_cast<uint8_t>(kOp);
  in.flags[kParts] = l.text().opcode.back() == '4' ? 4 : 2;
  in.flags[kSigns] =
      static_cast<uint8_t>((is_signed(l.type(0)) ? kSignedResult : 0) | (is_signed(l.type(1)) ? kSignedA : 0) |
                           (is_signed(l.type(2)) ? kSignedB : 0));
  in.flags[kWhat] = static_cast<uint8_t>((l.has("sat") ? kSaturate : 0) | (l.has("add") ? kAccumulate : 0));
}

}  // namespace

void add_video(OpcodeTable& t) {
  t.add("vadd2", Kind::kInteger, lower_video<Operation::kAdd>);
  t.add("vadd4", Kind::kInteger, lower_video<Operation::kAdd>);
  t.add("vsub2", Kind::kInteger, lower_video<Operation::kSubtract>);
  t.add("vsub4", Kind::kInteger, lower_video<Operation::kSubtract>);
  t.add("vabsdiff2", Kind::kInteger, lower_video<Operation::kAbsoluteDifference>);
  t.add("vabsdiff4", Kind::kInteger, lower_video<Operation::kAbsoluteDifference>);
  t.add("vmin2", Kind::kInteger, lower_video<Operation::kMinimum>);
  t.add("vmin4", Kind::kInteger, lower_video<Operation::kMinimum>);
  t.add("vmax2", Kind::kInteger, lower_video<Operation::kMaximum>);
  t.add("vmax4", Kind::kInteger, lower_video<Operation::kMaximum>);
}

}  // namespace ptxsim
