#include "tests/ptxsim/check/check_fixture.h"

namespace ptxsim::testing {
namespace {

std::string check(const std::string& body, uint32_t threads, uint64_t seed = 0) {
  CheckedDevice device(1, seed);
  Allocation* out = device.upload(std::vector<uint32_t>(2048));
  return device.check(kernel(1, kThreads + body), 2, threads, out);
}

/// Writes the own word, reads the one of the thread whose number differs in one bit.
std::string swap_words(const std::string& between, uint32_t distance) {
  return "st.shared.u32 [%r7], %r1;\n" + between + "xor.b32 %r8, %r5, " + std::to_string(4 * distance) +
         ";\nadd.s32 %r8, %r8, %r6;\nld.shared.u32 %r9, [%r8];\nst.global.u32 [%rd2], %r9;\n";
}

class SharedRace : public ::testing::TestWithParam<uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Schedules, SharedRace, ::testing::Values(0, 1, 2, 3));

TEST_P(SharedRace, BetweenWarps) {
  EXPECT_EQ(check(swap_words("bar.sync 0;\n", 32), 128, GetParam()), "");
  const std::string text = check(swap_words("", 32), 128, GetParam());
  EXPECT_TRUE(says(text, {"race", "st.shared.u32", "ld.shared.u32", "shared memory at 0x", "'tile'"}));
}

TEST_P(SharedRace, WithinAWarp) {
  EXPECT_EQ(check(swap_words("bar.warp.sync -1;\n", 1), 64, GetParam()), "");
  EXPECT_EQ(check(swap_words("shfl.sync.bfly.b32 %r20, %r1, 1, 31, -1;\n", 1), 64, GetParam()), "");
  EXPECT_TRUE(says(check(swap_words("", 1), 64, GetParam()), {"race", "no __syncwarp between them"}));
  // Lanes of one half only know of each other.
  const std::string halves =
      "shr.u32 %r21, %r1, 4;\nand.b32 %r21, %r21, 1;\nshl.b32 %r21, %r21, 4;\n"
      "mov.u32 %r22, 65535;\nshl.b32 %r22, %r22, %r21;\nbar.warp.sync %r22;\n";
  EXPECT_EQ(check(swap_words(halves, 8), 64, GetParam()), "");
  EXPECT_TRUE(says(check(swap_words(halves, 16), 64, GetParam()), {"race"}));
}

TEST_P(SharedRace, AWarpsSynchronisationIsNoBarrier) {
  EXPECT_TRUE(says(check(swap_words("bar.warp.sync -1;\n", 32), 64, GetParam()), {"race"}));
}

TEST_P(SharedRace, ReadersThenAWriter) {
  // All threads read word 0; thread 40 writes it.
  const auto body = [](const std::string& between) {
    return "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [tile], 7;\nbar.sync 0;\nld.shared.u32 %r8, [tile];\n" +
           between + "setp.eq.u32 %p2, %r1, 40;\n@%p2 st.shared.u32 [tile], %r8;\n";
  };
  EXPECT_EQ(check(body("bar.sync 0;\n"), 96, GetParam()), "");
  EXPECT_EQ(findings_in(check(body(""), 96, GetParam())), 1u);
}

TEST_P(SharedRace, ManyReadersThenAWriterWhoHasMetAllButOne) {
  // Warps 0 to 5 read, words or bytes; all but one, and thread 192, who writes, meet at a named barrier.
  for (const char* type : {"u32", "u8"}) {
    const std::string ld = std::string("ld.shared.") + type, st = std::string("st.shared.") + type;
    const auto body = [&](const std::string& between) {
      return "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [tile], 7;\nbar.sync 0;\nshr.u32 %r9, %r1, 5;\n" + ld +
             " %r8, [tile];\n" + between + "setp.eq.u32 %p2, %r1, 192;\n@%p2 " + st + " [tile], 9;\n";
    };
    EXPECT_EQ(check(body("bar.sync 0;\n"), 224, GetParam()), "");
    EXPECT_EQ(check(body("bar.sync 1, 224;\n"), 224, GetParam()), "");
    for (int absent = 0; absent < 6; ++absent) {
      const std::string text = check(
          body("setp.ne.u32 %p3, %r9, " + std::to_string(absent) + ";\n@%p3 barrier.sync 1, 192;\n"), 224, GetParam());
      EXPECT_EQ(findings_in(text), 1u) << "warp " << absent << " " << text;
      EXPECT_TRUE(says(text, {"race: ", st, ld}));
    }
    // Many reads, each in a round of its own, and a writer who has met all: nothing.
    const std::string rounds = "mov.u32 %r20, 0;\n$L:\nbar.sync 2, 192;\n" + ld +
                               " %r8, [tile];\nadd.s32 %r20, %r20, 1;\nsetp.lt.u32 %p4, %r20, 5;\n@%p4 bra $L;\n";
    EXPECT_EQ(
        check("setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [tile], 7;\nbar.sync 0;\n"
              "setp.ge.u32 %p3, %r1, 192;\n@%p3 bra $W;\n" +
                  rounds + "bar.sync 1, 224;\nbra $END;\n$W:\nbar.sync 1, 224;\nsetp.eq.u32 %p2, %r1, 192;\n@%p2 " +
                  st + " [tile], 9;\n$END:\n",
              224, GetParam()),
        "");
  }
}

TEST_P(SharedRace, NamedBarriers) {
  // Warps 0 and 1 meet at barrier 1, 2 and 3 at barrier 2.
  const std::string pairs = "shr.u32 %r20, %r1, 6;\nadd.s32 %r20, %r20, 1;\nbarrier.sync %r20, 64;\n";
  EXPECT_EQ(check(swap_words(pairs, 32), 128, GetParam()), "");
  EXPECT_TRUE(says(check(swap_words(pairs, 64), 128, GetParam()), {"race"}));
  // Warp 0 produces and only arrives, warp 1 waits and consumes.
  const auto produce = [](const std::string& first, const std::string& second) {
    return "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $PRODUCER;\n" + second +
           "ld.shared.u32 %r8, [%r7+-128];\nbra $END;\n$PRODUCER:\nst.shared.u32 [%r7], %r1;\n" + first + "$END:\n";
  };
  EXPECT_EQ(check(produce("barrier.arrive 3, 64;\n", "barrier.sync 3, 64;\n"), 64, GetParam()), "");
  EXPECT_TRUE(says(check(produce("st.shared.u32 [%r7], 1;\nbarrier.arrive 3, 64;\nst.shared.u32 [%r7], 2;\n",
                                 "barrier.sync 3, 64;\n"),
                         64, GetParam()),
                   {"race"}));
}

TEST_P(SharedRace, SameValuesAndDifferentBytes) {
  EXPECT_EQ(check("st.shared.u32 [tile], 5;\n", 128, GetParam()), "");
  EXPECT_TRUE(says(check("st.shared.u32 [tile], %r1;\n", 32, GetParam()), {"race", "write"}));
  EXPECT_TRUE(says(check("shr.u32 %r9, %r1, 5;\nst.shared.u32 [tile], %r9;\n", 64, GetParam()), {"race", "write"}));
  EXPECT_EQ(check("add.s32 %r8, %r6, %r1;\nst.shared.u8 [%r8], %r1;\nld.shared.u8 %r9, [%r8];\n", 128, GetParam()), "");
  EXPECT_TRUE(says(check("add.s32 %r8, %r6, %r1;\nst.shared.u8 [%r8], %r1;\nand.b32 %r9, %r5, 124;\nadd.s32 %r9, %r9, "
                         "%r6;\nld.shared.u32 %r9, [%r9];\n",
                         128, GetParam()),
                   {"race"}));
}

TEST_P(SharedRace, Atomics) {
  const auto histogram = [](const std::string& first, const std::string& second) {
    return "st.shared.u32 [%r7], 0;\n" + first +
           "and.b32 %r8, %r1, 7;\nadd.s32 %r8, %r8, 96;\nshl.b32 %r8, %r8, 2;\nadd.s32 %r8, %r8, %r6;\n"
           "atom.shared.add.u32 %r9, [%r8], 1;\n" +
           second + "ld.shared.u32 %r10, [%r7];\nst.global.u32 [%rd2], %r10;\n";
  };
  EXPECT_EQ(check(histogram("bar.sync 0;\n", "bar.sync 0;\n"), 128, GetParam()), "");
  EXPECT_TRUE(says(check(histogram("bar.sync 0;\n", ""), 128, GetParam()), {"race", "atom.shared"}));
  EXPECT_TRUE(says(check(histogram("", "bar.sync 0;\n"), 128, GetParam()), {"race"}));
}

TEST_P(SharedRace, ALockAroundPlainAccesses) {
  const std::string body = R"(
    setp.eq.u32 %p1, %r1, 0;
    @%p1 st.shared.u32 [tile], 0;
    @%p1 st.shared.u32 [tile+4], 0;
    bar.sync 0;
    mov.u32 %r20, 0;
  $TRY:
    atom.shared.cas.b32 %r8, [tile], 0, 1;
    setp.ne.u32 %p2, %r8, 0;
    @%p2 bra $NEXT;
    ld.shared.u32 %r9, [tile+4];
    add.s32 %r9, %r9, 1;
    st.shared.u32 [tile+4], %r9;
    membar.cta;
    atom.shared.exch.b32 %r10, [tile], 0;
    mov.u32 %r20, 1;
  $NEXT:
    setp.eq.u32 %p3, %r20, 0;
    @%p3 bra $TRY;
    bar.sync 0;
    ld.shared.u32 %r11, [tile+4];
    st.global.u32 [%rd2], %r11;
  )";
  EXPECT_EQ(check(body, 96, GetParam()), "");
}

