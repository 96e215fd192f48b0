#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "tests/ptxsim/exec/ptx_fixture.h"

/// wgmma on operands laid out in shared memory as a tensor copy or a program would, in every swizzling and both ways
/// round; small integers, so that results are equal to those of plain loops.
namespace ptxsim::testing {
namespace {

enum class Swizzle { kNone, k32, k64, k128 };

/// An operand: extent along m or n, 16 values of k (32 bytes); its bytes in shared memory and its descriptor but for
/// the start.
struct Operand {
  std::vector<std::byte> bytes;
  uint64_t descriptor = 0;
};

uint64_t descriptor(uint32_t leading, uint32_t stride, Swizzle swizzle) {
  const uint64_t mode[] = {0, 3, 2, 1};
  return uint64_t{leading / 16} << 16 | uint64_t{stride / 16} << 32 | mode[static_cast<int>(swizzle)] << 62;
}

/// Rows of k. value(r, k) are `size` bytes each; a row has 32 bytes, in a row of the swizzling pattern's width of which
/// it is the `step`-th part.
template <class Value>
Operand along_k(int extent, int size, Swizzle swizzle, int step, Value value) {
  Operand o;
  const int per_chunk = 16 / size;
  const auto put = [&](int at, int r, int k) {
    const uint64_t v = value(r, k);
    std::memcpy(&o.bytes[static_cast<size_t>(at)], &v, static_cast<size_t>(size));
  };
  if (swizzle == Swizzle::kNone) {
    // Blocks of 8 rows of 16 bytes: first all of one half of k, then the other.
    o.bytes.resize(static_cast<size_t>(extent) * 32);
    o.descriptor = descriptor(static_cast<uint32_t>(extent) * 16, 128, swizzle);
    for (int r = 0; r < extent; ++r) {
      for (int k = 0; k < 2 * per_chunk; ++k) {
        put(k / per_chunk * extent * 16 + r / 8 * 128 + r % 8 * 16 + k % per_chunk * size, r, k);
      }
    }
    return o;
  }
  const int pitch = swizzle == Swizzle::k128 ? 128 : swizzle == Swizzle::k64 ? 64 : 32;
  o.bytes.resize(static_cast<size_t>(extent * pitch));
  o.descriptor = descriptor(16, static_cast<uint32_t>(8 * pitch), swizzle) + static_cast<uint64_t>(step * 32 / 16);
  for (int r = 0; r < extent; ++r) {
    for (int k = 0; k < 2 * per_chunk; ++k) {
      const int chunk = step * 2 + k / per_chunk;
      const int moved = swizzle == Swizzle::k128  ? chunk ^ (r % 8)
                        : swizzle == Swizzle::k64 ? chunk ^ (r / 2 % 4)
                                                  : chunk ^ (r / 4 % 2);
      put(r * pitch + moved * 16 + k % per_chunk * size, r, k);
    }
  }
  return o;
}

/// Rows along m or n, of halves: 16 rows, one for each k, as wide as the pattern; then the next as many columns.
template <class Value>
Operand across_k(int extent, Swizzle swizzle, Value value) {
  Operand o;
  o.bytes.resize(static_cast<size_t>(extent + 64) * 32);
  const auto put = [&](int at, int r, int k) {
    const uint64_t v = value(r, k);
    std::memcpy(&o.bytes[static_cast<size_t>(at)], &v, 2);
  };
  if (swizzle == Swizzle::kNone) {
    // Blocks of 8 k, 8 columns each: 128 bytes; along the columns first.
    o.descriptor = descriptor(static_cast<uint32_t>(extent / 8 * 128), 128, swizzle);
    for (int r = 0; r < extent; ++r) {
      for (int k = 0; k < 16; ++k) put(k / 8 * (extent / 8 * 128) + r / 8 * 128 + k % 8 * 16 + r % 8 * 2, r, k);
    }
    return o;
  }
  const int pitch = swizzle == Swizzle::k128 ? 128 : swizzle == Swizzle::k64 ? 64 : 32, columns = pitch / 2;
  o.descriptor = descriptor(static_cast<uint32_t>(16 * pitch), static_cast<uint32_t>(8 * pitch), swizzle);
  for (int r = 0; r < extent; ++r) {
    for (int k = 0; k < 16; ++k) {
      const int chunk = r % columns / 8;
      const int moved = swizzle == Swizzle::k128  ? chunk ^ (k % 8)
                        : swizzle == Swizzle::k64 ? chunk ^ (k / 2 % 4)
                                                  : chunk ^ (k / 4 % 2);
      put(r / columns * 16 * pitch + k * pitch + moved * 16 + r % 8 * 2, r, k);
    }
  }
  return o;
}

struct Case {
  std::string types;  // ".f32.f16.f16"
  int n, k;
  Swizzle a, b;
  bool a_across = false, b_across = false;
  bool a_registers = false;
  int a_sign = 1, b_sign = 1;
  bool adds = true;
  int step = 0;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "n" << c.n << c.types << " a" << static_cast<int>(c.a) << c.a_across << c.a_registers << " b"
       << static_cast<int>(c.b) << c.b_across << " signs " << c.a_sign << c.b_sign << " adds " << c.adds << " step "
       << c.step;
}

uint64_t encode(const std::string& type, int v) {
  const float f = static_cast<float>(v);
  const auto bits = std::bit_cast<uint32_t>(f);
  if (type == "s8" || type == "u8") return static_cast<uint8_t>(v);
  if (type == "tf32") return bits;
  if (type == "bf16") return bits >> 16;
  if (v == 0) return 0;
  const uint32_t sign = bits >> 31;
  const int exponent = static_cast<int>(bits >> 23 & 255) - 127;
  if (type == "f16") return sign << 15 | static_cast<uint32_t>(exponent + 15) << 10 | (bits >> 13 & 0x3ff);
  if (type == "e4m3") return sign << 7 | static_cast<uint32_t>(exponent + 7) << 3 | (bits >> 20 & 7);
  return sign << 7 | static_cast<uint32_t>(exponent + 15) << 2 | (bits >> 21 & 3);
}

class Wgmma : public ::testing::TestWithParam<Case> {};

TEST_P(Wgmma, EqualsTheProduct) {
  const Case& p = GetParam();
  const auto part = [&](int i) {
    size_t at = 0;
    for (; i >= 0; --i) at = p.types.find('.', at) + 1;
    return p.types.substr(at, p.types.find('.', at) - at);
  };
  const std::string d_type = part(0), a_type = part(1), b_type = part(2);
  const bool halves = a_type == "f16" || a_type == "bf16", integers = d_type == "s32";
  const int size = 32 / p.k;
  std::mt19937 random(17);
  std::uniform_int_distribution<int> value(a_type == "u8" ? 0 : -3, 3);
  std::vector<int> a(static_cast<size_t>(64 * p.k)), b(static_cast<size_t>(p.n * p.k)),
      c(static_cast<size_t>(64 * p.n));
  for (int& v : a) v = value(random);
  for (int& v : b) v = value(random);
  for (int& v : c) v = value(random);
  const auto a_bits = [&](int r, int k) { return encode(a_type, a[static_cast<size_t>(r * p.k + k)]); };
  const auto b_bits = [&](int r, int k) { return encode(b_type, b[static_cast<size_t>(r * p.k + k)]); };
  Operand x = p.a_across ? across_k(64, p.a, a_bits) : along_k(64, size, p.a, p.step, a_bits);
  Operand y = p.b_across ? across_k(p.n, p.b, b_bits) : along_k(p.n, size, p.b, p.step, b_bits);
  // Patterns start at multiples of 1024 bytes.
  x.bytes.resize((x.bytes.size() + 1023) / 1024 * 1024);
  y.bytes.resize((y.bytes.size() + 1023) / 1024 * 1024);
  std::vector<std::byte> shared = x.bytes;
  shared.insert(shared.end(), y.bytes.begin(), y.bytes.end());
  y.descriptor += x.bytes.size() / 16;

  const bool half_d = d_type == "f16";
  const int registers = p.n / 8 * (half_d ? 2 : 4);
  // Accumulators: [register][thread].
  std::vector<uint32_t> accumulators(static_cast<size_t>(registers) * 128);
  const auto each = [&](auto f) {
    for (int thread = 0; thread < 128; ++thread) {
      for (int i = 0; i < p.n / 2; ++i) {  // elements
        const int lane = thread % 32, row = thread / 32 * 16 + lane / 4 + i % 4 / 2 * 8,
                  column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        const int word = half_d ? i / 2 : i, shift = half_d ? i % 2 * 16 : 0;
        f(accumulators[static_cast<size_t>(word * 128 + thread)], shift, row, column);
      }
    }
  };
  const std::string accumulator_type = half_d ? "f16" : "tf32";  // the bits of an f32
  each([&](uint32_t& word, int shift, int row, int column) {
    const int v = c[static_cast<size_t>(row * p.n + column)];
    word |= (integers ? static_cast<uint32_t>(v) : static_cast<uint32_t>(encode(accumulator_type, v))) << shift;
  });
  // A in registers: as mma.sync's m16n8k16 has it.
  std::vector<uint32_t> a_words(4 * 128);
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 4; ++i) {
      for (int e = 0; e < 4 / size; ++e) {
        const int lane = thread % 32, row = thread / 32 * 16 + lane / 4 + i % 2 * 8,
                  k = lane % 4 * (4 / size) + e + i / 2 * (16 / size);
        a_words[static_cast<size_t>(i * 128 + thread)] |= static_cast<uint32_t>(a_bits(row, k)) << (e * size * 8);
      }
    }
  }

