#include <gtest/gtest.h>

#include <cfenv>

#include "tests/ptxsim/exec/float_reference.h"
#include "tests/ptxsim/exec/lane_cases.h"

namespace ptxsim::testing {
namespace {

const std::vector<uint64_t> kF32Edges = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000, 0x00800001,
    0x3f7fffff, 0x3f800000, 0x3f800001, 0xbf7fffff, 0xbf800000, 0xbf800001, 0x40000000, 0x40400000, 0x3f000000,
    0x3effffff, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f812345, 0x4b800000,
    0x4b7fffff, 0xcb800001, 0x34000000, 0x33800000, 0x33800001, 0x00ffffff, 0x20000000, 0x5f000000, 0x7e800000,
    0x7e800001, 0x7effffff, 0x3f7ff800, 0x00800400, 0x42b17218, 0x3dcccccd, 0xbdcccccd, 0x41200000, 0xc2fc0000};
const std::vector<uint64_t> kF64Edges = {
    0x0000000000000000, 0x8000000000000000, 0x0000000000000001, 0x800fffffffffffff, 0x0010000000000000,
    0x3ff0000000000000, 0xbff0000000000000, 0x3ff0000000000001, 0x3fefffffffffffff, 0x4008000000000000,
    0x7fefffffffffffff, 0xffefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000012345,
    0xfff0000000054321, 0x3cb0000000000000, 0x3ca0000000000000, 0x3ca0000000000001, 0x1ff0000000000000};

class FloatLanes : public ::testing::TestWithParam<std::tuple<LaneCase, bool>> {};
TEST_P(FloatLanes, MatchReference) { check_lanes(std::get<0>(GetParam()), std::get<1>(GetParam())); }

std::string operands(size_t n) { return std::string(" $d, $a, $b, $c", 3 + 4 * n) + ";"; }

std::vector<uint64_t> first(const Values& v, size_t n) {
  return {v.begin(), v.begin() + static_cast<std::ptrdiff_t>(n)};
}

std::vector<LaneCase> f32_cases() {
  std::vector<LaneCase> cases;
  const auto add = [&](const std::string& text, size_t n, const std::function<uint64_t(const Values&)>& f) {
    cases.push_back({text + operands(n), 32, std::vector<uint32_t>(n, 32), f, kF32Edges});
  };
  const auto arithmetic = [&](const std::string& text, size_t n, const Arithmetic& op) {
    add(text, n, [=](const Values& v) { return reference(kF32Format, op, first(v, n)); });
  };
  for (const bool ftz : {false, true}) {
    const std::string flush = ftz ? ".ftz" : "";
    for (const char mode : {'n', 'z', 'm', 'p'}) {
      const std::string r = std::string(".r") + mode + flush;
      for (const char* finish : {"", "sat"}) {
        const std::string tail = r + (*finish != 0 ? ".sat" : "") + ".f32";
        arithmetic("add" + tail, 2, {"add", mode, ftz, finish});
        arithmetic("sub" + tail, 2, {"sub", mode, ftz, finish});
        arithmetic("mul" + tail, 2, {"mul", mode, ftz, finish});
        arithmetic("fma" + tail, 3, {"fma", mode, ftz, finish});
      }
      arithmetic("mad" + r + ".f32", 3, {"fma", mode, ftz});
      arithmetic("div" + r + ".f32", 2, {"div", mode, ftz});
      arithmetic("rcp" + r + ".f32", 1, {"rcp", mode, ftz});
      arithmetic("sqrt" + r + ".f32", 1, {"sqrt", mode, ftz});
    }
    arithmetic("add" + flush + ".f32", 2, {"add", 'n', ftz});
    arithmetic("div.full" + flush + ".f32", 2, {"div", 'n', ftz});
    arithmetic("rcp.approx" + flush + ".f32", 1, {"rcp", 'n', ftz});
    arithmetic("sqrt.approx" + flush + ".f32", 1, {"sqrt", 'n', ftz});
    // Negation and magnitude: a NaN becomes canonical, as the device's addition with zero makes it.
    const auto sign = [=](uint64_t a, uint64_t bits) {
      if (kF32Format.is_nan(a)) return kF32Format.nan;
      return ftz && kF32Format.is_subnormal(a) ? bits & 0x80000000 : bits;
    };
    add("neg" + flush + ".f32", 1, [=](const Values& v) { return sign(v[0], v[0] ^ 0x80000000); });
    add("abs" + flush + ".f32", 1, [=](const Values& v) { return sign(v[0], v[0] & 0x7fffffff); });
    for (const bool max : {false, true}) {
      for (const bool nan : {false, true}) {
        for (const bool xorsign : {false, true}) {
          const std::string text =
              std::string(max ? "max" : "min") + flush + (nan ? ".NaN" : "") + (xorsign ? ".xorsign.abs" : "") + ".f32";
          const Extreme op{max, nan, xorsign, ftz};
          add(text, 2, [=](const Values& v) { return reference(kF32Format, op, v[0], v[1]); });
        }
      }
    }
    // Two divisors in three lie where the quotient is the right one.
    add("div.approx" + flush + ".f32", 2, [=](const Values& v) {
      const double b = std::fabs(kF32Format.decode(v[1]));
      if (b > 0x1p126 && b < INFINITY) {
        const double a = kF32Format.decode(v[0]);
        if (!std::isfinite(a)) return kF32Format.nan;
        return (v[0] ^ v[1]) & 0x80000000;
      }
      return reference(kF32Format, Arithmetic{"div", 'n', ftz}, first(v, 2));
    });
  }
  add("copysign.f32", 2, [](const Values& v) { return (v[0] & 0x80000000) | (v[1] & 0x7fffffff); });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(F32, FloatLanes, ::testing::Combine(::testing::ValuesIn(f32_cases()), ::testing::Bool()));

/// On the host, in the rounding asked for.
uint64_t host_f64(const std::string& operation, char mode, const Values& v) {
  const int direction = mode == 'z'   ? FE_TOWARDZERO
                        : mode == 'm' ? FE_DOWNWARD
                        : mode == 'p' ? FE_UPWARD
                                      : FE_TONEAREST;
  const size_t n = operation == "fma" ? 3 : operation == "rcp" || operation == "sqrt" ? 1 : 2;
  for (size_t i = 0; i < n; ++i) {
    if (std::isnan(std::bit_cast<double>(v[i]))) return v[i] | uint64_t{1} << 51;
  }
  std::fesetround(direction);
  const volatile double a = std::bit_cast<double>(v[0]), b = std::bit_cast<double>(v[1]),
                        c = std::bit_cast<double>(v[2]), one = 1;
  volatile double d = 0;
  if (operation == "add") d = a + b;
  if (operation == "sub") d = a - b;
  if (operation == "mul") d = a * b;
  if (operation == "div") d = a / b;
  if (operation == "fma") d = std::fma(a, b, c);
  if (operation == "rcp") d = one / a;
  if (operation == "sqrt") d = std::sqrt(a);
  std::fesetround(FE_TONEAREST);
  return std::isnan(d) ? 0xfff8000000000000 : std::bit_cast<uint64_t>(static_cast<double>(d));
}

std::vector<LaneCase> f64_cases() {
  std::vector<LaneCase> cases;
  const auto add = [&](const std::string& text, size_t n, const std::function<uint64_t(const Values&)>& f) {
    cases.push_back({text + operands(n), 64, std::vector<uint32_t>(n, 64), f, kF64Edges});
  };
  for (const char mode : {'n', 'z', 'm', 'p'}) {
    const std::string r = std::string(".r") + mode + ".f64";
    for (const char* operation : {"add", "sub", "mul", "div"}) {
      add(operation + r, 2, [=](const Values& v) { return host_f64(operation, mode, v); });
    }
    for (const char* operation : {"rcp", "sqrt"}) {
      add(operation + r, 1, [=](const Values& v) { return host_f64(operation, mode, v); });
    }
    add("fma" + r, 3, [=](const Values& v) { return host_f64("fma", mode, v); });
    add("mad" + r, 3, [=](const Values& v) { return host_f64("fma", mode, v); });
  }
  add("neg.f64", 1, [](const Values& v) { return v[0] ^ uint64_t { 1 } << 63; });
  add("abs.f64", 1, [](const Values& v) { return v[0] & ~(uint64_t{1} << 63); });
  add("copysign.f64", 2, [](const Values& v) { return (v[0] & uint64_t{1} << 63) | (v[1] & ~(uint64_t{1} << 63)); });
  for (const bool max : {false, true}) {
    add(max ? "max.f64" : "min.f64", 2, [=](const Values& v) {
      const auto a = std::bit_cast<double>(v[0]), b = std::bit_cast<double>(v[1]);
      if (std::isnan(a)) return std::isnan(b) ? v[0] | uint64_t{1} << 51 : v[1];
      if (std::isnan(b)) return v[0];
      const bool a_less = a < b || (a == b && std::signbit(a) && !std::signbit(b));
      return a_less == max ? v[1] : v[0];
    });
  }
  // The upper word of the source decides, and only the upper word of the result is set.
  const auto upper = [](uint64_t x) { return x & 0xffffffff00000000; };
  add("rcp.approx.ftz.f64", 1, [=](const Values& v) {
    uint64_t a = upper(v[0]);
    if (std::isnan(std::bit_cast<double>(a))) return upper(a | uint64_t{1} << 51);
    if ((a & 0x7ff0000000000000) == 0) a &= uint64_t{1} << 63;
    const double d = 1 / std::bit_cast<double>(a);
    return std::fabs(d) < 0x1p-1022 ? std::bit_cast<uint64_t>(std::copysign(0.0, d))
                                    : upper(std::bit_cast<uint64_t>(d));
  });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(F64, FloatLanes, ::testing::Combine(::testing::ValuesIn(f64_cases()), ::testing::Bool()));

std::vector<LaneCase> packed_cases() {
  std::vector<LaneCase> cases;
  for (const char mode : {'n', 'z', 'm', 'p'}) {
    for (const bool ftz : {false, true}) {
      for (const char* operation : {"add", "sub", "mul", "fma"}) {
        const size_t n = std::string(operation) == "fma" ? 3 : 2;
        const Arithmetic op{operation, mode, ftz};
        std::vector<uint64_t> edges;
        for (size_t i = 0; i < kF32Edges.size(); ++i)
          edges.push_back(kF32Edges[i] | kF32Edges[i * 7 % kF32Edges.size()] << 32);
        cases.push_back({std::string(operation) + ".r" + mode + (ftz ? ".ftz" : "") + ".f32x2" + operands(n), 64,
                         std::vector<uint32_t>(n, 64),
                         [=](const Values& v) {
                           Values high = v;
                           for (uint64_t& h : high) h >>= 32;
                           return reference(kF32Format, op, first(v, n)) | reference(kF32Format, op, first(high, n))
                                                                               << 32;
                         },
                         edges});
      }
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(F32x2, FloatLanes, ::testing::Combine(::testing::ValuesIn(packed_cases()), ::testing::Bool()));

std::vector<LaneCase> comparison_cases() {
  std::vector<LaneCase> cases;
  const auto decode = [](uint32_t bits, bool ftz, uint64_t v) {
    if (bits == 64) return std::bit_cast<double>(v);
    return ftz && kF32Format.is_subnormal(v) ? 0.0 : kF32Format.decode(v);
  };
  for (const std::string& relation : kRelationNames) {
    for (const char* type : {".f32", ".ftz.f32", ".f64"}) {
      const uint32_t bits = std::string(type) == ".f64" ? 64 : 32;
      const bool ftz = std::string(type) == ".ftz.f32";
      const auto& edges = bits == 64 ? kF64Edges : kF32Edges;
      const auto holds = [=](const Values& v) {
        return compares(relation, decode(bits, ftz, v[0]), decode(bits, ftz, v[1]));
      };
      const auto pair = [](bool p, bool q) { return uint64_t{p} | uint64_t{q} << 32; };
      const std::vector<uint32_t> from(2, bits);
      const std::string name = "setp." + relation;
      cases.push_back(
          {name + type + " $d, $a, $b;", 1, from, [=](const Values& v) { return pair(holds(v), false); }, edges});
      cases.push_back({name + type + " $d|$q, $a, $b;", 1, from,
                       [=](const Values& v) { return pair(holds(v), !holds(v)); }, edges});
      cases.push_back({name + ".and" + type + " $d|$q, $a, $b, $s;", 1, from,
                       [=](const Values& v) { return pair(holds(v) && v[0] % 2 == 1, !holds(v) && v[0] % 2 == 1); },
                       edges});
      cases.push_back({name + ".or" + type + " $d|$q, $a, $b, !$s;", 1, from,
                       [=](const Values& v) { return pair(holds(v) || v[0] % 2 == 0, !holds(v) || v[0] % 2 == 0); },
                       edges});
      cases.push_back({name + ".xor" + type + " $d, $a, $b, $s;", 1, from,
                       [=](const Values& v) { return pair(holds(v) != (v[0] % 2 == 1), false); }, edges});
      std::string set = type;
      const std::string flush = ftz ? ".ftz" : "";
      const std::string source = bits == 64 ? ".f64" : ".f32";
      cases.push_back({"set." + relation + flush + ".u32" + source + " $d, $a, $b;", 32, from,
                       [=](const Values& v) { return holds(v) ? 0xffffffff : 0; }, edges});
      cases.push_back({"set." + relation + ".and" + flush + ".f32" + source + " $d, $a, $b, $s;", 32, from,
                       [=](const Values& v) { return holds(v) && v[0] % 2 == 1 ? 0x3f800000 : 0; }, edges});
    }
  }
  const auto test = [&](const std::string& what, const std::function<bool(double, bool subnormal)>& f) {
    cases.push_back({"testp." + what + ".f32 $d, $a;",
                     1,
                     {32},
                     [=](const Values& v) { return f(kF32Format.decode(v[0]), kF32Format.is_subnormal(v[0])); },
                     kF32Edges});
    cases.push_back({"testp." + what + ".f64 $d, $a;",
                     1,
                     {64},
                     [=](const Values& v) {
                       const auto x = std::bit_cast<double>(v[0]);
                       return f(x, std::fpclassify(x) == FP_SUBNORMAL);
                     },
                     kF64Edges});
  };
  test("finite", [](double x, bool) { return std::isfinite(x); });
  test("infinite", [](double x, bool) { return std::isinf(x); });
  test("number", [](double x, bool) { return !std::isnan(x); });
  test("notanumber", [](double x, bool) { return std::isnan(x); });
  test("normal", [](double x, bool subnormal) { return std::isfinite(x) && !subnormal; });
  test("subnormal", [](double, bool subnormal) { return subnormal; });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Comparisons, FloatLanes,
                         ::testing::Combine(::testing::ValuesIn(comparison_cases()), ::testing::Bool()));

// --- approximations: bounds of the PTX manual -----------------------------------------------------------------------

/// The results of a unary f32 instruction.
std::vector<float> approximate(const std::string& op, const std::vector<float>& x) {
  Device d;
  std::vector<float> padded = x;
  padded.resize((x.size() + 255) / 256 * 256);
  Allocation *in = d.upload(padded), *out = d.upload(std::vector<float>(padded.size()));
  const std::string body =
      "mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %tid.x;\nmad.lo.u32 %r1, %r1, %r2, %r3;\n"
      "mul.wide.u32 %rd1, %r1, 4;\nld.param.u64 %rd2, [p0];\nld.param.u64 %rd3, [p1];\nadd.u64 %rd2, %rd2, %rd1;\n"
      "add.u64 %rd3, %rd3, %rd1;\nld.global.f32 %f1, [%rd2];\n" +
      op + " %f2, %f1;\nst.global.f32 [%rd3], %f2;";
  const Outcome o = d.run(kernel(2, body), {static_cast<uint32_t>(padded.size() / 256), 1, 1}, {256, 1, 1}, in, out);
  EXPECT_EQ(o.status, Status::kOk) << o.message;
  std::vector<float> result = d.download<float>(out);
  result.resize(x.size());
  return result;
}

std::vector<float> spread(float from, float to, size_t n) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) {
    const double step = (static_cast<double>(to) - from) / static_cast<double>(n - 1);
    x[i] = static_cast<float>(from + step * static_cast<double>(i));
  }
  return x;
}
/// Every exponent, signs and mantissas mixed.
std::vector<float> all_magnitudes(size_t n, bool negative) {
  std::mt19937 random(3);
  std::vector<float> x(n);
  for (float& v : x) {
    const auto magnitude = static_cast<uint32_t>(random() % 0x7f800000);
    const auto sign = static_cast<uint32_t>(random()) & (negative ? 0x80000000 : 0);
    v = std::bit_cast<float>(magnitude | sign);
  }
  return x;
}

struct Bound {
  std::string op;
  std::vector<float> x;
  double (*right)(double);
  double relative, absolute;  // either may be met
};

class Approximation : public ::testing::TestWithParam<Bound> {};
TEST_P(Approximation, StaysWithinTheManualsBound) {
  const Bound& b = GetParam();
  const std::vector<float> got = approximate(b.op, b.x);
  for (size_t i = 0; i < b.x.size(); ++i) {
    const double right = b.right(b.x[i]);
    // Half a step of subnormal results belongs to any bound.
    const double allowed = std::max(b.relative * std::fabs(right), b.absolute) + 0x1p-150;
    if (std::fabs(right) > 0x1.ffffffp127) {
      ASSERT_TRUE(std::isinf(got[i]) || std::fabs(got[i]) > 0x1.fffff0p127F) << b.op << " of " << b.x[i];
      continue;
    }
    ASSERT_LE(std::fabs(got[i] - right), allowed)
        << b.op << " of " << b.x[i] << " gives " << got[i] << " not " << right;
  }
}
INSTANTIATE_TEST_SUITE_P(
    F32, Approximation,
    ::testing::Values(
        Bound{"ex2.approx.f32", spread(-152, 128, 100000), [](double x) { return std::exp2(x); }, 0x1p-22, 0},
        Bound{"ex2.approx.f32", spread(-1, 1, 30000), [](double x) { return std::exp2(x); }, 0x1p-23, 0},
        Bound{"lg2.approx.f32", all_magnitudes(50000, false), [](double x) { return std::log2(x); }, 0x1p-22, 0},
        Bound{"lg2.approx.f32", spread(0.5F, 2, 50000), [](double x) { return std::log2(x); }, 0, 0x1p-22},
        Bound{"rsqrt.approx.f32", all_magnitudes(50000, false), [](double x) { return 1 / std::sqrt(x); }, 0x1.12p-23,
              0},
        Bound{"rcp.approx.f32", all_magnitudes(50000, true), [](double x) { return 1 / x; }, 0x1p-23, 0},
        Bound{"sqrt.approx.f32", all_magnitudes(50000, false), [](double x) { return std::sqrt(x); }, 0x1p-23, 0},
        Bound{"tanh.approx.f32", spread(-12, 12, 50000), [](double x) { return std::tanh(x); }, 0x1p-21, 0},
        Bound{"tanh.approx.f32", all_magnitudes(50000, true), [](double x) { return std::tanh(x); }, 0x1p-21, 0},
        Bound{"sin.approx.f32", spread(-6.2831855F, 6.2831855F, 50000), [](double x) { return std::sin(x); }, 0,
              0x1p-22},
        Bound{"cos.approx.f32", spread(-6.2831855F, 6.2831855F, 50000), [](double x) { return std::cos(x); }, 0,
              0x1p-22},
        Bound{"sin.approx.f32", spread(-5000, 5000, 50000), [](double x) { return std::sin(x); }, 0, 0x1p-22},
        Bound{"cos.approx.f32", spread(-5000, 5000, 50000), [](double x) { return std::cos(x); }, 0, 0x1p-22}));

TEST(Approximation, SineOfAnythingFiniteIsWithinOne) {
  for (const char* op : {"sin.approx.f32", "cos.approx.f32"}) {
    for (const float y : approximate(op, all_magnitudes(20000, true))) ASSERT_LE(std::fabs(y), 1.0F);
  }
}

struct Special {
  const char* op;
  uint32_t x, right;
};
TEST(Approximation, SpecialValuesAreThoseOfTheManualsTables) {
  constexpr uint32_t kInf = 0x7f800000, kMinusInf = 0xff800000, kNan = 0x7fffffff, kOne = 0x3f800000;
  const Special cases[] = {{"ex2.approx.f32", kMinusInf, 0},
                           {"ex2.approx.f32", kInf, kInf},
                           {"ex2.approx.f32", 0x80000000, kOne},
                           {"ex2.approx.ftz.f32", 0x00000001, kOne},
                           {"ex2.approx.f32", 0xffc12345, kNan},
                           {"ex2.approx.f32", 0xc2fc0000, 0x00800000},
                           {"ex2.approx.f32", 0xc3000000, 0x00200000},
                           {"ex2.approx.ftz.f32", 0xc3000000, 0},
                           {"ex2.approx.f32", 0xc3150000, 1},
                           {"ex2.approx.f32", 0x43000000, kInf},
                           {"ex2.approx.f32", 0x42fe0000, 0x7f000000},
                           {"ex2.approx.f32", 0xff7fffff, 0},
                           {"lg2.approx.f32", kMinusInf, kNan},
                           {"lg2.approx.f32", 0xbf800000, kNan},
                           {"lg2.approx.f32", 0x80000000, kMinusInf},
                           {"lg2.approx.f32", 0, kMinusInf},
                           {"lg2.approx.f32", kInf, kInf},
                           {"lg2.approx.f32", 0x7f812345, kNan},
                           {"lg2.approx.ftz.f32", 0x00400000, kMinusInf},
                           {"lg2.approx.f32", 0x00400000, 0xc2fe0000},
                           {"lg2.approx.ftz.f32", 0x80400000, kMinusInf},
                           {"lg2.approx.f32", kOne, 0},
                           {"lg2.approx.f32", 0x41000000, 0x40400000},
                           {"sin.approx.f32", kInf, kNan},
                           {"sin.approx.f32", kMinusInf, kNan},
                           {"sin.approx.f32", 0x80000000, 0x80000000},
                           {"sin.approx.ftz.f32", 0x80000001, 0x80000000},
                           {"sin.approx.f32", 0, 0},
                           {"sin.approx.f32", 0x7fc00000, kNan},
                           {"cos.approx.f32", kInf, kNan},
                           {"cos.approx.f32", 0x80000000, kOne},
                           {"cos.approx.ftz.f32", 1, kOne},
                           {"rsqrt.approx.f32", 0x80000000, kMinusInf},
                           {"rsqrt.approx.f32", 0, kInf},
                           {"rsqrt.approx.f32", kInf, 0},
                           {"rsqrt.approx.f32", 0xbf800000, kNan},
                           {"rsqrt.approx.ftz.f32", 0x80000001, kMinusInf},
                           {"rsqrt.approx.f32", 0x40800000, 0x3f000000},
                           {"rsqrt.approx.f32", kMinusInf, kNan},
                           {"rcp.approx.f32", kMinusInf, 0x80000000},
                           {"rcp.approx.f32", 0x80000000, kMinusInf},
                           {"rcp.approx.ftz.f32", 0x80000001, kMinusInf},
                           {"rcp.approx.ftz.f32", 0x7f000000, 0},
                           {"rcp.approx.f32", 0x7f000000, 0x00400000},
                           {"tanh.approx.f32", kInf, kOne},
                           {"tanh.approx.f32", kMinusInf, 0xbf800000},
                           {"tanh.approx.f32", 0x80000000, 0x80000000},
                           {"tanh.approx.f32", 0x80000001, 0x80000001},
                           {"tanh.approx.f32", 0xff812345, kNan},
                           {"tanh.approx.f32", 0x7f7fffff, kOne}};
  for (const Special& c : cases) {
    const auto got = std::bit_cast<uint32_t>(approximate(c.op, {std::bit_cast<float>(c.x)})[0]);
    EXPECT_EQ(got, c.right) << std::hex << c.op << " of " << c.x << " gives " << got;
  }
}

// --- forms that do not exist ----------------------------------------------------------------------------------------

class RefusedFloats : public ::testing::TestWithParam<const char*> {};
TEST_P(RefusedFloats, NamesTheInstruction) {
  Device d;
  const std::string text = GetParam();
  const Outcome o = d.run(kernel(0, text + ";"), {1, 1, 1}, {32, 1, 1});
  EXPECT_NE(o.status, Status::kOk) << text;
  EXPECT_NE(o.message.find("[" + text.substr(0, text.find('.'))), std::string::npos) << o.message;
}
INSTANTIATE_TEST_SUITE_P(
    Float, RefusedFloats,
    ::testing::Values("fma.f32 %f1, %f2, %f3, %f4", "mad.f32 %f1, %f2, %f3, %f4", "div.f32 %f1, %f2, %f3",
                      "rcp.f32 %f1, %f2", "sqrt.f32 %f1, %f2", "ex2.f32 %f1, %f2", "sin.f32 %f1, %f2",
                      "tanh.approx.ftz.f32 %f1, %f2", "add.rn.rz.f32 %f1, %f2, %f3", "add.ftz.f64 %fd1, %fd2, %fd3",
                      "add.sat.f64 %fd1, %fd2, %fd3", "min.NaN.f64 %fd1, %fd2, %fd3", "min.abs.f32 %f1, %f2, %f3",
                      "min.f32 %f1, %f2, %f3, %f4", "add.f32 %f1, %f2, 1", "add.cc.f32 %f1, %f2, %f3",
                      "setp.lo.f32 %p1, %f1, %f2", "setp.lt.ftz.f64 %p1, %fd1, %fd2", "setp.lt.eq.f32 %p1, %f1, %f2",
                      "setp.f32 %p1, %f1, %f2", "setp.lt.and.f32 %p1, %f1, %f2", "set.lt.s16.f32 %h1, %f1, %f2",
                      "rcp.approx.f64 %fd1, %fd2", "sqrt.approx.f64 %fd1, %fd2", "div.approx.f64 %fd1, %fd2, %fd3",
                      "div.approx.rn.f32 %f1, %f2, %f3", "mul.wide.f32 %f1, %f2, %f3", "lg2.approx.f64 %fd1, %fd2",
                      "testp.finite.normal.f32 %p1, %f1", "fma.rn.f32 %f1, %f2, %f3", "neg.f32x2 %rd1, %rd2",
                      "add.sat.f32x2 %rd1, %rd2, %rd3", "add.f32.f16 %f1, %h2, %f3"));

}  // namespace
}  // namespace ptxsim::testing
