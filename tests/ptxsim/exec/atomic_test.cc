#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>

#include "tests/ptxsim/exec/ptx_fixture.h"

namespace ptxsim::testing {
namespace {

// --- one word, 32 lanes after each other ----------------------------------------------------------------------------

struct AtomicCase {
  const char* op;  // "add.u32"
  uint64_t start;
  std::function<uint64_t(int lane)> source;
  std::function<uint64_t(uint64_t old, uint64_t b)> step;
  int bits = 32;
};

class Atomic : public ::testing::TestWithParam<std::tuple<AtomicCase, const char*>> {};

TEST_P(Atomic, LanesInAscendingOrder) {
  const auto& [c, space] = GetParam();
  Device d;
  const std::string type = c.bits == 64 ? "b64" : c.bits == 16 ? "b16" : "b32";
  const std::string reg = c.bits == 64 ? "%rd2" : c.bits == 16 ? "%h2" : "%r2";
  std::string s = std::string(space);
  std::string op = c.op;
  const std::string shared = "cell";
  std::string place = "[%rd50]", prepare, finish;
  std::vector<uint64_t> sources;
  for (int l = 0; l < 32; ++l) sources.push_back(c.source(l));
  if (s == "shared" || s == "generic shared") {
    prepare = "mov.u32 %r20, cell;\nld.global.b64 %rd20, [%rd50];\nst.shared.b64 [%r20], %rd20;\nbar.sync 0;\n";
    finish = "bar.sync 0;\nld.shared.b64 %rd20, [%r20];\nst.global.b64 [%rd50], %rd20;\n";
    place = "[%r20]";
    if (s == "generic shared") {
      prepare += "cvt.u64.u32 %rd21, %r20;\ncvta.shared.u64 %rd22, %rd21;\n";
      place = "[%rd22]";
      s = "";
    }
  }
  if (s == "generic") s = "";
  if (!s.empty()) op = s + "." + op;
  const std::string body =
      ".shared .align 8 .b64 cell;\nmov.u32 %r0, %tid.x;\nmul.wide.u32 %rd60, %r0, 8;\n"
      "ld.param.u64 %rd50, [p0];\nld.param.u64 %rd51, [p1];\nadd.s64 %rd51, %rd51, %rd60;\nld.param.u64 %rd52, [p2];\n"
      "add.s64 %rd52, %rd52, %rd60;\n" +
      prepare + "ld.global." + type + " " + reg + ", [%rd51];\natom." + op + " " + reg + ", " + place + ", " + reg +
      ";\nst.global." + type + " [%rd52], " + reg + ";\n" + finish;
  Allocation* cell = d.upload(std::vector<uint64_t>{c.start});
  Allocation *in = d.upload(sources), *out = d.upload(std::vector<uint64_t>(32));
  const Outcome o = d.run(kernel(3, body), {1, 1, 1}, {32, 1, 1}, cell, in, out);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const auto olds = d.download<uint64_t>(out);
  const uint64_t all = c.bits == 64 ? ~uint64_t{0} : (uint64_t{1} << c.bits) - 1;
  uint64_t value = c.start & all;
  for (size_t l = 0; l < 32; ++l) {
    EXPECT_EQ(olds[l], value) << c.op << " lane " << l;
    value = c.step(value, sources[l] & all) & all;
  }
  EXPECT_EQ(d.download<uint64_t>(cell)[0] & all, value) << c.op;
}

uint64_t spread(int lane) { return static_cast<uint64_t>(lane + 1) * 0x9e3779b97f4a7c15; }
uint64_t float_bits(double x) { return std::bit_cast<uint32_t>(static_cast<float>(x)); }
double float_of(uint64_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x)); }