  std::string names = "{", loads, stores;
  for (int i = 0; i < registers; ++i) {
    const std::string r = "%a" + std::to_string(i), at = std::to_string(i * 512);
    names += (i != 0 ? ", " : "") + r;
    loads += "ld.global.b32 " + r + ", [%rd1+" + at + "];\n";
    stores += "st.global.b32 [%rd1+" + at + "], " + r + ";\n";
  }
  names += "}";
  std::string a_names = "{%r20, %r21, %r22, %r23}", a_loads;
  for (int i = 0; i < 4; ++i)
    a_loads += "ld.global.b32 %r2" + std::to_string(i) + ", [%rd5+" + std::to_string(i * 512) + "];\n";
  std::string tail = ", p";
  if (!integers) {
    tail += ", " + std::to_string(p.a_sign) + ", " + std::to_string(p.b_sign);
    if (halves && !p.a_registers) tail += p.a_across ? ", 1" : ", 0";
    if (halves) tail += p.b_across ? ", 1" : ", 0";
  }
  const std::string body =
      ".shared .align 1024 .b8 s[" + std::to_string(shared.size()) + "];\n.reg .b32 %a<128>;\n.reg .pred p;\n" +
      "mov.u32 %r0, %tid.x;\nmul.wide.u32 %rd3, %r0, 4;\n"
      "ld.param.u64 %rd0, [p0];\nld.param.u64 %rd1, [p1];\nadd.s64 %rd1, %rd1, %rd3;\n"
      "ld.param.u64 %rd5, [p2];\nadd.s64 %rd5, %rd5, %rd3;\n"
      "mov.u32 %r1, %r0;\nmov.u32 %r3, s;\n"
      "COPY:\nmul.wide.u32 %rd4, %r1, 16;\nadd.s64 %rd4, %rd4, %rd0;\nld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd4];\n"
      "shl.b32 %r2, %r1, 4;\nadd.u32 %r2, %r2, %r3;\nst.shared.v4.u32 [%r2], {%r4, %r5, %r6, %r7};\n"
      "add.u32 %r1, %r1, 128;\nsetp.lt.u32 %p1, %r1, " +
      std::to_string(shared.size() / 16) +
      ";\n@%p1 bra COPY;\n"
      "bar.sync 0;\n" +
      loads + a_loads + "setp.eq.u32 p, 1, " + (p.adds ? "1" : "0") +
      ";\n"
      "mov.u64 %rd7, " +
      std::to_string(x.descriptor) + ";\nmov.u64 %rd8, " + std::to_string(y.descriptor) +
      ";\n"
      "wgmma.fence.sync.aligned;\n"
      "wgmma.mma_async.sync.aligned.m64n" +
      std::to_string(p.n) + "k" + std::to_string(p.k) + p.types + " " + names + ", " +
      (p.a_registers ? a_names : "%rd7") + ", %rd8" + tail +
      ";\n"
      "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n" +
      stores;
  Device device;
  Allocation* const d = device.upload(accumulators);
  const Outcome outcome =
      device.run(kernel(3, body), {1, 1, 1}, {128, 1, 1}, device.upload(shared), d, device.upload(a_words));
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  accumulators = device.download<uint32_t>(d);
  each([&](uint32_t word, int shift, int row, int column) {
    int sum = p.adds ? c[static_cast<size_t>(row * p.n + column)] : 0;
    for (int k = 0; k < p.k; ++k) {
      sum += p.a_sign * p.b_sign * a[static_cast<size_t>(row * p.k + k)] * b[static_cast<size_t>(column * p.k + k)];
    }
    const uint32_t expected =
        integers ? static_cast<uint32_t>(sum) : static_cast<uint32_t>(encode(accumulator_type, sum));
    uint32_t got = word >> shift & (half_d ? 0xffffU : ~0U);
    if (half_d && got == 0x8000) got = 0;
    ASSERT_EQ(got, expected) << "row " << row << ", column " << column;
  });
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Swizzle s : {Swizzle::kNone, Swizzle::k32, Swizzle::k64, Swizzle::k128}) {
    for (int across = 0; across < 4; ++across) {
      all.push_back({".f32.bf16.bf16", 64, 16, s, s, (across & 1) != 0, (across & 2) != 0});
    }
    all.push_back({".f32.f16.f16", 128, 16, s, s, false, true, true});
  }
  for (const int n : {8, 24, 40, 256}) all.push_back({".f32.f16.f16", n, 16, Swizzle::k128, Swizzle::k128});
  for (const int step : {1, 2, 3}) {
    Case c{".f32.f16.f16", 32, 16, Swizzle::k128, Swizzle::k128};
    c.step = step;
    all.push_back(c);
  }
  all.push_back({".f16.f16.f16", 64, 16, Swizzle::k64, Swizzle::kNone});
  all.push_back({".f32.f16.f16", 64, 16, Swizzle::k128, Swizzle::k128, false, false, false, -1, 1});
  all.push_back({".f32.bf16.bf16", 64, 16, Swizzle::k128, Swizzle::k128, false, false, true, 1, -1});
  all.push_back({".f32.f16.f16", 64, 16, Swizzle::k128, Swizzle::k128, false, false, false, 1, 1, false});
  for (const Swizzle s : {Swizzle::kNone, Swizzle::k32, Swizzle::k128}) {
    all.push_back({".f32.tf32.tf32", 32, 8, s, s});
    all.push_back({".f32.e4m3.e5m2", 32, 32, s, s});
    all.push_back({".s32.s8.s8", 32, 32, s, s});
  }
  all.push_back({".s32.u8.s8", 32, 32, Swizzle::k128, Swizzle::k128, false, false, true});
  all.push_back({".f16.e5m2.e5m2", 32, 32, Swizzle::k128, Swizzle::k128, false, false, true});
  all.push_back({".s32.s8.s8", 32, 32, Swizzle::k128, Swizzle::k128, false, false, false, 1, 1, false});
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, Wgmma, ::testing::ValuesIn(cases()));

