#include "tools/ptxsim/exec/cta.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tools/ptxsim/exec/mbarrier.h"

namespace ptxsim {

void Grid::fail(Status status, std::string message) {
  const std::lock_guard lock(mutex);
  if (outcome.status != Status::kOk) return;
  outcome = {status, std::move(message)};
  stopped = true;
}

std::string Grid::describe(const SharedRegion& region) {
  return region.variable.empty() ? std::string("dynamic shared memory") : fmt::format("variable '{}'", region.variable);
}

namespace {

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// A block's memory is mostly as large as that of the block before it on this thread, which leaves its own here.
struct Spare {
  std::byte* memory = nullptr;
  size_t bytes = 0;
  ~Spare() { std::free(memory); }
};
thread_local Spare spare;

std::byte* take_memory(size_t bytes) {
  if (spare.bytes == bytes) {
    spare.bytes = 0;
    return std::exchange(spare.memory, nullptr);
  }
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(1024, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void give_memory(std::byte* memory, size_t bytes) {
  std::free(std::exchange(spare.memory, memory));
  spare.bytes = bytes;
}

}  // namespace

Cta::Cta(Grid& the_grid, uint64_t linear) : grid(the_grid), linear_index(linear) {
  const Dim3& extent = grid.launch->grid;
  index = {static_cast<uint32_t>(linear % extent[0]), static_cast<uint32_t>(linear / extent[0] % extent[1]),
           static_cast<uint32_t>(linear / extent[0] / extent[1])};
  const Program& program = *grid.program;
  const size_t specials = static_cast<size_t>(Special::kCount) * 4 * kLanes;
  const size_t per_warp = round_up(program.frame_bytes) + specials;
  const size_t local = round_up(size_t{program.local_bytes} * grid.warps_per_block * kLanes);
  const size_t shared_size = (size_t{grid.shared_extent} + 1023) / 1024 * 1024;
  memory_bytes_ = (shared_size + local + per_warp * grid.warps_per_block + 1023) / 1024 * 1024;
  shared = take_memory(memory_bytes_);
  locals = shared + shared_size;
  // What a program has not written is no number that it could rely on.
  std::memset(shared, 0xff, shared_size + local);
  warps.resize(grid.warps_per_block);
  std::byte* frames = locals + local;
  for (uint32_t w = 0; w < grid.warps_per_block; ++w, frames += per_warp) {
    Warp& warp = warps[w];
    warp.cta = this;
    warp.frames_ = frames;
    warp.base[Slot::kFrame] = frames;
    warp.base[Slot::kConstants] = const_cast<std::byte*>(grid.constants);
    warp.base[Slot::kSpecials] = frames + round_up(program.frame_bytes);
    const uint32_t lanes = std::min<uint32_t>(kLanes, grid.threads_per_block - w * kLanes);
    warp.start(w, lanes == kLanes ? kAllLanes : (Mask{1} << lanes) - 1, program.functions.front().pc);
  }
}

Cta::~Cta() { give_memory(shared, memory_bytes_); }

void Cta::fill_specials() {
  const Launch& launch = *grid.launch;
  const Dim3 clusters = {launch.grid[0] / launch.cluster[0], launch.grid[1] / launch.cluster[1],
                         launch.grid[2] / launch.cluster[2]};
  const Dim3 in_cluster = {index[0] % launch.cluster[0], index[1] % launch.cluster[1], index[2] % launch.cluster[2]};
  const auto multiprocessors = static_cast<uint32_t>(grid.machine->gpu().multiprocessors);
  for (Warp& warp : warps) {
    const auto fill = [&](Special special, auto value_of_lane) {
      auto* lanes = warp.lanes<uint32_t>(Slot::at(Slot::kSpecials, static_cast<uint32_t>(special) * 4 * kLanes));
      for (int l = 0; l < kLanes; ++l) lanes[l] = static_cast<uint32_t>(value_of_lane(l));
    };
    const auto set = [&](Special special, uint64_t value) { fill(special, [&](int) { return value; }); };
    const auto set3 = [&](Special first, const Dim3& value) {
      for (int i = 0; i < 3; ++i) set(static_cast<Special>(static_cast<int>(first) + i), value[static_cast<size_t>(i)]);
    };
    Dim3 thread = warp.thread_of(0);
    for (int l = 0; l < kLanes; ++l) {
      for (uint32_t i = 0; i < 3; ++i) {
        warp.lanes<uint32_t>(Slot::at(Slot::kSpecials, (static_cast<uint32_t>(Special::kTidX) + i) * 4 * kLanes))[l] =
            thread[i];
      }
      if (++thread[0] == launch.block[0]) {
        thread[0] = 0;
        if (++thread[1] == launch.block[1]) {
          thread[1] = 0;
          ++thread[2];
        }
      }
    }
    set3(Special::kNtidX, launch.block);
    set3(Special::kCtaidX, index);
    set3(Special::kNctaidX, launch.grid);
    fill(Special::kLaneid, [](int l) { return l; });
    set(Special::kWarpid, warp.index);
    set(Special::kNwarpid, static_cast<uint64_t>(grid.machine->gpu().max_warps_per_sm));
    set(Special::kSmid, linear_index % multiprocessors);
    set(Special::kNsmid, multiprocessors);
    fill(Special::kLanemaskEq, [](int l) { return uint32_t{1} << l; });
    fill(Special::kLanemaskLt, [](int l) { return (uint32_t{1} << l) - 1; });
    fill(Special::kLanemaskLe, [](int l) { return (uint64_t{2} << l) - 1; });
    fill(Special::kLanemaskGt, [](int l) { return ~((uint64_t{2} << l) - 1); });
    fill(Special::kLanemaskGe, [](int l) { return ~((uint32_t{1} << l) - 1); });
    set(Special::kDynamicSmemSize, launch.dynamic_shared);
    set(Special::kTotalSmemSize, grid.shared_bytes);
    set(Special::kAggrSmemSize, grid.shared_bytes);
    set(Special::kZero, 0);
    set3(Special::kClusteridX,
         {index[0] / launch.cluster[0], index[1] / launch.cluster[1], index[2] / launch.cluster[2]});
    set3(Special::kNclusteridX, clusters);
    set3(Special::kClusterCtaidX, in_cluster);
    set3(Special::kClusterNctaidX, launch.cluster);
    set(Special::kClusterCtarank, cluster_rank);
    set(Special::kClusterNctarank, grid.blocks_per_cluster);
    set(Special::kIsExplicitCluster, grid.blocks_per_cluster > 1 ? 1 : 0);
    // Cooperative launches: the halves of the address of the grid's barrier.
    set(Special::kEnvreg1, grid.barrier_address >> 32);
    set(Special::kEnvreg2, grid.barrier_address & 0xffffffff);
    auto* gridid =
        warp.lanes<uint64_t>(Slot::at(Slot::kSpecials, static_cast<uint32_t>(Special::kGridid) * 4 * kLanes));
    for (int l = 0; l < kLanes; ++l) gridid[l] = grid.sequence;
  }
}

bool Cta::step(Worker& the_worker, uint64_t budget) {
  worker = &the_worker;
  if (!started_) {
    started_ = true;
    fill_specials();
    for (auto& observer : worker->observers) observer->begin_cta(*this);
  }
  const bool adversarial = grid.machine->options().adversarial;
  const size_t first = adversarial ? worker->random() % warps.size() : 0;
  bool alive = false;
  progressed_ = false;
  bool waits_on_memory = false;
  awaits_ = false;
  for (size_t i = 0; i < warps.size(); ++i) {
    Warp& warp = warps[(first + i) % warps.size()];
    if (warp.alive() == 0) continue;
    if (!warp.blocked()) {
      warp.worker = worker;
      warp.counting = !worker->executed.empty();
      warp.observer = !worker->observers.empty() ? worker->observers[0].get() : nullptr;
      warp.observer2 = worker->observers.size() > 1 ? worker->observers[1].get() : nullptr;
      warp.run(adversarial ? 1 + worker->random() % 64 : budget);
      if (grid.stopped.load(std::memory_order_relaxed)) return false;
      if (std::exchange(warp.changed_memory, false)) grid.machine->memory_changed();
      if (warp.spinning() && warp.awaited().instruction != nullptr) {
        awaits_ = true;
      } else if (warp.spinning()) {
        waits_on_memory = true;
      } else {
        progressed_ = true;
      }
    }
    alive = alive || warp.alive() != 0;
  }
  // Every warp was found waiting for others of the block or cluster: nothing in the block can change that.
  stuck_ = alive && !progressed_ && !waits_on_memory;
  if (!alive) {
    done_ = true;
    for (auto& observer : worker->observers) observer->end_cta(*this);
  }
  return alive;
}

void Cta::fail_stuck() {
  for (const Warp& warp : warps) {
    const Warp::Awaited& awaited = warp.awaited();
    if (warp.alive() == 0 || awaited.instruction == nullptr) continue;
    const auto t = warp.thread_of(awaited.lane);
    grid.fail(
        Status::kDeadlock,
        fmt::format("{}: {}, thread ({}, {}, {}): deadlock: {}", grid.program->place(awaited.instruction->index),
                    describe(), t[0], t[1], t[2],
                    awaited.mbarrier != nullptr ? describe_mbarrier(awaited.address, awaited.mbarrier)
                                                : std::string("waits for warps of its warpgroup that never come")));
    return;
  }
  for (const Warp& warp : warps) {
    for (const Group& g : const_cast<Warp&>(warp).groups()) {
      const uint32_t pc = g.state == Group::State::kConverge ? g.pc : g.wait_pc;
      const auto lane = std::countr_zero(g.mask);
      const auto t = warp.thread_of(lane);
      const char* what = g.state == Group::State::kBarrier    ? "waits at a barrier that others never reach"
                         : g.state == Group::State::kConverge ? "waits for lanes of its warp that never come"
                                                              : "waits at __syncwarp for lanes that never come";
      grid.fail(Status::kDeadlock, fmt::format("{}: {}, thread ({}, {}, {}) (lanes {:#010x} of its warp): deadlock: {}",
                                               grid.program->place(pc), describe(), t[0], t[1], t[2], g.mask, what));
      return;
    }
  }
}

uint32_t Cta::alive_threads() const {
  uint32_t n = 0;
  for (const Warp& w : warps) n += static_cast<uint32_t>(std::popcount(w.alive()));
  return n;
}

void Cta::arrive(Warp& warp, Mask lanes, int id, uint32_t threads, bool waits) {
  for (auto& observer : worker->observers) observer->barrier_arrive(warp, lanes, id, waits);
  Barrier& b = barriers[id];
  b.arrived += static_cast<uint32_t>(std::popcount(lanes));
  b.expected = threads;
  if (threads != 0) {
    // A barrier of so many threads counts whole warps: lanes that have exited arrive with the last of the others.
    const Mask before = b.lanes[warp.index];
    const Mask all = before | lanes;
    b.lanes[warp.index] = all;
    if (all == warp.alive() || lanes == warp.alive()) {
      b.arrived += kLanes - static_cast<uint32_t>(std::popcount(warp.alive()));
      b.lanes[warp.index] = 0;
    }
  }
  if (waits) b.waiting.push_back(warp.index);
  complete_if_full(id);
}

void Cta::complete_if_full(int id) {
  Barrier& b = barriers[id];
  if (b.arrived == 0) return;
  const uint32_t expected = b.expected != 0 ? b.expected : alive_threads();
  if (b.arrived < expected) return;
  for (auto& observer : worker->observers) observer->barrier_complete(*this, id);
  const std::vector<uint32_t> waiting = std::move(b.waiting);
  b = {};
  reduced[id] = std::exchange(reductions[id], {});
  for (const uint32_t w : waiting) warps[w].release_barrier(id);
}

void Cta::lanes_exited(Warp& warp) {
  for (int id = 0; id < 16; ++id) {
    if (barriers[id].expected == 0) complete_if_full(id);
  }
  if (cluster != nullptr) cluster->lanes_exited(warp);
}

std::string Cta::describe() const { return fmt::format("block ({}, {}, {})", index[0], index[1], index[2]); }

}  // namespace ptxsim