/// An f16 as a sum of powers of two, and the nearest f16 (even at ties) of a number among all of them.
double half_of(uint64_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const auto fraction = static_cast<double>(bits & 1023);
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits >> 15 & 1) != 0 ? -size : size;
}
uint64_t half_bits(double x) {
  uint64_t best = 0;
  double error = INFINITY;
  for (uint64_t b = 0; b < 0x7c00; ++b) {
    const double e = std::abs(half_of(b) - std::abs(x));
    if (e < error || (e == error && (b & 1) == 0)) {
      best = b;
      error = e;
    }
  }
  return best | (std::signbit(x) ? 0x8000 : 0);
}

const AtomicCase kCases[] = {
    {"add.u32", 5, spread, [](uint64_t a, uint64_t b) { return a + b; }},
    {"relaxed.gpu.add.s32", 5, spread, [](uint64_t a, uint64_t b) { return a + b; }},
    {"acq_rel.sys.add.u64", 5, spread, [](uint64_t a, uint64_t b) { return a + b; }, 64},
    {"inc.u32", 0, [](int) { return uint64_t{6}; }, [](uint64_t a, uint64_t) { return (a + 1) % 7; }},
    {"inc.u32", 9, [](int) { return uint64_t{6}; }, [](uint64_t a, uint64_t) { return a > 5 ? 0 : a + 1; }},
    {"dec.u32", 3, [](int) { return uint64_t{6}; }, [](uint64_t a, uint64_t) { return (a + 6) % 7; }},
    {"dec.u32", 90, [](int) { return uint64_t{6}; }, [](uint64_t a, uint64_t) { return a > 6 || a == 0 ? 6 : a - 1; }},
    {"min.s32", 0x7fffffff, spread,
     [](uint64_t a, uint64_t b) { return ((a ^ 0x80000000) < (b ^ 0x80000000)) ? a : b; }},
    {"max.s32", 0x80000000, spread,
     [](uint64_t a, uint64_t b) { return ((a ^ 0x80000000) > (b ^ 0x80000000)) ? a : b; }},
    {"min.u32", 0xffffffff, spread, [](uint64_t a, uint64_t b) { return a < b ? a : b; }},
    {"max.u64", 0, spread, [](uint64_t a, uint64_t b) { return a > b ? a : b; }, 64},
    {"min.s64", 0x7fffffffffffffff, spread,
     [](uint64_t a, uint64_t b) { return (a ^ uint64_t{1} << 63) < (b ^ uint64_t{1} << 63) ? a : b; }, 64},
    {"and.b32", 0xffffffff, [](int l) { return ~(uint64_t{1} << l); }, [](uint64_t a, uint64_t b) { return a & b; }},
    {"or.b64", 1, spread, [](uint64_t a, uint64_t b) { return a | b; }, 64},
    {"xor.b32", 1, spread, [](uint64_t a, uint64_t b) { return a ^ b; }},
    {"exch.b32", 77, spread, [](uint64_t, uint64_t b) { return b; }},
    {"exch.b64", 77, spread, [](uint64_t, uint64_t b) { return b; }, 64},
    {"add.f32", float_bits(0.1), [](int l) { return float_bits(l * 0.3); },
     [](uint64_t a, uint64_t b) { return float_bits(float_of(a) + float_of(b)); }},
    {"add.f64", std::bit_cast<uint64_t>(0.1), [](int l) { return std::bit_cast<uint64_t>(l * 0.3); },
     [](uint64_t a, uint64_t b) {
       return std::bit_cast<uint64_t>(std::bit_cast<double>(a) + std::bit_cast<double>(b));
     },
     64},
    {"add.noftz.f16", 1, [](int l) { return half_bits(l * 0.37 - 3); },
     [](uint64_t a, uint64_t b) { return half_bits(half_of(a) + half_of(b)); }, 16},
};

INSTANTIATE_TEST_SUITE_P(Operations, Atomic,
                         ::testing::Combine(::testing::ValuesIn(kCases),
                                            ::testing::Values("global", "shared", "generic", "generic shared")));

// --- edge values ----------------------------------------------------------------------------------------------------

