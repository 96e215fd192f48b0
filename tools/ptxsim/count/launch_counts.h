#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tools/ptxsim/machine/machine.h"
#include "tools/ptxsim/program/program.h"

namespace ptxsim {

/// What a memory instruction did, all executions together.
struct MemoryCounts {
  uint64_t requests = 0;    // warp instructions that touched the space
  uint64_t bytes = 0;       // lanes × bytes
  uint64_t sectors = 0;     // global and local: of 32 bytes
  uint64_t wavefronts = 0;  // shared
  uint64_t ideal = 0;       // shared: wavefronts without conflicts

  MemoryCounts& operator+=(const MemoryCounts& o) {
    requests += o.requests;
    bytes += o.bytes;
    sectors += o.sectors;
    wavefronts += o.wavefronts;
    ideal += o.ideal;
    return *this;
  }
};

enum class Traffic : uint8_t {
  kGlobalLoad,
  kGlobalStore,
  kGlobalAtomic,
  kSharedLoad,
  kSharedStore,
  kSharedAtomic,
  kLocalLoad,
  kLocalStore,
  kCount
};
using TrafficCounts = std::array<MemoryCounts, static_cast<size_t>(Traffic::kCount)>;

struct LineCounts {
  uint64_t instructions = 0, lanes = 0;
  TrafficCounts traffic{};
};

struct AllocationCounts {
  std::string name;
  uint64_t bytes = 0;                            // its size
  uint64_t read = 0, written = 0;                // bytes moved by lanes
  uint64_t unique_read = 0, unique_written = 0;  // distinct bytes
};

/// A kernel's launches of one configuration, summed.
struct LaunchCounts {
  std::string kernel;  // readable
  Dim3 grid{}, block{}, cluster{};
  uint64_t launches = 0;
  uint64_t dynamic_shared = 0, shared_bytes = 0;  // per block; the latter with the static part
  uint32_t registers = 0, local_bytes = 0;        // per thread; registers 0 where no machine code was beside the PTX
  Occupancy occupancy;
  double waves = 0;

  // All figures from here are sums over the launches.
  std::array<uint64_t, static_cast<size_t>(Kind::kCount)> instructions{}, lanes{};
  uint64_t branches = 0, divergent_branches = 0;
  TrafficCounts traffic{};
  std::map<std::string, uint64_t> tensor_operations;  // by type, multiply-adds
  std::map<std::string, AllocationCounts> allocations;
  uint64_t unique_read = 0, unique_written = 0;  // global memory, per launch, summed
  std::map<std::string, LineCounts> by_line;     // "file.cu:12"

  uint64_t all_instructions() const {
    uint64_t n = 0;
    for (const uint64_t i : instructions) n += i;
    return n;
  }
  uint64_t all_lanes() const {
    uint64_t n = 0;
    for (const uint64_t i : lanes) n += i;
    return n;
  }
};

/// Lower bounds on a launch's time on a GPU, from the counters; which is the largest is the expected limiter. An
/// estimate: latencies, caches' hit rates and what ptxas makes of the PTX are not in it.
struct SpeedOfLight {
  struct Bound {
    const char* name;
    double seconds;
  };
  std::vector<Bound> bounds;  // the largest first
  double seconds() const { return bounds.front().seconds; }
};
SpeedOfLight speed_of_light(const LaunchCounts& counts, const Gpu& gpu);

/// The report, as text and as JSON. Names of counters are Nsight Compute's where it has one.
std::string report_table(const std::vector<const LaunchCounts*>& launches, const Gpu& gpu);
std::string report_json(const std::vector<const LaunchCounts*>& launches, const Gpu& gpu);

}  // namespace ptxsim
