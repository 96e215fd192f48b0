#include "tests/ptxsim/check/check_fixture.h"

namespace ptxsim::testing {
namespace {

/// The first 64 words of p0 are for flags and counters, the rest for data.
std::string check(const std::string& body, uint32_t blocks, uint32_t threads, int workers = 1, uint64_t seed = 0) {
  CheckedDevice device(workers, seed);
  Allocation* out = device.upload(std::vector<uint32_t>(8192));
  return device.check(kernel(1, kThreads + body), blocks, threads, out);
}

class GlobalRace : public ::testing::TestWithParam<std::tuple<int, uint64_t>> {
 protected:
  std::string check(const std::string& body, uint32_t blocks, uint32_t threads) {
    return testing::check(body, blocks, threads, std::get<0>(GetParam()), std::get<1>(GetParam()));
  }
};
INSTANTIATE_TEST_SUITE_P(Schedules, GlobalRace, ::testing::Combine(::testing::Values(1, 3), ::testing::Values(0, 5)));

TEST_P(GlobalRace, ACounterWithoutAtomics) {
  const std::string body = "ld.global.u32 %r8, [%rd1];\nadd.s32 %r8, %r8, 1;\nst.global.u32 [%rd1], %r8;\n";
  EXPECT_TRUE(says(check(body, 8, 1), {"race", "global memory at 0x", "allocation 1", "nothing orders the blocks"}));
  EXPECT_TRUE(says(check(body, 1, 32), {"race"}));
  EXPECT_TRUE(says(check("mov.u32 %r8, %r1;\n" + body, 1, 64), {"race"}));
  EXPECT_EQ(check(body, 1, 1), "");
  EXPECT_EQ(check("atom.global.add.u32 %r8, [%rd1], 1;\n", 8, 64), "");
}

TEST_P(GlobalRace, ReadingAnotherBlocksPart) {
  // Each block writes its words and reads the next block's first.
  const std::string body = "st.global.u32 [%rd2+256], %r1;\nld.global.u32 %r9, [%rd2+384];\n";
  EXPECT_TRUE(says(check(body, 4, 32), {"race", "st.global", "ld.global"}));
  EXPECT_EQ(check("st.global.u32 [%rd2+256], %r1;\nld.global.u32 %r9, [%rd2+256];\n", 4, 32), "");
}

TEST_P(GlobalRace, ThreadsOfABlock) {
  const auto body = [](const std::string& between) {
    return "st.global.u32 [%rd2+256], %r1;\n" + between +
           "xor.b32 %r8, %r4, 32;\nmul.wide.u32 %rd5, %r8, 4;\nadd.s64 %rd5, %rd5, %rd1;\nld.global.u32 %r9, "
           "[%rd5+256];\n";
  };
  EXPECT_EQ(check(body("bar.sync 0;\n"), 4, 64), "");
  EXPECT_TRUE(says(check(body(""), 1, 64), {"race", "no barrier between them"}));
}

TEST_P(GlobalRace, LaunchesAreOrdered) {
  CheckedDevice device;
  Allocation* out = device.upload(std::vector<uint32_t>(1024));
  EXPECT_EQ(device.check(kernel(1, kThreads + "st.global.u32 [%rd2], %r1;\n"), 4, 64, out), "");
  EXPECT_EQ(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd1+508];\n"), 4, 64, out), "");
  EXPECT_EQ(device.check(kernel(1, kThreads + "atom.global.add.u32 %r8, [%rd1], 1;\n"), 4, 64, out), "");
  EXPECT_EQ(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd1];\n"), 4, 64, out), "");
}

/// Each block writes a partial result, takes a ticket; the last one reads them all.
std::string last_block(const std::string& sync, const std::string& fence) {
  return "st.global.u32 [%rd2+256], %r1;\n" + fence + sync + R"(
    setp.eq.u32 %p1, %r1, 0;
    mov.u32 %r8, 0;
    @%p1 atom.global.inc.u32 %r8, [%rd1], 1000;
    mov.u32 %r10, %nctaid.x;
    sub.s32 %r10, %r10, 1;
    @%p1 st.shared.u32 [tile], %r8;
    bar.sync 0;
    ld.shared.u32 %r8, [tile];
    setp.ne.u32 %p2, %r8, %r10;
    @%p2 bra $END;
    mov.u32 %r11, 0;
    mul.wide.u32 %rd5, %r1, 4;
    add.s64 %rd5, %rd5, %rd1;
  $NEXT:
    ld.global.u32 %r12, [%rd5+256];
    add.s64 %rd5, %rd5, 256;
    add.s32 %r11, %r11, 1;
    setp.le.u32 %p3, %r11, %r10;
    @%p3 bra $NEXT;
  $END:
  )";
}

TEST_P(GlobalRace, TheLastBlockReadsAllPartialResults) {
  EXPECT_EQ(check(last_block("bar.sync 0;\n", "membar.gl;\n"), 6, 64), "");
  // The ticket is drawn before the other warp has written its part.
  EXPECT_TRUE(says(check(last_block("", "membar.gl;\n"), 6, 64), {"race"}));
}

TEST_P(GlobalRace, BlocksWaitForTheFlagOfTheOneBefore) {
  const auto body = [](const std::string& wait) {
    return R"(
    setp.eq.u32 %p1, %r1, 0;
    mul.wide.u32 %rd5, %r2, 4;
    add.s64 %rd5, %rd5, %rd1;
    setp.eq.u32 %p2, %r2, 0;
    mov.u32 %r9, 1;
    @%p2 bra $WRITE;
    )" + wait +
           R"(
    bar.sync 0;
    ld.global.u32 %r9, [%rd2+128];
  $WRITE:
    add.s32 %r9, %r9, 1;
    st.global.u32 [%rd2+256], %r9;
    bar.sync 0;
    membar.gl;
    @%p1 st.volatile.global.u32 [%rd5], 1;
    )";
  };
  EXPECT_EQ(
      check(body("$WAIT:\nld.volatile.global.u32 %r8, [%rd5+-4];\nsetp.eq.u32 %p3, %r8, 0;\n@%p3 bra $WAIT;\n"), 5, 32),
      "");
  EXPECT_TRUE(says(check(body(""), 5, 32), {"race", "nothing orders the blocks"}));
}

