#include "tests/ptxsim/check/check_fixture.h"

namespace ptxsim::testing {
namespace {

std::string check(const std::string& body, uint32_t threads, uint64_t seed = 0) {
  CheckedDevice device(1, seed);
  Allocation* out = device.upload(std::vector<uint32_t>(2048));
  return device.check(kernel(1, kThreads + body), 2, threads, out);
}

class Divergence : public ::testing::TestWithParam<uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Schedules, Divergence, ::testing::Values(0, 1, 2, 3));

std::string under(uint32_t limit) {
  return "setp.ge.u32 %p1, %r1, " + std::to_string(limit) +
         ";\n@%p1 bra $PAST;\nbar.sync 0;\n$PAST:\nst.global.u32 [%rd2], %r1;\n";
}

TEST_P(Divergence, ABarrierUnderACondition) {
  EXPECT_EQ(check(under(64), 64, GetParam()), "");
  for (const uint32_t limit : {16, 32}) {
    const std::string text = check(under(limit), 64, GetParam());
    EXPECT_EQ(findings_in(text), 1u) << limit;
    EXPECT_TRUE(says(text, {"barrier divergence", "bar.sync"}));
  }
}

TEST_P(Divergence, EarlyReturnIsFine) {
  for (const char* before : {"", "st.global.u32 [%rd2], 0;\n"}) {
    for (const uint32_t limit : {16, 32, 40}) {
      EXPECT_EQ(
          check("setp.lt.u32 %p1, %r1, " + std::to_string(limit) + ";\n@%p1 bra $WORK;\n" + before +
                    "ret;\n$WORK:\nst.shared.u32 [%r7], %r1;\nbar.sync 0;\nst.global.u32 [%rd2], %r1;\nbar.sync 0;\n",
                96, GetParam()),
          "");
    }
  }
}

TEST_P(Divergence, BothSidesHaveTheirOwnBarrier) {
  const std::string body =
      "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra $LOW;\nbar.sync 0;\nbra $END;\n$LOW:\nbar.sync 0;\n$END:\n";
  const std::string text = check(body, 32, GetParam());
  EXPECT_EQ(findings_in(text), 1u);
  EXPECT_TRUE(says(text, {"bar.sync", "barrier divergence: lanes", "lanes 0x0000ffff"}));
}

/// A loop around a barrier, once more than %r8 says, which `how_often` sets.
std::string rounds(const std::string& how_often) {
  return how_often + "$LOOP:\nbar.sync 0;\nsub.s32 %r8, %r8, 1;\nsetp.ge.s32 %p1, %r8, 0;\n@%p1 bra $LOOP;\n";
}

TEST_P(Divergence, LoopsOfDifferentLengthWithABarrierInside) {
  // Each thread goes round as often as its number says and then stores.
  const std::string body = rounds("and.b32 %r8, %r1, 32;\nshr.u32 %r8, %r8, 5;\n") + "st.global.u32 [%rd2], %r1;\n";
  EXPECT_TRUE(says(check(body, 64, GetParam()), {"barrier divergence"}));
}

TEST_P(Divergence, LoopsThatSomeThreadsLeaveBeforeOthersAndExit) {
  // Whole warps (shift 5), and lanes of one warp (shift 4).
  for (const char* shift : {"5", "4"}) {
    const std::string text = check(rounds(std::string("shr.u32 %r8, %r1, ") + shift + ";\n"), 96, GetParam());
    EXPECT_GE(findings_in(text), 1u) << shift;
    EXPECT_TRUE(says(text, {"barrier divergence", "bar.sync"}));
  }
  EXPECT_EQ(check(rounds("mov.u32 %r8, 3;\n"), 96, GetParam()), "");
}

TEST_P(Divergence, LoopsThatAWholeBlockLeavesAtOnce) {
  EXPECT_EQ(check(rounds("mov.u32 %r8, %r2;\n"), 96, GetParam()), "");
}

TEST_P(Divergence, EarlyReturnAfterOtherBarriersIsFine) {
  const std::string body = rounds("mov.u32 %r8, 2;\n") +
                           "setp.lt.u32 %p1, %r1, 40;\n@%p1 bra $WORK;\nret;\n$WORK:\nbar.sync 0;\nbar.sync 0;\n"
                           "st.global.u32 [%rd2], %r1;\n";
  EXPECT_EQ(check(body, 96, GetParam()), "");
}

/// A launch whose lanes 0 to 16 execute `instruction`, whose members are 0 to `members` - 1.
std::string by_seventeen(const std::string& instruction, uint32_t members) {
  CheckedDevice device;
  Allocation* out = device.upload(std::vector<uint32_t>(2048));
  const std::string body = "setp.gt.u32 %p1, %r1, 16;\n@%p1 bra $END;\nmov.u32 %r9, " +
                           std::to_string((uint64_t{1} << members) - 1) + ";\n" + instruction +
                           "st.global.u32 [%rd2], %r8;\n$END:\n";
  ::testing::internal::CaptureStderr();
  const Outcome outcome = device.run(kernel(1, kThreads + "mov.u32 %r8, %r1;\n" + body), {1, 1, 1}, {32, 1, 1}, out);
  ::testing::internal::GetCapturedStderr();
  return outcome.status == Status::kOk ? "" : outcome.message;
}

class MemberMasks : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Instructions, MemberMasks,
                         ::testing::Values("bar.warp.sync %r9;\n", "shfl.sync.idx.b32 %r8, %r1, 0, 31, %r9;\n",
                                           "vote.sync.ballot.b32 %r8, %p1, %r9;\n",
                                           "match.any.sync.b32 %r8, %r1, %r9;\n",
                                           "redux.sync.add.u32 %r8, %r1, %r9;\n"));

TEST_P(MemberMasks, ALaneThatIsNotAmongTheMembersItNames) {
  EXPECT_TRUE(says(by_seventeen(GetParam(), 16), {"its own lane is not in the member mask 0x0000ffff", "(16, 0, 0)"}));
  EXPECT_EQ(by_seventeen(GetParam(), 17), "");
}

}  // namespace
}  // namespace ptxsim::testing
