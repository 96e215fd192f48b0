#include "tools/ptxsim/exec/cta.h"

namespace ptxsim {

Cluster::Cluster(Grid& grid, uint64_t index) {
  const Dim3& extent = grid.launch->grid;
  const Dim3& c = grid.launch->cluster;
  const Dim3 clusters = {extent[0] / c[0], extent[1] / c[1], extent[2] / c[2]};
  const uint64_t x = index % clusters[0], y = index / clusters[0] % clusters[1], z = index / clusters[0] / clusters[1];
  for (uint32_t rank = 0; rank < grid.blocks_per_cluster; ++rank) {
    const uint64_t bx = x * c[0] + rank % c[0], by = y * c[1] + rank / c[0] % c[1], bz = z * c[2] + rank / c[0] / c[1];
    blocks.push_back(std::make_unique<Cta>(grid, (bz * extent[1] + by) * extent[0] + bx));
    blocks.back()->cluster = this;
    blocks.back()->cluster_rank = rank;
  }
}

bool Cluster::step(Worker& worker) {
  bool alive = false, spinning = false, awaits = false;
  progressed_ = false;
  Cta* stuck = nullptr;
  for (const auto& block : blocks) {
    if (block->done()) continue;
    if (block->step(worker)) {
      alive = true;
      awaits = awaits || block->awaits();
      if (block->stuck()) {
        if (stuck == nullptr || block->awaits()) stuck = block.get();
      } else if (!block->progressed()) {
        spinning = true;
      }
    }
    progressed_ = progressed_ || block->progressed();
    if (block->grid.stopped.load(std::memory_order_relaxed)) return false;
  }
  if (!alive || progressed_ || spinning || stuck == nullptr) {
    idle_rounds_ = 0;
  } else if (!awaits || ++idle_rounds_ > kPatience) {
    stuck->fail_stuck();
    return false;
  }
  return alive;
}

}  // namespace ptxsim