TEST_P(GlobalRace, ALockBetweenBlocks) {
  const std::string body = R"(
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra $END;
  $TRY:
    atom.global.cas.b32 %r8, [%rd1], 0, 1;
    setp.ne.u32 %p2, %r8, 0;
    @%p2 bra $TRY;
    ld.global.u32 %r9, [%rd1+4];
    add.s32 %r9, %r9, 1;
    st.global.u32 [%rd1+4], %r9;
    membar.gl;
    atom.global.exch.b32 %r10, [%rd1], 0;
  $END:
  )";
  EXPECT_EQ(check(body, 8, 32), "");
}

TEST_P(GlobalRace, ABarrierOfAllBlocks) {
  const auto body = [](const std::string& arrive) {
    return "st.global.u32 [%rd2+256], %r4;\nbar.sync 0;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra $MEET;\n" + arrive +
           "$MEET:\nbar.sync 0;\nxor.b32 %r8, %r4, 32;\nmul.wide.u32 %rd5, %r8, 4;\nadd.s64 %rd5, %rd5, %rd1;\n"
           "ld.global.u32 %r9, [%rd5+256];\n";
  };
  EXPECT_EQ(check(body("membar.gl;\nred.global.add.u32 [%rd1], 1;\n$WAIT:\nld.volatile.global.u32 %r8, [%rd1];\n"
                       "setp.lt.u32 %p2, %r8, 4;\n@%p2 bra $WAIT;\nmembar.gl;\n"),
                  4, 32),
            "");
  EXPECT_TRUE(says(check(body(""), 4, 32), {"race"}));
}

TEST_P(GlobalRace, AFlagPublishesWhatAFenceCovers) {
  const auto body = [](const std::string& fence, const std::string& store) {
    return "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra $END;\nsetp.ne.u32 %p2, %r2, 0;\n@%p2 bra $WAIT;\n"
           "st.global.u32 [%rd1+256], 7;\n" +
           fence + store +
           " [%rd1], 1;\nbra $END;\n$WAIT:\nld.volatile.global.u32 %r8, [%rd1];\nsetp.eq.u32 %p3, %r8, 0;\n"
           "@%p3 bra $WAIT;\nmembar.gl;\nld.global.u32 %r9, [%rd1+256];\n$END:\n";
  };
  EXPECT_EQ(check(body("membar.gl;\n", "st.volatile.global.u32"), 2, 32), "");
  EXPECT_EQ(check(body("fence.acq_rel.gpu;\n", "st.relaxed.gpu.global.u32"), 2, 32), "");
  EXPECT_EQ(check(body("", "st.release.gpu.global.u32"), 2, 32), "");
  EXPECT_EQ(check(body("", "red.release.gpu.global.add.u32"), 2, 32), "");
  EXPECT_TRUE(says(check(body("", "st.volatile.global.u32"), 2, 32), {"race", "nothing orders the blocks"}));
  EXPECT_TRUE(says(check(body("", "red.global.add.u32"), 2, 32), {"race"}));
  EXPECT_TRUE(says(check(body("membar.cta;\n", "red.global.add.u32"), 2, 32), {"race"}));
  EXPECT_TRUE(says(check(body("", "st.release.cta.global.u32"), 2, 32), {"race"}));
}

TEST_P(GlobalRace, AtomicsOfABlockBetweenBlocks) {
  EXPECT_TRUE(says(check("red.cta.global.add.u32 [%rd1], 1;\n", 4, 32), {"race", "the scope is the block"}));
  EXPECT_EQ(check("red.cta.global.add.u32 [%rd1], 1;\n", 1, 64), "");
}

TEST_P(GlobalRace, AtomicsHideNoPlainWrite) {
  const std::string zero = "setp.eq.u32 %p1, %r4, 0;\n@%p1 st.global.u32 [%rd1], %r1;\n";
  EXPECT_TRUE(says(check(zero + "red.global.add.u32 [%rd1], 1;\n", 4, 32), {"race"}));
}

TEST_P(GlobalRace, SameValuesAndDifferentBytes) {
  EXPECT_EQ(check("st.global.u32 [%rd1], 1;\n", 8, 32), "");
  EXPECT_EQ(check("cvt.u64.u32 %rd5, %r4;\nadd.s64 %rd5, %rd5, %rd1;\nst.global.u8 [%rd5], %r4;\n", 8, 37), "");
  EXPECT_TRUE(says(check("cvt.u64.u32 %rd5, %r2;\nadd.s64 %rd5, %rd5, %rd1;\nst.global.u16 [%rd5+8], %r4;\n", 1, 32),
                   {"race"}));
}

}  // namespace
}  // namespace ptxsim::testing
