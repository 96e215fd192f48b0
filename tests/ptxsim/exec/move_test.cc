#include <bit>

#include "tests/ptxsim/exec/lane_cases.h"
#include "tools/ptxsim/error.h"

namespace ptxsim::testing {
namespace {

/// The manual's table of byte selections, most significant first.
uint64_t permute(const Values& v, const std::array<int, 4>& bytes) {
  uint64_t d = 0;
  for (size_t i = 0; i < 4; ++i) {
    const int byte = bytes[i];
    const uint64_t source = byte < 4 ? v[0] >> (8 * byte) : v[1] >> (8 * (byte - 4));
    d = d << 8 | (source & 0xff);
  }
  return d;
}

std::vector<LaneCase> cases() {
  std::vector<LaneCase> all;
  const auto add = [&](LaneCase c) { all.push_back(std::move(c)); };
  for (const uint32_t n : {16U, 32U, 64U}) {
    const std::string b = std::to_string(n);
    for (const std::string kind : {"b", "u", "s"}) {
      add({"mov." + kind + b + " $d, $a;", n, {n}, [](const Values& v) { return v[0]; }});
      add({"slct." + kind + b + ".s32 $d, $a, $b, $c;", n, {n, n, 32}, [](const Values& v) {
             return static_cast<int32_t>(v[2]) >= 0 ? v[0] : v[1];
           }});
    }
    for (const bool ftz : {false, true}) {
      add({"slct" + std::string(ftz ? ".ftz" : "") + ".b" + b + ".f32 $d, $a, $b, $c;",
           n,
           {n, n, 32},
           [=](const Values& v) {
             const bool nan = (v[2] & 0x7fffffff) > 0x7f800000, negative = v[2] > 0x80000000;
             const bool subnormal = (v[2] & 0x7f800000) == 0;
             return !nan && (!negative || (ftz && subnormal)) ? v[0] : v[1];
           },
           {0, 0x80000000, 1, 0x80000001, 0x807fffff, 0x80800000, 0x3f800000, 0xbf800000, 0x7fc00000, 0xffc00000,
            0x7f800000, 0xff800000}});
    }
  }
  add({"mov.f32 $d, 0f3FC00000;", 32, {32}, [](const Values&) { return uint64_t{0x3fc00000}; }});
  add({"mov.f64 $d, 0d3FF8000000000000;", 64, {32}, [](const Values&) { return uint64_t{0x3ff8000000000000}; }});
  add({"mov.b16 $d, 0x3C00;", 16, {32}, [](const Values&) { return uint64_t{0x3c00}; }});
  add({"mov.u32 $d, WARP_SZ;", 32, {32}, [](const Values&) { return uint64_t{32}; }});
  add({"mov.s64 $d, -5;", 64, {32}, [](const Values&) { return ~uint64_t{4}; }});
  add({"mov.b32 $d, {$a, $b};", 32, {16, 16}, [](const Values& v) { return v[1] << 16 | v[0]; }});
  add({"mov.b64 $d, {$a, $b};", 64, {32, 32}, [](const Values& v) { return v[1] << 32 | v[0]; }});
  add({"mov.b64 $d, {$a, $b, $c, $e};", 64, {16, 16, 16, 16}, [](const Values& v) {
         return v[3] << 48 | v[2] << 32 | v[1] << 16 | v[0];
       }});
  add({"mov.b64 {$d, _}, $a;", 32, {64}, [](const Values& v) { return v[0]; }});
  add({"mov.b64 {_, $d}, $a;", 32, {64}, [](const Values& v) { return v[0] >> 32; }});
  add({"mov.b32 {_, $d}, $a;", 16, {32}, [](const Values& v) { return v[0] >> 16; }});
  add({"mov.b64 {%h1, %h2, $d, %h3}, $a;", 16, {64}, [](const Values& v) { return v[0] >> 32; }});
  add({"{\n.reg .b128 %q1;\nmov.b128 %q1, {$a, $b};\nmov.b128 {_, $d}, %q1;\n}", 64, {64, 64}, [](const Values& v) {
         return v[1];
       }});
  add({"{\n.reg .b128 %q1;\n.reg .b128 %q2;\nmov.b128 %q1, {$a, $b};\nmov.b128 %q2, %q1;\nmov.b128 {$d, _}, %q2;\n}",
       64,
       {64, 64},
       [](const Values& v) { return v[0]; }});

  const std::vector<uint64_t> selectors = {0x3210, 0x7654, 0x0123, 0x4567, 0xba98, 0xfedc, 0x8888, 0x5410, 0xffff7632};
  add({"prmt.b32 $d, $a, $b, $c;",
       32,
       {32, 32, 32},
       [](const Values& v) {
         uint64_t d = 0;
         for (int i = 0; i < 4; ++i) {
           const uint64_t n = v[2] >> (4 * i) & 0xf;
           const uint64_t byte = permute(v, {static_cast<int>(n & 7), 0, 0, 0}) >> 24;
           d |= (n < 8 ? byte : byte >= 0x80 ? 0xff : 0) << (8 * i);
         }
         return d;
       },
       selectors});
  struct Mode {
    const char* name;
    std::array<std::array<int, 4>, 4> bytes;
  };
  const Mode modes[] = {
      {"f4e", {{{3, 2, 1, 0}, {4, 3, 2, 1}, {5, 4, 3, 2}, {6, 5, 4, 3}}}},
      {"b4e", {{{5, 6, 7, 0}, {6, 7, 0, 1}, {7, 0, 1, 2}, {0, 1, 2, 3}}}},
      {"rc8", {{{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}}},
      {"ecl", {{{3, 2, 1, 0}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 3, 3, 3}}}},
      {"ecr", {{{0, 0, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}}}},
      {"rc16", {{{1, 0, 1, 0}, {3, 2, 3, 2}, {1, 0, 1, 0}, {3, 2, 3, 2}}}},
  };
  for (const Mode& mode : modes) {
    add({std::string("prmt.b32.") + mode.name + " $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
           return permute(v, mode.bytes[v[2] & 3]);
         }});
  }
  // Generic addresses and back.
  for (const std::string space : {"shared", "local", "param", "global", "const", "shared::cta"}) {
    add({"and.b64 %rd20, $a, 0xffffff;\ncvta." + space + ".u64 $d, %rd20;\ncvta.to." + space + ".u64 $d, $d;",
         64,
         {64},
         [](const Values& v) { return v[0] & 0xffffff; }});
    for (const std::string of : {"shared", "local", "param", "global"}) {
      // In the global window lie parameters too. (Addresses that are nobody's are no constants.)
      const bool is = space.substr(0, 6) == of.substr(0, 6) || (space == of) || (space == "global" && of == "param");
      add({"and.b64 %rd20, $a, 0xffffff;\ncvta." + of + ".u64 %rd21, %rd20;\nisspacep." + space + " $d, %rd21;",
           1,
           {64},
           [=](const Values&) { return uint64_t{is}; }});
    }
  }
  return all;
}

class Move : public ::testing::TestWithParam<LaneCase> {};

TEST_P(Move, EveryLane) { check_lanes(GetParam(), false); }
TEST_P(Move, UnderAGuard) { check_lanes(GetParam(), true); }

INSTANTIATE_TEST_SUITE_P(All, Move, ::testing::ValuesIn(cases()));

/// The 64-bit values that a body leaves in %rd50, by thread of one block.
std::vector<uint64_t> run(const std::string& body, uint32_t threads = 40, const std::string& variables = "") {
  Device device;
  Allocation* out = device.upload(std::vector<uint64_t>(threads, 0));
  std::string text = kernel(1, variables + body + R"(
    mov.u32 %r100, %tid.x;
    ld.param.u64 %rd60, [p0];
    mul.wide.u32 %rd61, %r100, 8;
    add.u64 %rd60, %rd60, %rd61;
    st.global.u64 [%rd60], %rd50;)");
  const Outcome outcome = device.run(text, {1, 1, 1}, {threads, 1, 1}, out);
  EXPECT_EQ(outcome.status, Status::kOk) << outcome.message;
  return device.download<uint64_t>(out);
}

TEST(SpecialRegisters, AreReadInEveryWidth) {
  for (const std::string body : {"mov.u64 %rd50, %tid.x;", "mov.u32 %r1, %tid.x;\ncvt.u64.u32 %rd50, %r1;",
                                 "mov.u16 %h1, %tid.x;\ncvt.u64.u16 %rd50, %h1;", "cvt.u64.u32 %rd50, %tid.x;"}) {
    const auto got = run(body);
    for (uint64_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i) << body;
  }
  for (const uint64_t id : run("mov.u64 %rd50, %gridid;")) EXPECT_NE(id, 0U);
}

TEST(SpecialRegisters, ClocksAdvance) {
  for (const std::string clock : {"clock64", "globaltimer"}) {
    const auto got =
        run("mov.u64 %rd1, %" + clock + ";\nmov.u32 %r1, 0;\n$LOOP:\nadd.u32 %r1, %r1, 1;\n" +
            "setp.lt.u32 %p1, %r1, 100;\n@%p1 bra $LOOP;\nmov.u64 %rd2, %" + clock + ";\nsub.u64 %rd50, %rd2, %rd1;");
    for (const uint64_t elapsed : got) {
      EXPECT_GT(elapsed, 0U) << clock;
      EXPECT_LT(elapsed, 10'000'000'000U) << clock;
    }
  }
  const auto narrow =
      run("mov.u32 %r1, %clock;\nmov.u32 %r2, %clock;\nsub.u32 %r3, %r2, %r1;\ncvt.u64.u32 %rd50, %r3;\n"
          "mov.u32 %r4, %clock_hi;\nmov.u32 %r5, %globaltimer_lo;\nmov.u32 %r6, %globaltimer_hi;");
  for (const uint64_t elapsed : narrow) EXPECT_TRUE(elapsed > 0 && elapsed < 100) << elapsed;
}

TEST(Addresses, OfVariables) {
  // What lies at a generic address made of a variable's is what lies at the variable, with an offset too.
  const auto got = run(R"(
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra $WAIT;
    st.shared.u32 [s+8], 77;
  $WAIT:
    bar.sync 0;
    st.local.u32 [v+4], %r1;
    mov.u64 %rd1, v+4;
    cvta.local.u64 %rd2, %rd1;
    ld.u32 %r2, [%rd2];
    mov.u32 %r3, s;
    ld.shared.u32 %r4, [%r3+8];
    cvta.shared.u64 %rd3, s+8;
    ld.u32 %r5, [%rd3];
    cvta.to.shared.u64 %rd4, %rd3;
    ld.shared.u32 %r6, [%rd4];
    mul.lo.u32 %r7, %r4, %r5;
    mul.lo.u32 %r7, %r7, %r6;
    mad.lo.u32 %r7, %r2, 1000000, %r7;
    cvt.u64.u32 %rd50, %r7;)",
                       40, ".shared .align 4 .b8 s[16];\n.local .align 4 .b8 v[16];\n");
  for (uint64_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i * 1000000 + 77 * 77 * 77);
}

TEST(Addresses, OfOtherBlocksSharedMemory) {
  const auto got = run(R"(
    mapa.shared::cluster.u32 %r1, s, 0;
    getctarank.shared::cluster.u32 %r2, %r1;
    cvta.shared.u64 %rd1, s;
    mapa.u64 %rd2, %rd1, 3;
    getctarank.u64 %r3, %rd2;
    isspacep.shared::cluster %p1, %rd2;
    isspacep.shared::cta %p2, %rd2;
    selp.u32 %r4, 100, 0, %p1;
    selp.u32 %r5, 1000, 0, %p2;
    add.u32 %r3, %r3, %r4;
    add.u32 %r3, %r3, %r5;
    mad.lo.u32 %r3, %r2, 10, %r3;
    cvt.u64.u32 %rd50, %r3;)",
                       1, ".shared .align 4 .b8 s[16];\n");
  EXPECT_EQ(got[0], 103U);
}

TEST(Activemask, TellsWhoRuns) {
  const auto got = run(R"(
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, 0;
    and.b32 %r3, %r1, 1;
    setp.eq.u32 %p1, %r3, 1;
    @%p1 activemask.b32 %r2;
    cvt.u64.u32 %rd50, %r2;)",
                       36);
  for (uint64_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i], i % 2 == 0 ? 0U : i < 32 ? 0xaaaaaaaaU : 0xaU) << i;
  }
}

TEST(MoveForms, UnknownOnesAreRefused) {
  for (const std::string text :
       {"mov.b32 %r1, %rd1;", "mov.b64 {%r1, %r2, %r3}, %rd1;", "mov.u32 %r1, %clock64;", "mov.u32 %r1, %pm0;",
        "mov.u32.rn %r1, %r2;", "cvta.u64 %rd1, %rd2;", "isspacep %p1, %rd1;", "selp.b32 %r1, %r2, %r3;",
        "prmt.b32.xyz %r1, %r2, %r3, %r4;", "slct.b32.u32 %r1, %r2, %r3, %r4;", "mov.u32 %r1, -%r2;",
        "alloca.u64 %rd1, %rd2;", "mapa.shared.u32 %r1, %r2, 0;"}) {
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
