#include <bit>
#include <cmath>
#include <map>

#include "tests/ptxsim/exec/lane_cases.h"
#include "tools/ptxsim/error.h"

namespace ptxsim::testing {
namespace {

using Real = long double;  // holds every 64-bit integer and every double

/// A floating format by its parameters: the reference decodes, rounds and encodes by arithmetic, not by bits.
struct Format {
  std::string name;
  uint32_t bits;
  int mantissa, exponent;  // bits of each
  uint64_t nan;
  bool infinite = true;

  int bias() const { return (1 << (exponent - 1)) - 1; }
  int lowest_exponent() const { return 1 - bias(); }
  int highest_exponent() const { return infinite ? bias() : bias() + 1; }
  Real largest() const {
    const Real step = std::ldexp(Real{1}, -mantissa);
    return std::ldexp(2 - (infinite ? step : 2 * step), highest_exponent());
  }
  Real decode(uint64_t v) const {
    const uint64_t m = v & ((uint64_t{1} << mantissa) - 1);
    const auto e = static_cast<int>(v >> mantissa & ((uint64_t{1} << exponent) - 1));
    const bool negative = (v >> (mantissa + exponent) & 1) != 0;
    const int top = (1 << exponent) - 1;
    if (e == top && infinite) return m != 0 ? NAN : negative ? -INFINITY : INFINITY;
    if (e == top && m == (uint64_t{1} << mantissa) - 1) return NAN;
    const Real significand = static_cast<Real>(m) + (e != 0 ? std::ldexp(Real{1}, mantissa) : Real{0});
    const Real x = std::ldexp(significand, std::max(e, 1) - bias() - mantissa);
    return negative ? -x : x;
  }
  /// Of a value that the format holds.
  uint64_t encode(Real x) const {
    if (std::isnan(x)) return nan;
    const uint64_t sign = std::signbit(x) ? uint64_t{1} << (mantissa + exponent) : 0;
    x = std::fabs(x);
    if (std::isinf(x)) return sign | ((uint64_t{1} << exponent) - 1) << mantissa;
    if (x == 0) return sign;
    const int e = std::max(std::ilogb(x), lowest_exponent());
    const auto steps = static_cast<uint64_t>(std::ldexp(x, mantissa - e));
    const bool normal = steps >> mantissa != 0;
    return sign | (normal ? static_cast<uint64_t>(e + bias()) << mantissa : 0) |
           (steps & ((uint64_t{1} << mantissa) - 1));
  }
  Real round(Real x, const std::string& mode) const;
};

Real round_integral(Real x, const std::string& mode) {
  const char kind = mode[1];
  Real r = kind == 'z' ? std::trunc(x) : kind == 'm' ? std::floor(x) : kind == 'p' ? std::ceil(x) : std::nearbyint(x);
  if (mode == "rna") r = std::trunc(std::fabs(x) + Real{0.5}) * (x < 0 ? -1 : 1);
  return std::copysign(r, x);
}

Real Format::round(Real x, const std::string& mode) const {
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  const int e = std::max(std::ilogb(x), lowest_exponent());
  const Real r = std::copysign(std::ldexp(round_integral(std::ldexp(x, mantissa - e), mode), e - mantissa), x);
  if (std::fabs(r) <= largest()) return r;
  const bool towards = mode == "rz" || (mode == "rm" && x > 0) || (mode == "rp" && x < 0);
  return std::copysign(towards ? largest() : Real{INFINITY}, x);
}

const Format kF16{"f16", 16, 10, 5, 0x7fff};
const Format kBf16{"bf16", 16, 7, 8, 0x7fff};
const Format kF32{"f32", 32, 23, 8, 0x7fffffff};
const Format kF64{"f64", 64, 52, 11, 0x7ff8000000000000};
const Format kE4m3{"e4m3", 8, 3, 4, 0x7f, false};
const Format kE5m2{"e5m2", 8, 2, 5, 0x7f};

/// Values around everything that matters in any of the formats, as bits of this one.
std::vector<uint64_t> edges_of(const Format& f) {
  std::vector<Real> values;
  const auto around = [&](Real x) {
    for (const Real factor : {Real{1}, 1 - std::ldexp(Real{1}, -24), 1 + std::ldexp(Real{1}, -23),
                              1 - std::ldexp(Real{1}, -53), 1 + std::ldexp(Real{1}, -52), 1 + std::ldexp(Real{1}, -11),
                              1 + std::ldexp(Real{3}, -11), 1 + std::ldexp(Real{1}, -8), 1 + std::ldexp(Real{3}, -8)}) {
      values.push_back(x * factor);
    }
  };
  for (const int e : {-1074, -1022, -149, -148, -137, -136, -133, -127, -126, -125, -25, -24, -23, -17,
                      -16,   -15,   -14,  -10,  -9,   -7,   -6,   -2,   -1,   0,    1,   6,   7,   8,
                      14,    15,    16,   30,   31,   32,   62,   63,   64,   126,  127, 128, 1023}) {
    around(std::ldexp(Real{1}, e));
  }
  for (const Format& g : {kF16, kBf16, kF32, kE4m3, kE5m2}) {
    around(g.largest());
    around(g.largest() * (1 + std::ldexp(Real{1}, -g.mantissa - 2)));
  }
  for (const double x : {0.0,
                         0.25,
                         0.5,
                         0.75,
                         1.5,
                         2.5,
                         3.5,
                         126.5,
                         127.5,
                         128.5,
                         254.5,
                         255.5,
                         32766.5,
                         32767.5,
                         32768.5,
                         65534.5,
                         65535.5,
                         2147483646.5,
                         2147483647.5,
                         2147483648.5,
                         4294967294.5,
                         4294967295.5,
                         9223372036854774784.0,
                         9223372036854775808.0,
                         18446744073709549568.0}) {
    values.push_back(x);
  }
  std::vector<uint64_t> bits;
  for (const Real v : values) {
    for (const char* mode : {"rz", "rn"}) {
      const uint64_t b = f.encode(f.round(v, mode));
      bits.push_back(b);
      bits.push_back(b | uint64_t{1} << (f.bits - 1));
    }
  }
  // Infinities and NaNs of several kinds.
  const uint64_t infinity = f.encode(INFINITY), sign = uint64_t{1} << (f.bits - 1);
  for (const uint64_t special : {infinity, infinity + 1, infinity + (uint64_t{1} << (f.mantissa - 1)), f.nan}) {
    bits.push_back(special);
    bits.push_back(special | sign);
  }
  return bits;
}

struct Integer {
  std::string name;
  uint32_t bits;
  bool is_signed;
  uint32_t natural() const { return std::max<uint32_t>(bits, 16); }
  Real decode(uint64_t v) const {
    v = low_bits(v, bits);
    if (is_signed && (v >> (bits - 1) & 1) != 0)
      return static_cast<Real>(v) - std::ldexp(Real{1}, static_cast<int>(bits));
    return static_cast<Real>(v);
  }
  Real lowest() const { return is_signed ? -std::ldexp(Real{1}, static_cast<int>(bits) - 1) : 0; }
  Real highest() const { return std::ldexp(Real{1}, static_cast<int>(is_signed ? bits - 1 : bits)) - 1; }
  /// Sign or zeros above the type's bits.
  uint64_t encode(Real x) const {
    if (x < 0) return static_cast<uint64_t>(-static_cast<int64_t>(-x - 1) - 1);
    return static_cast<uint64_t>(x);
  }
};

const Integer kIntegers[] = {{"u8", 8, false},   {"s8", 8, true},   {"u16", 16, false}, {"s16", 16, true},
                             {"u32", 32, false}, {"s32", 32, true}, {"u64", 64, false}, {"s64", 64, true}};

std::vector<LaneCase> integer_cases() {
  std::vector<LaneCase> cases;
  for (const Integer& from : kIntegers) {
    for (const Integer& to : kIntegers) {
      for (const uint32_t source : {16U, 32U, 64U}) {
        for (const uint32_t destination : {16U, 32U, 64U}) {
          if (source < from.bits || destination < to.bits) continue;
          const std::string types = to.name + "." + from.name + " $d, $a;";
          cases.push_back({"cvt." + types, destination, {source}, [=](const Values& v) {
                             const uint64_t wrapped = low_bits(from.encode(from.decode(v[0])), to.bits);
                             return to.encode(to.decode(wrapped));
                           }});
          if (source != from.natural()) continue;
          cases.push_back({"cvt.sat." + types, destination, {source}, [=](const Values& v) {
                             return to.encode(std::min(std::max(from.decode(v[0]), to.lowest()), to.highest()));
                           }});
        }
      }
    }
  }
  return cases;
}

std::vector<LaneCase> mixed_cases() {
  std::vector<LaneCase> cases;
  for (const Format& f : {kF16, kBf16, kF32, kF64}) {
    for (const Integer& i : kIntegers) {
      for (const std::string mode : {"rni", "rzi", "rmi", "rpi"}) {
        for (const uint32_t destination : {16U, 32U, 64U}) {
          if (destination < i.bits || (destination != i.natural() && mode != "rmi")) continue;
          for (const bool ftz : {false, true}) {
            if (ftz && f.name != "f32") continue;
            cases.push_back({"cvt." + mode + (ftz ? ".ftz." : ".") + i.name + "." + f.name + " $d, $a;",
                             destination,
                             {f.bits},
                             [=](const Values& v) {
                               Real x = f.decode(v[0]);
                               if (ftz && std::fabs(x) < std::ldexp(Real{1}, -126)) x = 0;
                               if (std::isnan(x)) {
                                 const bool wide = f.bits == 64 || i.bits == 64;
                                 const uint64_t nan = wide ? uint64_t{1} << (i.bits - 1) : 0;
                                 return i.encode(i.decode(nan));
                               }
                               return i.encode(std::min(std::max(round_integral(x, mode), i.lowest()), i.highest()));
                             },
                             edges_of(f)});
          }
        }
      }
      for (const std::string mode : {"rn", "rz", "rm", "rp"}) {
        for (const uint32_t source : {16U, 32U, 64U}) {
          if (source < i.bits || (source != i.natural() && mode != "rn")) continue;
          cases.push_back({"cvt." + mode + "." + f.name + "." + i.name + " $d, $a;",
                           f.bits,
                           {source},
                           [=](const Values& v) { return f.encode(f.round(i.decode(v[0]), mode)); },
                           {65503,
                            65504,
                            65519,
                            65520,
                            65521,
                            2049,
                            2051,
                            257,
                            259,
                            16777217,
                            16777219,
                            33554434,
                            9007199254740993,
                            9007199254740995,
                            0xfffffffffffffbff,
                            0xfffffffffffffc01,
                            0xffffffffffffffff,
                            0xffffff7fffffffff,
                            0xffffff8000000000,
                            0xffffff8000000001}});
        }
      }
    }
    cases.push_back({"cvt.rn.sat." + f.name + ".s32 $d, $a;", f.bits, {32}, [=](const Values& v) {
                       return static_cast<int32_t>(v[0]) > 0 ? f.encode(1) : 0;
                     }});
  }
  return cases;
}

std::vector<LaneCase> float_cases() {
  std::vector<LaneCase> cases;
  const auto flush = [](Real x, const Format& f) {
    return f.name == "f32" && std::fabs(x) < std::ldexp(Real{1}, -126) ? std::copysign(Real{0}, x) : x;
  };
  const auto saturate = [](Real x) { return x > 0 ? std::min<Real>(x, 1) : 0; };
  for (const Format& from : {kF16, kBf16, kF32, kF64}) {
    for (const Format& to : {kF16, kBf16, kF32, kF64}) {
      std::vector<std::string> modes = {""};
      if (from.name == to.name) {
        modes = {"rni", "rzi", "rmi", "rpi", ""};
      } else if (to.mantissa < from.mantissa || (to.name == "f16" && from.name == "bf16")) {
        modes = {"rn", "rz", "rm", "rp"};
      }
      for (const std::string& mode : modes) {
        for (const bool ftz : {false, true}) {
          if (ftz && from.name != "f32" && to.name != "f32") continue;
          for (const bool sat : {false, true}) {
            if (mode.empty() && from.name == to.name && !ftz && !sat) continue;
            cases.push_back({"cvt" + (mode.empty() ? "" : "." + mode) + (ftz ? ".ftz" : "") + (sat ? ".sat" : "") +
                                 "." + to.name + "." + from.name + " $d, $a;",
                             to.bits,
                             {from.bits},
                             [=](const Values& v) -> uint64_t {
                               Real x = from.decode(v[0]);
                               if (std::isnan(x) && !sat) {
                                 // bf16 to f32 moves bits; doubles keep what the NaN says.
                                 if (to.name == "f32" && from.name == "bf16" && !ftz) return v[0] << 16;
                                 if (to.bits == 64) return 0;
                                 return to.nan;
                               }
                               if (ftz) x = flush(x, from);
                               if (mode.size() == 3) x = round_integral(x, mode);
                               if (sat) x = saturate(x);
                               if (mode.size() == 2) x = to.round(x, mode);
                               if (ftz) x = flush(x, to);
                               return to.encode(x);
                             },
                             edges_of(from)});
            if (to.bits == 64) {  // NaNs by what they are, not by their bits
              LaneCase& c = cases.back();
              c.text += "\nsetp.nan.f64 %p3, $d, $d;\nselp.b64 $d, 0, $d, %p3;";
            }
          }
        }
      }
    }
  }
  for (const Format& to : {kF16, kBf16}) {
    cases.push_back({"cvt.rn.relu." + to.name + ".f32 $d, $a;",
                     16,
                     {32},
                     [=](const Values& v) {
                       const Real x = to.round(kF32.decode(v[0]), "rn");
                       return to.encode(x > 0 || std::isnan(x) ? x : 0);
                     },
                     edges_of(kF32)});
  }
  for (const std::string mode : {"rna", "rn", "rz"}) {
    for (const bool relu : {false, true}) {
      if (relu && mode == "rna") continue;
      const Format tf32{"tf32", 32, 10, 8, 0x3ffff};
      cases.push_back({"cvt." + mode + (relu ? ".relu" : "") + ".tf32.f32 $d, $a;",
                       32,
                       {32},
                       [=](const Values& v) {
                         Real x = tf32.round(kF32.decode(v[0]), mode);
                         if (std::isnan(x)) return uint64_t{0x7fffffff};
                         if (relu && !(x > 0)) x = 0;
                         return tf32.encode(x) << 13;
                       },
                       edges_of(kF32)});
    }
  }
  return cases;
}

std::vector<LaneCase> pair_cases() {
  std::vector<LaneCase> cases;
  for (const Format& to : {kF16, kBf16, kE4m3, kE5m2}) {
    for (const std::string mode : {"rn", "rz"}) {
      const bool eight = to.bits == 8;
      if (eight && mode == "rz") continue;
      for (const bool relu : {false, true}) {
        for (const bool satfinite : {false, true}) {
          if (eight && !satfinite) continue;
          const auto one = [=](uint64_t v, const Format& from) {
            Real x = to.round(from.decode(v), mode);
            if (satfinite && std::fabs(x) > to.largest()) x = std::copysign(to.largest(), x);
            if (relu && !(x > 0) && !std::isnan(x)) x = 0;
            return to.encode(x);
          };
          const std::string how = "cvt." + mode + (satfinite ? ".satfinite" : "") + (relu ? ".relu." : ".") + to.name;
          cases.push_back({how + "x2.f32 $d, $a, $b;",
                           2 * to.bits,
                           {32, 32},
                           [=](const Values& v) { return one(v[0], kF32) << to.bits | one(v[1], kF32); },
                           edges_of(kF32)});
          if (!eight) continue;
          std::vector<uint64_t> edges;
          for (const uint64_t e : edges_of(kF16)) edges.push_back(e << 16 | (e * 7 & 0xffff));
          cases.push_back({how + "x2.f16x2 $d, $a;",
                           16,
                           {32},
                           [=](const Values& v) { return one(v[0] >> 16, kF16) << 8 | one(v[0] & 0xffff, kF16); },
                           edges});
        }
      }
      if (!eight) continue;
      cases.push_back({"cvt.rn.f16x2." + to.name + "x2 $d, $a;", 32, {16}, [=](const Values& v) {
                         return kF16.encode(to.decode(v[0] >> 8)) << 16 | kF16.encode(to.decode(v[0] & 0xff));
                       }});
    }
  }
  for (const Integer& i :
       {Integer{"u16", 16, false}, Integer{"s16", 16, true}, Integer{"u8", 8, false}, Integer{"s8", 8, true},
        Integer{"u4", 4, false}, Integer{"s4", 4, true}, Integer{"u2", 2, false}, Integer{"s2", 2, true}}) {
    const bool three = i.bits != 16;
    cases.push_back({"cvt.pack.sat." + i.name + ".s32 $d, $a, $b" + (three ? ", $c;" : ";"),
                     32,
                     {32, 32, 32},
                     [=](const Values& v) {
                       const auto field = [&](uint64_t x) {
                         const auto value = static_cast<Real>(static_cast<int32_t>(x));
                         return low_bits(i.encode(std::min(std::max(value, i.lowest()), i.highest())), i.bits);
                       };
                       return (three ? v[2] << (2 * i.bits) : 0) | field(v[0]) << i.bits | field(v[1]);
                     }});
  }
  return cases;
}

class Conversion : public ::testing::TestWithParam<LaneCase> {};

TEST_P(Conversion, EveryLane) { check_lanes(GetParam(), false); }
TEST_P(Conversion, UnderAGuard) { check_lanes(GetParam(), true); }

INSTANTIATE_TEST_SUITE_P(Integers, Conversion, ::testing::ValuesIn(integer_cases()));
INSTANTIATE_TEST_SUITE_P(Mixed, Conversion, ::testing::ValuesIn(mixed_cases()));
INSTANTIATE_TEST_SUITE_P(Floats, Conversion, ::testing::ValuesIn(float_cases()));
INSTANTIATE_TEST_SUITE_P(Pairs, Conversion, ::testing::ValuesIn(pair_cases()));

TEST(ConversionForms, UnknownOnesAreRefused) {
  for (const std::string text :
       {"cvt.f16.f32 %h1, %r1;", "cvt.rn.f32.f16 %r1, %h1;", "cvt.s32.f32 %r1, %r2;", "cvt.rn.s32.f32 %r1, %r2;",
        "cvt.f32.s32 %r1, %r2;", "cvt.rni.f32.s32 %r1, %r2;", "cvt.rn.u32.u16 %r1, %h1;",
        "cvt.rs.f16x2.f32 %r1, %r2, %r3;", "cvt.rn.e4m3x2.f32 %h1, %r1, %r2;", "cvt.rna.f16.f32 %h1, %r1;",
        "cvt.u32.u64 %r1, %r2;", "cvt.u32 %r1, %r2;", "cvt.rn.rz.f16.f32 %h1, %r1;", "cvt.ftz.u32.u16 %r1, %h1;",
        "cvt.rni.ftz.s32.f64 %r1, %rd1;"}) {
    Device device;
    bool refused = false;
    try {
      refused = device.run(kernel(0, text), {1, 1, 1}, {32, 1, 1}).status != Status::kOk;
    } catch (const ptxsim::Error&) {
      refused = true;
    }
    EXPECT_TRUE(refused) << text;
  }
}

}  // namespace
}  // namespace ptxsim::testing
