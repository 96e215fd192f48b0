#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>

#include "tools/ptxsim/machine/machine.h"

namespace ptxsim::runtime {

/// A memory pool: how much of the device's memory cudaMallocAsync has given out, and how much it keeps for reuse.
struct Pool {
  explicit Pool(const cudaMemPoolProps& properties) : properties(properties) {}

  const cudaMemPoolProps properties;

  void took(uint64_t bytes);
  void gave_back(uint64_t bytes);
  /// What is kept beyond what is in use goes back to the device, down to `keep`.
  void trim(uint64_t keep);
  void trim_to_threshold();
  uint64_t kept() const;  // reserved and not in use

  mutable std::mutex mutex;
  uint64_t threshold = 0, used = 0, used_high = 0, reserved = 0, reserved_high = 0;
  int reuse_follow = 1, reuse_opportunistic = 1, reuse_internal = 1;
};

}  // namespace ptxsim::runtime