/// Runs one thread's atom on a word and returns {old, new}.
template <class T>
std::pair<T, T> once(const std::string& op, const std::string& type, T start, T b, bool shared = false) {
  Device d;
  const std::string r = type == "b64" ? "%rd5" : type == "b16" ? "%h5" : "%r5";
  Allocation *cell = d.upload(std::vector<T>{start}), *in = d.upload(std::vector<T>{b}),
             *out = d.upload(std::vector<T>{T{}});
  std::string body =
      ".shared .align 8 .b64 cell;\nld.param.u64 %rd0, [p0];\nld.param.u64 %rd1, [p1];\nld.param.u64 %rd2, [p2];\n"
      "ld.global." +
      type + " " + r + ", [%rd1];\n";
  if (shared) {
    const std::string s = type == "b64" ? "%rd6" : type == "b16" ? "%h6" : "%r6";
    body += "ld.global." + type + " " + s + ", [%rd0];\nst.shared." + type + " [cell], " + s + ";\natom.shared." + op +
            " " + r + ", [cell], " + r + ";\nld.shared." + type + " " + s + ", [cell];\nst.global." + type +
            " [%rd0], " + s + ";\n";
  } else {
    body += "atom.global." + op + " " + r + ", [%rd0], " + r + ";\n";
  }
  body += "st.global." + type + " [%rd2], " + r + ";\n";
  const Outcome o = d.run(kernel(3, body), {1, 1, 1}, {1, 1, 1}, cell, in, out);
  EXPECT_EQ(o.status, Status::kOk) << o.message;
  return {d.download<T>(out)[0], d.download<T>(cell)[0]};
}

TEST(AtomicEdges, FloatsFlushInGlobalMemoryOnly) {
  const uint32_t small = 0x00000007, negative = 0x80000003;
  EXPECT_EQ(once<uint32_t>("add.f32", "b32", small, small).second, 0U);
  EXPECT_EQ(once<uint32_t>("add.f32", "b32", small, small, true).second, 14U);
  EXPECT_EQ(once<uint32_t>("add.f32", "b32", negative, negative).second, 0x80000000U);
  EXPECT_EQ(once<uint32_t>("add.f32", "b32", small, negative, true).second, 4U);
  EXPECT_EQ(once<uint32_t>("add.f32", "b32", 0x7f800000, 0xff800000).second, 0x7fffffffU);  // inf - inf
  EXPECT_EQ(once<uint32_t>("add.f32", "b32", 0xff812345, 0x3f800000).second, 0x7fffffffU);
}

TEST(AtomicEdges, Halves) {
  EXPECT_EQ(once<uint16_t>("add.noftz.f16", "b16", 1, 1).second, 2);  // subnormal
  EXPECT_EQ(once<uint16_t>("add.noftz.f16", "b16", 0x7bff, 0x7bff).second, 0x7c00);
  EXPECT_EQ(once<uint16_t>("add.noftz.f16", "b16", 0x7c00, 0xfc00).second, 0x7fff);
  EXPECT_EQ(once<uint16_t>("add.noftz.bf16", "b16", 0x3f80, 0x3b80).second, 0x3f80);  // 1 + 2^-8: tie to even
  EXPECT_EQ(once<uint16_t>("add.noftz.bf16", "b16", 0x3f81, 0x3b80).second, 0x3f82);
  EXPECT_EQ(once<uint32_t>("add.noftz.f16x2", "b32", 0x3c004000, 0x40003c00).second, 0x42004200U);
  EXPECT_EQ(once<uint32_t>("add.noftz.bf16x2", "b32", 0x3f804000, 0x40003f80).second, 0x40404040U);
}

