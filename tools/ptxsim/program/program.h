#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tools/ptxsim/ptx/module.h"

/// A kernel in the form in which it runs: one instruction after the other, each a handler and where its operands lie.
namespace ptxsim {

class Warp;
struct Instruction;

constexpr int kLanes = 32;
using Mask = uint32_t;  // bit l: lane l
constexpr Mask kAllLanes = ~Mask{0};

/// Executes one instruction for the lanes of `mask`, which is never empty.
using Handler = void (*)(Warp& warp, const Instruction& instruction, Mask mask);

/// Where the 32 lanes of a value lie, lane after lane: in the frame of the running function, among the kernel's
/// constants (each broadcast to 32 lanes), or among the warp's special registers. A register of 8 or 16 bits is
/// uint16_t[32], of 32 uint32_t[32], of 64 uint64_t[32], of 128 two uint64_t[32] (low halves first); a predicate is one
/// Mask. Slots of lanes are 64-byte aligned.
struct Slot {
  enum Base : uint32_t { kFrame = 0, kConstants = 1, kSpecials = 2 };
  uint32_t reference = 0;  // base << 30 | offset in bytes

  static Slot at(Base base, uint32_t offset) { return {base << 30 | offset}; }
  Base base() const { return static_cast<Base>(reference >> 30); }
  uint32_t offset() const { return reference & 0x3fffffff; }
};

/// How counters file an instruction.
enum class Kind : uint8_t {
  kMove,     // mov, selp, prmt, cvta…
  kInteger,  // 32-bit integer arithmetic and logic
  kInteger64,
  kFp32,     // add, mul, min…
  kFp32Fma,  // counted as two operations
  kFp16,     // f16/bf16, packed too
  kFp16Fma,
  kFp64,
  kFp64Fma,
  kSpecial,  // rcp, rsqrt, ex2, lg2, sin, cos, tanh
  kConversion,
  kPredicate,  // setp and logic on predicates
  kControl,    // bra, call, ret, exit
  kBarrier,    // bar, barrier, mbarrier, fences
  kWarp,       // shfl, vote, match, redux, activemask, elect
  kLoad,
  kStore,
  kAtomic,     // atom, red
  kAsyncCopy,  // cp.async, bulk copies and their groups
  kMatrix,     // ldmatrix, stmatrix, movmatrix
  kTensor,     // mma, wgmma
  kOther,
  kCount
};

enum class Space : uint8_t { kGlobal, kShared, kLocal, kParam, kConst, kGeneric, kSharedCluster };

/// What a memory instruction moves per lane: `elements` of `bytes` each, from one address on.
struct MemoryTraits {
  Space space = Space::kGeneric;
  uint8_t bytes = 0;           // of an element: 1, 2, 4, 8, 16
  uint8_t elements = 1;        // 1, 2, 4, 8
  bool synchronising = false;  // volatile, relaxed, acquire, release, atomic: other threads may access it meanwhile

  uint32_t total() const { return uint32_t{bytes} * elements; }
};

constexpr uint32_t kRecursionDepth = 256;

constexpr uint32_t kNoGuard = ~uint32_t{0};

struct Instruction {
  Handler execute = nullptr;
  const Slot* slots = nullptr;  // destinations first; how many, the handler knows
  uint64_t immediate = 0;       // the handler's: an address offset, a count…
  uint32_t guard = kNoGuard;    // frame offset of a predicate
  uint32_t target = 0;          // of a branch or call
  uint32_t index = 0;           // in Program::code
  bool guard_negated = false;
  uint8_t slot_count = 0;
  MemoryTraits memory;
  uint8_t flags[6] = {};  // the handler's
};

/// What reports say of an instruction; beside the code, for the hot loop does not need it.
struct Origin {
  const ptx::Instruction* text = nullptr;
  Kind kind = Kind::kOther;
  bool hidden = false;  // made by the compiler of this program (a jump that joins blocks): not counted
};

/// A function's part of the code.
struct FunctionEntry {
  const ptx::Function* function = nullptr;
  uint64_t address = 0;  // what pointers to it hold
  uint32_t pc = 0;
  uint32_t frame_bytes = 0;
  uint32_t local_bytes = 0;  // of the function itself
  // Where its formal parameters and results lie in its frame: bytes of lane 0, then of lane 1…
  struct ParameterPlace {
    uint32_t offset, bytes;  // offset of lane 0's bytes; lane l's at offset + l * bytes
  };
  std::vector<ParameterPlace> parameters, results;
};

struct Program {
  std::string kernel;  // mangled
  const ptx::Module* module = nullptr;
  std::vector<Instruction> code;
  std::vector<Origin> origins;  // by index
  std::vector<std::unique_ptr<Slot[]>> slot_pool;
  std::vector<std::vector<uint32_t>> jump_tables;
  std::vector<std::byte> constants;      // 64-byte aligned offsets; copied to aligned memory by the machine
  std::vector<FunctionEntry> functions;  // the kernel first, then all that it may call
  uint32_t frame_bytes = 0;              // of a warp: enough for the deepest chain of calls
  uint32_t local_bytes = 0;              // of a thread, likewise
  bool recursive = false;                // then both allow for kRecursionDepth calls, and deeper ones are a fault
  uint32_t shared_static_bytes = 0;      // as the device counts them
  std::map<std::string, uint32_t> shared_offsets;  // variables; dynamic ones start behind the static part
  struct SharedVariable {
    std::string name;
    uint32_t offset, bytes;
  };
  std::vector<SharedVariable> shared_variables;  // the static ones, in their order
  uint32_t shared_dynamic_offset = 0;            // without red zones the end of the static part
  uint32_t parameter_bytes = 0;

  /// "kernel(float*), file.cu:12: ld.global.f32" for messages.
  std::string place(uint32_t pc) const;
};

/// Windows of generic addresses: the upper byte says the space, the rest is the space's own address. Host and device
/// addresses stay below 2^47.
constexpr uint64_t kWindowShared = uint64_t{1} << 56, kWindowLocal = uint64_t{2} << 56,
                   kWindowParam = uint64_t{3} << 56;
constexpr uint64_t kWindowFunction = uint64_t{4} << 56;
constexpr uint64_t kWindowMask = uint64_t{0xff} << 56;

/// A 32-bit shared::cluster address: rank of a block in its cluster + 1 (mapa), or 0 for the block's own memory, above
/// the offset in that shared memory.
constexpr uint32_t kClusterRankShift = 24;

}  // namespace ptxsim
