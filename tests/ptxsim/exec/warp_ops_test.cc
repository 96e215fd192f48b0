#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <random>

#include "tests/ptxsim/exec/ptx_fixture.h"
#include "tools/ptxsim/check/findings.h"

namespace ptxsim::testing {
namespace {

using Lanes = std::vector<uint32_t>;

/// %rd0… = where each thread's 32 bits of the n buffers lie; %r0 = tid.
std::string prologue(int n) {
  std::string text = "mov.u32 %r0, %tid.x;\nmul.wide.u32 %rd60, %r0, 4;\n";
  for (int i = 0; i < n; ++i) {
    const std::string r = "%rd" + std::to_string(i);
    text += "ld.param.u64 " + r + ", [p" + std::to_string(i) + "];\nadd.s64 " + r + ", " + r + ", %rd60;\n";
  }
  return text;
}

Lanes random_lanes(uint32_t seed, uint32_t mask = ~0U) {
  std::mt19937 random(seed);
  Lanes v(32);
  for (uint32_t& x : v) x = static_cast<uint32_t>(random()) & mask;
  return v;
}

constexpr uint32_t kUntouched = 0xdeadbeef;

// --- shfl ---------------------------------------------------------------------------------------------------------

struct ShuffleCase {
  const char* mode;
  uint32_t width;  // of CUDA's __shfl; 0: random c
};

class Shuffle : public ::testing::TestWithParam<ShuffleCase> {};

/// The manual's rule, by walking segments instead of by formula: the lanes of l's segment are those that agree with l
/// in the mask's bits; the source must be one of them and on the right side of the clamp.
std::pair<int, bool> shuffle_source(const std::string& mode, int l, uint32_t b, uint32_t c) {
  const uint32_t mask = c >> 8 & 31, clamp = c & 31;
  const int step = static_cast<int>(b & 31);
  const int limit = static_cast<int>((static_cast<uint32_t>(l) & mask) + (clamp - (clamp & mask)));
  int j = l;
  if (mode == "up") j -= step;
  if (mode == "down") j += step;
  if (mode == "bfly") j = l ^ step;
  if (mode == "idx") j = static_cast<int>((static_cast<uint32_t>(l) & mask) + (b & 31 & ~mask));
  const bool inside = mode == "up" ? j >= limit : j <= limit;
  return {inside ? j : l, inside};
}

TEST_P(Shuffle, AllLanes) {
  const ShuffleCase& p = GetParam();
  const Lanes a = random_lanes(1), b = random_lanes(2, 63);
  Lanes c = random_lanes(3, 0x1f1f);
  if (p.width != 0) {
    const uint32_t segments = 32 - p.width;
    c.assign(32, segments << 8 | (std::string(p.mode) == "up" ? 0 : 31));
  }
  Device d;
  Allocation *pa = d.upload(a), *pb = d.upload(b), *pc = d.upload(c);
  Allocation *out = d.upload(Lanes(32, kUntouched)), *flags = d.upload(Lanes(32, kUntouched));
  const Outcome o = d.run(kernel(5, prologue(5) +
                                        "ld.global.u32 %r1, [%rd0];\nld.global.u32 %r2, [%rd1];\n"
                                        "ld.global.u32 %r3, [%rd2];\nshfl.sync." +
                                        std::string(p.mode) +
                                        ".b32 %r4|%p1, %r1, %r2, %r3, 0xffffffff;\nst.global.u32 [%rd3], %r4;\n"
                                        "selp.u32 %r5, 1, 0, %p1;\nst.global.u32 [%rd4], %r5;\n"),
                          {1, 1, 1}, {32, 1, 1}, pa, pb, pc, out, flags);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const auto got = d.download<uint32_t>(out), inside = d.download<uint32_t>(flags);
  for (int l = 0; l < 32; ++l) {
    const auto i = static_cast<size_t>(l);
    const auto [j, good] = shuffle_source(p.mode, l, b[i], c[i]);
    EXPECT_EQ(got[i], a[static_cast<size_t>(j)]) << p.mode << " lane " << l << " from " << j;
    EXPECT_EQ(inside[i], good ? 1U : 0U) << p.mode << " lane " << l;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, Shuffle,
                         ::testing::Values(ShuffleCase{"up", 0}, ShuffleCase{"down", 0}, ShuffleCase{"bfly", 0},
                                           ShuffleCase{"idx", 0}, ShuffleCase{"up", 8}, ShuffleCase{"down", 8},
                                           ShuffleCase{"bfly", 16}, ShuffleCase{"idx", 4}, ShuffleCase{"up", 32},
                                           ShuffleCase{"down", 32}));

TEST(ShufflePartial, OnlyMembersAreWritten) {
  Device d;
  Allocation* out = d.upload(Lanes(32, kUntouched));
  const Outcome o =
      d.run(kernel(1, prologue(1) + "setp.lt.u32 %p1, %r0, 12;\nmov.u32 %r1, 7;\n"
                                    "@%p1 shfl.sync.bfly.b32 %r1, %r0, 1, 31, 0xfff;\nst.global.u32 [%rd0], %r1;\n"),
            {1, 1, 1}, {32, 1, 1}, out);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const auto got = d.download<uint32_t>(out);
  for (uint32_t l = 0; l < 32; ++l) EXPECT_EQ(got[l], l < 12 ? l ^ 1 : 7U);
}

TEST(ShufflePartial, DivergedLanesMeetAndExitedOnesAreNotWaitedFor) {
  Device d;
  Allocation* out = d.upload(Lanes(32, kUntouched));
  // Lanes 24… leave; lanes below 8 take a longer way to the shuffle.
  const Outcome o = d.run(
      kernel(1, prologue(1) + "setp.ge.u32 %p1, %r0, 24;\n@%p1 bra END;\nmov.u32 %r1, %r0;\n"
                              "setp.ge.u32 %p2, %r0, 8;\n@%p2 bra MEET;\nmov.u32 %r2, 0;\n"
                              "LOOP:\nadd.u32 %r2, %r2, 1;\nsetp.lt.u32 %p3, %r2, 50;\n@%p3 bra LOOP;\n"
                              "add.u32 %r1, %r1, 100;\nMEET:\n"
                              "shfl.sync.idx.b32 %r3, %r1, 3, 31, 0xffffffff;\nst.global.u32 [%rd0], %r3;\nEND:\n"),
      {1, 1, 1}, {32, 1, 1}, out);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const auto got = d.download<uint32_t>(out);
  for (uint32_t l = 0; l < 32; ++l) EXPECT_EQ(got[l], l < 24 ? 103U : kUntouched) << l;
}

TEST(ShufflePartial, UnknownFormsAreRefused) {
  Device d;
  for (const char* text : {"shfl.sync.idx.b64 %rd1, %rd2, 0, 31, -1;", "shfl.sync.turn.b32 %r1, %r2, 0, 31, -1;",
                           "vote.sync.most.pred %p1, %p2, -1;", "redux.sync.add.f32 %r1, %r2, -1;",
                           "match.some.sync.b32 %r1, %r2, -1;", "redux.sync.add.b32 %r1, %r2, -1;"}) {
    EXPECT_EQ(d.run(kernel(0, text), {1, 1, 1}, {32, 1, 1}).status, Status::kIllegalInstruction) << text;
  }
}

// --- vote, match, redux, elect: two parties at one instruction ------------------------------------------------------

struct PartyCase {
  const char* name;
  const char* text;  // %r1: value, %p1: its lowest bit, %r3: members; result in %r4
  std::function<uint32_t(const Lanes& values, uint32_t party, int lane)> expected;
};

class Party : public ::testing::TestWithParam<PartyCase> {};

TEST_P(Party, TwoPartiesAtOneInstruction) {
  const PartyCase& p = GetParam();
  for (const uint32_t party : {0xffffffffU, 0x0f0ff0f0U, 0x00000001U, 0x7fffffffU}) {
    for (const uint32_t range : {0U, 1U, 3U, ~0U}) {
      Lanes values = random_lanes(party ^ range, range);
      if (range == 0) values.assign(32, 0x80000001U);
      Lanes members(32);
      for (uint32_t l = 0; l < 32; ++l) members[l] = (party >> l & 1) != 0 ? party : ~party;
      Device d;
      Allocation *in = d.upload(values), *who = d.upload(members), *out = d.upload(Lanes(32, kUntouched));
      const Outcome o =
          d.run(kernel(3, prologue(3) +
                              "ld.global.u32 %r1, [%rd0];\nld.global.u32 %r3, [%rd1];\nand.b32 %r2, %r1, 1;\n"
                              "setp.ne.u32 %p1, %r2, 0;\ncvt.u64.u32 %rd10, %r1;\n" +
                              p.text + "\nst.global.u32 [%rd2], %r4;\n"),
                {1, 1, 1}, {32, 1, 1}, in, who, out);
      ASSERT_EQ(o.status, Status::kOk) << o.message;
      const auto got = d.download<uint32_t>(out);
      for (int l = 0; l < 32; ++l) {
        const auto i = static_cast<size_t>(l);
        EXPECT_EQ(got[i], p.expected(values, members[i], l))
            << p.name << " lane " << l << " of " << std::hex << members[i];
      }
    }
  }
}

uint32_t count_odd(const Lanes& v, uint32_t party) {
  uint32_t n = 0;
  for (uint32_t l = 0; l < 32; ++l) n += (party >> l & 1) & (v[l] & 1);
  return n;
}
uint32_t equal_to(const Lanes& v, uint32_t party, int lane) {
  uint32_t mask = 0;
  for (uint32_t l = 0; l < 32; ++l) {
    if ((party >> l & 1) != 0 && v[l] == v[static_cast<size_t>(lane)]) mask += 1U << l;
  }
  return mask;
}
std::vector<uint32_t> members_of(const Lanes& v, uint32_t party) {
  std::vector<uint32_t> of;
  for (uint32_t l = 0; l < 32; ++l) {
    if ((party >> l & 1) != 0) of.push_back(v[l]);
  }
  return of;
}
uint32_t size_of(uint32_t party) { return static_cast<uint32_t>(std::popcount(party)); }

INSTANTIATE_TEST_SUITE_P(
    Operations, Party,
    ::testing::Values(
        PartyCase{"all", "vote.sync.all.pred %p2, %p1, %r3;\nselp.u32 %r4, 1, 0, %p2;",
                  [](const Lanes& v, uint32_t m, int) { return count_odd(v, m) == size_of(m) ? 1U : 0U; }},
        PartyCase{"any", "vote.sync.any.pred %p2, %p1, %r3;\nselp.u32 %r4, 1, 0, %p2;",
                  [](const Lanes& v, uint32_t m, int) { return count_odd(v, m) != 0 ? 1U : 0U; }},
        PartyCase{"any of the negated, in place", "vote.sync.any.pred %p1, !%p1, %r3;\nselp.u32 %r4, 1, 0, %p1;",
                  [](const Lanes& v, uint32_t m, int) { return count_odd(v, m) != size_of(m) ? 1U : 0U; }},
        PartyCase{"uni", "vote.sync.uni.pred %p2, %p1, %r3;\nselp.u32 %r4, 1, 0, %p2;",
                  [](const Lanes& v, uint32_t m, int) {
                    return count_odd(v, m) == 0 || count_odd(v, m) == size_of(m) ? 1U : 0U;
                  }},
        PartyCase{"ballot into the members' register", "vote.sync.ballot.b32 %r3, %p1, %r3;\nmov.u32 %r4, %r3;",
                  [](const Lanes& v, uint32_t m, int) {
                    uint32_t ballot = 0;
                    for (uint32_t l = 0; l < 32; ++l) ballot |= (v[l] & 1) << l;
                    return ballot & m;
                  }},
        PartyCase{"match.any", "match.any.sync.b32 %r4, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int l) { return equal_to(v, m, l); }},
        PartyCase{"match.any of 64 bits", "match.any.sync.b64 %r4, %rd10, %r3;",
                  [](const Lanes& v, uint32_t m, int l) { return equal_to(v, m, l); }},
        PartyCase{"match.all", "match.all.sync.b32 %r4|%p2, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int l) { return equal_to(v, m, l) == m ? m : 0U; }},
        PartyCase{"match.all's predicate", "match.all.sync.b64 %r5|%p2, %rd10, %r3;\nselp.u32 %r4, 1, 0, %p2;",
                  [](const Lanes& v, uint32_t m, int l) { return equal_to(v, m, l) == m ? 1U : 0U; }},
        PartyCase{"redux.add", "redux.sync.add.s32 %r4, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int) {
                    uint64_t sum = 0;
                    for (const uint32_t x : members_of(v, m)) sum += x;
                    return static_cast<uint32_t>(sum);
                  }},
        PartyCase{"redux.min.s32", "redux.sync.min.s32 %r4, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int) {
                    auto of = members_of(v, m);
                    for (uint32_t& x : of) x ^= 0x80000000U;
                    std::sort(of.begin(), of.end());
                    return of.front() ^ 0x80000000U;
                  }},
        PartyCase{"redux.max.u32", "redux.sync.max.u32 %r4, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int) {
                    auto of = members_of(v, m);
                    std::sort(of.begin(), of.end());
                    return of.back();
                  }},
        PartyCase{"redux.and", "redux.sync.and.b32 %r4, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int) {
                    uint32_t zeros = 0;
                    for (const uint32_t x : members_of(v, m)) zeros |= ~x;
                    return ~zeros;
                  }},
        PartyCase{"redux.xor", "redux.sync.xor.b32 %r4, %r1, %r3;",
                  [](const Lanes& v, uint32_t m, int) {
                    uint32_t x = 0;
                    for (const uint32_t y : members_of(v, m)) x ^= y;
                    return x;
                  }},
        PartyCase{"elect's lane", "elect.sync %r4|%p2, %r3;",
                  [](const Lanes&, uint32_t m, int) { return static_cast<uint32_t>(std::countr_zero(m)); }},
        PartyCase{"elect's predicate", "elect.sync _|%p2, %r3;\nselp.u32 %r4, 1, 0, %p2;",
                  [](const Lanes&, uint32_t m, int l) { return std::countr_zero(m) == l ? 1U : 0U; }}));

// --- the same operation at several places -------------------------------------------------------------------------

/// An operation in three branches, of lanes whose numbers leave 0, 1 and 2 when divided by three: in the branches a
/// lane's value is in %r11, %r12, %r13, a predicate (bit 0 of the value) in %p1, %p2, %p3, and the result belongs in
/// %r21, %r22, %r23. X stands for the branch's number.
std::string in_branches(const std::string& operation) {
  std::string text = prologue(2) +
                     "ld.global.u32 %r1, [%rd1];\nrem.u32 %r2, %r0, 3;\nsetp.eq.u32 %p4, %r2, 1;\n"
                     "setp.eq.u32 %p5, %r2, 2;\n@%p4 bra B2;\n@%p5 bra B3;\n";
  for (const char* x : {"1", "2", "3"}) {
    std::string branch = "BX:\nmov.u32 %r1X, %r1;\nand.b32 %r30, %r1, 1;\nsetp.ne.u32 %pX, %r30, 0;\n" + operation +
                         "st.global.u32 [%rd0], %r2X;\nbra END;\n";
    for (size_t at = 0; (at = branch.find('X', at)) != std::string::npos;) branch[at] = *x;
    text += branch;
  }
  return text + "END:\n";
}

class Elsewhere : public ::testing::TestWithParam<uint64_t> {
 protected:
  Lanes run(const std::string& operation, const Lanes& values, uint32_t threads = 32) {
    Options options;
    options.adversarial = GetParam() != 0;
    options.seed = GetParam();
    options.check = true;
    Device d(options);
    Allocation *out = d.upload(Lanes(32, kUntouched)), *in = d.upload(values);
    const Outcome o = d.run(kernel(2, in_branches(operation)), {1, 1, 1}, {threads, 1, 1}, out, in);
    EXPECT_EQ(o.status, Status::kOk) << o.message;
    EXPECT_EQ(d.machine().findings().count(), 0u);
    return d.download<uint32_t>(out);
  }
};
INSTANTIATE_TEST_SUITE_P(Schedules, Elsewhere, ::testing::Values(0, 1, 2, 3, 4, 5));

TEST_P(Elsewhere, Shuffle) {
  const Lanes values = random_lanes(11);
  const Lanes with = run("shfl.sync.bfly.b32 %r2X|%p9, %r1X, 1, 31, -1;\n", values);
  const Lanes without = run("shfl.sync.bfly.b32 %r2X, %r1X, 1, 31, -1;\n", values);
  for (size_t l = 0; l < 32; ++l) {
    EXPECT_EQ(with[l], values[l ^ 1]) << l;
    EXPECT_EQ(without[l], values[l ^ 1]) << l;
  }
  // Lanes that have exited are not waited for.
  const Lanes some = run("shfl.sync.up.b32 %r2X, %r1X, 1, 0, -1;\n", values, 19);
  for (size_t l = 1; l < 19; ++l) EXPECT_EQ(some[l], values[l - 1]) << l;
}

TEST_P(Elsewhere, EachHalfByItself) {
  const Lanes values = random_lanes(12);
  const Lanes d =
      run("setp.lt.u32 %p10, %r0, 16;\nselp.b32 %r31, 0xffff, 0xffff0000, %p10;\n"
          "shfl.sync.bfly.b32 %r2X, %r1X, 5, 31, %r31;\nshfl.sync.bfly.b32 %r2X, %r2X, 2, 31, %r31;\n",
          values);
  for (size_t l = 0; l < 32; ++l) EXPECT_EQ(d[l], values[l ^ 7]) << l;
}

TEST_P(Elsewhere, VoteMatchReduxElect) {
  const Lanes values = random_lanes(13, 7);
  uint32_t odd = 0, all_bits = 0, sum = 0;
  for (size_t l = 0; l < 32; ++l) {
    odd |= (values[l] & 1) << l;
    all_bits |= values[l];
    sum += values[l];
  }
  const Lanes ballot = run("vote.sync.ballot.b32 %r2X, %pX, -1;\n", values);
  const Lanes none = run("vote.sync.any.pred %p9, !%pX, -1;\nselp.b32 %r2X, 1, 0, %p9;\n", Lanes(32, 1));
  const Lanes match = run("match.any.sync.b32 %r2X, %r1X, -1;\n", values);
  const Lanes wide = run("cvt.u64.u32 %rd9, %r1X;\nmatch.any.sync.b64 %r2X, %rd9, -1;\n", values);
  const Lanes total = run("redux.sync.add.u32 %r2X, %r1X, -1;\n", values);
  const Lanes any = run("redux.sync.or.b32 %r2X, %r1X, -1;\n", values);
  const Lanes leader = run("elect.sync %r2X|%p9, -1;\n", values);
  for (size_t l = 0; l < 32; ++l) {
    uint32_t equal = 0;
    for (size_t m = 0; m < 32; ++m) equal |= uint32_t{values[m] == values[l]} << m;
    EXPECT_EQ(ballot[l], odd) << l;
    EXPECT_EQ(none[l], 0u) << l;
    EXPECT_EQ(match[l], equal) << l;
    EXPECT_EQ(wide[l], equal) << l;
    EXPECT_EQ(total[l], sum) << l;
    EXPECT_EQ(any[l], all_bits) << l;
    EXPECT_EQ(leader[l], 0u) << l;
  }
}

TEST_P(Elsewhere, BarrierOfTheWarp) {
  const Lanes values = random_lanes(14);
  EXPECT_EQ(run("bar.warp.sync -1;\nmov.u32 %r2X, %r1X;\n", values), values);
}

TEST_P(Elsewhere, OtherOperationsDoNotMeet) {
  Options options;
  options.adversarial = GetParam() != 0;
  options.seed = GetParam();
  Device d(options);
  Allocation *out = d.upload(Lanes(32)), *in = d.upload(Lanes(32));
  std::string text = in_branches("shfl.sync.bfly.b32 %r2X, %r1X, 1, 31, -1;\n");
  text.replace(text.rfind("bfly"), 4, "down");
  EXPECT_EQ(d.run(kernel(2, text), {1, 1, 1}, {32, 1, 1}, out, in).status, Status::kDeadlock);
}

}  // namespace
}  // namespace ptxsim::testing
