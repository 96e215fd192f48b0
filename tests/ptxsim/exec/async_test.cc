#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/ptxsim/exec/ptx_fixture.h"

/// cp.async and its groups; mbarriers.
namespace ptxsim::testing {
namespace {

using Words = std::vector<uint32_t>;

Words counted(uint32_t n, uint32_t from = 100) {
  Words w(n);
  for (uint32_t i = 0; i < n; ++i) w[i] = from + i;
  return w;
}

/// %r0 = tid; %rd0 = p0 + 4 tid, %rd1 = p1 + 4 tid; %r1 = the thread's word of shared memory, which starts as 7.
const char* const kPrologue =
    ".shared .align 16 .b8 s[4096];\nmov.u32 %r0, %tid.x;\nmul.wide.u32 %rd9, %r0, 4;\nld.param.u64 %rd0, [p0];\n"
    "add.s64 %rd0, %rd0, %rd9;\nld.param.u64 %rd1, [p1];\nadd.s64 %rd1, %rd1, %rd9;\nshl.b32 %r1, %r0, 2;\n"
    "mov.u32 %r2, s;\nadd.u32 %r1, %r1, %r2;\nmov.u32 %r3, 7;\nst.shared.u32 [%r1], %r3;\n"
    "st.shared.u32 [%r1+128], %r3;\nst.shared.u32 [%r1+256], %r3;\n";

struct Result {
  Outcome outcome;
  Words words;
};

/// One warp; p0: 256 counted words, p1: as many results, of which those nobody writes stay 0.
Result run(const std::string& body) {
  Device device;
  Allocation* const to = device.upload(Words(256));
  const Outcome o = device.run(kernel(2, kPrologue + body), {1, 1, 1}, {32, 1, 1}, device.upload(counted(256)), to);
  EXPECT_EQ(o.status, Status::kOk) << o.message;
  return {o, device.download<uint32_t>(to)};
}

std::string show(int from, int to) {
  return "ld.shared.u32 %r9, [%r1+" + std::to_string(from) + "];\nst.global.u32 [%rd1+" + std::to_string(to) +
         "], %r9;\n";
}

TEST(CpAsync, LandsAtTheWaitAndNotBefore) {
  const Result r = run("cp.async.ca.shared.global [%r1], [%rd0], 4;\n" + show(0, 0) + "cp.async.commit_group;\n" +
                       show(0, 128) + "cp.async.wait_group 0;\n" + show(0, 256));
  for (uint32_t l = 0; l < 32; ++l) {
    ASSERT_EQ(r.words[l], 7U);
    ASSERT_EQ(r.words[32 + l], 7U);
    ASSERT_EQ(r.words[64 + l], 100 + l);
  }
}

TEST(CpAsync, WaitGroupLeavesTheLatestUnderWay) {
  const Result r =
      run("cp.async.ca.shared.global [%r1], [%rd0], 4;\ncp.async.commit_group;\n"
          "cp.async.ca.shared.global [%r1+128], [%rd0+128], 4;\ncp.async.commit_group;\n"
          "cp.async.ca.shared.global [%r1+256], [%rd0+256], 4;\ncp.async.commit_group;\ncp.async.wait_group 2;\n" +
          show(0, 0) + show(128, 128) + show(256, 256) + "cp.async.wait_group 1;\n" + show(128, 384) + show(256, 512) +
          "cp.async.wait_all;\n" + show(256, 640));
  for (uint32_t l = 0; l < 32; ++l) {
    ASSERT_EQ(r.words[l], 100 + l);
    ASSERT_EQ(r.words[32 + l], 7U);
    ASSERT_EQ(r.words[64 + l], 7U);
    ASSERT_EQ(r.words[96 + l], 132 + l);
    ASSERT_EQ(r.words[128 + l], 7U);
    ASSERT_EQ(r.words[160 + l], 164 + l);
  }
}

TEST(CpAsync, AGroupWithoutCopiesIsAGroup) {
  const Result r =
      run("cp.async.ca.shared.global [%r1], [%rd0], 4;\ncp.async.commit_group;\ncp.async.commit_group;\n"
          "cp.async.wait_group 1;\n" +
          show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], 100 + l);
}

TEST(CpAsync, WaitAllTakesWhatIsInNoGroup) {
  const Result r = run("cp.async.ca.shared.global [%r1], [%rd0], 4;\ncp.async.wait_all;\n" + show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], 100 + l);
}

