#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/ptxsim/exec/ptx_fixture.h"
#include "tools/ptxsim/check/findings.h"

namespace ptxsim::testing {

/// Runs kernels with all checks on; findings are what was printed.
class CheckedDevice : public Device {
 public:
  explicit CheckedDevice(int threads = 1, uint64_t seed = 0) : Device(options(threads, seed)) {}

  Allocation* uninitialised(uint64_t bytes, MemoryKind kind = MemoryKind::kDevice) {
    return machine().memory().allocate(kind, bytes);
  }

  /// What `--check` says of a launch of `blocks` blocks of `threads` threads.
  template <class... Args>
  std::string check(const std::string& ptx, uint32_t blocks, uint32_t threads, Args... args) {
    ::testing::internal::CaptureStderr();
    const Outcome outcome = run(ptx, {blocks, 1, 1}, {threads, 1, 1}, args...);
    std::string text = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(outcome.status, Status::kOk) << outcome.message;
    return text;
  }

 private:
  static Options options(int threads, uint64_t seed) {
    Options o;
    o.check = true;
    o.threads = threads;
    o.adversarial = seed != 0;
    o.seed = seed;
    return o;
  }
};

/// %r1: thread in the block, %r2: block, %r3: threads of a block, %r4: thread in the grid; %rd1: p0, %rd2: p0 + 4 ·
/// %r4.
inline const std::string kThreads = R"(
  .shared .align 16 .b8 tile[4096];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mad.lo.s32 %r4, %r2, %r3, %r1;
  ld.param.u64 %rd1, [p0];
  mul.wide.u32 %rd2, %r4, 4;
  add.s64 %rd2, %rd1, %rd2;
  shl.b32 %r5, %r1, 2;
  mov.u32 %r6, tile;
  add.s32 %r7, %r6, %r5;
)";

inline ::testing::AssertionResult says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) {
      return ::testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
    }
  }
  return ::testing::AssertionSuccess();
}

inline size_t findings_in(const std::string& text) {
  size_t n = 0;
  for (size_t at = text.find("ptxsim: finding "); at != std::string::npos; at = text.find("ptxsim: finding ", at + 1))
    ++n;
  return n;
}

}  // namespace ptxsim::testing
