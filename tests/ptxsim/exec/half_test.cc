#include <gtest/gtest.h>

#include "tests/ptxsim/exec/float_reference.h"
#include "tests/ptxsim/exec/lane_cases.h"

namespace ptxsim::testing {
namespace {

// Zeros, subnormals, the ends of the normal numbers, neighbours of one, halfway cases, infinities, NaNs.
const std::vector<uint64_t> kF16Edges = {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x83ff, 0x0400, 0x8400, 0x0401,
                                         0x3bff, 0x3c00, 0x3c01, 0xbc00, 0x4000, 0x3800, 0x1400, 0x1000, 0x1001,
                                         0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfc01, 0x7fff, 0x6800, 0x0c00};
const std::vector<uint64_t> kBf16Edges = {0x0000, 0x8000, 0x0001, 0x8001, 0x007f, 0x807f, 0x0080, 0x8080, 0x0081,
                                          0x3f7f, 0x3f80, 0x3f81, 0xbf80, 0x4000, 0x3f00, 0x3b80, 0x3b00, 0x0d80,
                                          0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xff81, 0x7fff, 0x5f80, 0x1f80};

class HalfLanes : public ::testing::TestWithParam<std::tuple<LaneCase, bool>> {};
TEST_P(HalfLanes, MatchReference) { check_lanes(std::get<0>(GetParam()), std::get<1>(GetParam())); }

std::vector<uint64_t> first(const Values& v, size_t n) {
  return {v.begin(), v.begin() + static_cast<std::ptrdiff_t>(n)};
}
Values upper(Values v) {
  for (uint64_t& x : v) x >>= 16;
  return v;
}

struct Family {
  const BinaryFormat& format;
  const std::vector<uint64_t>& edges;
  std::string name;  // f16
  bool brain;
};
const Family kFamilies[] = {{kF16Format, kF16Edges, "f16", false}, {kBf16Format, kBf16Edges, "bf16", true}};

std::vector<uint64_t> pairs(const std::vector<uint64_t>& edges) {
  std::vector<uint64_t> both;
  for (size_t i = 0; i < edges.size(); ++i) {
    both.push_back(edges[i] | edges[i * 5 % edges.size()] << 16);
    both.push_back(edges[i] | edges[(i + 1) * 11 % edges.size()] << 16);
  }
  return both;
}

std::vector<LaneCase> arithmetic_cases() {
  std::vector<LaneCase> cases;
  for (const Family& f : kFamilies) {
    using Scalar = std::function<uint64_t(const Values&)>;
    // The instruction for one half and for two at a time.
    const auto add = [&](const std::string& text, size_t n, const Scalar& scalar) {
      const std::string operands = std::string(" $d, $a, $b, $c", 3 + 4 * n) + ";";
      cases.push_back({text + "." + f.name + operands, 16, std::vector<uint32_t>(n, 16), scalar, f.edges});
      cases.push_back({text + "." + f.name + "x2" + operands, 32, std::vector<uint32_t>(n, 32),
                       [=](const Values& v) { return (scalar(v) & 0xffff) | scalar(upper(v)) << 16; }, pairs(f.edges)});
    };
    const BinaryFormat format = f.format;
    const auto arithmetic = [&](const std::string& text, size_t n, const Arithmetic& op) {
      add(text, n, [=](const Values& v) { return reference(format, op, first(v, n)); });
    };
    for (const bool ftz : {false, true}) {
      if (ftz && f.brain) continue;
      const std::string flush = ftz ? ".ftz" : "";
      for (const char* how : {"", "sat", "relu"}) {
        const std::string tail = *how != 0 ? std::string(".") + how : "";
        const bool sat = std::string(how) == "sat", relu = std::string(how) == "relu";
        if (sat && f.brain) continue;
        arithmetic("fma.rn" + flush + tail, 3, {"fma", 'n', ftz, how});
        if (relu) continue;
        arithmetic("add" + flush + tail, 2, {"add", 'n', ftz, how});
        arithmetic("sub.rn" + flush + tail, 2, {"sub", 'n', ftz, how});
        arithmetic("mul" + flush + tail, 2, {"mul", 'n', ftz, how});
      }
      const auto sign = [=](uint64_t a, uint64_t bits) -> uint64_t {
        a &= 0xffff;
        if (format.is_nan(a)) return format.nan;
        return (ftz && format.is_subnormal(a) ? bits & 0x8000 : bits) & 0xffff;
      };
      add("neg" + flush, 1, [=](const Values& v) { return sign(v[0], v[0] ^ 0x8000); });
      add("abs" + flush, 1, [=](const Values& v) { return sign(v[0], v[0] & 0x7fff); });
      for (const bool max : {false, true}) {
        for (const bool nan : {false, true}) {
          for (const bool xorsign : {false, true}) {
            const Extreme op{max, nan, xorsign, ftz};
            add(std::string(max ? "max" : "min") + flush + (nan ? ".NaN" : "") + (xorsign ? ".xorsign.abs" : ""), 2,
                [=](const Values& v) { return reference(format, op, v[0], v[1]); });
          }
        }
      }
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Arithmetic, HalfLanes,
                         ::testing::Combine(::testing::ValuesIn(arithmetic_cases()), ::testing::Bool()));

std::vector<LaneCase> comparison_cases() {
  std::vector<LaneCase> cases;
  for (const Family& f : kFamilies) {
    const BinaryFormat format = f.format;
    for (const std::string& relation : kRelationNames) {
      for (const bool ftz : {false, true}) {
        if (ftz && f.brain) continue;
        const std::string flush = ftz ? ".ftz" : "";
        const auto decode = [=](uint64_t v) {
          v &= 0xffff;
          return ftz && format.is_subnormal(v) ? 0.0 : format.decode(v);
        };
        const auto holds = [=](const Values& v) { return compares(relation, decode(v[0]), decode(v[1])); };
        const auto pair = [](bool p, bool q) { return uint64_t{p} | uint64_t{q} << 32; };
        const std::vector<uint32_t> one = {16, 16}, two = {32, 32};
        const auto both = pairs(f.edges);
        const std::string setp = "setp." + relation;
        cases.push_back({setp + flush + "." + f.name + " $d|$q, $a, $b;", 1, one,
                         [=](const Values& v) { return pair(holds(v), !holds(v)); }, f.edges});
        cases.push_back({setp + ".and" + flush + "." + f.name + " $d, $a, $b, !$s;", 1, one,
                         [=](const Values& v) { return pair(holds(v) && v[0] % 2 == 0, false); }, f.edges});
        cases.push_back({setp + flush + "." + f.name + "x2 $d|$q, $a, $b;", 1, two,
                         [=](const Values& v) { return pair(holds(v), holds(upper(v))); }, both});
        cases.push_back({setp + ".xor" + flush + "." + f.name + "x2 $d|$q, $a, $b, $s;", 1, two,
                         [=](const Values& v) {
                           const bool s = v[0] % 2 == 1;
                           return pair(holds(v) != s, holds(upper(v)) != s);
                         },
                         both});
        const uint64_t number = f.brain ? 0x3f80 : 0x3c00;
        cases.push_back({"set." + relation + flush + "." + f.name + "." + f.name + " $d, $a, $b;", 16, one,
                         [=](const Values& v) { return holds(v) ? number : 0; }, f.edges});
        cases.push_back({"set." + relation + flush + ".u16." + f.name + " $d, $a, $b;", 16, one,
                         [=](const Values& v) { return holds(v) ? 0xffff : 0; }, f.edges});
        cases.push_back({"set." + relation + ".or" + flush + ".s32." + f.name + " $d, $a, $b, $s;", 32, one,
                         [=](const Values& v) { return holds(v) || v[0] % 2 == 1 ? 0xffffffff : 0; }, f.edges});
        const std::string packed = f.name + "x2";
        cases.push_back(
            {"set." + relation + flush + "." + packed + "." + packed + " $d, $a, $b;", 32, two,
             [=](const Values& v) { return (holds(v) ? number : 0) | (holds(upper(v)) ? number << 16 : 0); }, both});
        cases.push_back({"set." + relation + flush + ".u32." + packed + " $d, $a, $b;", 32, two,
                         [=](const Values& v) { return (holds(v) ? 0xffff : 0) | (holds(upper(v)) ? 0xffff0000 : 0); },
                         both});
      }
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Comparisons, HalfLanes,
                         ::testing::Combine(::testing::ValuesIn(comparison_cases()), ::testing::Bool()));

// --- every value of the approximations, against the manual's bounds -------------------------------------------------

struct Bound {
  const char* op;
  const char* type;
  double (*right)(double);
  double relative, absolute;
  bool ftz;
};

class HalfApproximation : public ::testing::TestWithParam<Bound> {};
TEST_P(HalfApproximation, EveryValueIsWithinTheManualsBound) {
  const Bound& b = GetParam();
  const std::string type = b.type;
  const BinaryFormat& f = type[0] == 'b' ? kBf16Format : kF16Format;
  const bool packed = type.ends_with("x2");
  std::vector<uint16_t> x(65536);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i);
  Device d;
  Allocation *in = d.upload(x), *out = d.upload(std::vector<uint16_t>(x.size()));
  const std::string bits = packed ? "b32" : "b16", r = packed ? "%r" : "%h";
  const std::string body =
      "mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %tid.x;\nmad.lo.u32 %r1, %r1, %r2, %r3;\n"
      "mul.wide.u32 %rd1, %r1, " +
      std::string(packed ? "4" : "2") +
      ";\nld.param.u64 %rd2, [p0];\nld.param.u64 %rd3, [p1];\nadd.u64 %rd2, %rd2, %rd1;\nadd.u64 %rd3, %rd3, %rd1;\n"
      "ld.global." +
      bits + " " + r + "10, [%rd2];\n" + b.op + "." + type + " " + r + "11, " + r + "10;\nst.global." + bits +
      " [%rd3], " + r + "11;";
  const Outcome o = d.run(kernel(2, body), {packed ? 128U : 256U, 1, 1}, {256, 1, 1}, in, out);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const auto got = d.download<uint16_t>(out);
  for (size_t i = 0; i < x.size(); ++i) {
    if (f.is_nan(x[i])) {
      ASSERT_EQ(got[i], 0x7fff) << i;
      continue;
    }
    const double right = b.right(f.decode(b.ftz && f.is_subnormal(x[i]) ? x[i] & 0x8000U : x[i]));
    const double largest = f.decode(f.infinity() - 1), smallest = std::ldexp(1.0, f.lowest);
    if (right > largest) {
      ASSERT_GE(f.decode(got[i]), largest) << i;
      continue;
    }
    const double step = b.ftz ? smallest : std::ldexp(1.0, f.lowest - f.mantissa - 1);
    ASSERT_LE(std::fabs(f.decode(got[i]) - right),
              std::max({b.relative * right, b.absolute, right < smallest ? step : 0}))
        << b.op << " of " << f.decode(x[i]) << " gives " << f.decode(got[i]) << " not " << right;
  }
}
double exp2_of(double x) { return std::exp2(x); }
double tanh_of(double x) { return std::tanh(x); }
INSTANTIATE_TEST_SUITE_P(Half, HalfApproximation,
                         ::testing::Values(Bound{"ex2.approx", "f16", exp2_of, 0x1p-10, 0, false},
                                           Bound{"ex2.approx", "f16x2", exp2_of, 0x1p-10, 0, false},
                                           Bound{"ex2.approx.ftz", "bf16", exp2_of, 0x1p-7, 0, true},
                                           Bound{"ex2.approx.ftz", "bf16x2", exp2_of, 0x1p-7, 0, true},
                                           Bound{"tanh.approx", "f16", tanh_of, 0, 0x1p-11, false},
                                           Bound{"tanh.approx", "f16x2", tanh_of, 0, 0x1p-11, false},
                                           Bound{"tanh.approx", "bf16", tanh_of, 0, 0x1p-8, false},
                                           Bound{"tanh.approx", "bf16x2", tanh_of, 0, 0x1p-8, false}));

class HalfRefused : public ::testing::TestWithParam<const char*> {};
TEST_P(HalfRefused, NamesTheInstruction) {
  Device d;
  const std::string text = GetParam();
  const Outcome o = d.run(kernel(0, text + ";"), {1, 1, 1}, {32, 1, 1});
  EXPECT_NE(o.status, Status::kOk) << text;
  EXPECT_NE(o.message.find("[" + text.substr(0, text.find('.'))), std::string::npos) << o.message;
}
INSTANTIATE_TEST_SUITE_P(Half, HalfRefused,
                         ::testing::Values("fma.rn.oob.f16 %h1, %h2, %h3, %h4", "fma.f16 %h1, %h2, %h3, %h4",
                                           "fma.rn.sat.bf16 %h1, %h2, %h3, %h4", "add.relu.f16 %h1, %h2, %h3",
                                           "fma.rn.sat.relu.f16 %h1, %h2, %h3, %h4", "add.rz.f16 %h1, %h2, %h3",
                                           "mul.ftz.bf16 %h1, %h2, %h3", "ex2.approx.bf16 %h1, %h2",
                                           "ex2.approx.ftz.f16 %h1, %h2", "tanh.approx.ftz.f16 %h1, %h2",
                                           "abs.ftz.bf16 %h1, %h2", "div.rn.f16 %h1, %h2, %h3",
                                           "sqrt.approx.f16 %h1, %h2", "add.f16 %h1, %h2, 1.0",
                                           "add.f16 %h1, %h2, 0x3c00", "setp.lt.ftz.bf16 %p1, %h1, %h2",
                                           "set.lt.f32.f16 %f1, %h1, %h2", "set.lt.bf16x2.f16x2 %r1, %r2, %r3",
                                           "set.lt.u16.f16x2 %h1, %r2, %r3", "min.abs.f16 %h1, %h2, %h3",
                                           "min.f16 %h1, %h2, %h3, %h4", "mad.rn.f16 %h1, %h2, %h3, %h4"));

}  // namespace
}  // namespace ptxsim::testing