TEST(WgmmaGroups, AWaitHoldsUntilAllFourWarpsHaveIssued) {
  // Warps 1 to 3 issue only after warp 0's thread says, behind its wait, that it is through: they never can.
  const std::string body =
      ".shared .align 1024 .b8 s[8192];\n.shared .align 8 .b64 flag;\n.reg .b32 %a<4>;\n.reg .pred p;\nsetp.eq.u32 p, "
      "1, 0;\n"
      "mov.u32 %r0, %tid.x;\nmov.u32 %r1, flag;\nmov.u64 %rd1, 0;\n"
      "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra INITIALISED;\nmbarrier.init.shared.b64 [%r1], 1;\nINITIALISED:\nbar.sync 0;\n"
      "setp.lt.u32 %p2, %r0, 32;\n@%p2 bra ISSUE;\n"
      "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p3, [%r1], 0;\n@!%p3 bra WAIT;\n"
      "ISSUE:\nwgmma.fence.sync.aligned;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%a0,%a1,%a2,%a3}, %rd1, %rd1, p, 1, 1, 0, 0;\n"
      "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
      "@%p1 bra END;\nmbarrier.arrive.shared.b64 _, [%r1];\nEND:\n";
  Device device;
  const Outcome outcome = device.run(kernel(0, body), {1, 1, 1}, {128, 1, 1});
  EXPECT_EQ(outcome.status, Status::kDeadlock) << outcome.message;
}

}  // namespace
}  // namespace ptxsim::testing
