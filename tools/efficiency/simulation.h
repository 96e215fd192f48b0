#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/efficiency/passes.h"

namespace cpvt::efficiency {

/// A kernel that an operator of a pass launches, and what the simulator counted for one launch of it.
struct Launch {
  std::string pass, op, kernel;
  double count = 0;          // launches in the pass
  double multiply_adds = 0;  // as mathematics needs them; 0 where it is no product

  double blocks = 0, threads = 0;  // of the grid; of a block
  double waves = 0;                // blocks / those that the GPU holds at a time
  double estimate_us = 0;          // the largest of the simulator's bounds
  std::string limiter;             // which one that is

  double instructions = 0;    // of warps
  double tensor_percent = 0;  // of those, on the tensor cores
  double tensor_work = 0;     // multiply-adds of the tensor cores / those that are needed; 0 without tensor cores
  double device_bytes = 0;    // different bytes of global memory: the least that could move
  double l2_bytes = 0;        // sectors of global memory that were asked for, 32 bytes each
  double load_sectors = 0;    // per request
  double store_sectors = 0;
  double wavefronts = 0;    // of shared memory
  double conflicts = 0;     // bank conflicts: wavefronts beyond the ideal
  double registers = 0;     // per thread, of the machine code
  double local_bytes = 0;   // per thread: what spills
  double shared_bytes = 0;  // per block
  double resident = 0;      // blocks that a multiprocessor holds at a time
};

/// Runs every operator of the passes once on the simulator, for an NVIDIA H200; children of this process do it, as many
/// at a time as there are cores. Throws Error where one fails.
std::vector<Launch> simulate(std::span<const Pass> passes);

}  // namespace cpvt::efficiency
