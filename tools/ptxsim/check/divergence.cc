#include <bit>

#include "tools/ptxsim/check/watcher.h"

/// Barriers that some threads come to and others pass by. Threads that return early, before a barrier that the others
/// wait at, are no fault in practice; threads that went past it and did what the others do behind it are, and those
/// that left a loop around it while the others go round again.
namespace ptxsim {

namespace {

constexpr int kBlockBarrier = 0;  // __syncthreads(); others may be meant for some of the warps

}  // namespace

void Watcher::barrier_arrive(Warp& warp, Mask lanes, int barrier, bool waits) {
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = up_to_date(warp);
  b.barrier_arrive(w, lanes, warp.alive(), barrier, waits);
  if (barrier == Cluster::kBarrier) {
    b.release_to_blocks(w, lanes, warp.alive());
    return;
  }
  if (barrier != kBlockBarrier || !waits) return;
  const uint32_t place = warp.pc - 1, site = barrier_site(place);
  BlockShadow::Rounds& rounds = b.rounds_at(site);
  each_lane(lanes, [&](int l) {
    w.last_barrier[l] = site;
    if (++w.barriers[l] <= rounds.latest) return;
    rounds.latest = w.barriers[l];
    rounds.place = place;
    rounds.latest_thread = w.index * kLanes + static_cast<uint32_t>(l);
  });
  w.barrier_place = place;
  if (rounds.latest > rounds.exited) went_round_again(*warp.cta, rounds);
}

uint32_t Watcher::barrier_site(uint32_t place) const {
  constexpr uint32_t kOfText = uint32_t{1} << 31;
  const ptx::Instruction* text = reporter_.program().origins[place].text;
  return text != nullptr && text->source != 0 ? text->source | kOfText : place;
}

void Watcher::went_round_again(const Cta& cta, const BlockShadow::Rounds& rounds) {
  const uint32_t place = rounds.place;
  reporter_.add(
      {6, place, 0}, [&] { return fmt::format("divergence|{}", reporter_.site(place)); },
      [&] {
        return fmt::format(
            "{}: barrier divergence: this thread waited here at its barrier number {}, but thread {} of the block came "
            "here at its number {} for the last time and exited",
            reporter_.who(cta, rounds.latest_thread / kLanes, rounds.latest_thread % kLanes, place), rounds.latest,
            reporter_.thread(rounds.exited_thread / kLanes, rounds.exited_thread % kLanes), rounds.exited);
      });
}

void Watcher::barrier_diverged(Warp& warp, const Instruction& in, Mask, Mask) {
  // Where several groups of the warp wait, each at its own barrier, it is one fault: the first in the text.
  const Group* here = nullptr;
  const Group* elsewhere = nullptr;
  for (const Group& g : warp.groups()) {
    if (g.pc == in.index || g.forced || (g.state == Group::State::kConverge && g.barrier >= 0)) {
      if (here == nullptr || g.pc < here->pc) here = &g;
    }
  }
  if (here == nullptr) return;
  for (const Group& g : warp.groups()) {
    if (&g != here && g.mask != 0) elsewhere = &g;
  }
  const uint32_t place = here->pc;
  reporter_.add(
      {4, place, 0}, [&] { return fmt::format("divergence|{}", reporter_.site(place)); },
      [&] {
        std::string others = "elsewhere";
        if (elsewhere != nullptr) {
          const bool behind =
              elsewhere->state == Group::State::kBarrier || elsewhere->state == Group::State::kWarpBarrier;
          others = "at " + reporter_.where(behind ? elsewhere->wait_pc : elsewhere->pc);
        }
        return fmt::format(
            "{}: barrier divergence: lanes {:#010x} of the warp wait at this barrier, but lanes {:#010x} wait {}",
            reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(std::countr_zero(here->mask)), place),
            here->mask, warp.alive() & ~here->mask, others);
      });
}

void Watcher::note_store(Warp& warp, const Instruction& in, Mask lanes) {
  const uint16_t store = launch_->traits(in.index).store;
  if (store == 0) return;
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = shadow(warp);
  WarpShadow::StoreSeen& seen = w.stores[store];
  while (lanes != 0) {
    const int first = std::countr_zero(lanes);
    const uint32_t barriers = w.barriers[first];
    Mask same = 0;
    for (int l = 0; l < kLanes; ++l) same |= Mask{w.barriers[l] == barriers} << l;
    same &= lanes;
    lanes &= ~same;
    if (seen.barriers != barriers) {
      seen.barriers = barriers;
      seen.in_phase = 0;
    }
    const BlockShadow::Left& left = b.left[store];
    if (b.anyone_left && left.valid && barriers > left.barriers && (same & ~seen.ever) != 0) {
      reporter_.add(
          {5, w.barrier_place, in.index}, [&] { return fmt::format("divergence|{}", reporter_.site(w.barrier_place)); },
          [&] {
            return fmt::format(
                "{}: barrier divergence: this thread waited here, but thread {} of the block went past this "
                "barrier, executed {} and exited",
                reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(std::countr_zero(same & ~seen.ever)),
                              w.barrier_place),
                reporter_.thread(left.thread / kLanes, left.thread % kLanes), reporter_.where(left.place));
          });
    }
    seen.in_phase |= same;
    seen.ever |= same;
  }
}

void Watcher::lanes_exit(Warp& warp, Mask lanes) {
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = shadow(warp);
  w.undefined.exit(lanes);
  // The block's last threads: whoever else uses its shared memory must have done so before.
  if (b.remote.id != kNobody && warp.cta->alive_threads() == static_cast<uint32_t>(std::popcount(lanes)) &&
      w.clock(std::countr_zero(lanes)).acquired <= b.remote.id) {
    outlived(*warp.cta, b.remote);
  }
  each_lane(lanes, [&](int l) {
    if (w.barriers[l] == 0) return;
    BlockShadow::Rounds& rounds = b.rounds_at(w.last_barrier[l]);
    if (w.barriers[l] >= rounds.exited) return;
    rounds.exited = w.barriers[l];
    rounds.exited_thread = w.index * kLanes + static_cast<uint32_t>(l);
    if (rounds.latest > rounds.exited) went_round_again(*warp.cta, rounds);
  });
  for (size_t s = 1; s < w.stores.size(); ++s) {
    const WarpShadow::StoreSeen& seen = w.stores[s];
    const Mask both = seen.in_phase & lanes;
    if (both == 0) continue;
    const int lane = std::countr_zero(both);
    if (w.barriers[lane] != seen.barriers) continue;
    BlockShadow::Left& left = b.left[s];
    if (left.valid && left.barriers <= seen.barriers) continue;
    left = {true, seen.barriers, launch_->store_place(s), w.index * kLanes + static_cast<uint32_t>(lane)};
    b.anyone_left = true;
  }
}

}  // namespace ptxsim