TEST(CpAsync, WaitGroupLeavesWhatIsInNoGroup) {
  const Result r = run("cp.async.ca.shared.global [%r1], [%rd0], 4;\ncp.async.wait_group 0;\n" + show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], 7U);
}

TEST(CpAsync, EachLaneHasGroupsOfItsOwn) {
  // Odd lanes commit once more.
  const Result r =
      run("and.b32 %r4, %r0, 1;\nsetp.eq.u32 %p1, %r4, 1;\ncp.async.ca.shared.global [%r1], [%rd0], 4;\n"
          "cp.async.commit_group;\n@%p1 cp.async.commit_group;\ncp.async.wait_group 1;\n" +
          show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], l % 2 == 1 ? 100 + l : 7);
}

TEST(CpAsync, ReadsItsSourceWhenIssued) {
  // One of the times at which it may; the word that the thread writes afterwards comes too late.
  const Result r =
      run("cp.async.ca.shared.global [%r1], [%rd0], 4;\nst.global.u32 [%rd0], %r3;\ncp.async.wait_all;\n" + show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], 100 + l);
}

TEST(CpAsync, PartsOfTheSourceAreFollowedByZeros) {
  // 16 bytes each; lane l reads 4 (l mod 5) bytes, and 32 mean 16.
  const Result r =
      run("ld.param.u64 %rd3, [p0];\nmul.wide.u32 %rd4, %r0, 16;\nadd.s64 %rd3, %rd3, %rd4;\nld.param.u64 %rd5, [p1];\n"
          "add.s64 %rd5, %rd5, %rd4;\nshl.b32 %r5, %r0, 4;\nadd.u32 %r5, %r5, %r2;\nrem.u32 %r6, %r0, 5;\nshl.b32 %r6, "
          "%r6, 2;\n"
          "cp.async.cg.shared.global.L2::128B [%r5], [%rd3], 16, %r6;\ncp.async.wait_all;\n"
          "ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r5];\nst.global.v4.u32 [%rd5], {%r10, %r11, %r12, %r13};\n");
  for (uint32_t l = 0; l < 32; ++l) {
    for (uint32_t i = 0; i < 4; ++i) ASSERT_EQ(r.words[4 * l + i], i < l % 5 ? 100 + 4 * l + i : 0) << l << " " << i;
  }
}

TEST(CpAsync, ASourceMayBeIgnored) {
  for (const bool negated : {false, true}) {
    const Result r = run("setp.lt.u32 %p1, %r0, 10;\ncp.async.ca.shared.global [%r1], [%rd0], 4, " +
                         std::string(negated ? "!" : "") + "%p1;\ncp.async.wait_all;\n" + show(0, 0));
    for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], (l < 10) != negated ? 0 : 100 + l);
  }
}

TEST(CpAsync, IgnoredSourcesNeedNotExist) {
  const Result r =
      run("mov.u32 %r4, 0;\nmov.u64 %rd3, 0;\ncp.async.ca.shared.global [%r1], [%rd3], 4, %r4;\ncp.async.wait_all;\n" +
          show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], 0U);
}

TEST(CpAsync, OnlyGuardedLanesCopy) {
  const Result r =
      run("setp.gt.u32 %p1, %r0, 20;\n@%p1 cp.async.ca.shared.global [%r1], [%rd0], 4;\n"
          "cp.async.commit_group;\ncp.async.wait_group 0;\n" +
          show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], l > 20 ? 100 + l : 7);
}

class RefusedCopies : public ::testing::TestWithParam<std::pair<std::string, Status>> {};

TEST_P(RefusedCopies, WithTheRightStatus) {
  Device device;
  const Outcome o = device.run(kernel(2, kPrologue + GetParam().first), {1, 1, 1}, {32, 1, 1},
                               device.upload(counted(256)), device.upload(Words(256)));
  EXPECT_EQ(o.status, GetParam().second) << o.message;
}

