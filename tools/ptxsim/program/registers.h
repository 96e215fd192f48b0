#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/ptxsim/program/layout.h"

namespace ptxsim {

/// Gives every virtual register a place in the frame. Registers that are never alive together share one, so that a
/// warp's frame stays in the cache. `frame_bytes` is what the frame has already; it grows. An instruction's
/// destinations never share with its sources: handlers may write a lane before they read another.
std::vector<uint32_t> place_registers(const std::vector<Draft>& drafts, const std::vector<LaidOut>& order,
                                      std::span<const uint32_t> register_bits, uint32_t& frame_bytes);

}  // namespace ptxsim