TEST(AtomicEdges, CompareExchange) {
  Device d;
  std::vector<uint16_t> cells(8, 0xffff);
  Allocation* a = d.upload(cells);
  const Outcome o =
      d.run(kernel(1,
                   "ld.param.u64 %rd0, [p0];\nmov.u16 %h1, 65535;\nmov.u16 %h2, 7;\n"
                   "atom.global.cas.b16 %h3, [%rd0+2], %h1, %h2;\natom.global.cas.b16 %h4, [%rd0+2], %h1, %h2;\n"
                   "st.global.u16 [%rd0+6], %h3;\nst.global.u16 [%rd0+10], %h4;\n"),
            {1, 1, 1}, {1, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint16_t>(a), (std::vector<uint16_t>{0xffff, 7, 0xffff, 0xffff, 0xffff, 7, 0xffff, 0xffff}));
}

TEST(AtomicEdges, HalvesOf128Bits) {
  Device d;
  Allocation* a = d.upload(std::vector<uint64_t>{1, 2, 3, 4, 5, 6, 7, 8});
  const Outcome o = d.run(kernel(1,
                                 ".reg .b128 %q<4>;\nld.param.u64 %rd0, [p0];\nld.global.b128 %q1, [%rd0];\n"
                                 "ld.global.b128 %q2, [%rd0+16];\natom.global.cas.b128 %q3, [%rd0], %q1, %q2;\n"
                                 "st.global.b128 [%rd0+32], %q3;\natom.global.exch.b128 %q3, [%rd0+16], %q1;\n"
                                 "st.global.b128 [%rd0+48], %q3;\n"),
                          {1, 1, 1}, {1, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint64_t>(a), (std::vector<uint64_t>{3, 4, 1, 2, 1, 2, 3, 4}));
}

TEST(AtomicEdges, Vectors) {
  Device d;
  Allocation* a = d.upload(std::vector<float>{1, 2, 3, 4, 0, 0, 0, 0});
  const Outcome o = d.run(kernel(1,
                                 "ld.param.u64 %rd0, [p0];\nld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%rd0];\n"
                                 "atom.global.add.v4.f32 {%f3, %f2, %f1, %f0}, [%rd0], {%f0, %f1, %f2, %f3};\n"
                                 "st.global.v4.f32 [%rd0+16], {%f3, %f2, %f1, %f0};\n"
                                 "red.global.add.v2.f32 [%rd0+8], {%f0, %f0};\n"),
                          {1, 1, 1}, {1, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<float>(a), (std::vector<float>{2, 4, 10, 12, 1, 2, 3, 4}));
}

TEST(AtomicEdges, MinimumOfHalvesPrefersNumbersAndMinusZero) {
  Device d;
  Allocation* a = d.upload(std::vector<uint16_t>{0x7fff, 0x0000, 0x3c00, 0xbc00, 0x7fff, 0x8000, 0x3c00, 0xc000});
  const Outcome o = d.run(kernel(1,
                                 "ld.param.u64 %rd0, [p0];\nmov.u16 %h0, 0x3c00;\nmov.u16 %h1, 0x8000;\n"
                                 "red.global.min.noftz.v4.f16 [%rd0], {%h0, %h1, %h1, %h0};\n"
                                 "mov.b32 %r1, 0x80003c00;\nmov.b32 %r2, 0xbc007fff;\n"
                                 "red.global.max.noftz.v2.f16x2 [%rd0+8], {%r1, %r2};\n"),
                          {1, 1, 1}, {1, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint16_t>(a),
            (std::vector<uint16_t>{0x3c00, 0x8000, 0x8000, 0xbc00, 0x3c00, 0x8000, 0x3c00, 0xbc00}));
}

TEST(AtomicEdges, BlocksOnAllWorkersLoseNothing) {
  Options options;
  options.threads = 4;
  Device d(options);
  Allocation* a = d.upload(std::vector<uint64_t>{0, 0, 0});
  const Outcome o =
      d.run(kernel(1,
                   "ld.param.u64 %rd0, [p0];\nmov.u32 %r1, 0;\nLOOP:\nred.global.add.u64 [%rd0], 3;\n"
                   "red.global.add.f64 [%rd0+8], 0d3FF0000000000000;\natom.global.max.u32 %r2, [%rd0+16], %r1;\n"
                   "add.u32 %r1, %r1, 1;\nsetp.lt.u32 %p1, %r1, 20;\n@%p1 bra LOOP;\n"),
            {64, 1, 1}, {64, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint64_t>(a),
            (std::vector<uint64_t>{64 * 64 * 20 * 3, std::bit_cast<uint64_t>(64. * 64 * 20), 19}));
}

TEST(AtomicEdges, ASpinLockEnds) {
  Device d;
  Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
  const Outcome o =
      d.run(kernel(1,
                   "ld.param.u64 %rd0, [p0];\nTRY:\natom.global.cas.b32 %r1, [%rd0], 0, 1;\n"
                   "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra TRY;\nmembar.gl;\nld.volatile.global.u32 %r2, [%rd0+4];\n"
                   "add.u32 %r2, %r2, 1;\nst.volatile.global.u32 [%rd0+4], %r2;\nfence.acq_rel.gpu;\n"
                   "atom.global.exch.b32 %r3, [%rd0], 0;\n"),
            {4, 1, 1}, {96, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint32_t>(a), (std::vector<uint32_t>{0, 4 * 96}));
}

TEST(AtomicEdges, FaultsAndUnknownForms) {
  Device d;
  Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
  EXPECT_EQ(
      d.run(kernel(1, "ld.param.u64 %rd0, [p0];\nred.global.add.u32 [%rd0+8], 1;"), {1, 1, 1}, {1, 1, 1}, a).status,
      Status::kIllegalAddress);
  EXPECT_EQ(
      d.run(kernel(1, "ld.param.u64 %rd0, [p0];\nred.global.add.u32 [%rd0+2], 1;"), {1, 1, 1}, {1, 1, 1}, a).status,
      Status::kMisalignedAddress);
  for (const char* text : {"red.global.cas.b32 [%rd0], 1, 2;", "atom.global.add.b32 %r1, [%rd0], 1;",
                           "atom.global.add.f16 %h1, [%rd0], %h2;", "atom.global.min.f32 %f1, [%rd0], %f2;",
                           "atom.global.inc.s32 %r1, [%rd0], 1;", "atom.global.add.u32.wild %r1, [%rd0], 1;",
                           "atom.shared.add.v2.f32 {%f1, %f2}, [%r0], {%f1, %f2};", "fence.acq_rel;",
                           "fence.proxy.nothing;", "membar.gpu;"}) {
    EXPECT_EQ(d.run(kernel(0, text), {1, 1, 1}, {1, 1, 1}).status, Status::kIllegalInstruction) << text;
  }
}

TEST(Fences, EveryFormIsKnown) {
  Device d;
  std::string body = "ld.param.u64 %rd0, [p0];\n";
  for (const char* text : {"membar.cta",
                           "membar.gl",
                           "membar.sys",
                           "membar.proxy.alias",
                           "fence.sc.cta",
                           "fence.acq_rel.cluster",
                           "fence.acquire.gpu",
                           "fence.release.sys",
                           "fence.proxy.async",
                           "fence.proxy.async.global",
                           "fence.proxy.async.shared::cta",
                           "fence.proxy.async.shared::cluster",
                           "fence.proxy.alias",
                           "fence.mbarrier_init.release.cluster",
                           "fence.proxy.tensormap::generic.release.gpu",
                           "fence.proxy.tensormap::generic.acquire.gpu [%rd0], 128",
                           "fence.acquire.sync_restrict::shared::cluster.cluster",
                           "fence.release.sync_restrict::shared::cta.cluster",
                           "fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster",
                           "fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster"}) {
    body += text + std::string(";\n");
  }
  Allocation* a = d.upload(std::vector<uint32_t>(64));
  EXPECT_EQ(d.run(kernel(1, body), {1, 1, 1}, {32, 1, 1}, a).status, Status::kOk);
}

}  // namespace
}  // namespace ptxsim::testing
