#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/program/lowering.h"

/// barrier.cluster.arrive and .wait: the one barrier of all threads of a cluster, in phases.
namespace ptxsim {

void Cluster::arrive(Warp& warp, Mask lanes) {
  for (const auto& observer : warp.worker->observers) observer->barrier_arrive(warp, lanes, kBarrier, false);
  warp.cluster_arrived |= lanes;
  warp.cluster_owed |= lanes;
  arrived_ += static_cast<uint32_t>(std::popcount(lanes));
  complete_if_full(warp);
}

void Cluster::lanes_exited(Warp& warp) {
  // Who has exited is no longer waited for: neither counted among those that arrived nor among those that must.
  const Mask gone = warp.cluster_arrived & ~warp.alive();
  warp.cluster_arrived &= ~gone;
  arrived_ -= static_cast<uint32_t>(std::popcount(gone));
  complete_if_full(warp);
}

void Cluster::complete_if_full(Warp& last) {
  if (arrived_ == 0) return;
  uint32_t expected = 0;
  for (const auto& block : blocks) expected += block->alive_threads();
  if (arrived_ < expected) return;
  arrived_ = 0;
  for (const auto& block : blocks) {
    for (const auto& observer : last.worker->observers) observer->barrier_complete(*block, kBarrier);
  }
  for (const auto& block : blocks) {
    for (Warp& warp : block->warps) {
      if (warp.cluster_arrived == 0) continue;
      warp.cluster_arrived = 0;
      // Other blocks may have run on another worker last.
      warp.observer = last.observer;
      warp.observer2 = last.observer2;
      warp.release_barrier(kBarrier);
    }
  }
}

namespace {

// flags: [0] .aligned.

void arrive(Warp& w, const Instruction& in, Mask m) {
  if (in.flags[0] != 0 && !w.converge_aligned(in, m, Cluster::kBarrier)) return;
  const Mask twice = w.cluster_owed & m;
  if (twice != 0) {
    w.fault(Status::kIllegalInstruction, in, std::countr_zero(twice),
            "arrives for the second time without a wait between");
    return;
  }
  w.cta->cluster->arrive(w, m);
}

void wait(Warp& w, const Instruction& in, Mask m) {
  if (in.flags[0] != 0 && !w.converge_aligned(in, m, Cluster::kBarrier)) return;
  const Mask stray = m & ~w.cluster_owed;
  if (stray != 0) {
    w.fault(Status::kIllegalInstruction, in, std::countr_zero(stray), "waits without having arrived");
    return;
  }
  w.cluster_owed &= ~m;
  const Mask early = m & w.cluster_arrived;
  if (early != 0) w.wait_at_barrier(in, early, Cluster::kBarrier);
  if (early != m) {
    for (const auto& observer : w.worker->observers) observer->barrier_leave(w, m & ~early, Cluster::kBarrier);
  }
}

}  // namespace

void lower_cluster_barrier(Lowering& l) {
  bool arrives = false, waits = false, aligned = false, release = false, acquire = false;
  for (const std::string& m : l.text().modifiers) {
    bool* const seen = m == "arrive"                      ? &arrives
                       : m == "wait"                      ? &waits
                       : m == "aligned"                   ? &aligned
                       : m == "release" || m == "relaxed" ? &release
                       : m == "acquire"                   ? &acquire
                                                          : nullptr;
    if (m == "cluster") continue;
    if (seen == nullptr || *seen) l.unknown();
    *seen = true;
  }
  if (l.text().opcode != "barrier" || arrives == waits || (release && waits) || (acquire && arrives)) l.unknown();
  if (l.operand_count() != 0) l.unknown();
  l.emit(arrives ? arrive : wait, {}).flags[0] = aligned ? 1 : 0;
}

}  // namespace ptxsim
