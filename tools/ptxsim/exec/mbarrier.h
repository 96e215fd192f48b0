#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "tools/ptxsim/exec/warp.h"

namespace ptxsim {

class Lowering;

/// An mbarrier object: 8 bytes of shared memory, opaque to programs. The blocks of a cluster run on one thread, so
/// plain accesses are atomic.
struct Mbarrier {
  static constexpr uint32_t kMostArrivals = (1 << 20) - 1;
  static constexpr int32_t kMostBytes = (1 << 20) - 1;

  uint32_t pending = 0;   // arrivals until the phase is complete; 20 bits
  uint32_t expected = 0;  // arrivals of the next phase; 20 bits
  int32_t bytes = 0;      // of copies that are expected and have not landed; 23 bits, for they may land before
  bool phase = false;     // its parity

  static Mbarrier unpack(uint64_t v) {
    return {static_cast<uint32_t>(v & 0xfffff), static_cast<uint32_t>(v >> 20 & 0xfffff),
            static_cast<int32_t>(static_cast<uint32_t>(v >> 40 & 0x7fffff) << 9) >> 9, (v >> 63) != 0};
  }
  uint64_t pack() const {
    return uint64_t{pending} | uint64_t{expected} << 20 | uint64_t{static_cast<uint32_t>(bytes) & 0x7fffff} << 40 |
           uint64_t{phase} << 63;
  }
  static Mbarrier load(const std::byte* p) {
    uint64_t v = 0;
    std::memcpy(&v, p, sizeof v);
    return unpack(v);
  }
  void store(std::byte* p) const {
    const uint64_t v = pack();
    std::memcpy(p, &v, sizeof v);
  }
  void complete_if_done() {
    if (pending != 0 || bytes != 0) return;
    phase = !phase;
    pending = expected;
  }
};

/// For a deadlock's message: what the barrier still waits for.
std::string describe_mbarrier(uint64_t address, const std::byte* object);

/// Word to the observers: the lanes release to, or acquire from, the object at this address (of shared memory, own or
/// the cluster's, or generic).
void tell_release(Warp& warp, int lane, uint64_t address);
void tell_acquire(Warp& warp, int lane, uint64_t address);

/// The block whose shared memory holds such an address, and the offset in it.
struct SharedPlace {
  Cta* block;
  uint32_t offset;
};
SharedPlace shared_place(const Warp& warp, uint64_t address);

/// Lands the bulk copies of the own block that this mbarrier tells of; the lane is the one that looks. False after a
/// fault.
bool land_bulk_copies(Warp& warp, int lane, uint32_t mbarrier);

void lower_mbarrier(Lowering& l);
/// cp.async.mbarrier.arrive (async.cc lands the copies)
void lower_copy_arrival(Lowering& l);

}  // namespace ptxsim
