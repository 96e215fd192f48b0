#include "tools/ptxsim/exec/memory_access.h"

#include <algorithm>

#include "tools/ptxsim/exec/cta.h"

namespace ptxsim {

namespace {

const char* verb(Access::Kind kind) {
  switch (kind) {
    case Access::Kind::kLoad:
    case Access::Kind::kAsyncRead:
      return "read";
    case Access::Kind::kAtomic:
      return "atomic access";
    default:
      return "write";
  }
}

bool misaligned(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, uint32_t alignment, uint32_t bytes,
                bool row, Access::Kind kind, const char* space) {
  const uint64_t bits = alignment - 1;
  if (row && (bytes & bits) == 0 && (address[0] & bits) == 0) return false;
  uint64_t low = 0;
  for (int l = 0; l < kLanes; ++l) low |= (mask >> l & 1) != 0 ? address[l] & bits : 0;
  if (low == 0) return false;
  each_lane(mask, [&](int l) {
    if (low != 0 && (address[l] & bits) != 0) {
      w.fault(Status::kMisalignedAddress, in, l,
              fmt::format("misaligned {} of {} bytes of {} memory at {:#x}: expected a multiple of {}", verb(kind),
                          bytes, space, address[l], alignment));
      low = 0;
    }
  });
  return true;
}

void tell(Warp& w, const Instruction& in, const Access& access) {
  if (w.observer != nullptr) w.observer->access(w, in, access);
  if (w.observer2 != nullptr) w.observer2->access(w, in, access);
}

/// The first lane whose bytes do not all lie in [0, limit).
int outside(Mask mask, const uint64_t* address, uint32_t bytes, uint64_t limit) {
  Mask bad = 0;
  for (int l = 0; l < kLanes; ++l) bad |= Mask{address[l] > limit || limit - address[l] < bytes} << l;
  bad &= mask;
  return bad == 0 ? -1 : std::countr_zero(bad);
}

/// The first lane whose bytes do not all lie in one region, or -1.
int in_red_zone(const std::vector<Grid::SharedRegion>& regions, Mask mask, const uint64_t* address, uint32_t bytes) {
  while (mask != 0) {
    const int lane = std::countr_zero(mask);
    const auto behind = std::find_if(regions.begin(), regions.end(),
                                     [&](const Grid::SharedRegion& r) { return r.offset > address[lane]; });
    if (behind == regions.begin()) return lane;
    const uint64_t offset = behind[-1].offset, end = behind[-1].end;
    Mask inside = 0;
    for (int l = 0; l < kLanes; ++l) inside |= Mask{address[l] >= offset && address[l] + bytes <= end} << l;
    if ((inside >> lane & 1) == 0) return lane;
    mask &= ~inside;
  }
  return -1;
}

/// The variable that an address in no variable means: the nearest.
std::string outside_variables(const std::vector<Grid::SharedRegion>& regions, uint64_t address, uint32_t bytes) {
  const Grid::SharedRegion* before = nullptr;
  const Grid::SharedRegion* next = nullptr;
  for (const Grid::SharedRegion& r : regions) {
    if (r.offset <= address) {
      before = &r;
    } else if (next == nullptr && r.end != r.offset) {
      next = &r;
    }
  }
  if (before != nullptr && address < before->end) {
    return fmt::format("it reaches {} bytes beyond the end of {}", address + bytes - before->end,
                       Grid::describe(*before));
  }
  if (before == nullptr || (next != nullptr && next->offset - address < address - before->end)) {
    return fmt::format("{} bytes before {}", next->offset - address, Grid::describe(*next));
  }
  return fmt::format("{} bytes behind {}", address - before->end, Grid::describe(*before));
}

/// In whole numbers: a lane that is not on may have any address, of which a pointer must not be made by adding.
std::byte* beyond(std::byte* base, uint64_t bytes) {
  return reinterpret_cast<std::byte*>(reinterpret_cast<uint64_t>(base) + bytes);
}

/// Whether a row (see in_row) lies in one region of shared memory.
bool row_in_shared(const Grid& grid, uint64_t first, uint32_t bytes) {
  const uint64_t last = first + uint64_t{kLanes} * bytes;
  if (first > grid.shared_extent || last > grid.shared_extent) return false;
  return grid.shared_regions.empty() ||
         std::any_of(grid.shared_regions.begin(), grid.shared_regions.end(),
                     [&](const Grid::SharedRegion& r) { return first >= r.offset && last <= r.end; });
}

bool locate_shared(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, uint32_t bytes,
                   Access::Kind kind, Located& located) {
  const Grid& grid = w.cta->grid;
  if (located.row && row_in_shared(grid, address[0], bytes)) {
    for (uint64_t l = 0; l < kLanes; ++l) located.pointer[l] = beyond(w.cta->shared, address[0] + l * bytes);
    return true;
  }
  if (const int bad = outside(mask, address, bytes, grid.shared_extent); bad >= 0) {
    w.fault(Status::kIllegalAddress, in, bad,
            fmt::format("out-of-bounds {} of {} bytes of shared memory at {:#x}: the block has {} bytes", verb(kind),
                        bytes, address[bad], grid.shared_bytes));
    return false;
  }
  if (!grid.shared_regions.empty()) {
    if (const int bad = in_red_zone(grid.shared_regions, mask, address, bytes); bad >= 0) {
      w.fault(Status::kIllegalAddress, in, bad,
              fmt::format("out-of-bounds {} of {} bytes of shared memory at {:#x}: {}", verb(kind), bytes, address[bad],
                          outside_variables(grid.shared_regions, address[bad], bytes)));
      return false;
    }
  }
  for (int l = 0; l < kLanes; ++l) located.pointer[l] = beyond(w.cta->shared, address[l]);
  return true;
}

bool locate_local(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, uint32_t bytes, Access::Kind kind,
                  Located& located) {
  const uint64_t limit = w.program().local_bytes;
  const int bad = outside(mask, address, bytes, limit);
  if (bad >= 0) {
    w.fault(Status::kIllegalAddress, in, bad,
            fmt::format("out-of-bounds {} of {} bytes of local memory at {:#x}: the thread has {} bytes", verb(kind),
                        bytes, address[bad], limit));
    return false;
  }
  for (uint64_t l = 0; l < kLanes; ++l) {
    located.pointer[l] = beyond(w.cta->locals, (uint64_t{w.index} * kLanes + l) * limit + address[l]);
  }
  return true;
}

bool locate_param(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, uint32_t bytes, Access::Kind kind,
                  Located& located) {
  const auto& parameters = w.cta->grid.launch->parameters;
  const int bad = outside(mask, address, bytes, parameters.size());
  if (bad >= 0 || kind != Access::Kind::kLoad) {
    const int lane = bad >= 0 ? bad : std::countr_zero(mask);
    w.fault(Status::kIllegalAddress, in, lane,
            fmt::format("out-of-bounds {} of {} bytes of kernel parameters at {:#x}: there are {} bytes", verb(kind),
                        bytes, address[lane], parameters.size()));
    return false;
  }
  for (int l = 0; l < kLanes; ++l) located.pointer[l] = beyond(const_cast<std::byte*>(parameters.data()), address[l]);
  return true;
}

/// The allocation that an address outside of all means: the page behind an allocation is the one before the next, whose
/// start may be nearer.
const Allocation* nearest(const AddressSpace& memory, uint64_t address, const Allocation* here) {
  if (here == nullptr || address < here->base + here->bytes) return here;
  constexpr uint64_t kReach = 4096;
  const Allocation* next = memory.find(address + kReach);
  if (next == nullptr || next == here || !next->live || next->base <= address) return here;
  return next->base - address < address - (here->base + here->bytes) ? next : here;
}

std::string outside_global(uint64_t address, uint32_t bytes, Access::Kind kind, const Allocation* near) {
  std::string text = fmt::format("out-of-bounds {} of {} bytes of global memory at {:#x}", verb(kind), bytes, address);
  if (near == nullptr) {
    return text + ": no allocation is near" + (address < 4096 ? " (a null pointer?)" : " (the host's own memory?)");
  }
  if (!near->live) {
    return fmt::format("use after free: {} of {} bytes at {:#x}, {} bytes into {}, which has been freed", verb(kind),
                       bytes, address, address - near->base, near->describe());
  }
  if (address >= near->base && address - near->base < near->bytes) {
    return text + fmt::format(": it reaches {} bytes beyond the end of {}", address + bytes - near->base - near->bytes,
                              near->describe());
  }
  if (address < near->base) return text + fmt::format(": {} bytes before {}", near->base - address, near->describe());
  return text + fmt::format(": {} bytes behind {}", address - near->base - near->bytes, near->describe());
}

bool locate_global(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, uint32_t bytes,
                   Access::Kind kind, Located& located, Allocation*& common) {
  const AddressSpace& memory = w.cta->grid.machine->memory();
  uint64_t lowest = address[0], highest = address[kLanes - 1];
  if (!located.row) {
    lowest = ~uint64_t{0}, highest = 0;
    for (int l = 0; l < kLanes; ++l) {
      const bool on = (mask >> l & 1) != 0;
      lowest = on && address[l] < lowest ? address[l] : lowest;
      highest = on && address[l] > highest ? address[l] : highest;
    }
  }
  const bool writes = kind != Access::Kind::kLoad && kind != Access::Kind::kAsyncRead;
  Allocation* a = memory.find(lowest);
  if (a != nullptr && a->live.load(std::memory_order_acquire) && lowest >= a->base && highest - a->base < a->bytes &&
      a->bytes - (highest - a->base) >= bytes && !(writes && a->read_only)) {
    common = a;
    w.looked_at_global = true;
    if (a->kind == MemoryKind::kHost || a->kind == MemoryKind::kManaged || a->kind == MemoryKind::kRegistered) {
      w.looked_at_host = true;
    }
    std::byte* const origin = a->host;
    const uint64_t start = a->base;
    for (int l = 0; l < kLanes; ++l) located.pointer[l] = beyond(origin, address[l] - start);
    return true;
  }
  common = nullptr;
  w.looked_at_global = true;
  bool fine = true;
  each_lane(mask, [&](int l) {
    if (!fine) return;
    Allocation* own = memory.find(address[l]);
    if (own != nullptr && own->live && address[l] >= own->base && address[l] - own->base < own->bytes &&
        own->bytes - (address[l] - own->base) >= bytes) {
      if (writes && own->read_only) {
        w.fault(Status::kIllegalAddress, in, l,
                fmt::format("{} of {} bytes at {:#x} in {}, which is read-only", verb(kind), bytes, address[l],
                            own->describe()));
        fine = false;
      }
      located.pointer[l] = own->host + (address[l] - own->base);
      return;
    }
    w.fault(Status::kIllegalAddress, in, l, outside_global(address[l], bytes, kind, nearest(memory, address[l], own)));
    fine = false;
  });
  return fine;
}

/// Shared memory of another block of the cluster.
bool locate_cluster(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, uint32_t bytes,
                    uint32_t alignment, Access::Kind kind, bool synchronising, const std::byte* value,
                    Located& located) {
  const uint64_t limit = w.cta->grid.shared_extent;
  Mask own = 0;
  alignas(64) uint64_t offset[kLanes] = {};
  bool fine = true;
  each_lane(mask, [&](int l) {
    if (!fine) return;
    // The upper bits are zero for the block's own shared memory, else a rank + 1.
    const uint64_t upper = address[l] >> kClusterRankShift;
    const uint64_t rank = upper == 0 ? w.cta->cluster_rank : upper - 1;
    offset[l] = address[l] & ((uint64_t{1} << kClusterRankShift) - 1);
    if (rank >= w.cta->cluster->blocks.size() || offset[l] > limit || limit - offset[l] < bytes) {
      w.fault(Status::kIllegalAddress, in, l,
              fmt::format(
                  "out-of-bounds {} of {} bytes of distributed shared memory at {:#x}: block {} of the cluster of {}, "
                  "offset {:#x} of {} bytes",
                  verb(kind), bytes, address[l], rank, w.cta->cluster->blocks.size(), offset[l], limit));
      fine = false;
      return;
    }
    if (rank == w.cta->cluster_rank) {
      own |= Mask{1} << l;
    } else {
      located.pointer[l] = w.cta->cluster->blocks[rank]->shared + offset[l];
    }
  });
  if (!fine) return false;
  const Mask remote = mask & ~own;
  if (const auto& regions = w.cta->grid.shared_regions; remote != 0 && !regions.empty()) {
    if (const int bad = in_red_zone(regions, remote, offset, bytes); bad >= 0) {
      w.fault(Status::kIllegalAddress, in, bad,
              fmt::format("out-of-bounds {} of {} bytes of distributed shared memory at {:#x}: {}", verb(kind), bytes,
                          address[bad], outside_variables(regions, offset[bad], bytes)));
      return false;
    }
  }
  if (remote != 0 && w.observer != nullptr) {
    tell(w, in, {kind, Space::kSharedCluster, synchronising, remote, bytes, address, nullptr, value});
  }
  if (own == 0) return true;
  Located here;
  if (!locate(w, in, own, offset, Space::kShared, bytes, alignment, kind, synchronising, value, here)) return false;
  if (own == mask) {
    located = here;
    return true;
  }
  each_lane(own, [&](int l) { located.pointer[l] = here.pointer[l]; });
  return true;
}

}  // namespace

bool locate(Warp& w, const Instruction& in, Mask mask, const uint64_t* address, Space space, uint32_t bytes,
            uint32_t alignment, Access::Kind kind, bool synchronising, const std::byte* value, Located& located) {
  Access access{kind, space, synchronising, mask, bytes, address, nullptr, value};
  if (kind != Access::Kind::kLoad && kind != Access::Kind::kAtomic) w.changed_memory = true;
  bool fine = false;
  const bool one_memory = space == Space::kShared || space == Space::kGlobal || space == Space::kConst;
  located.row = one_memory && in_row(mask, address, bytes);
  switch (space) {
    case Space::kShared:
      fine = !misaligned(w, in, mask, address, alignment, bytes, located.row, kind, "shared") &&
             locate_shared(w, in, mask, address, bytes, kind, located);
      break;
    case Space::kGlobal:
    case Space::kConst:
      fine = !misaligned(w, in, mask, address, alignment, bytes, located.row, kind, "global") &&
             locate_global(w, in, mask, address, bytes, kind, located, access.allocation);
      break;
    case Space::kLocal:
      fine = !misaligned(w, in, mask, address, alignment, bytes, located.row, kind, "local") &&
             locate_local(w, in, mask, address, bytes, kind, located);
      break;
    case Space::kParam:
      fine = locate_param(w, in, mask, address, bytes, kind, located);
      break;
    case Space::kSharedCluster:
      return locate_cluster(w, in, mask, address, bytes, alignment, kind, synchronising, value, located);
    case Space::kGeneric: {
      // Lanes may point into different windows; each window is one access of its own.
      alignas(64) uint64_t inside[kLanes];
      while (mask != 0) {
        const uint64_t window = address[std::countr_zero(mask)] & kWindowMask;
        Mask same = 0;
        for (int l = 0; l < kLanes; ++l) {
          same |= Mask{(address[l] & kWindowMask) == window} << l;
          inside[l] = address[l] & ~kWindowMask;
        }
        same &= mask;
        Located part;
        const Space real = window == kWindowShared  ? Space::kSharedCluster
                           : window == kWindowLocal ? Space::kLocal
                           : window == kWindowParam ? Space::kParam
                                                    : Space::kGlobal;
        if (!locate(w, in, same, real == Space::kGlobal ? address : inside, real, bytes, alignment, kind, synchronising,
                    value, part)) {
          return false;
        }
        if (same == kAllLanes) {
          located = part;
          return true;
        }
        each_lane(same, [&](int l) { located.pointer[l] = part.pointer[l]; });
        mask &= ~same;
      }
      return true;
    }
  }
  if (fine && w.observer != nullptr) tell(w, in, access);
  return fine;
}

}  // namespace ptxsim
