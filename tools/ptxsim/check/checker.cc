#include "tools/ptxsim/check/checker.h"

#include <cstring>

#include "tools/ptxsim/check/watcher.h"
#include "tools/ptxsim/machine/machine.h"

namespace ptxsim {

std::shared_ptr<LaunchShadow> Checker::State::launch_begins(Grid& grid) {
  const std::lock_guard lock(mutex);
  if (launches.empty() && intervals.nearly_used_up()) {
    intervals.restart();
    ++generation;
    spare_blocks.clear();
  }
  auto& [launch, workers] = launches[&grid];
  if (launch == nullptr) launch = std::make_shared<LaunchShadow>(*grid.program, grid.sequence, intervals.now());
  ++workers;
  return launch;
}

void Checker::State::launch_ends(const Grid* grid) {
  const std::lock_guard lock(mutex);
  const auto at = launches.find(grid);
  if (--at->second.second != 0) return;
  for (const auto& [key, found] : at->second.first->deferred()) {
    for (uint64_t i = 0; i < found.times; ++i) findings->add(key, found.text);
  }
  launches.erase(at);
  if (launches.empty()) intervals.forget_owners();
}

std::unique_ptr<BlockShadow> Checker::State::take_block() {
  {
    const std::lock_guard lock(mutex);
    if (!spare_blocks.empty()) {
      std::unique_ptr<BlockShadow> block = std::move(spare_blocks.back());
      spare_blocks.pop_back();
      return block;
    }
  }
  return std::make_unique<BlockShadow>();
}

void Checker::State::give_block(std::unique_ptr<BlockShadow> block) {
  constexpr size_t kSpares = 64;
  const std::lock_guard lock(mutex);
  if (spare_blocks.size() < kSpares) spare_blocks.push_back(std::move(block));
}

GlobalShadow& Checker::State::shadow_of(Allocation& allocation) {
  const std::lock_guard lock(mutex);
  if (allocation.shadow == nullptr) {
    auto fresh = std::make_unique<GlobalShadow>(allocation);
    fresh->generation = generation;
    allocation.shadow = std::move(fresh);
  }
  auto& shadow = static_cast<GlobalShadow&>(*allocation.shadow);
  if (shadow.generation != generation) {
    shadow.records.clear();
    shadow.generation = generation;
  }
  return shadow;
}

Checker::Checker(Machine& machine, Findings& findings) : state_(std::make_unique<State>(machine, findings)) {}

Checker::~Checker() = default;

std::unique_ptr<Observer> Checker::observe(Grid& grid) { return std::make_unique<Watcher>(*state_, grid); }

// --- what the host does ----------------------------------------------------------------------------------------------

namespace {

/// The part of a range that lies in its allocation.
uint64_t within(const Allocation& a, uint64_t address, uint64_t bytes) {
  return std::min(bytes, a.base + a.bytes - address);
}

Allocation* tracked(const Machine& machine, uint64_t address) {
  Allocation* a = const_cast<Machine&>(machine).memory().find_live(address, 1);
  return a != nullptr && GlobalShadow::tracks(*a) ? a : nullptr;
}

}  // namespace

void Checker::host_wrote(uint64_t address, uint64_t bytes) {
  Allocation* a = tracked(*state_->machine, address);
  if (a == nullptr || bytes == 0) return;
  GlobalShadow& shadow = state_->shadow_of(*a);
  if (bytes >= a->bytes && address == a->base) {
    shadow.set_complete();
  } else if (uint8_t* flags = shadow.written()) {
    written::set(flags + (address - a->base), within(*a, address, bytes));
  }
}

void Checker::host_reads(uint64_t address, uint64_t bytes, const char* call) {
  Allocation* a = tracked(*state_->machine, address);
  if (a == nullptr || bytes == 0) return;
  const uint8_t* flags = state_->shadow_of(*a).written();
  // Copying back a buffer of which a part was written is common, and no fault.
  if (flags == nullptr || written::any(flags + (address - a->base), within(*a, address, bytes))) return;
  state_->findings->add(fmt::format("uninitialised|{}|{}", call, a->sequence),
                        fmt::format("{}: read of {} bytes of uninitialised global memory at {:#x}, in {}", call, bytes,
                                    address, a->describe()));
}

void Checker::device_copied(uint64_t to, uint64_t from, uint64_t bytes) {
  Allocation* target = tracked(*state_->machine, to);
  if (target == nullptr) return;
  const Allocation* source = tracked(*state_->machine, from);
  const uint8_t* read = source != nullptr ? state_->shadow_of(*const_cast<Allocation*>(source)).written() : nullptr;
  if (read == nullptr) {
    host_wrote(to, bytes);
  } else if (uint8_t* flags = state_->shadow_of(*target).written()) {
    std::memmove(flags + (to - target->base), read + (from - source->base),
                 std::min(within(*target, to, bytes), within(*source, from, bytes)));
  }
}

void Checker::find_leaks() {
  for (const Allocation* a : state_->machine->memory().live_allocations()) {
    const bool programs_own = a->kind == MemoryKind::kDevice || a->kind == MemoryKind::kPool ||
                              a->kind == MemoryKind::kManaged || a->kind == MemoryKind::kHost ||
                              a->kind == MemoryKind::kHeap;
    if (!programs_own || !a->name.empty() || a->recurring) continue;
    if (a->kind == MemoryKind::kHeap) {  // every thread may have its own
      state_->findings->add("leak|" + a->site, fmt::format("leak: {}: {} was never freed", a->site, a->describe()));
      continue;
    }
    state_->findings->add(fmt::format("leak|{}", a->sequence), fmt::format("leak: {} was never freed", a->describe()));
  }
}

}  // namespace ptxsim
