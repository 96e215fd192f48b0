#include <gtest/gtest.h>

#include <numeric>

#include "tests/ptxsim/exec/ptx_fixture.h"

namespace ptxsim::testing {
namespace {

/// Element of each thread of a grid of one dimension: %r1 its number, %rd2 its address in p0 (32-bit elements).
const std::string kThread = R"(
  ld.param.u64 %rd1, [p0];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mad.lo.s32 %r1, %r2, %r3, %r1;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd2, %rd1, %rd2;
)";

std::vector<uint32_t> run(const std::string& body, uint32_t blocks, uint32_t threads, Options options = {}) {
  Device device(options);
  Allocation* out = device.upload(std::vector<uint32_t>(size_t{blocks} * threads, 0));
  const Outcome outcome = device.run(kernel(1, kThread + body), {blocks, 1, 1}, {threads, 1, 1}, out);
  EXPECT_EQ(outcome.status, Status::kOk) << outcome.message;
  return device.download<uint32_t>(out);
}

TEST(Control, LanesTakeBothSidesOfABranchAndMeetAgain) {
  const auto got = run(R"(
    and.b32 %r4, %r1, 1;
    setp.eq.s32 %p1, %r4, 0;
    @%p1 bra $EVEN;
    mul.lo.s32 %r5, %r1, 3;
    bra $JOIN;
  $EVEN:
    add.s32 %r5, %r1, 1000;
  $JOIN:
    activemask.b32 %r6;
    setp.eq.s32 %p2, %r6, -1;
    @%p2 add.s32 %r5, %r5, 100000;
    st.global.u32 [%rd2], %r5;
  )",
                       2, 64);
  for (uint32_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], 100000 + (i % 2 == 0 ? i + 1000 : i * 3)) << i;
}

TEST(Control, LoopsOfDivergentLengthMeetBehindTheLoop) {
  const auto got = run(R"(
    mov.u32 %r5, 0;
    mov.u32 %r6, 0;
  $LOOP:
    add.s32 %r6, %r6, 1;
    add.s32 %r5, %r5, %r6;
    setp.lt.u32 %p1, %r6, %r1;
    @%p1 bra $LOOP;
    activemask.b32 %r7;
    setp.ne.s32 %p2, %r7, -1;
    @%p2 mov.u32 %r5, 77777;
    st.global.u32 [%rd2], %r5;
  )",
                       1, 32);
  for (uint32_t i = 0; i < got.size(); ++i) {
    const uint32_t n = std::max<uint32_t>(i, 1);
    EXPECT_EQ(got[i], n * (n + 1) / 2) << i;
  }
}

TEST(Control, BlocksInAnyOrderOfTheTextMeet) {
  // The side that half the lanes take stands behind the end.
  const auto got = run(R"(
    setp.lt.u32 %p1, %r1, 16;
    mov.u32 %r5, 1;
    @%p1 bra $FAR;
  $BACK:
    activemask.b32 %r7;
    popc.b32 %r7, %r7;
    mad.lo.s32 %r5, %r7, 100, %r5;
    st.global.u32 [%rd2], %r5;
    bra $END;
  $FAR:
    mov.u32 %r5, 2;
    bra $BACK;
  $END:
  )",
                       1, 32);
  for (uint32_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], 3200 + (i < 16 ? 2U : 1U)) << i;
}

TEST(Control, EarlyReturnsLeaveTheOthersToTheBarrier) {
  const auto got = run(R"(
    setp.ge.u32 %p1, %r1, 40;
    @%p1 ret;
    bar.sync 0;
    st.global.u32 [%rd2], 5;
  )",
                       1, 64);
  for (uint32_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i < 40 ? 5U : 0U) << i;
}

TEST(Control, SpinLocksBetweenLanesOfAWarpEnd) {
  // Each lane takes the lock at element 64, adds one to element 65 without atomics, and lets go.
  Device device;
  Allocation* out = device.upload(std::vector<uint32_t>(128, 0));
  const Outcome outcome = device.run(kernel(1, kThread + R"(
  $TRY:
    atom.global.cas.b32 %r4, [%rd1+256], 0, 1;
    setp.ne.s32 %p1, %r4, 0;
    @%p1 bra $TRY;
    ld.volatile.global.u32 %r5, [%rd1+260];
    add.s32 %r5, %r5, 1;
    st.volatile.global.u32 [%rd1+260], %r5;
    atom.global.exch.b32 %r4, [%rd1+256], 0;
  )"),
                                     {3, 1, 1}, {64, 1, 1}, out);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message;
  EXPECT_EQ(device.download<uint32_t>(out)[65], 192U);
}

TEST(Control, JumpTablesSendEachLaneToItsCase) {
  const auto got = run(R"(
    and.b32 %r4, %r1, 3;
  TABLE: .branchtargets $A, $B, $C, $D;
    brx.idx %r4, TABLE;
  $A:
    mov.u32 %r5, 10;
    bra $STORE;
  $B:
    mov.u32 %r5, 20;
    bra $STORE;
  $C:
    mov.u32 %r5, 30;
    bra $STORE;
  $D:
    mov.u32 %r5, 40;
  $STORE:
    st.global.u32 [%rd2], %r5;
  )",
                       1, 32);
  for (uint32_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], 10 * (i % 4 + 1)) << i;
}