TEST_P(SharedRace, TheLoadBeforeACompareAndSwap) {
  const std::string body = R"(
    setp.eq.u32 %p1, %r1, 0;
    @%p1 st.shared.u32 [tile], 0;
    bar.sync 0;
    ld.shared.u32 %r8, [tile];
  $TRY:
    mov.u32 %r9, %r8;
    add.s32 %r10, %r9, 1;
    atom.shared.cas.b32 %r8, [tile], %r9, %r10;
    setp.ne.u32 %p2, %r8, %r9;
    @%p2 bra $TRY;
  )";
  EXPECT_EQ(check(body, 96, GetParam()), "");
}

TEST_P(SharedRace, VolatileFlags) {
  // Warp 1 waits for a flag of warp 0 and then reads what it wrote.
  const auto body = [](const std::string& store) {
    return "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [tile+256], 0;\nbar.sync 0;\nsetp.lt.u32 %p2, %r1, 32;\n"
           "@%p2 bra $PRODUCER;\n$WAIT:\nld.volatile.shared.u32 %r8, [tile+256];\nsetp.eq.u32 %p3, %r8, 0;\n"
           "@%p3 bra $WAIT;\nld.shared.u32 %r9, [%r7+-128];\nbra $END;\n$PRODUCER:\nst.shared.u32 [%r7], %r1;\n"
           "bar.warp.sync -1;\nmembar.cta;\n@%p1 " +
           store + " [tile+256], 1;\n$END:\n";
  };
  EXPECT_EQ(check(body("st.volatile.shared.u32"), 64, GetParam()), "");
  EXPECT_EQ(check(body("st.shared.u32"), 64, GetParam()), "");  // behind a fence it is as good
}

