#include "tests/ptxsim/check/check_fixture.h"

namespace ptxsim::testing {
namespace {

TEST(Uninitialised, GlobalMemoryThatNobodyWrote) {
  CheckedDevice device;
  Allocation* out = device.upload(std::vector<uint32_t>(64));
  Allocation* in = device.uninitialised(256);
  const std::string text = device.check(kernel(2, kThreads + R"(
    ld.param.u64 %rd3, [p1];
    add.s64 %rd4, %rd3, 4;
    ld.global.u32 %r8, [%rd4];
    st.global.u32 [%rd2], %r8;)"),
                                        2, 32, out, in);
  EXPECT_EQ(findings_in(text), 1u);
  EXPECT_TRUE(says(text, {"ld.global.u32", "uninitialised global memory", in->describe(), "block (0, 0, 0)"}));
}

TEST(Uninitialised, WhatKernelsWroteIsInitialised) {
  CheckedDevice device;
  Allocation* a = device.uninitialised(256);
  EXPECT_EQ(device.check(kernel(1, kThreads + "st.global.u32 [%rd2], %r1;"), 2, 32, a), "");
  EXPECT_EQ(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd2];\nld.global.u8 %r8, [%rd2+3];"), 2, 32, a),
            "");
}

TEST(Uninitialised, BytesAreToldApart) {
  CheckedDevice device;
  Allocation* a = device.uninitialised(256);
  EXPECT_EQ(device.check(kernel(1, kThreads + "st.global.u8 [%rd2], %r1;\nld.global.u8 %r8, [%rd2];"), 1, 32, a), "");
  // Padding that is copied together with a neighbour is no finding, a byte by itself is.
  EXPECT_EQ(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd2];"), 1, 32, a), "");
  EXPECT_TRUE(says(device.check(kernel(1, kThreads + "ld.global.u8 %r8, [%rd2+1];"), 1, 32, a), {"ld.global.u8"}));
}

TEST(Uninitialised, ElementsOfVectorsAreToldApart) {
  CheckedDevice device;
  Allocation* a = device.uninitialised(512);
  const std::string pair = "mul.wide.u32 %rd5, %r1, 8;\nadd.s64 %rd5, %rd1, %rd5;\n";
  EXPECT_EQ(device.check(kernel(1, kThreads + pair + "st.global.u32 [%rd5], %r1;"), 1, 32, a), "");
  EXPECT_TRUE(says(device.check(kernel(1, kThreads + pair + "ld.global.v2.u32 {%r8, %r9}, [%rd5];"), 1, 32, a),
                   {"uninitialised"}));
}

TEST(Uninitialised, WhatIsCopiedWithItsNeighboursIsJudgedWhereItIsUsed) {
  CheckedDevice device;
  Allocation *a = device.uninitialised(512), *b = device.uninitialised(512);
  const std::string start = kThreads + "ld.param.u64 %rd3, [p1];\nmul.wide.u32 %rd5, %r1, 8;\n" +
                            "add.s64 %rd4, %rd3, %rd5;\nadd.s64 %rd5, %rd1, %rd5;\n";
  EXPECT_EQ(device.check(kernel(2, start + "st.global.u32 [%rd5], %r1;"), 1, 32, a, b), "");
  EXPECT_EQ(device.check(kernel(2, start + "ld.global.v2.u32 {%r8, %r9}, [%rd5];\nmov.u32 %r10, %r9;\n"
                                           "st.global.v2.u32 [%rd4], {%r8, %r10};"),
                         1, 32, a, b),
            "");
  const auto use = [&](const std::string& text) {
    return device.check(kernel(2, start + "ld.global.v2.u32 {%r8, %r9}, [%rd4];\n" + text), 1, 32, a, b);
  };
  EXPECT_EQ(use("setp.eq.u32 %p1, %r9, 0;\nsetp.ne.u32 %p2, %r8, %r8;\nand.pred %p3, %p1, %p2;\n"
                "selp.u32 %r10, %r9, %r8, %p3;\nst.global.u32 [%rd4], %r10;"),
            "");
  for (const char* text :
       {"st.global.u32 [%rd5], %r9;", "add.u32 %r10, %r9, %r8;\nst.global.v2.u32 [%rd5], {%r8, %r10};",
        "setp.eq.u32 %p1, %r9, 0;\n@%p1 st.global.u32 [%rd5], %r8;",
        "setp.eq.u32 %p1, %r9, 0;\nsetp.eq.u32 %p2, %r8, %r8;\nand.pred %p3, %p1, %p2;\n"
        "selp.u32 %r10, 1, 0, %p3;\nst.global.u32 [%rd5], %r10;",
        "shfl.sync.bfly.b32 %r10, %r9, 1, 31, -1;"}) {
    CheckedDevice fresh;
    Allocation *c = fresh.uninitialised(512), *d = fresh.uninitialised(512);
    EXPECT_EQ(fresh.check(kernel(2, start + "st.global.u32 [%rd4], %r1;"), 1, 32, c, d), "");
    EXPECT_TRUE(says(fresh.check(kernel(2, start + "ld.global.v2.u32 {%r8, %r9}, [%rd4];\n" + text), 1, 32, c, d),
                     {"ld.global.v2.u32", "read of 4 bytes of uninitialised global memory"}))
        << text;
  }
}

TEST(Uninitialised, TheHostWritesAndReads) {
  CheckedDevice device;
  Machine& m = device.machine();
  Allocation* a = device.uninitialised(1024);
  const std::string reads = kernel(1, kThreads + "ld.global.u32 %r8, [%rd2];");
  m.host_wrote(a->base, 256);
  EXPECT_EQ(device.check(reads, 2, 32, a), "");
  EXPECT_TRUE(says(device.check(reads, 3, 32, a), {"block (2, 0, 0), thread (0, 0, 0)"}));
  ::testing::internal::CaptureStderr();
  m.host_reads(a->base, 1024, "cudaMemcpy");  // a part is written
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  ::testing::internal::CaptureStderr();
  m.host_reads(a->base + 256, 256, "cudaMemcpy");
  EXPECT_TRUE(says(::testing::internal::GetCapturedStderr(), {"cudaMemcpy: read of 256 bytes of uninitialised"}));
}

TEST(Uninitialised, CopiesCarryTheStateAlong) {
  CheckedDevice device;
  Machine& m = device.machine();
  Allocation *a = device.uninitialised(256), *b = device.uninitialised(256);
  m.host_wrote(a->base, 128);
  m.device_copied(b->base, a->base, 256);
  EXPECT_EQ(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd2];"), 1, 32, b), "");
  EXPECT_TRUE(says(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd2];"), 2, 32, b), {b->describe()}));
}

TEST(Uninitialised, MemoryThatTheHostReachesCounts) {
  CheckedDevice device;
  for (const MemoryKind kind : {MemoryKind::kManaged, MemoryKind::kHost, MemoryKind::kModule}) {
    Allocation* a = device.uninitialised(256, kind);
    EXPECT_EQ(device.check(kernel(1, kThreads + "ld.global.u32 %r8, [%rd2];"), 1, 32, a), "");
  }
}

TEST(Uninitialised, AtomicsReadToo) {
  CheckedDevice device;
  Allocation* a = device.uninitialised(256);
  EXPECT_TRUE(says(device.check(kernel(1, kThreads + "red.global.add.u32 [%rd1], 1;"), 1, 32, a),
                   {"atomic access of 4 bytes of uninitialised"}));
  EXPECT_EQ(device.check(kernel(1, kThreads + "atom.global.exch.b32 %r8, [%rd1+64], 1;"), 1, 32, a), "");
  EXPECT_EQ(device.check(kernel(1, kThreads + "atom.global.add.u32 %r8, [%rd1+64], 1;"), 1, 32, a), "");
}

TEST(Uninitialised, SharedMemoryOfEachBlock) {
  CheckedDevice device;
  Allocation* a = device.upload(std::vector<uint32_t>(128));
  const std::string text = device.check(kernel(1, kThreads + R"(
    setp.eq.u32 %p1, %r2, 0;
    @%p1 st.shared.u32 [%r7], %r1;
    ld.shared.u32 %r8, [%r7];
    st.global.u32 [%rd2], %r8;)"),
                                        2, 64, a);
  EXPECT_EQ(findings_in(text), 1u);
  EXPECT_TRUE(says(text, {"block (1, 0, 0), thread (0, 0, 0)", "shared memory at 0x0", "'tile'", "ld.shared.u32"}));
}

TEST(Uninitialised, LocalMemoryOfEachThread) {
  CheckedDevice device;
  Allocation* a = device.upload(std::vector<uint32_t>(64));
  const std::string text = device.check(kernel(1, R"(
    .local .align 4 .b8 own[64];
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 5;
    @%p1 st.local.u32 [own+8], %r1;
    ld.local.u32 %r2, [own+8];)"),
                                        1, 64, a);
  EXPECT_EQ(findings_in(text), 1u);
  EXPECT_TRUE(says(text, {"thread (5, 0, 0)", "uninitialised local memory", "ld.local.u32"}));
}

TEST(Uninitialised, LocalMemoryThatASelectionMayLeaveAside) {
  // What nvcc makes of `ok ? x : -1` loads x first; only a value that is stored too must be there.
  for (const bool elsewhere : {false, true}) {
    CheckedDevice device;
    Allocation* a = device.upload(std::vector<uint32_t>(32));
    std::string body = R"(
    .local .align 4 .b8 own[4];
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 5;
    @%p1 st.local.u32 [own], %r1;
    ld.local.u32 %r2, [own];
    selp.b32 %r3, %r2, -1, %p1;
    ld.param.u64 %rd1, [p0];
    mad.wide.u32 %rd2, %r1, 4, %rd1;
    st.global.u32 [%rd2], %r3;)";
    if (elsewhere) body += "add.u32 %r4, %r2, 1;\n st.global.u32 [%rd2], %r4;\n";
    EXPECT_EQ(findings_in(device.check(kernel(1, body), 1, 32, a)), elsewhere ? 1u : 0u);
    if (elsewhere) continue;
    EXPECT_EQ(device.download<uint32_t>(a)[5], ~0u);
  }
}

TEST(Leaks, WhatWasNotFreed) {
  CheckedDevice device;
  Allocation* freed = device.uninitialised(100);
  Allocation* kept = device.uninitialised(200);
  Allocation* host = device.uninitialised(300, MemoryKind::kHost);
  device.machine().memory().free(freed);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(device.machine().finish(), 2u);
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(says(text, {"leak: " + kept->describe(), "leak: " + host->describe()}));
}

}  // namespace
}  // namespace ptxsim::testing
