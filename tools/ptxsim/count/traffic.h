#pragma once

#include <cstdint>

#include "tools/ptxsim/program/program.h"

/// What the memory system makes of one warp's access. The rules are the ones that Nsight Compute's counters follow for
/// plain loads and stores: accesses of 8 bytes per lane go as two half warps, of 16 bytes as four quarters.
namespace ptxsim {

/// Distinct 32-byte sectors of global memory, summed over the parts of the warp that go together.
uint32_t global_sectors(Mask mask, const uint64_t* address, uint32_t bytes);

/// Sectors of local memory, which lies interleaved: the same word of 32 threads in 128 bytes.
uint32_t local_sectors(Mask mask, const uint64_t* address, uint32_t bytes);

struct Wavefronts {
  uint32_t count;  // passes through the 32 banks of 4 bytes
  uint32_t ideal;  // what an access without conflicts would take: one for each part with lanes in it

  bool operator==(const Wavefronts&) const = default;
};
/// Per part: the most distinct words that any bank is asked for. Lanes that read the same word share it.
Wavefronts shared_wavefronts(Mask mask, const uint64_t* address, uint32_t bytes);

/// The same of shared::cluster addresses: each block that lanes reach has banks of its own, in its multiprocessor.
Wavefronts cluster_wavefronts(Mask mask, const uint64_t* address, uint32_t bytes);

}  // namespace ptxsim