const std::string kFunctions = R"(
.version 9.0
.target sm_90a
.address_size 64
.func (.param .b32 result) triple(.param .b32 x)
{
  .reg .b32 %r<4>;
  ld.param.b32 %r1, [x];
  mul.lo.s32 %r2, %r1, 3;
  st.param.b32 [result], %r2;
  ret;
}
.func (.param .b32 result) fibonacci(.param .b32 x)
{
  .reg .b32 %r<8>;
  .reg .pred %p<2>;
  ld.param.b32 %r1, [x];
  setp.lt.u32 %p1, %r1, 2;
  @%p1 bra SMALL;
  add.s32 %r2, %r1, -1;
  { .param .b32 a; .param .b32 r; st.param.b32 [a], %r2; call (r), fibonacci, (a); ld.param.b32 %r3, [r]; }
  add.s32 %r2, %r1, -2;
  { .param .b32 a; .param .b32 r; st.param.b32 [a], %r2; call (r), fibonacci, (a); ld.param.b32 %r4, [r]; }
  add.s32 %r1, %r3, %r4;
SMALL:
  st.param.b32 [result], %r1;
  ret;
}
.visible .entry k(.param .u64 p0)
{
  .reg .b32 %r<8>;
  .reg .b64 %rd<8>;
  .reg .pred %p<4>;
  ld.param.u64 %rd1, [p0];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd2, %rd1, %rd2;
  BODY
  st.global.u32 [%rd2], %r2;
  ret;
}
)";

std::vector<uint32_t> run_functions(const std::string& body, Status want = Status::kOk) {
  std::string text = kFunctions;
  text.replace(text.find("BODY"), 4, body);
  Device device;
  Allocation* out = device.upload(std::vector<uint32_t>(32, 0));
  const Outcome outcome = device.run(text, {1, 1, 1}, {32, 1, 1}, out);
  EXPECT_EQ(outcome.status, want) << outcome.message;
  return device.download<uint32_t>(out);
}

TEST(Calls, GiveParametersAndResults) {
  const auto got = run_functions(
      "{ .param .b32 a; .param .b32 r; st.param.b32 [a], %r1; call.uni (r), triple, (a); ld.param.b32 %r2, [r]; }");
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(got[i], 3 * i);
}

TEST(Calls, RecurseToADepthOfTheirOwnInEachLane) {
  const auto got = run_functions(
      "and.b32 %r1, %r1, 15;\n"
      "{ .param .b32 a; .param .b32 r; st.param.b32 [a], %r1; call (r), fibonacci, (a); ld.param.b32 %r2, [r]; }");
  std::vector<uint32_t> fibonacci = {0, 1};
  while (fibonacci.size() < 16) fibonacci.push_back(fibonacci.end()[-1] + fibonacci.end()[-2]);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(got[i], fibonacci[i % 16]) << i;
}

TEST(Calls, GoThroughPointersThatDifferByLane) {
  const auto got = run_functions(R"(
    mov.u64 %rd3, triple;
    mov.u64 %rd4, fibonacci;
    setp.lt.u32 %p1, %r1, 8;
    selp.b64 %rd5, %rd4, %rd3, %p1;
    { .param .b32 a; .param .b32 r; st.param.b32 [a], %r1;
      proto: .callprototype (.param .b32 _) _ (.param .b32 _);
      call (r), %rd5, (a), proto; ld.param.b32 %r2, [r]; })");
  const uint32_t fibonacci[] = {0, 1, 1, 2, 3, 5, 8, 13};
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(got[i], i < 8 ? fibonacci[i] : 3 * i) << i;
}

TEST(Calls, GoThroughTablesOfTheModule) {
  // Kernels that reach other functions each, and yet agree on what a pointer means: one leaves it, another calls it.
  std::string text = kFunctions;
  text.insert(text.find(".visible .entry k"), R"(
.global .u64 table[2] = {fibonacci, triple};
.global .u64 left;
.visible .entry leave()
{
  .reg .b64 %rd<2>;
  ld.global.u64 %rd1, [table+8];
  st.global.u64 [left], %rd1;
  ret;
}
)");
  text.replace(text.find("BODY"), 4, R"(
    ld.global.u64 %rd3, [left];
    { .param .b32 a; .param .b32 r; st.param.b32 [a], %r1;
      proto: .callprototype (.param .b32 _) _ (.param .b32 _);
      call (r), %rd3, (a), proto; ld.param.b32 %r2, [r]; })");
  Device device;
  Allocation* out = device.upload(std::vector<uint32_t>(32, 0));
  LoadedModule module(device.machine(), text, {}), other(device.machine(), text, {});
  EXPECT_NE(module.address_of("triple"), other.address_of("triple"));
  Launch leave;
  leave.kernel = module.kernel("leave");
  ASSERT_EQ(device.machine().run(leave).status, Status::kOk);
  const Outcome outcome = device.launch(module, {1, 1, 1}, {32, 1, 1}, 0, out);
  EXPECT_EQ(outcome.status, Status::kOk) << outcome.message;
  const auto got = device.download<uint32_t>(out);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(got[i], 3 * i);

  // Another module's function is not taken for one of the own.
  std::memcpy(other.variable("left")->host, module.variable("left")->host, 8);
  const Outcome strange = device.launch(other, {1, 1, 1}, {32, 1, 1}, 0, out);
  EXPECT_EQ(strange.status, Status::kIllegalAddress);
  EXPECT_NE(strange.message.find("no function of this module"), std::string::npos) << strange.message;
}

