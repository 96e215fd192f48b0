// How fast ptxsim executes: warp instructions per second on all cores, without and with checks and counters.
//   build/release/bin/bench_ptxsim_rate
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "tools/ptxsim/check/device_order.h"
#include "tools/ptxsim/machine/machine.h"

namespace {

using Clock = std::chrono::steady_clock;

/// A loop of `rounds` over `body`, which has `length` instructions; two more close the loop.
std::string loop_kernel(const std::string& body) {
  return ".version 9.0\n.target sm_90a\n.address_size 64\n"
         ".visible .entry k(.param .u64 p0, .param .u32 p1)\n{\n"
         ".reg .pred %p<4>; .reg .b32 %r<16>; .reg .f32 %f<16>; .reg .b64 %rd<8>;\n"
         ".shared .align 16 .b8 tile[4096];\n"
         "ld.param.u64 %rd1, [p0];\nld.param.u32 %r1, [p1];\n"
         "mov.u32 %r2, %tid.x;\nmov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ntid.x;\nmad.lo.s32 %r5, %r3, %r4, %r2;\n"
         "mul.wide.u32 %rd2, %r5, 4;\nadd.s64 %rd3, %rd1, %rd2;\n"
         "shl.b32 %r6, %r2, 2;\nmov.u32 %r7, tile;\nadd.s32 %r6, %r6, %r7;\n"
         "mov.u32 %r8, 1;\nmov.u32 %r9, 7;\nmov.f32 %f1, 0f3F800000;\nmov.f32 %f2, 0f3F000000;\nmov.f32 %f3, "
         "0f3E800000;\n"
         "st.shared.u32 [%r6], %r2;\nst.global.f32 [%rd3], %f1;\n"
         "$L:\n" +
         body +
         "sub.s32 %r1, %r1, 1;\nsetp.ne.s32 %p1, %r1, 0;\n@%p1 bra $L;\n"
         "cvt.rn.f32.s32 %f4, %r8;\nadd.f32 %f1, %f1, %f4;\nst.global.f32 [%rd3], %f1;\nret;\n}\n";
}

struct Mix {
  const char* name;
  std::string body;
  int length;  // instructions of a round, those that close the loop among them
};

double rate(const Mix& mix, ptxsim::Options options, uint32_t rounds) {
  constexpr uint32_t kBlocks = 64, kThreads = 256;
  ptxsim::Machine machine(options);
  ptxsim::LoadedModule module(machine, loop_kernel(mix.body), {});
  ptxsim::Allocation* out = machine.memory().allocate(ptxsim::MemoryKind::kDevice, kBlocks * kThreads * 4);
  ptxsim::Launch launch;
  launch.kernel = module.kernel("k");
  launch.grid = {kBlocks, 1, 1};
  launch.block = {kThreads, 1, 1};
  launch.parameters.resize(launch.kernel->parameter_bytes());
  std::memcpy(launch.parameters.data(), &out->base, 8);
  std::memcpy(launch.parameters.data() + launch.kernel->parameters()[1].offset, &rounds, 4);
  std::vector<double> seconds;
  ptxsim::WorkPointer last;
  for (int run = 0; run < 5; ++run) {
    const auto start = Clock::now();
    // With checks, as the runtime runs it: as one of the works that may be unordered.
    ptxsim::WorkPointer work;
    if (ptxsim::DeviceOrder* order = machine.order()) {
      work = order->submitted({ptxsim::DeviceWork::Kind::kKernel, *launch.kernel, "", 0}, {last});
      order->begins(*work);
    }
    if (machine.run(launch, work.get()).status != ptxsim::Status::kOk) return 0;
    if (work != nullptr) work->order.ends(work, true);
    last = work;
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return double{kBlocks} * (kThreads / 32) * rounds * mix.length / seconds[2];
}

}  // namespace

int main() {
  const std::string simple =
      "add.s32 %r8, %r8, %r9;\nxor.b32 %r10, %r8, %r2;\nfma.rn.f32 %f1, %f1, %f2, %f3;\nadd.f32 %f5, %f1, %f2;\n"
      "shl.b32 %r11, %r10, 1;\nmul.f32 %f6, %f5, %f3;\nadd.s32 %r8, %r8, %r11;\nmax.f32 %f7, %f6, %f1;\n";
  const std::string memory =
      "ld.shared.u32 %r10, [%r6];\nadd.s32 %r8, %r8, %r10;\nld.global.f32 %f5, [%rd3];\nfma.rn.f32 %f1, %f5, %f2, "
      "%f3;\n"
      "st.shared.u32 [%r6], %r8;\nmul.f32 %f6, %f1, %f3;\nst.global.f32 [%rd3], %f6;\nadd.s32 %r8, %r8, %r9;\n";
  const Mix mixes[] = {{"arithmetic", simple, 11}, {"with 4 of 11 loads and stores", memory, 11}};
  for (const Mix& mix : mixes) {
    ptxsim::Options off, all;
    all.check = all.count = true;
    fmt::print("{:<32} {:>7.1f} M warp instructions/s, {:>7.1f} M with all checks and counters\n", mix.name,
               rate(mix, off, 4000) / 1e6, rate(mix, all, 1000) / 1e6);
  }
}