TEST_P(SharedRace, AFlagThatAWarpNeverMetAt) {
  // Without bar.warp.sync, the flag of lane 0 says nothing of the other lanes.
  const std::string body =
      "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [tile+256], 0;\nbar.sync 0;\nsetp.lt.u32 %p2, %r1, 32;\n"
      "@%p2 bra $PRODUCER;\n$WAIT:\nld.volatile.shared.u32 %r8, [tile+256];\nsetp.eq.u32 %p3, %r8, 0;\n"
      "@%p3 bra $WAIT;\nld.shared.u32 %r9, [%r7+-128];\nbra $END;\n$PRODUCER:\nst.shared.u32 [%r7], %r1;\n"
      "@%p1 st.volatile.shared.u32 [tile+256], 1;\n$END:\n";
  EXPECT_TRUE(says(check(body, 64, GetParam()), {"race"}));
}

TEST_P(SharedRace, BlocksOneAfterTheOtherHaveTheirOwn) {
  EXPECT_EQ(check("st.shared.u32 [%r7], %r1;\nbar.sync 0;\nld.shared.u32 %r9, [%r7];\n", 64, GetParam()), "");
}

TEST_P(SharedRace, AMissingBarrierIsOneFinding) {
  const std::string text = check(swap_words("", 32), 128, GetParam());
  EXPECT_EQ(findings_in(text), 1u) << text;
}

}  // namespace
}  // namespace ptxsim::testing
