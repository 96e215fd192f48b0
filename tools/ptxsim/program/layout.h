#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tools/ptxsim/program/program.h"

namespace ptxsim {

/// Slot::Base of a register whose place is not yet known: the offset is its number.
constexpr Slot::Base kVirtual = static_cast<Slot::Base>(3);

/// An instruction before blocks are ordered and registers placed.
struct Draft {
  Instruction instruction;
  Origin origin;
  std::unique_ptr<Slot[]> slots;
  std::vector<uint32_t> reads, writes;  // virtual registers
  std::vector<uint32_t> kills;          // temporaries, whose value before does not matter even under a guard
  std::vector<std::string> labels;      // where it branches to
  std::vector<uint32_t> successors;     // the same as drafts
  bool table = false;                   // brx.idx
  bool falls_through = true;
  bool leaves = false;      // ret, exit, trap
  bool ends_block = false;  // call
};

/// A draft in its final place, or a jump to one that had to be put between.
struct LaidOut {
  uint32_t draft;  // of a jump: its target
  bool jump = false;
  uint32_t after = 0;  // of a jump: the draft before it
};

/// Orders the blocks so that the one with the smallest address among diverged lanes is the one to run: reverse
/// postorder with loops kept together and what follows a loop behind it. Lanes then meet again where their paths do.
/// (Diamos et al., "SIMD re-convergence at thread frontiers", MICRO 2011.) Unreachable drafts are left out.
std::vector<LaidOut> lay_out(const std::vector<Draft>& drafts);

}  // namespace ptxsim