INSTANTIATE_TEST_SUITE_P(
    CpAsync, RefusedCopies,
    ::testing::Values(
        std::pair("cp.async.ca.shared.global [%r1], [%rd0], 12;", Status::kIllegalInstruction),
        std::pair("cp.async.cg.shared.global [%r1], [%rd0], 4;", Status::kIllegalInstruction),
        std::pair("cp.async.ca.shared.global [%r1], [%rd0+1], 4;", Status::kMisalignedAddress),
        std::pair("cp.async.ca.shared.global [%r1+2], [%rd0], 4;", Status::kMisalignedAddress),
        std::pair("cp.async.ca.shared.global [%r1], [%rd0+1000], 4;", Status::kIllegalAddress),
        std::pair("cp.async.ca.shared.global [%r1+4000], [%rd0], 4;", Status::kIllegalAddress),
        std::pair("cp.async.bulk.tensor.2d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r1], [%rd0, "
                  "{%r0, %r0}], [%r1], {%h1};",
                  Status::kIllegalInstruction),
        std::pair("tensormap.replace.tile.global_address.global.b1024.b64 [%rd0], %rd1;", Status::kIllegalInstruction),
        std::pair("mbarrier.init.shared.b64 [%r2], 0;", Status::kIllegalInstruction),
        std::pair("mbarrier.init.shared.b64 [%r2+4], 1;", Status::kMisalignedAddress),
        std::pair("mbarrier.arrive.expect_tx.noComplete.shared.b64 %rd1, [%r2], 4;", Status::kIllegalInstruction),
        std::pair("setp.eq.u32 %p1, %r0, 0;\n@%p1 mbarrier.init.shared.b64 [%r2], 3;\nbar.warp.sync -1;\n"
                  "mbarrier.arrive.shared.b64 %rd1, [%r2], 2;",
                  Status::kIllegalInstruction)));

// --- mbarriers ------------------------------------------------------------------------------------------------------

/// One lane's instructions on an mbarrier in a block of one thread; %p1… become bits of result words by `say`.
class OneThread {
 public:
  OneThread& then(const std::string& text) {
    body_ += text + "\n";
    return *this;
  }
  OneThread& say(const std::string& predicate) {
    return then("selp.u32 %r9, 1, 0, " + predicate + ";").say_word("%r9");
  }
  OneThread& say_word(const std::string& reg) {
    return then("st.global.u32 [%rd1+" + std::to_string(4 * said_++) + "], " + reg + ";");
  }
  OneThread& test_parity(int parity) {
    return then("mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r2], " + std::to_string(parity) + ";").say("%p1");
  }
  Words run() {
    Device device;
    Allocation* const to = device.upload(Words(256));
    const Outcome o = device.run(kernel(2, kPrologue + body_), {1, 1, 1}, {1, 1, 1}, device.upload(counted(256)), to);
    EXPECT_EQ(o.status, Status::kOk) << o.message;
    Words w = device.download<uint32_t>(to);
    w.resize(static_cast<size_t>(said_));
    return w;
  }

 private:
  std::string body_;
  int said_ = 0;
};

TEST(Mbarrier, PhasesFollowEachOther) {
  EXPECT_EQ(OneThread()
                .then("mbarrier.init.shared::cta.b64 [%r2], 2;")
                .test_parity(0)  // running
                .test_parity(1)  // the phase before the first counts as over
                .then("mbarrier.arrive.shared::cta.b64 %rd5, [%r2];")
                .test_parity(0)
                .then("mbarrier.arrive.release.cta.shared::cta.b64 %rd6, [%r2];")
                .test_parity(0)  // over
                .test_parity(1)
                .then("mbarrier.arrive.shared::cta.b64 _, [%r2], 2;")
                .test_parity(1)
                .test_parity(0)
                .run(),
            (Words{0, 1, 0, 1, 0, 1, 0}));
}

