#include <utility>

#include "tools/ptxsim/exec/cta.h"

namespace ptxsim {

namespace {

/// Of all that decides what a warp does next but memory: its registers, and where its lanes stand.
uint64_t state_of(Warp& warp) {
  uint64_t state = warp.index;
  const auto add = [&](uint64_t value) { state = (state ^ value) * 0x9e3779b97f4a7c15 + (state >> 29); };
  for (const Group& g : warp.groups()) {
    add(uint64_t{g.pc} << 32 | g.mask);
    add(uint64_t{g.frame} << 32 | static_cast<uint64_t>(g.state));
  }
  const auto* registers = reinterpret_cast<const uint64_t*>(warp.frame_at(0));
  for (uint32_t i = 0; i < warp.program().frame_bytes / 8; ++i) add(registers[i]);
  return state;
}

}  // namespace

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
  if (alive && (progressed_ ? executed_much() : spinning)) look_for_cycle();
  if (alive && !progressed_ && !spinning && stuck != nullptr) {
    if (awaits) look_for_cycle();
    bool elsewhere = false;
    for (const auto& block : blocks) {
      for (Warp& warp : block->warps) elsewhere = std::exchange(warp.looked_at_global, false) || elsewhere;
    }
    // What only the cluster itself can change, nobody will.
    own_cycles_ = elsewhere || nothing_new_ == 0 ? 0 : own_cycles_ + 1;
    idle_rounds_ = elsewhere ? 0 : idle_rounds_ + 1;
    if (!awaits || own_cycles_ >= kCycles || idle_rounds_ > kPatience) {
      stuck->fail_stuck();
      return false;
    }
  } else {
    idle_rounds_ = 0;
    // The adversarial schedule stops warps before they have said that they only wait.
    if (!blocks.front()->grid.machine->options().adversarial) own_cycles_ = 0;
  }
  return alive;
}

/// Whether a warp may have used up its turn: a loop without an end need not look at memory at all.
bool Cluster::executed_much() {
  constexpr uint64_t kMuch = 1 << 16;
  if (blocks.front()->grid.machine->options().adversarial) return false;
  uint64_t executed = 0;
  for (const auto& block : blocks) {
    for (const Warp& warp : block->warps) executed += warp.executed;
  }
  if (executed - executed_seen_ < kMuch) {
    nothing_new_ = 0;
    return false;
  }
  executed_seen_ = executed;
  return true;
}

void Cluster::look_for_cycle() {
  bool fresh = false;
  const uint64_t changes = blocks.front()->grid.machine->memory_changes();
  if (changes != changes_seen_ || states_.size() > kMostStates) {
    changes_seen_ = changes;
    states_.clear();
  }
  for (const auto& block : blocks) {
    for (Warp& warp : block->warps) {
      // The host may write at any time, and nobody sees it.
      fresh = std::exchange(warp.looked_at_host, false) || fresh;
      if (warp.alive() != 0) fresh = states_.insert(state_of(warp) ^ block->linear_index << 48).second || fresh;
    }
  }
  nothing_new_ = fresh ? 0 : nothing_new_ + 1;
}

void Cluster::fail_cycling(const std::string& why) {
  for (const auto& block : blocks) {
    for (Warp& warp : block->warps) {
      if (warp.alive() == 0 || warp.blocked()) continue;
      const Group& g = warp.running();
      const auto t = warp.thread_of(std::countr_zero(g.mask));
      block->grid.fail(
          Status::kDeadlock,
          fmt::format("{}: {}, thread ({}, {}, {}): deadlock: goes round for ever, and nobody changes memory any "
                      "more: {}",
                      warp.program().place(g.pc == 0 ? 0 : g.pc - 1), block->describe(), t[0], t[1], t[2], why));
      return;
    }
  }
}

}  // namespace ptxsim