TEST(Calls, TooDeepAreAFault) {
  run_functions(
      "{ .param .b32 a; .param .b32 r; mov.u32 %r1, 100000; st.param.b32 [a], %r1; call (r), fibonacci, (a); "
      "ld.param.b32 %r2, [r]; }",
      Status::kStackOverflow);
}

TEST(Barriers, OrderSharedMemory) {
  for (const bool adversarial : {false, true}) {
    Options options;
    options.adversarial = adversarial;
    options.seed = 3;
    const auto got = run(R"(
      .shared .align 4 .b8 tile[1024];
      mov.u32 %r4, tile;
      mov.u32 %r10, %tid.x;
      shl.b32 %r5, %r10, 2;
      add.s32 %r5, %r4, %r5;
      st.shared.u32 [%r5], %r1;
      bar.sync 0;
      xor.b32 %r6, %r10, 255;
      shl.b32 %r6, %r6, 2;
      add.s32 %r6, %r4, %r6;
      ld.shared.u32 %r7, [%r6];
      st.global.u32 [%rd2], %r7;
    )",
                         4, 256, options);
    for (uint32_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i / 256 * 256 + (i % 256 ^ 255)) << i;
  }
}

TEST(Barriers, ReducePredicates) {
  const auto got = run(R"(
    setp.lt.u32 %p1, %r1, 50;
    barrier.cta.red.popc.aligned.u32 %r5, 1, %p1;
    setp.lt.u32 %p2, %r1, 96;
    bar.red.and.pred %p3, 1, %p2;
    bar.red.or.pred %p4, 1, !%p2;
    @%p3 add.s32 %r5, %r5, 1000;
    @!%p4 add.s32 %r5, %r5, 2000;
    st.global.u32 [%rd2], %r5;
  )",
                       1, 96);
  for (const uint32_t v : got) EXPECT_EQ(v, 3050U);
}

TEST(Barriers, OfSomeWarpsLetTheOthersRun) {
  const auto got = run(R"(
    .shared .align 4 .b8 flag[4];
    setp.ge.u32 %p1, %r1, 64;
    @%p1 bra $CONSUME;
    st.shared.u32 [flag], 9;
    bar.arrive 3, 96;
    bra $END;
  $CONSUME:
    bar.sync 3, 96;
    ld.shared.u32 %r5, [flag];
    st.global.u32 [%rd2], %r5;
  $END:
  )",
                       1, 96);
  for (uint32_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i < 64 ? 0U : 9U) << i;
}

TEST(Barriers, ThatNobodyCompletesAreADeadlock) {
  Device device;
  Allocation* out = device.upload(std::vector<uint32_t>(64, 0));
  const Outcome outcome = device.run(kernel(1, kThread + R"(
    setp.lt.u32 %p1, %r1, 32;
    @%p1 bar.sync 1, 64;
    @!%p1 bar.sync 2, 64;
  )"),
                                     {1, 1, 1}, {64, 1, 1}, out);
  EXPECT_EQ(outcome.status, Status::kDeadlock);
  EXPECT_NE(outcome.message.find("waits at a barrier that others never reach"), std::string::npos) << outcome.message;
}

TEST(Faults, NameKernelBlockThreadAndAllocation) {
  Device device;
  Allocation* out = device.upload(std::vector<uint32_t>(100, 0));
  const Outcome outcome = device.run(kernel(1, kThread + "st.global.u32 [%rd2], %r1;"), {2, 1, 1}, {64, 1, 1}, out);
  EXPECT_EQ(outcome.status, Status::kIllegalAddress);
  EXPECT_NE(
      outcome.message.find("k: st.global.u32: block (1, 0, 0), thread (36, 0, 0): out-of-bounds write of 4 bytes"),
      std::string::npos)
      << outcome.message;
  EXPECT_NE(outcome.message.find("0 bytes behind allocation 1 (400 bytes"), std::string::npos) << outcome.message;
}

TEST(Faults, OfUnknownInstructionsNameThem) {
  Device device;
  Allocation* out = device.upload(std::vector<uint32_t>(32, 0));
  const Outcome outcome = device.run(kernel(1, "frobnicate.b32 %r1, %r2;"), {1, 1, 1}, {32, 1, 1}, out);
  EXPECT_EQ(outcome.status, Status::kIllegalInstruction);
  EXPECT_NE(outcome.message.find("unknown instruction frobnicate.b32"), std::string::npos) << outcome.message;
}

}  // namespace
}  // namespace ptxsim::testing