TEST(Mbarrier, StatesNameThePhaseOfTheArrival) {
  EXPECT_EQ(OneThread()
                .then("mbarrier.init.shared.b64 [%r2], 2;\nmbarrier.arrive.shared.b64 %rd5, [%r2];")
                .then("mbarrier.test_wait.shared.b64 %p1, [%r2], %rd5;")
                .say("%p1")
                .then("mbarrier.pending_count.b64 %r10, %rd5;")
                .say_word("%r10")
                .then("mbarrier.arrive.shared.b64 %rd6, [%r2];\nmbarrier.pending_count.b64 %r10, %rd6;")
                .say_word("%r10")
                .then("mbarrier.test_wait.shared.b64 %p1, [%r2], %rd5;")
                .say("%p1")
                .then("mbarrier.test_wait.shared.b64 %p1, [%r2], %rd6;")
                .say("%p1")
                .then("mbarrier.arrive.noComplete.shared.b64 %rd7, [%r2], 1;\n"
                      "mbarrier.test_wait.shared.b64 %p1, [%r2], %rd7;")
                .say("%p1")
                .run(),
            (Words{0, 2, 1, 1, 1, 0}));
}

TEST(Mbarrier, DroppedArrivalsAreExpectedNoMore) {
  EXPECT_EQ(OneThread()
                .then("mbarrier.init.shared.b64 [%r2], 3;\nmbarrier.arrive_drop.shared.b64 %rd5, [%r2], 2;")
                .test_parity(0)
                .then("mbarrier.arrive.shared.b64 %rd5, [%r2];")
                .test_parity(0)
                .then("mbarrier.arrive.shared.b64 %rd5, [%r2];")  // now one is enough
                .test_parity(1)
                .run(),
            (Words{0, 1, 1}));
}

TEST(Mbarrier, BytesHoldAPhaseOpen) {
  EXPECT_EQ(OneThread()
                .then("mbarrier.init.shared.b64 [%r2], 1;\n"
                      "mbarrier.arrive.expect_tx.shared.b64 _, [%r2], 48;")
                .test_parity(0)
                .then("mbarrier.complete_tx.relaxed.cta.shared.b64 [%r2], 32;")
                .test_parity(0)
                .then("mbarrier.complete_tx.relaxed.cta.shared.b64 [%r2], 16;")
                .test_parity(0)
                // Bytes may come before they are expected.
                .then("mbarrier.complete_tx.relaxed.cta.shared.b64 [%r2], 16;")
                .test_parity(1)
                .then("mbarrier.expect_tx.relaxed.cta.shared.b64 [%r2], 16;\nmbarrier.arrive.shared.b64 _, [%r2];")
                .test_parity(1)
                .run(),
            (Words{0, 0, 1, 0, 1}));
}

TEST(Mbarrier, CopiesArrive) {
  EXPECT_EQ(OneThread()
                .then("mbarrier.init.shared.b64 [%r2+8], 1;\ncp.async.ca.shared.global [%r1], [%rd0], 4;\n"
                      "cp.async.mbarrier.arrive.shared.b64 [%r2+8];")
                .then("mbarrier.test_wait.parity.shared.b64 %p1, [%r2+8], 0;")
                .say("%p1")
                .then("cp.async.mbarrier.arrive.noinc.shared.b64 [%r2+8];\n"
                      "mbarrier.test_wait.parity.shared.b64 %p1, [%r2+8], 0;")
                .say("%p1")
                .then("ld.shared.u32 %r9, [%r1];")
                .say_word("%r9")
                .run(),
            (Words{0, 1, 100}));
}

