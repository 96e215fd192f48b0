#include <algorithm>

#include "tools/ptxsim/count/launch_counts.h"

namespace ptxsim {

SpeedOfLight speed_of_light(const LaunchCounts& c, const Gpu& gpu) {
  const double launches = static_cast<double>(std::max<uint64_t>(1, c.launches));
  const double clock = gpu.clock_khz * 1e3;
  // A grid smaller than the device leaves multiprocessors idle; the last wave of a larger one leaves some idle too.
  const double blocks = static_cast<double>(c.grid[0]) * c.grid[1] * c.grid[2];
  const double rounds = std::max(1.0, blocks / gpu.multiprocessors);
  const double busiest =
      static_cast<double>(static_cast<uint64_t>((blocks + gpu.multiprocessors - 1) / gpu.multiprocessors));
  const double multiprocessors = std::max(1.0, std::min<double>(blocks, gpu.multiprocessors)) * rounds / busiest;

  const auto lanes = [&](Kind k) { return static_cast<double>(c.lanes[static_cast<size_t>(k)]) / launches; };
  const auto traffic = [&](Traffic t) -> const MemoryCounts& { return c.traffic[static_cast<size_t>(t)]; };
  const auto per_clock = [&](double work, double rate) { return work / (rate * multiprocessors * clock); };

  const double sectors =
      static_cast<double>(traffic(Traffic::kGlobalLoad).sectors + traffic(Traffic::kGlobalStore).sectors +
                          traffic(Traffic::kGlobalAtomic).sectors + traffic(Traffic::kLocalLoad).sectors +
                          traffic(Traffic::kLocalStore).sectors) /
      launches;
  const double wavefronts =
      static_cast<double>(traffic(Traffic::kSharedLoad).wavefronts + traffic(Traffic::kSharedStore).wavefronts +
                          traffic(Traffic::kSharedAtomic).wavefronts) /
      launches;
  double tensor = 0;
  for (const auto& [type, n] : c.tensor_operations) {
    const double rate = type == "tf32" || type == "f64"                                    ? gpu.tensor_tf32_fma
                        : type == "s8" || type == "u8" || type == "e4m3" || type == "e5m2" ? gpu.tensor_s8_fma
                                                                                           : gpu.tensor_f16_fma;
    tensor += per_clock(static_cast<double>(n) / launches, rate);
  }
  SpeedOfLight result;
  result.bounds = {
      {"device memory", static_cast<double>(c.unique_read + c.unique_written) / launches / gpu.memory_bytes_per_second},
      {"L2", sectors * 32 / gpu.l2_bytes_per_second},
      {"shared memory", per_clock(wavefronts * 128, gpu.shared_bytes)},
      {"instruction issue", per_clock(static_cast<double>(c.all_instructions()) / launches, gpu.issue_slots)},
      {"tensor cores", tensor},
      {"fp32", per_clock(lanes(Kind::kFp32) + lanes(Kind::kFp32Fma), gpu.fp32_fma)},
      {"fp16", per_clock(lanes(Kind::kFp16) + lanes(Kind::kFp16Fma), gpu.fp16x2_fma)},
      {"fp64", per_clock(lanes(Kind::kFp64) + lanes(Kind::kFp64Fma), gpu.fp64_fma)},
      {"integer", per_clock(lanes(Kind::kInteger) + 2 * lanes(Kind::kInteger64), gpu.int32_op)},
      {"special functions and conversions",
       per_clock(lanes(Kind::kSpecial) + lanes(Kind::kConversion), gpu.special_op)},
  };
  std::stable_sort(result.bounds.begin(), result.bounds.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return result;
}

}  // namespace ptxsim
