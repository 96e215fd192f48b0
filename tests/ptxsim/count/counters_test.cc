#include "tools/ptxsim/count/counters.h"

#include <gtest/gtest.h>

#include "tests/ptxsim/exec/ptx_fixture.h"
#include "tools/ptxsim/count/launch_counts.h"

/// Kernels whose counts can be told by hand.
namespace ptxsim::testing {
namespace {

Options counting(int threads = 0) {
  Options o;
  o.count = true;
  o.threads = threads;
  return o;
}

uint64_t of(const LaunchCounts& c, Kind kind) { return c.instructions[static_cast<size_t>(kind)]; }
const MemoryCounts& of(const LaunchCounts& c, Traffic traffic) { return c.traffic[static_cast<size_t>(traffic)]; }

/// y[i] = x[i] for a grid of exactly as many threads as elements.
const std::string kCopy = kernel(2, R"(
  ld.param.u64 %rd1, [p0];
  ld.param.u64 %rd2, [p1];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mad.lo.s32 %r1, %r2, %r3, %r1;
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd1, %rd3;
  add.s64 %rd5, %rd2, %rd3;
  ld.global.u32 %r4, [%rd4];
  st.global.u32 [%rd5], %r4;
)");

TEST(Counters, OfACopy) {
  for (const int threads : {1, 2}) {
    Device device(counting(threads));
    Allocation* x = device.upload(std::vector<uint32_t>(1024, 7));
    Allocation* y = device.upload(std::vector<uint32_t>(1024, 0));
    for (int i = 0; i < 3; ++i) ASSERT_EQ(device.run(kCopy, {8, 1, 1}, {128, 1, 1}, x, y).status, Status::kOk);
    const auto launches = device.machine().counters()->launches();
    ASSERT_EQ(launches.size(), 1U);
    const LaunchCounts& c = *launches[0];
    const uint64_t warps = 3 * 8 * 4;  // launches × blocks × warps
    EXPECT_EQ(c.launches, 3U);
    EXPECT_EQ(c.all_instructions(), warps * 12);
    EXPECT_EQ(c.all_lanes(), warps * 12 * 32);
    EXPECT_EQ(of(c, Kind::kControl), warps);
    EXPECT_EQ(of(c, Kind::kStore), warps);
    EXPECT_EQ(of(c, Traffic::kGlobalLoad).requests, warps);
    EXPECT_EQ(of(c, Traffic::kGlobalLoad).sectors, warps * 4);
    EXPECT_EQ(of(c, Traffic::kGlobalLoad).bytes, 3U * 4096);
    EXPECT_EQ(of(c, Traffic::kGlobalStore).sectors, warps * 4);
    EXPECT_EQ(c.unique_read, 3U * 4096);
    EXPECT_EQ(c.unique_written, 3U * 4096);
    EXPECT_EQ(c.allocations.size(), 2U);
    EXPECT_EQ(c.allocations.at("allocation 1").unique_read, 3U * 4096);
    EXPECT_EQ(c.allocations.at("allocation 1").written, 0U);
    EXPECT_EQ(c.allocations.at("allocation 2").written, 3U * 4096);
  }
}

TEST(Counters, OfStridesAndBankConflicts) {
  Device device(counting());
  Allocation* x = device.upload(std::vector<uint32_t>(32 * 32, 1));
  const std::string text = kernel(1, R"(
    .shared .align 4 .b8 tile[4224];
    ld.param.u64 %rd1, [p0];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 128;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r4, [%rd3];
    mov.u32 %r5, tile;
    mad.lo.s32 %r6, %r1, 128, %r5;
    st.shared.u32 [%r6], %r4;
    mad.lo.s32 %r7, %r1, 132, %r5;
    st.shared.u32 [%r7], %r4;
  )");
  ASSERT_EQ(device.run(text, {1, 1, 1}, {32, 1, 1}, x).status, Status::kOk);
  const LaunchCounts& c = *device.machine().counters()->launches()[0];
  EXPECT_EQ(of(c, Traffic::kGlobalLoad).sectors, 32U);
  EXPECT_EQ(of(c, Traffic::kSharedStore).requests, 2U);
  EXPECT_EQ(of(c, Traffic::kSharedStore).wavefronts, 33U);
  EXPECT_EQ(of(c, Traffic::kSharedStore).ideal, 2U);
  EXPECT_EQ(c.unique_read, 128U);
}

/// What a block stores in another one's shared memory passes through banks as well.
TEST(Counters, OfStoresToAnotherBlock) {
  Device device(counting());
  LoadedModule module(device.machine(), kernel(0, R"(
    .shared .align 4 .b8 tile[128];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %cluster_ctarank;
    xor.b32 %r2, %r2, 1;
    mov.u32 %r3, tile;
    mad.lo.s32 %r3, %r1, 4, %r3;
    mapa.shared::cluster.u32 %r4, %r3, %r2;
    st.shared::cluster.u32 [%r4], %r1;
    barrier.cluster.arrive;
    barrier.cluster.wait;
  )"),
                      {});
  Launch launch;
  launch.kernel = module.kernel("k");
  launch.grid = launch.cluster = {2, 1, 1};
  launch.block = {32, 1, 1};
  ASSERT_EQ(device.machine().run(launch).status, Status::kOk);
  const LaunchCounts& c = *device.machine().counters()->launches()[0];
  EXPECT_EQ(of(c, Traffic::kSharedStore).requests, 2U);
  EXPECT_EQ(of(c, Traffic::kSharedStore).wavefronts, 2U);
}

TEST(Counters, OfDivergence) {
  Device device(counting());
  Allocation* x = device.upload(std::vector<uint32_t>(64, 1));
  // Half the lanes of the first warp take three more instructions; no lane of the second does.
  const std::string text = kernel(1, R"(
    ld.param.u64 %rd1, [p0];
    mov.u32 %r1, %tid.x;
    setp.ge.u32 %p1, %r1, 16;
    @%p1 bra $SKIP;
    add.s32 %r2, %r1, 1;
    add.s32 %r2, %r2, 1;
    add.s32 %r2, %r2, 1;
  $SKIP:
    add.s32 %r3, %r1, 1;
  )");
  ASSERT_EQ(device.run(text, {1, 1, 1}, {64, 1, 1}, x).status, Status::kOk);
  const LaunchCounts& c = *device.machine().counters()->launches()[0];
  EXPECT_EQ(c.branches, 2U);
  EXPECT_EQ(c.divergent_branches, 1U);
  EXPECT_EQ(of(c, Kind::kInteger), 3U + 2U);
  EXPECT_EQ(c.lanes[static_cast<size_t>(Kind::kInteger)], 3U * 16 + 64);
}

TEST(Counters, OfConversionsAreThoseOfTheUnitThatMakesThem) {
  Device device(counting());
  const std::string text = kernel(0, R"(
    mov.b32 %r1, 3;
    mov.f32 %f1, 0f3f800000;
    cvt.rn.f16.f32 %h1, %f1;
    cvt.rn.bf16x2.f32 %r2, %f1, %f1;
    cvt.rn.bf16.f32 %h2, %f1;
    cvt.f32.bf16 %f2, %h2;
    cvt.rn.f32.u32 %f3, %r1;
    cvt.u64.u32 %rd1, %r1;
    cvt.f32.f16 %f4, %h1;
    cvt.f32.f16 %f4, %h1;
    cvt.sat.f32.f32 %f4, %f1;
    cvt.rni.f32.f32 %f4, %f1;
    cvt.rzi.s32.f32 %r3, %f1;
    cvt.rn.f32.u64 %f4, %rd1;
    cvt.rn.f16.u32 %h3, %r1;
  )");
  ASSERT_EQ(device.run(text, {1, 1, 1}, {32, 1, 1}).status, Status::kOk);
  const LaunchCounts& c = *device.machine().counters()->launches()[0];
  EXPECT_EQ(of(c, Kind::kInteger), 6U) << "narrowing, widening bf16, from integers";
  EXPECT_EQ(of(c, Kind::kFp16), 2U) << "widening f16";
  EXPECT_EQ(of(c, Kind::kFp32), 1U) << "clamping";
  EXPECT_EQ(of(c, Kind::kConversion), 4U) << "the rest";
}

TEST(Counters, OfTensorCoresAndTheirEstimate) {
  Device device(counting());
  const std::string text = kernel(0, R"(
    mov.f32 %f1, 0f00000000;
    mov.f32 %f2, 0f00000000;
    mov.f32 %f3, 0f00000000;
    mov.f32 %f4, 0f00000000;
    mov.b32 %r1, 0;
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, {%f1,%f2,%f3,%f4};
  )");
  ASSERT_EQ(device.run(text, {10, 1, 1}, {64, 1, 1}).status, Status::kOk);
  const LaunchCounts& c = *device.machine().counters()->launches()[0];
  EXPECT_EQ(c.tensor_operations.at("f16"), uint64_t{10} * 2 * 16 * 8 * 16);
  const Gpu& h100 = gpu("h100");
  const SpeedOfLight sol = speed_of_light(c, h100);
  for (const auto& bound : sol.bounds) {
    if (std::string_view(bound.name) != "tensor cores") continue;
    // Ten blocks on ten multiprocessors, 4096 multiply-adds each.
    EXPECT_DOUBLE_EQ(bound.seconds, 4096 / (h100.tensor_f16_fma * h100.clock_khz * 1e3));
  }
  EXPECT_NE(report_table({&c}, h100).find("tensor multiply-adds"), std::string::npos);
  EXPECT_NE(report_json({&c}, h100).find("\"smsp__inst_executed.sum\": 140"), std::string::npos);
}

}  // namespace
}  // namespace ptxsim::testing
