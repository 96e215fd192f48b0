#pragma once

#include <cstdint>

#include "tools/ptxsim/exec/warp.h"

namespace ptxsim {

/// A warp's access, checked: where each lane's bytes lie in the simulator. The one way by which instructions reach
/// memory: it resolves generic addresses, sees to bounds and alignment, and tells the observers.
struct Located {
  std::byte* pointer[kLanes];
  bool row = false;  // the lanes' bytes are one range, in the lanes' order, of global or shared memory; not always told
};

/// `address`: per lane, in the terms of `space` (offsets for shared and local; anything for kGeneric). `alignment`:
/// what the instruction demands, usually all its bytes. Returns false after a fault, which ended the launch: the
/// handler returns at once. `value`: for stores what each lane writes, `bytes` each, lane after lane, when at hand.
bool locate(Warp& warp, const Instruction& instruction, Mask mask, const uint64_t* address, Space space, uint32_t bytes,
            uint32_t alignment, Access::Kind kind, bool synchronising, const std::byte* value, Located& located);

/// Addresses of a memory instruction: base slot (64 bits, or 32 where flags[kBase32] is set) + immediate.
inline void form_addresses(Warp& w, Slot base, bool base_is_32, int64_t offset, uint64_t* address) {
  if (base_is_32) {
    const auto* b = w.lanes<uint32_t>(base);
    for (int l = 0; l < kLanes; ++l) address[l] = static_cast<uint32_t>(b[l] + static_cast<uint32_t>(offset));
  } else {
    const auto* b = w.lanes<uint64_t>(base);
    for (int l = 0; l < kLanes; ++l) address[l] = b[l] + static_cast<uint64_t>(offset);
  }
}

}  // namespace ptxsim
