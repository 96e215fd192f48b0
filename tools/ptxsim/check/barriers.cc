#include <bit>
#include <utility>

#include "tools/ptxsim/check/block_shadow.h"

/// What orders the threads of a block: barriers, warp-level synchronisation, releases and acquires.
namespace ptxsim {

void BlockShadow::begin(Cta& cta, LaunchShadow& of, Intervals& intervals) {
  number = static_cast<uint32_t>(cta.linear_index);
  launch = &of;
  released = nullptr;
  intervals_ = &intervals;
  first = intervals.now();
  in_cluster = cta.grid.blocks_per_cluster > 1;
  warps.resize(cta.warps.size());
  for (size_t w = 0; w < warps.size(); ++w) {
    WarpShadow& warp = warps[w];
    warp.index = static_cast<uint32_t>(w);
    warp.id = kNobody;
    warp.fenced = false;
    warp.acquiring = 0;
    warp.together = 0;
    warp.mutual.clear();
    warp.views.resize(1);
    warp.views[0] = {kAllLanes, {}};
    warp.views[0].clock.floor = first;
    warp.published = {};
    warp.undefined.clear();
    warp.async = {};
    warp.under_way.entries.clear();
    warp.product_groups.clear();
    warp.copy_groups.clear();
    warp.fence_block = warp.fence_device = {};
    warp.has_fence_block = warp.has_fence_device = false;
    std::fill(std::begin(warp.barriers), std::end(warp.barriers), 0);
    warp.stores.assign(of.stores() + 1, {});
  }
  objects.clear();
  async_objects.clear();
  remote = {};
  for (Barrier& b : barriers_) b = {};
  if (shared == nullptr || shared_bytes < cta.grid.shared_extent) {
    shared_bytes = cta.grid.shared_extent;
    shared = std::make_unique<AccessRecords>(shared_bytes);
    async_reads = nullptr;
    in_flight = 0;
  } else if (in_flight != 0) {
    shared->clear();  // a copy that the block before never waited for
    in_flight = 0;
  }
  shared_written.assign(cta.grid.shared_extent, 0);
  local_written.assign(uint64_t{cta.grid.program->local_bytes} * warps.size() * kLanes, 0);
  left.assign(of.stores() + 1, {});
  anyone_left = false;
  rounds.clear();
}

BlockShadow::Rounds& BlockShadow::rounds_at(uint32_t site) {
  for (Rounds& r : rounds) {
    if (r.site == site) return r;
  }
  return rounds.emplace_back(Rounds{.site = site});
}

void BlockShadow::warp_sync(WarpShadow& warp, Mask lanes, Mask alive) {
  const IntervalId now = intervals_->now();
  warp.id = kNobody;
  if ((alive & ~lanes) == 0) {
    warp.together = now;
    for (size_t i = 1; i < warp.views.size(); ++i) warp.views[0].clock.join(warp.views[i].clock);
    warp.views.resize(1);
    warp.views[0].lanes = kAllLanes;
    return;
  }
  if (warp.mutual.empty()) warp.mutual.assign(kLanes * kLanes, 0);
  IntervalId row[kLanes] = {};
  each_lane(lanes, [&](int l) {
    for (int about = 0; about < kLanes; ++about)
      row[about] = std::max(row[about], warp.mutual[static_cast<size_t>(l) * kLanes + about]);
  });
  each_lane(lanes, [&](int l) { row[l] = now; });
  each_lane(lanes, [&](int l) { std::copy_n(row, kLanes, warp.mutual.begin() + l * kLanes); });
  if (warp.views.size() == 1) return;
  Clock all;
  for (const WarpShadow::View& v : warp.views) {
    if ((v.lanes & lanes) != 0) all.join(v.clock);
  }
  acquire(warp, lanes, alive, all);
}

void BlockShadow::release(WarpShadow& warp, Mask lanes, Mask alive, Clock& into) {
  for (const WarpShadow::View& v : warp.views) {
    if ((v.lanes & lanes) != 0) into.join(v.clock);
  }
  const IntervalId now = intervals_->now();
  if ((alive & ~lanes) == 0) {
    into.know_all(warp.index, now);
  } else {
    Mask covered = lanes;
    if (!warp.mutual.empty()) {
      // Others that these lanes have met since the whole warp did.
      each_lane(lanes, [&](int l) {
        for (uint32_t about = 0; about < kLanes; ++about)
          covered |= Mask{warp.known(l, about) > warp.together} << about;
      });
    }
    into.know_all(warp.index, warp.together);
    into.know_part(warp.index, covered, now);
  }
  warp.id = kNobody;
}

void BlockShadow::split_views(WarpShadow& warp, Mask lanes) {
  for (size_t i = 0, n = warp.views.size(); i < n; ++i) {
    const Mask inside = warp.views[i].lanes & lanes;
    if (inside == 0 || inside == warp.views[i].lanes) continue;
    warp.views[i].lanes &= ~inside;
    WarpShadow::View part{inside, warp.views[i].clock};
    warp.views.push_back(part);
  }
}

void BlockShadow::acquire(WarpShadow& warp, Mask lanes, Mask alive, const Clock& from) {
  if ((alive & ~lanes) == 0) lanes = kAllLanes;
  split_views(warp, lanes);
  size_t first_joined = warp.views.size();
  for (size_t i = 0; i < warp.views.size(); ++i) {
    WarpShadow::View& v = warp.views[i];
    if ((v.lanes & lanes) == 0) continue;
    v.clock.join(from);
    first_joined = std::min(first_joined, i);
  }
  if (warp.views.size() == 1 || first_joined == warp.views.size()) return;
  // Lanes that acquire one after the other come to know the same.
  WarpShadow::View& joined = warp.views[first_joined];
  for (size_t i = warp.views.size(); i-- > 0;) {
    if (i == first_joined || warp.views[i].clock != joined.clock) continue;
    warp.views[i].lanes |= joined.lanes;
    warp.views.erase(warp.views.begin() + static_cast<std::ptrdiff_t>(first_joined));
    break;
  }
}

void BlockShadow::release_to_blocks(WarpShadow& warp, Mask lanes, Mask alive) {
  if (released == nullptr) released = &launch->will_release(number);
  const std::lock_guard lock(released->mutex);
  release(warp, lanes, alive, released->clock);
  if (launch->async_proxy()) released->async.join(warp.async);
}

void BlockShadow::fence(WarpShadow& warp, Mask lanes, Mask alive, bool device) {
  release(warp, lanes, alive, warp.fence_block);
  warp.has_fence_block = true;
  if (!device) return;
  release(warp, lanes, alive, warp.fence_device);
  warp.has_fence_device = true;
}

void BlockShadow::publish(WarpShadow& warp, Mask lanes, Mask alive, bool to_blocks) {
  if (warp.has_fence_block) warp.published.join(warp.fence_block);
  if (!to_blocks) return;
  if (released == nullptr) released = &launch->will_release(number);
  const std::lock_guard lock(released->mutex);
  release(warp, lanes, alive, released->reads);
  if (warp.has_fence_device) released->clock.join(warp.fence_device);
}

void BlockShadow::barrier_arrive(WarpShadow& warp, Mask lanes, Mask alive, int barrier, bool waits) {
  Barrier& b = barriers_[barrier];
  release(warp, lanes, alive, b.gathering);
  if (warp.has_fence_device) {
    b.gathering_fences.join(warp.fence_device);
    b.any_fence = true;
  }
  if (launch->async_proxy()) b.gathering_async.join(warp.async);
  b.arrived += static_cast<uint32_t>(std::popcount(lanes));
  b.all_wait = b.all_wait && waits;
}

void BlockShadow::barrier_complete(uint32_t alive_threads, uint32_t all_threads, int barrier) {
  Barrier& b = barriers_[barrier];
  b.complete = b.gathering;
  // Everybody is here, and nobody has done anything since they came. A named barrier says nothing of who has exited.
  const uint32_t everybody = barrier == 0 ? alive_threads : all_threads;
  if (b.all_wait && b.arrived == everybody && !in_cluster) b.complete.floor = intervals_->now();
  // The other blocks of a cluster have released to others what they did before they came.
  if (barrier == Cluster::kBarrier) b.complete.acquired = intervals_->now();
  if (b.any_fence) b.complete_fences = b.gathering_fences;
  b.any_complete_fence = b.any_fence;
  if (b.any_fence) b.gathering_fences = {};
  b.any_fence = false;
  b.gathering = {};
  if (launch->async_proxy()) b.complete_async = std::exchange(b.gathering_async, {});
  b.arrived = 0;
  b.all_wait = true;
}

void BlockShadow::barrier_leave(WarpShadow& warp, Mask lanes, Mask alive, int barrier) {
  const Barrier& b = barriers_[barrier];
  acquire(warp, lanes, alive, b.complete);
  if (b.any_complete_fence) {
    warp.fence_device.join(b.complete_fences);
    warp.has_fence_device = true;
  }
  if (launch->async_proxy()) warp.async.join(b.complete_async);
  // All of the warp's lanes came and left: what they know is the same again.
  if ((alive & ~lanes) == 0 && warp.views.size() > 1) {
    for (size_t i = 1; i < warp.views.size(); ++i) warp.views[0].clock.join(warp.views[i].clock);
    warp.views.resize(1);
    warp.views[0].lanes = kAllLanes;
  }
}

}  // namespace ptxsim