TEST(Mbarrier, WarpsWaitForEachOther) {
  // Warp 3 hands a word to the others, round after round; they hand the place back.
  const std::string body =
      ".shared .align 8 .b8 s[64];\n.reg .b32 %n;\nmov.u32 %r0, %tid.x;\nmov.u32 %r2, s;\nld.param.u64 %rd1, [p0];\n"
      "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r2], 1;\n"
      "mbarrier.init.shared.b64 [%r2+8], 96;\nREADY:\nbar.sync 0;\nmov.u32 %n, 0;\nmov.u32 %r7, 0;\n"
      "setp.ge.u32 %p2, %r0, 96;\nsetp.eq.u32 %p3, %r0, 96;\n@%p2 bra PRODUCER;\n"
      "CONSUMER:\nand.b32 %r3, %n, 1;\nFULL:\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p4, [%r2], %r3, "
      "1000;\n@!%p4 bra FULL;\nld.shared.u32 %r4, [%r2+16];\nadd.u32 %r7, %r7, %r4;\n"
      "mbarrier.arrive.shared.b64 _, [%r2+8];\nadd.u32 %n, %n, 1;\nsetp.lt.u32 %p5, %n, 100;\n@%p5 bra CONSUMER;\n"
      "mul.wide.u32 %rd2, %r0, 4;\nadd.s64 %rd1, %rd1, %rd2;\nst.global.u32 [%rd1], %r7;\nbra END;\n"
      "PRODUCER:\n@!%p3 bra END;\nLOOP:\nadd.u32 %r3, %n, 1;\nand.b32 %r3, %r3, 1;\n"
      "EMPTY:\nmbarrier.try_wait.parity.shared.b64 %p4, [%r2+8], %r3;\n@!%p4 bra EMPTY;\n"
      "mul.lo.u32 %r4, %n, %n;\nst.shared.u32 [%r2+16], %r4;\nmbarrier.arrive.shared.b64 _, [%r2];\n"
      "add.u32 %n, %n, 1;\nsetp.lt.u32 %p5, %n, 100;\n@%p5 bra LOOP;\nEND:\n";
  for (const bool adversarial : {false, true}) {
    Options options;
    options.adversarial = adversarial;
    options.seed = 3;
    Device device(options);
    Allocation* const to = device.upload(Words(96));
    const Outcome o = device.run(kernel(1, body), {1, 1, 1}, {128, 1, 1}, to);
    ASSERT_EQ(o.status, Status::kOk) << o.message;
    for (const uint32_t w : device.download<uint32_t>(to)) ASSERT_EQ(w, 328350U);
  }
}

TEST(Mbarrier, AWaitThatNobodyEndsIsADeadlock) {
  Device device;
  const Outcome o =
      device.run(kernel(2, std::string(kPrologue) +
                               "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r2], 2;\n"
                               "mbarrier.arrive.shared.b64 _, [%r2];\nREADY:\nbar.sync 0;\n"
                               "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0;\n@!%p2 bra WAIT;\n"),
                 {1, 1, 1}, {64, 1, 1}, device.upload(counted(256)), device.upload(Words(256)));
  EXPECT_EQ(o.status, Status::kDeadlock);
  EXPECT_NE(o.message.find("mbarrier at 0x0"), std::string::npos) << o.message;
  EXPECT_NE(o.message.find("lacks 1 of 2 arrivals"), std::string::npos) << o.message;
}

TEST(Mbarrier, ADeadlockIsFoundAtOnce) {
  // 32 warps of each of 4 blocks wait for bytes that never come, all checks on, in either schedule.
  for (const bool adversarial : {false, true}) {
    Options options;
    options.check = true;
    options.adversarial = adversarial;
    Device device(options);
    const auto start = std::chrono::steady_clock::now();
    const Outcome o =
        device.run(kernel(2,
                          ".shared .align 8 .b64 s;\nmov.u32 %r0, %tid.x;\nmov.u32 %r2, s;\n"
                          "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r2], 1;\n"
                          "mbarrier.arrive.expect_tx.shared.b64 _, [%r2], 16;\nREADY:\nbar.sync 0;\n"
                          "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0;\n@!%p2 bra WAIT;\n"),
                   {4, 1, 1}, {1024, 1, 1}, device.upload(counted(256)), device.upload(Words(256)));
    EXPECT_EQ(o.status, Status::kDeadlock);
    EXPECT_NE(o.message.find("lacks 0 of 1 arrivals and 16 bytes"), std::string::npos) << o.message;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  }
}

