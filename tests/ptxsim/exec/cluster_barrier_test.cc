#include <gtest/gtest.h>

#include "tests/ptxsim/exec/ptx_fixture.h"

namespace ptxsim::testing {
namespace {

Outcome run_clusters(Device& d, const std::string& body, uint32_t blocks, uint32_t cluster, uint32_t threads,
                     Allocation* a) {
  LoadedModule module(d.machine(),
                      kernel(1, "ld.param.u64 %rd0, [p0];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\n" + body), {});
  Launch l;
  l.kernel = module.kernel("k");
  l.grid = {blocks, 1, 1};
  l.block = {threads, 1, 1};
  l.cluster = {cluster, 1, 1};
  l.parameters.resize(8);
  std::memcpy(l.parameters.data(), &a->base, 8);
  return d.machine().run(l);
}

/// %rd1 = the cell of the block.
constexpr const char* kOwnCell = "mul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd0, %rd1;\n";

class ClusterBarrier : public ::testing::TestWithParam<std::tuple<std::string, uint32_t>> {};

TEST_P(ClusterBarrier, EachPhaseIsPassedByNobodyBeforeAllHaveArrived) {
  // In each of 20 rounds every thread adds to a counter; behind the barrier it must be the round times all threads.
  const auto& [aligned, threads] = GetParam();
  const std::string sync = "barrier.cluster.arrive" + aligned + ";\nbarrier.cluster.wait" + aligned + ";\n";
  for (const uint64_t seed : {0, 1, 2, 3}) {
    Options options;
    options.adversarial = seed != 0;
    options.seed = seed;
    Device d(options);
    Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
    const Outcome o = run_clusters(d,
                                   "mov.u32 %r2, 0;\nmov.u32 %r6, " + std::to_string(4 * threads) +
                                       ";\nmov.u32 %r5, 0;\nLOOP:\nred.global.add.u32 [%rd0], 1;\n" + sync +
                                       "add.u32 %r5, %r5, %r6;\nld.relaxed.gpu.global.u32 %r3, [%rd0];\n"
                                       "setp.ne.u32 %p1, %r3, %r5;\n@%p1 red.global.add.u32 [%rd0+4], 1;\n" +
                                       sync + "add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p2, %r2, 20;\n@%p2 bra LOOP;\n",
                                   4, 4, threads, a);
    ASSERT_EQ(o.status, Status::kOk) << o.message;
    EXPECT_EQ(d.download<uint32_t>(a), (std::vector<uint32_t>{20 * 4 * threads, 0}));
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, ClusterBarrier,
                         ::testing::Combine(::testing::Values("", ".aligned"), ::testing::Values(1, 50, 64)));

TEST(ClusterBarrierEdges, ThreadsThatHaveExitedAreNotWaitedFor) {
  Device d;
  Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
  // Block 1 leaves at once, but for thread 3, which arrives and leaves without a wait.
  const Outcome o =
      run_clusters(d,
                   kOwnCell + std::string("setp.ne.u32 %p1, %r1, 1;\n@%p1 bra STAY;\nsetp.ne.u32 %p2, %r0, 3;\n"
                                          "@%p2 bra END;\nbarrier.cluster.arrive.relaxed;\nbra END;\nSTAY:\n"
                                          "barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n"
                                          "barrier.cluster.arrive;\nbarrier.cluster.wait;\n"
                                          "red.global.add.u32 [%rd1], 1;\nEND:\n"),
                   2, 2, 32, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint32_t>(a), (std::vector<uint32_t>{32, 0}));
}

TEST(ClusterBarrierEdges, ThreadsThatArriveAndExitDoNotStandForOthers) {
  Device d;
  Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
  // Block 1 arrives and leaves. In block 0 the second warp comes late; the first must not go on before.
  const Outcome o =
      run_clusters(d,
                   "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra LEAVE;\nsetp.lt.u32 %p2, %r0, 32;\n@%p2 bra MEET;\n"
                   "mov.u32 %r2, 0;\nLOOP:\nnanosleep.u32 10;\nadd.u32 %r2, %r2, 1;\n"
                   "setp.lt.u32 %p3, %r2, 50;\n@%p3 bra LOOP;\nred.global.add.u32 [%rd0], 1;\nMEET:\n"
                   "barrier.cluster.arrive;\nbarrier.cluster.wait;\nld.relaxed.gpu.global.u32 %r3, [%rd0];\n"
                   "setp.ne.u32 %p4, %r3, 32;\n@%p4 red.global.add.u32 [%rd0+4], 1;\nbra END;\nLEAVE:\n"
                   "barrier.cluster.arrive;\nEND:\n",
                   2, 2, 64, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint32_t>(a), (std::vector<uint32_t>{32, 0}));
}

TEST(ClusterBarrierEdges, ABarrierThatIsNeverCompleteIsADeadlock) {
  Device d;
  Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
  // Block 0 waits for the cluster, block 1 for a block barrier of more threads than it has.
  const Outcome o =
      run_clusters(d,
                   "setp.ne.u32 %p1, %r1, 0;\n@%p1 bra OTHER;\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\n"
                   "bra END;\nOTHER:\nbar.sync 1, 64;\nEND:\n",
                   2, 2, 32, a);
  EXPECT_EQ(o.status, Status::kDeadlock) << o.message;
}

TEST(ClusterBarrierEdges, WrongOrderIsAFault) {
  for (const char* body :
       {"barrier.cluster.wait;", "barrier.cluster.arrive;\nbarrier.cluster.arrive;", "barrier.cluster.arrive.acquire;",
        "barrier.cluster.wait.release;", "barrier.cluster.sync;"}) {
    Device d;
    Allocation* a = d.upload(std::vector<uint32_t>{0, 0});
    EXPECT_EQ(run_clusters(d, body, 2, 2, 32, a).status, Status::kIllegalInstruction) << body;
  }
}

}  // namespace
}  // namespace ptxsim::testing
