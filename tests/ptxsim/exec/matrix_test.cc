#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "tests/ptxsim/exec/ptx_fixture.h"

/// Tensor-core instructions against products of plain matrices. Elements are small integers where results have to be
/// equal, which finds any element in the wrong place; numbers of every size where only the rounding counts.
namespace ptxsim::testing {
namespace {

using Words = std::vector<uint32_t>;

// --- elements -------------------------------------------------------------------------------------------------------

/// A value of a type as bits and back; values are such that both are exact.
struct Element {
  const char* name;
  uint32_t bits;
  std::function<uint64_t(double)> encode;
  std::function<double(uint64_t)> decode;
  double lowest, highest;  // integers between them are exact
};

uint64_t encode_float(double value, int exponent_bits, int mantissa_bits) {
  if (value == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(value), &exponent);  // [0.5, 1)
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto mantissa = static_cast<uint64_t>(std::ldexp(fraction * 2 - 1, mantissa_bits));
  const auto biased = static_cast<uint64_t>(exponent - 1 + bias);
  return (value < 0 ? uint64_t{1} << (exponent_bits + mantissa_bits) : 0) | biased << mantissa_bits | mantissa;
}

double decode_float(uint64_t bits, int exponent_bits, int mantissa_bits) {
  const uint64_t mantissa = bits & ((uint64_t{1} << mantissa_bits) - 1);
  const auto biased = static_cast<int>(bits >> mantissa_bits & ((uint64_t{1} << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double magnitude =
      biased == 0 ? std::ldexp(static_cast<double>(mantissa), 1 - bias - mantissa_bits)
                  : std::ldexp(1 + std::ldexp(static_cast<double>(mantissa), -mantissa_bits), biased - bias);
  return (bits >> (exponent_bits + mantissa_bits) & 1) != 0 ? -magnitude : magnitude;
}

Element floating(const char* name, uint32_t bits, int exponent_bits, int mantissa_bits, int shift = 0) {
  return {name,
          bits,
          [=](double v) { return encode_float(v, exponent_bits, mantissa_bits) << shift; },
          [=](uint64_t b) { return decode_float(b >> shift, exponent_bits, mantissa_bits); },
          -8,
          8};
}

Element integer(const char* name, uint32_t bits, bool negative) {
  const uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  return {name,
          bits,
          [=](double v) { return static_cast<uint64_t>(static_cast<int64_t>(v)) & mask; },
          [=](uint64_t b) {
            return negative && (b >> (bits - 1) & 1) != 0 ? static_cast<double>(static_cast<int64_t>(b | ~mask))
                                                          : static_cast<double>(b);
          },
          negative ? -std::ldexp(1, static_cast<int>(bits) - 1) : 0,
          std::ldexp(1, static_cast<int>(bits) - (negative ? 1 : 0)) - 1};
}

Element element(const std::string& name) {
  if (name == "f16") return floating("f16", 16, 5, 10);
  if (name == "bf16") return floating("bf16", 16, 8, 7);
  if (name == "tf32") return floating("tf32", 32, 8, 10, 13);
  if (name == "f32") return floating("f32", 32, 8, 23);
  if (name == "f64") return floating("f64", 64, 11, 52);
  if (name == "e4m3") return floating("e4m3", 8, 4, 3);
  if (name == "e5m2") {
    Element e = floating("e5m2", 8, 5, 2);
    e.lowest = -4;
    e.highest = 4;
    return e;
  }
  if (name == "s8") return integer("s8", 8, true);
  if (name == "u8") return integer("u8", 8, false);
  if (name == "s4") return integer("s4", 4, true);
  if (name == "u4") return integer("u4", 4, false);
  if (name == "b1") return integer("b1", 1, false);
  if (name == "s32") {
    Element e = integer("s32", 32, true);
    e.lowest = -1000;
    e.highest = 1000;
    return e;
  }
  ADD_FAILURE() << "no element " << name;
  return {};
}

/// Rows × columns, row after row.
struct Plain {
  int rows, columns;
  std::vector<double> values;

  Plain(int r, int c) : rows(r), columns(c), values(static_cast<size_t>(r * c)) {}
  double& at(int r, int c) { return values[static_cast<size_t>(r * columns + c)]; }
  double at(int r, int c) const { return values[static_cast<size_t>(r * columns + c)]; }

  static Plain random(int r, int c, const Element& e, uint32_t seed) {
    Plain p(r, c);
    std::mt19937 generator(seed);
    std::uniform_int_distribution<int> value(static_cast<int>(e.lowest), static_cast<int>(e.highest));
    for (double& v : p.values) v = value(generator);
    return p;
  }
};

Plain product(
    const Plain& a, const Plain& b, const Plain& c,
    const std::function<double(double, double)>& times = [](double x, double y) { return x * y; }) {
  Plain d = c;
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < b.columns; ++j) {
      for (int k = 0; k < a.columns; ++k) d.at(i, j) += times(a.at(i, k), b.at(k, j));
    }
  }
  return d;
}

// --- mma.sync -------------------------------------------------------------------------------------------------------

struct At {
  int row, column;
};

/// Where element i of a lane lies, as the figures of the manual's section on mma have it; g = lane / 4, t = lane mod 4.
At place_of_a(int per, int m, int i, int lane) {
  const int g = lane / 4, t = lane % 4, part = i / per;  // a register of `per` elements
  const int row = m == 8 ? g : part == 0 || part == 2 || part == 4 || part == 6 ? g : g + 8;
  const int k = m == 8 ? 0 : part < 2 ? 0 : part < 4 ? 1 : part < 6 ? 2 : 3;
  return {row, t * per + i % per + k * 4 * per};
}
At place_of_b(int per, int i, int lane) {
  const int g = lane / 4, t = lane % 4;
  return {t * per + i % per + i / per * 4 * per, g};
}
At place_of_c(int i, int lane) {
  const int g = lane / 4, t = lane % 4;
  return {i < 2 ? g : g + 8, t * 2 + (i & 1)};
}

struct MmaCase {
  std::string shape;
  int m, n, k;
  std::string a, b, c, d;
  std::string extra = {};  // modifiers at the end
};

void PrintTo(const MmaCase& c, std::ostream* out) {
  *out << c.shape << "." << c.d << "." << c.a << "." << c.b << "." << c.c << c.extra;
}

/// Registers of a fragment: each of 32 or 64 bits, for 32 lanes.
std::vector<uint64_t> pack(const Plain& p, const Element& e, int per, int registers,
                           const std::function<At(int, int)>& place) {
  std::vector<uint64_t> out(static_cast<size_t>(registers) * 32);
  for (int i = 0; i < registers * per; ++i) {
    for (int lane = 0; lane < 32; ++lane) {
      const At at = place(i, lane);
      out[static_cast<size_t>(i / per * 32 + lane)] |= e.encode(p.at(at.row, at.column))
                                                       << (static_cast<uint32_t>(i % per) * e.bits);
    }
  }
  return out;
}

std::string names(const std::string& prefix, int first, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += (i != 0 ? ", " : "") + prefix + std::to_string(first + i);
  return text + "}";
}

/// Loads (or stores) registers, each 8 bytes per lane, from a parameter's buffer.
std::string move(bool load, int parameter, const std::string& prefix, int first, int count) {
  std::string text = "ld.param.u64 %rd60, [p" + std::to_string(parameter) + "];\nadd.s64 %rd60, %rd60, %rd59;\n";
  const std::string type = prefix == "%fd" ? "f64" : "b32";
  for (int i = 0; i < count; ++i) {
    const std::string r = prefix + std::to_string(first + i), at = "[%rd60+" + std::to_string(256 * i) + "]";
    text +=
        load ? "ld.global." + type + " " + r + ", " + at + ";\n" : "st.global." + type + " " + at + ", " + r + ";\n";
  }
  return text;
}

struct Counts {
  int a, b, c, d;
};

/// Runs one warp's mma on packed registers; returns d's.
std::vector<uint64_t> run_mma(const std::string& instruction, const Counts& n, bool wide,
                              const std::vector<uint64_t>& a, const std::vector<uint64_t>& b,
                              const std::vector<uint64_t>& c) {
  const std::string r = wide ? "%fd" : "%r";
  const std::string body = "mov.u32 %r120, %tid.x;\nmul.wide.u32 %rd59, %r120, 8;\n" + move(true, 0, r, 0, n.a) +
                           move(true, 1, r, 8, n.b) + move(true, 2, r, 16, n.c) + instruction + " " +
                           names(r, 32, n.d) + ", " + names(r, 0, n.a) + ", " + names(r, 8, n.b) + ", " +
                           names(r, 16, n.c) + ";\n" + move(false, 3, r, 32, n.d);
  Device device;
  Allocation* const to = device.upload(std::vector<uint64_t>(static_cast<size_t>(n.d) * 32));
  const Outcome outcome =
      device.run(kernel(4, body), {1, 1, 1}, {32, 1, 1}, device.upload(a), device.upload(b), device.upload(c), to);
  EXPECT_EQ(outcome.status, Status::kOk) << outcome.message;
  return device.download<uint64_t>(to);
}

class Mma : public ::testing::TestWithParam<MmaCase> {
 protected:
  MmaCase p = GetParam();
  Element a = element(p.a), b = element(p.b), c = element(p.c), d = element(p.d);
  int per = p.a == "tf32" || p.a == "f64" ? 1 : static_cast<int>(32 / a.bits);
  int per_c = p.c == "f16" ? 2 : 1, per_d = p.d == "f16" ? 2 : 1;
  Counts count{p.m * p.k / 32 / per, p.n* p.k / 32 / per, p.m* p.n / 32 / per_c, p.m* p.n / 32 / per_d};
  std::string instruction = "mma.sync.aligned." + p.shape + ".row.col." +
                            (p.extra == ".satfinite" ? "satfinite." : "") + p.d + "." + p.a + "." + p.b + "." + p.c +
                            (p.extra == ".satfinite" ? std::string() : p.extra);

  std::vector<uint64_t> run(const Plain& x, const Plain& y, const Plain& z) {
    return run_mma(instruction, count, p.a == "f64",
                   pack(x, a, per, count.a, [&](int i, int lane) { return place_of_a(per, p.m, i, lane); }),
                   pack(y, b, per, count.b, [&](int i, int lane) { return place_of_b(per, i, lane); }),
                   pack(z, c, per_c, count.c, place_of_c));
  }
  double result(const std::vector<uint64_t>& bits, int i, int lane) const {
    const uint64_t word =
        bits[static_cast<size_t>(i / per_d * 32 + lane)] >> (static_cast<uint32_t>(i % per_d) * d.bits);
    return d.decode(word & (d.bits == 64 ? ~uint64_t{0} : (uint64_t{1} << d.bits) - 1));
  }
};

TEST_P(Mma, EqualsTheProduct) {
  const Plain x = Plain::random(p.m, p.k, a, 1), y = Plain::random(p.k, p.n, b, 2), z = Plain::random(p.m, p.n, c, 3);
  const auto times = p.extra == ".xor.popc"
                         ? std::function<double(double, double)>([](double s, double t) { return s == t ? 0 : 1; })
                         : std::function<double(double, double)>([](double s, double t) { return s * t; });
  const Plain expected = product(x, y, z, times);
  const std::vector<uint64_t> got = run(x, y, z);
  for (int i = 0; i < count.d * per_d; ++i) {
    for (int lane = 0; lane < 32; ++lane) {
      const At at = place_of_c(i, lane);
      ASSERT_EQ(result(got, i, lane), expected.at(at.row, at.column)) << "row " << at.row << ", column " << at.column;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Halves, Mma,
                         ::testing::Values(MmaCase{"m16n8k8", 16, 8, 8, "f16", "f16", "f32", "f32"},
                                           MmaCase{"m16n8k8", 16, 8, 8, "f16", "f16", "f16", "f16"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "f16", "f16", "f32", "f32"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "f16", "f16", "f16", "f16"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "f16", "f16", "f16", "f32"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "f16", "f16", "f32", "f16"},
                                           MmaCase{"m16n8k8", 16, 8, 8, "bf16", "bf16", "f32", "f32"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "bf16", "bf16", "f32", "f32"},
                                           MmaCase{"m16n8k4", 16, 8, 4, "tf32", "tf32", "f32", "f32"},
                                           MmaCase{"m16n8k8", 16, 8, 8, "tf32", "tf32", "f32", "f32"}));
INSTANTIATE_TEST_SUITE_P(Eighths, Mma,
                         ::testing::Values(MmaCase{"m16n8k32", 16, 8, 32, "e4m3", "e4m3", "f32", "f32"},
                                           MmaCase{"m16n8k32", 16, 8, 32, "e5m2", "e5m2", "f32", "f32"},
                                           MmaCase{"m16n8k32", 16, 8, 32, "e4m3", "e5m2", "f32", "f32"},
                                           MmaCase{"m16n8k32", 16, 8, 32, "e5m2", "e4m3", "f16", "f16"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "e4m3", "e4m3", "f32", "f32"}));
INSTANTIATE_TEST_SUITE_P(Integers, Mma,
                         ::testing::Values(MmaCase{"m8n8k16", 8, 8, 16, "s8", "s8", "s32", "s32"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "s8", "s8", "s32", "s32"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "u8", "s8", "s32", "s32"},
                                           MmaCase{"m16n8k32", 16, 8, 32, "s8", "u8", "s32", "s32"},
                                           MmaCase{"m16n8k32", 16, 8, 32, "u8", "u8", "s32", "s32", ".satfinite"},
                                           MmaCase{"m8n8k32", 8, 8, 32, "s4", "s4", "s32", "s32"},
                                           MmaCase{"m16n8k32", 16, 8, 32, "u4", "s4", "s32", "s32"},
                                           MmaCase{"m16n8k64", 16, 8, 64, "s4", "u4", "s32", "s32"},
                                           MmaCase{"m16n8k64", 16, 8, 64, "u4", "u4", "s32", "s32", ".satfinite"},
                                           MmaCase{"m8n8k128", 8, 8, 128, "b1", "b1", "s32", "s32", ".xor.popc"},
                                           MmaCase{"m16n8k128", 16, 8, 128, "b1", "b1", "s32", "s32", ".and.popc"},
                                           MmaCase{"m16n8k256", 16, 8, 256, "b1", "b1", "s32", "s32", ".xor.popc"},
                                           MmaCase{"m16n8k256", 16, 8, 256, "b1", "b1", "s32", "s32", ".and.popc"}));
INSTANTIATE_TEST_SUITE_P(Doubles, Mma,
                         ::testing::Values(MmaCase{"m8n8k4", 8, 8, 4, "f64", "f64", "f64", "f64"},
                                           MmaCase{"m16n8k4", 16, 8, 4, "f64", "f64", "f64", "f64"},
                                           MmaCase{"m16n8k8", 16, 8, 8, "f64", "f64", "f64", "f64"},
                                           MmaCase{"m16n8k16", 16, 8, 16, "f64", "f64", "f64", "f64"}));

/// A register in all lanes.
std::vector<uint64_t> all(uint64_t value, int registers) {
  return std::vector<uint64_t>(static_cast<size_t>(registers) * 32, value);
}

TEST(MmaRounding, SumsInOrderWithFusedMultiplyAdds) {
  // Numbers of every size: each element is the chain of fmas from k = 0 on.
  std::mt19937 random(5);
  std::uniform_real_distribution<float> small(-2, 2);
  Plain x(16, 16), y(16, 8), z(16, 8);
  const Element half = element("bf16"), single = element("f32");
  for (double& v : x.values) v = half.decode(half.encode(static_cast<double>(small(random))));
  for (double& v : y.values) v = half.decode(half.encode(static_cast<double>(small(random))));
  for (double& v : z.values) v = static_cast<double>(small(random) * 100);
  const std::vector<uint64_t> got = run_mma(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", {4, 2, 4, 4}, false,
      pack(x, half, 2, 4, [](int i, int lane) { return place_of_a(2, 16, i, lane); }),
      pack(y, half, 2, 2, [](int i, int lane) { return place_of_b(2, i, lane); }), pack(z, single, 1, 4, place_of_c));
  for (int i = 0; i < 4; ++i) {
    for (int lane = 0; lane < 32; ++lane) {
      const At at = place_of_c(i, lane);
      auto sum = static_cast<float>(z.at(at.row, at.column));
      for (int k = 0; k < 16; ++k) {
        sum = std::fmaf(static_cast<float>(x.at(at.row, k)), static_cast<float>(y.at(k, at.column)), sum);
      }
      ASSERT_EQ(static_cast<uint32_t>(got[static_cast<size_t>(i * 32 + lane)]), std::bit_cast<uint32_t>(sum));
    }
  }
}

TEST(MmaRounding, HalfAccumulatorsAreRoundedOnce) {
  // 2048 + 16 · 0.5: halves lose each single 0.5, and keep the sum of 8.
  const auto got = run_mma("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", {4, 2, 2, 2}, false, all(0x38003800, 4),
                           all(0x3c003c00, 2), all(0x68006800, 2));
  for (const uint64_t w : got) ASSERT_EQ(w, 0x68046804U);
}

TEST(MmaRounding, Tf32IgnoresTheLowerBits) {
  const auto got = run_mma("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", {4, 2, 4, 4}, false,
                           all(0x3f801fff, 4), all(0x3f800000, 2), all(0, 4));
  for (const uint64_t w : got) ASSERT_EQ(w, std::bit_cast<uint32_t>(8.0F));
}

TEST(MmaRounding, WhatIsNoNumberIsTheCanonicalOne) {
  const auto infinity = run_mma("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", {4, 2, 4, 4}, false,
                                all(0x7c007c00, 4), all(0x3c003c00, 2), all(0, 4));
  for (const uint64_t w : infinity) ASSERT_EQ(w, 0x7f800000U);
  const auto none = run_mma("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", {4, 2, 4, 4}, false,
                            all(0x7c007c00, 4), all(0x3c00bc00, 2), all(0, 4));
  for (const uint64_t w : none) ASSERT_EQ(w, 0x7fffffffU);
  const auto half = run_mma("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", {4, 2, 2, 2}, false,
                            all(0xfe00fe00, 4), all(0x3c003c00, 2), all(0, 2));
  for (const uint64_t w : half) ASSERT_EQ(w, 0x7fff7fffU);
}

TEST(MmaRounding, SubnormalFactorsCount) {
  // 2^-24 · 2^10, 16 times.
  const auto got = run_mma("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", {4, 2, 4, 4}, false, all(0x00010001, 4),
                           all(0x64006400, 2), all(0, 4));
  for (const uint64_t w : got) ASSERT_EQ(w, std::bit_cast<uint32_t>(std::ldexp(1.0F, -10)));
}

TEST(MmaSaturation, StopsAtTheEndsOnlyWhenAsked) {
  const std::string shape = "mma.sync.aligned.m16n8k32.row.col.", types = "s32.s8.s8.s32";
  const Counts n{4, 2, 4, 4};
  const uint64_t near_end = 0x7fffff00, near_start = 0x80000100;
  const auto up = [&](const std::string& sat, uint64_t c) {
    return run_mma(shape + sat + types, n, false, all(0x7f7f7f7f, 4), all(0x7f7f7f7f, 2), all(c, 4)).front();
  };
  const auto down = [&](const std::string& sat, uint64_t c) {
    return run_mma(shape + sat + types, n, false, all(0x80808080, 4), all(0x7f7f7f7f, 2), all(c, 4)).front();
  };
  const uint32_t gain = 32 * 127 * 127, loss = 32 * 128 * 127;
  EXPECT_EQ(up("satfinite.", near_end), 0x7fffffffU);
  EXPECT_EQ(up("", near_end), static_cast<uint32_t>(near_end) + gain);
  EXPECT_EQ(down("satfinite.", near_start), 0x80000000U);
  EXPECT_EQ(down("", near_start), static_cast<uint32_t>(near_start) - loss);
  EXPECT_EQ(up("satfinite.", 0x80000000), 0x80000000U + gain);
}

class MmaRefused : public ::testing::TestWithParam<std::string> {};

TEST_P(MmaRefused, IsAnError) {
  Device device;
  const Outcome outcome = device.run(kernel(0, GetParam()), {1, 1, 1}, {32, 1, 1});
  EXPECT_EQ(outcome.status, Status::kIllegalInstruction) << outcome.message;
}

INSTANTIATE_TEST_SUITE_P(
    All, MmaRefused,
    ::testing::Values(
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r0,%r1,%r2,%r3,%r4,%r5,%r6,%r7}, {%r8,%r9}, {%r10,%r11}, "
        "{%r0,%r1,%r2,%r3,%r4,%r5,%r6,%r7};",
        "mma.sync.aligned.m16n8k16.col.col.f32.f16.f16.f32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, "
        "{%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16 {%r0,%r1}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, {%r0,%r1};",
        "mma.sync.aligned.m16n8k16.row.col.satfinite.f32.f16.f16.f32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, "
        "{%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, "
        "{%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r0,%r1,%r2}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, "
        "{%r0,%r1,%r2,%r3};",
        "mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, "
        "{%r8,%r9,%r10,%r11}, {%r0,%r1,%r2,%r3}, %r12, 0;",
        "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r0,%r1}, [%r2];",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0,%r1}, [%r2];"));

// --- wmma -----------------------------------------------------------------------------------------------------------

struct WmmaCase {
  int m, n, k;
  std::string a, c;               // types
  int a_count, b_count, c_count;  // registers
  bool a_column, b_column, c_column;
};

void PrintTo(const WmmaCase& c, std::ostream* out) {
  *out << "m" << c.m << "n" << c.n << "k" << c.k << " " << c.a << " " << c.c << (c.a_column ? " col" : " row")
       << (c.b_column ? " col" : " row") << (c.c_column ? " col" : " row");
}

/// A matrix in memory as wmma.load takes it, with a stride larger than the matrix.
std::vector<std::byte> memory_of(const Plain& p, const Element& e, bool column_major, int stride) {
  const int lines = column_major ? p.columns : p.rows;
  std::vector<std::byte> bytes(static_cast<size_t>(lines * stride) * e.bits / 8);
  for (int r = 0; r < p.rows; ++r) {
    for (int c = 0; c < p.columns; ++c) {
      const auto index = static_cast<size_t>(column_major ? c * stride + r : r * stride + c);
      const uint64_t v = e.encode(p.at(r, c));
      if (e.bits >= 8) {
        std::memcpy(&bytes[index * e.bits / 8], &v, e.bits / 8);
      } else {
        bytes[index * e.bits / 8] |= static_cast<std::byte>(v << (index * e.bits % 8));
      }
    }
  }
  return bytes;
}

class Wmma : public ::testing::TestWithParam<WmmaCase> {};

TEST_P(Wmma, EqualsTheProduct) {
  const WmmaCase& p = GetParam();
  const Element a = element(p.a), c = element(p.c);
  const Plain x = Plain::random(p.m, p.k, a, 11), y = Plain::random(p.k, p.n, a, 12),
              z = Plain::random(p.m, p.n, c, 13);
  const auto pad = static_cast<int>(128 / a.bits);
  const int a_stride = (p.a_column ? p.m : p.k) + pad, b_stride = (p.b_column ? p.k : p.n) + pad,
            c_stride = (p.c_column ? p.m : p.n) + 8;
  const bool wide = p.a == "f64";
  const std::string r = wide ? "%fd" : p.c == "f32" ? "%f" : "%r", in = wide ? "%fd" : "%r";
  const std::string shape = "m" + std::to_string(p.m) + "n" + std::to_string(p.n) + "k" + std::to_string(p.k);
  const auto major = [](bool column) { return std::string(column ? ".col." : ".row."); };
  const bool bits = p.a == "b1";
  const std::string types = p.a == "f16" ? p.c + "." + p.c : p.c + "." + p.a + "." + p.a + "." + p.c;
  const std::string body =
      "ld.param.u64 %rd0, [p0];\nld.param.u64 %rd1, [p1];\nld.param.u64 %rd2, [p2];\nld.param.u64 %rd3, [p3];\n"
      "mov.u32 %r100, " +
      std::to_string(c_stride) +
      ";\n"
      "wmma.load.a.sync.aligned" +
      major(p.a_column) + shape + ".global." + p.a + " " + names(in, 0, p.a_count) + ", [%rd0], " +
      std::to_string(a_stride) +
      ";\n"
      "wmma.load.b.sync.aligned" +
      major(p.b_column) + shape + ".global." + p.a + " " + names(in, 16, p.b_count) + ", [%rd1], " +
      std::to_string(b_stride) +
      ";\n"
      "wmma.load.c.sync.aligned" +
      major(p.c_column) + shape + ".global." + p.c + " " + names(r, 32, p.c_count) +
      ", [%rd2], %r100;\n"
      "wmma.mma" +
      (bits ? ".xor.popc" : "") + ".sync.aligned" + major(p.a_column) + (p.b_column ? "col." : "row.") + shape + "." +
      types + " " + names(r, 40, p.c_count) + ", " + names(in, 0, p.a_count) + ", " + names(in, 16, p.b_count) + ", " +
      names(r, 32, p.c_count) +
      ";\n"
      "wmma.store.d.sync.aligned" +
      major(!p.c_column) + shape + ".global." + p.c + " [%rd3], " + names(r, 40, p.c_count) + ", " +
      std::to_string(p.c_column ? p.n : p.m) + ";\n";
  Device device;
  Allocation* const to = device.upload(std::vector<std::byte>(static_cast<size_t>(p.m * p.n) * c.bits / 8));
  const Outcome outcome = device.run(
      kernel(4, body), {1, 1, 1}, {32, 1, 1}, device.upload(memory_of(x, a, p.a_column, a_stride)),
      device.upload(memory_of(y, a, p.b_column, b_stride)), device.upload(memory_of(z, c, p.c_column, c_stride)), to);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  const auto got = device.download<std::byte>(to);
  const Plain expected =
      product(x, y, z,
              bits ? std::function<double(double, double)>([](double s, double t) { return s == t ? 0 : 1; })
                   : std::function<double(double, double)>([](double s, double t) { return s * t; }));
  // Stored the other way round, densely.
  for (int i = 0; i < p.m; ++i) {
    for (int j = 0; j < p.n; ++j) {
      const auto index = static_cast<size_t>(p.c_column ? i * p.n + j : j * p.m + i);
      uint64_t v = 0;
      std::memcpy(&v, &got[index * c.bits / 8], c.bits / 8);
      ASSERT_EQ(c.decode(v), expected.at(i, j)) << "row " << i << ", column " << j;
    }
  }
}

std::vector<WmmaCase> wmma_cases() {
  std::vector<WmmaCase> cases;
  const auto add = [&](WmmaCase c, bool fixed) {
    for (int layout = 0; layout < 8; ++layout) {
      if (fixed && (layout & 3) != 2) continue;  // a row after row, b column after column
      c.a_column = (layout & 1) != 0;
      c.b_column = (layout & 2) != 0;
      c.c_column = (layout & 4) != 0;
      cases.push_back(c);
    }
  };
  const int shapes[][2] = {{16, 16}, {32, 8}, {8, 32}};
  for (const auto& [m, n] : shapes) {
    add({m, n, 16, "f16", "f32", 8, 8, 8, false, false, false}, false);
    add({m, n, 16, "f16", "f16", 8, 8, 4, false, false, false}, false);
    add({m, n, 16, "bf16", "f32", m / 4, n / 4, 8, false, false, false}, false);
    add({m, n, 16, "s8", "s32", m / 8, n / 8, 8, false, false, false}, false);
    add({m, n, 16, "u8", "s32", m / 8, n / 8, 8, false, false, false}, false);
  }
  add({16, 16, 8, "tf32", "f32", 4, 4, 8, false, false, false}, false);
  add({8, 8, 4, "f64", "f64", 1, 1, 2, false, false, false}, false);
  add({8, 8, 32, "s4", "s32", 1, 1, 2, false, false, false}, true);
  add({8, 8, 32, "u4", "s32", 1, 1, 2, false, false, false}, true);
  add({8, 8, 128, "b1", "s32", 1, 1, 2, false, false, false}, true);
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, Wmma, ::testing::ValuesIn(wmma_cases()));

// --- ldmatrix, stmatrix, movmatrix ----------------------------------------------------------------------------------

class MatrixMoves : public ::testing::TestWithParam<std::tuple<int, bool>> {};

/// Rows of 8 halves: element c of row r of matrix i is 64 i + 8 r + c.
std::vector<uint16_t> rows() {
  std::vector<uint16_t> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * 257);
  return values;
}

/// %r0: tid; shared memory of 32 rows of 16 bytes; %r1: the shared address of the row (5 · tid) mod 32 of the given
/// memory, which lies in an order of its own.
const char* const kShared =
    ".shared .align 16 .b8 s[512];\nmov.u32 %r0, %tid.x;\nmul.lo.u32 %r1, %r0, 5;\nand.b32 %r1, %r1, 31;\n"
    "shl.b32 %r1, %r1, 4;\nmov.u32 %r2, s;\nadd.u32 %r1, %r1, %r2;\nmul.wide.u32 %rd1, %r0, 16;\n";

TEST_P(MatrixMoves, LoadsAsTheManualSays) {
  const auto [count, transposed] = GetParam();
  const std::string body =
      std::string(kShared) +
      "ld.param.u64 %rd2, [p0];\nadd.s64 %rd2, %rd2, %rd1;\nld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd2];\n"
      "st.shared.v4.u32 [%r1], {%r4, %r5, %r6, %r7};\nbar.warp.sync -1;\n" +
      "ldmatrix.sync.aligned.m8n8.x" + std::to_string(count) + (transposed ? ".trans" : "") + ".shared.b16 " +
      names("%r", 10, count) + ", [%r1];\nmul.wide.u32 %rd59, %r0, 8;\n" + move(false, 1, "%r", 10, count);
  Device device;
  Allocation* const to = device.upload(std::vector<uint64_t>(static_cast<size_t>(count) * 32));
  const Outcome outcome = device.run(kernel(2, body), {1, 1, 1}, {32, 1, 1}, device.upload(rows()), to);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  const auto got = device.download<uint64_t>(to);
  const auto value = rows();
  for (int i = 0; i < count; ++i) {
    for (int lane = 0; lane < 32; ++lane) {
      // Row lane / 4, columns 2 (lane mod 4) and the next; transposed the columns are rows.
      const int r = lane / 4, c = lane % 4 * 2;
      const auto at = [&](int row, int column) { return value[static_cast<size_t>(64 * i + 8 * row + column)]; };
      const uint32_t expected =
          transposed ? at(c, r) | uint32_t{at(c + 1, r)} << 16 : at(r, c) | uint32_t{at(r, c + 1)} << 16;
      ASSERT_EQ(got[static_cast<size_t>(32 * i + lane)], expected) << "matrix " << i << ", lane " << lane;
    }
  }
}

TEST_P(MatrixMoves, StoresWhatItWouldLoad) {
  const auto [count, transposed] = GetParam();
  const std::string how = "m8n8.x" + std::to_string(count) + (transposed ? ".trans" : "") + ".shared.b16 ";
  const std::string body =
      std::string(kShared) +
      "mul.lo.u32 %r10, %r0, 65537;\nadd.u32 %r11, %r10, 0x00400041;\nadd.u32 %r12, %r10, 0x00800083;\n"
      "add.u32 %r13, %r10, 0x00c000c7;\n"
      "mov.u32 %r3, 0;\nst.shared.v4.u32 [%r1], {%r3, %r3, %r3, %r3};\nbar.warp.sync -1;\n"
      "stmatrix.sync.aligned." +
      how + "[%r1], " + names("%r", 10, count) + ";\nbar.warp.sync -1;\n" + "ldmatrix.sync.aligned." + how +
      names("%r", 20, count) + ", [%r1];\nmul.wide.u32 %rd59, %r0, 8;\n" + move(false, 0, "%r", 20, count);
  Device device;
  Allocation* const to = device.upload(std::vector<uint64_t>(static_cast<size_t>(count) * 32));
  const Outcome outcome = device.run(kernel(1, body), {1, 1, 1}, {32, 1, 1}, to);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  const auto got = device.download<uint64_t>(to);
  const uint32_t plus[] = {0, 0x00400041, 0x00800083, 0x00c000c7};
  for (uint32_t i = 0; i < static_cast<uint32_t>(count); ++i) {
    for (uint32_t lane = 0; lane < 32; ++lane) ASSERT_EQ(got[32 * i + lane], lane * 65537 + plus[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MatrixMoves, ::testing::Combine(::testing::Values(1, 2, 4), ::testing::Bool()));

TEST(Movmatrix, Transposes) {
  Device device;
  Allocation* const to = device.upload(Words(32));
  const std::string body =
      "mov.u32 %r0, %tid.x;\nshl.b32 %r1, %r0, 1;\nadd.u32 %r2, %r1, 1;\nshl.b32 %r2, %r2, 16;\nor.b32 %r1, %r1, %r2;\n"
      "movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r1;\nld.param.u64 %rd1, [p0];\nmul.wide.u32 %rd2, %r0, 4;\n"
      "add.s64 %rd1, %rd1, %rd2;\nst.global.u32 [%rd1], %r1;\n";
  const Outcome outcome = device.run(kernel(1, body), {1, 1, 1}, {32, 1, 1}, to);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  const auto got = device.download<uint32_t>(to);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    // Element (r, c) was 8 r + c.
    const uint32_t r = lane / 4, c = lane % 4 * 2;
    ASSERT_EQ(got[lane], (8 * c + r) | (8 * (c + 1) + r) << 16);
  }
}

TEST(Ldmatrix, RowsOutsideAreAFault) {
  Device device;
  const Outcome outcome =
      device.run(kernel(0, std::string(kShared) + "add.u32 %r1, %r1, 256;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 "
                                                  "{%r4,%r5,%r6,%r7}, [%r1];\n"),
                 {1, 1, 1}, {32, 1, 1});
  EXPECT_EQ(outcome.status, Status::kIllegalAddress) << outcome.message;
}

TEST(Ldmatrix, LanesThatMissWaitForTheOthers) {
  // Half of the warp comes by another way, and later.
  Device device;
  Allocation* const to = device.upload(Words(32));
  const std::string body =
      std::string(kShared) +
      "st.shared.v4.u32 [%r1], {%r0, %r0, %r0, %r0};\nbar.warp.sync -1;\nsetp.lt.u32 %p1, %r0, 16;\n@%p1 bra L;\n"
      "add.u32 %r1, %r1, 0;\nL:\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r1];\nld.param.u64 %rd1, [p0];\n"
      "mul.wide.u32 %rd2, %r0, 4;\nadd.s64 %rd1, %rd1, %rd2;\nst.global.u32 [%rd1], %r4;\n";
  const Outcome outcome = device.run(kernel(1, body), {1, 1, 1}, {32, 1, 1}, to);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  const auto got = device.download<uint32_t>(to);
  for (uint32_t lane = 0; lane < 32; ++lane) ASSERT_EQ(got[lane], lane / 4);
}

}  // namespace
}  // namespace ptxsim::testing