TEST(Mbarrier, AWaitThatAnotherBlockEndsIsNone) {
  // Block 0 gives up its wait when block 1, which counts for long, says so in global memory; in a block alone, a wait
  // of fifty thousand attempts gives up by itself.
  for (const bool adversarial : {false, true}) {
    Options options;
    options.adversarial = adversarial;
    options.threads = 1;
    Device device(options);
    const Outcome o = device.run(
        kernel(
            2,
            std::string(kPrologue) +
                "ld.param.u64 %rd8, [p1];\nmov.u32 %r9, %ctaid.x;\nsetp.eq.u32 %p5, %r9, 1;\n@%p5 bra OTHER;\n"
                "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r2], 1;\nREADY:\nbar.sync 0;\n"
                "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0;\n@%p2 bra END;\n"
                "ld.global.u32 %r10, [%rd8];\nsetp.eq.u32 %p3, %r10, 0;\n@%p3 bra WAIT;\nbra END;\n"
                "OTHER:\nmov.u32 %r11, 0;\nLOOP:\nadd.u32 %r11, %r11, 1;\nsetp.lt.u32 %p4, %r11, 3000000;\n"
                "@%p4 bra LOOP;\nst.volatile.global.u32 [%rd8], 1;\nEND:\n"),
        {2, 1, 1}, {64, 1, 1}, device.upload(counted(256)), device.upload(Words(256)));
    EXPECT_EQ(o.status, Status::kOk) << o.message;
    const Outcome counts = device.run(
        kernel(2, std::string(kPrologue) +
                      "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r2], 1;\nREADY:\n"
                      "bar.sync 0;\nmov.u32 %r9, 0;\nWAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0;\n"
                      "@%p2 bra END;\nadd.u32 %r9, %r9, 1;\nsetp.lt.u32 %p3, %r9, 50000;\n@%p3 bra WAIT;\nEND:\n"),
        {1, 1, 1}, {64, 1, 1}, device.upload(counted(256)), device.upload(Words(256)));
    EXPECT_EQ(counts.status, Status::kOk) << counts.message;
  }
}

TEST(Mbarrier, ADeadlockBesideABarrierIsToldToo) {
  // Warp 0 waits for the mbarrier, warp 1 at a barrier for warp 0.
  Device device;
  const Outcome o = device.run(
      kernel(2,
             std::string(kPrologue) +
                 "setp.ne.u32 %p1, %r0, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r2], 1;\nREADY:\nbar.sync 0;\n"
                 "setp.ge.u32 %p3, %r0, 32;\n@%p3 bra AT;\n"
                 "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0;\n@!%p2 bra WAIT;\nAT:\nbar.sync 0;\n"),
      {1, 1, 1}, {64, 1, 1}, device.upload(counted(256)), device.upload(Words(256)));
  EXPECT_EQ(o.status, Status::kDeadlock);
  EXPECT_NE(o.message.find("mbarrier"), std::string::npos) << o.message;
}

TEST(Mbarrier, WhoCountsItsAttemptsGivesUpByItself) {
  const Words w = OneThread()
                      .then(
                          "mbarrier.init.shared.b64 [%r2], 1;\nmov.u32 %r4, 0;\n"
                          "TRY:\nmbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0;\nadd.u32 %r4, %r4, 1;\n"
                          "setp.lt.u32 %p2, %r4, 20000;\n@%p2 bra TRY;")
                      .say_word("%r4")
                      .run();
  EXPECT_EQ(w, Words{20000});
}

// --- hints ----------------------------------------------------------------------------------------------------------

TEST(Hints, ChangeNothing) {
  const Result r =
      run("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;\nsetmaxnreg.inc.sync.aligned.u32 240;\n"
          "createpolicy.fractional.L2::evict_first.b64 %rd5, 1.0;\n"
          "createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 %rd5, 0.5;\n"
          "cp.async.ca.shared.global.L2::cache_hint [%r1], [%rd0], 4, 4, %rd5;\ncp.async.wait_all;\n" +
          show(0, 0));
  for (uint32_t l = 0; l < 32; ++l) ASSERT_EQ(r.words[l], 100 + l);
}

}  // namespace
}  // namespace ptxsim::testing
