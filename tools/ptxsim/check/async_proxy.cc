#include "tools/ptxsim/check/async_proxy.h"

#include <utility>

#include "tools/ptxsim/check/races.h"
#include "tools/ptxsim/check/watcher.h"

namespace ptxsim {

// --- order -----------------------------------------------------------------------------------------------------------

void Watcher::proxy_fence(Warp& warp, Mask lanes) {
  if (!launch_->async_proxy()) return;
  WarpShadow& w = up_to_date(warp);
  block(*warp.cta).release(w, lanes, warp.alive(), w.async.fenced);
}

void Watcher::async_commit(Warp& warp, Mask lanes, AsyncReader reader) {
  WarpShadow& w = up_to_date(warp);
  const IntervalId end = state_.intervals.now();
  w.id = kNobody;
  if (reader == AsyncReader::kProduct) {
    w.product_groups.push_back(end);
  } else {
    each_lane(lanes, [&](int l) { w.copy_groups[l].push_back(end); });
  }
}

void Watcher::async_wait(Warp& warp, Mask lanes, AsyncReader reader, uint64_t pending) {
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = up_to_date(warp);
  auto& ended = w.async.ended[static_cast<int>(reader)];
  if (reader == AsyncReader::kBulkCopy) {
    each_lane(lanes, [&](int l) {
      const std::vector<IntervalId>& groups = w.copy_groups[l];
      if (groups.size() > pending) ended[w.index] = std::max(ended[w.index], groups[groups.size() - pending - 1]);
    });
    return;
  }
  if (w.product_groups.size() <= pending) return;
  // The four warps of the warpgroup have all issued these groups, and they have ended for all.
  const size_t done = w.product_groups.size() - pending;
  constexpr size_t kWarpgroup = 4;
  const size_t first = w.index / kWarpgroup * kWarpgroup;
  for (size_t i = first; i < std::min(first + kWarpgroup, b.warps.size()); ++i) {
    const std::vector<IntervalId>& groups = b.warps[i].product_groups;
    if (groups.size() >= done) ended[i] = std::max(ended[i], groups[done - 1]);
  }
  std::erase_if(w.under_way.entries, [&](const auto& e) { return e.second.group < done; });
}

// --- shared memory ---------------------------------------------------------------------------------------------------

void Watcher::async_proxy(Warp& warp, const Instruction& in, const Access& a, const Cta& owner) {
  using Kind = Access::Kind;
  const LaunchShadow::Traits& traits = launch_->traits(in.index);
  const bool asynchronous = a.kind == Kind::kAsyncRead || a.kind == Kind::kAsyncIssue || a.kind == Kind::kAsyncLand;
  if (traits.object && !asynchronous) return;  // an mbarrier's own
  BlockShadow& target = block(owner);
  WarpShadow& w = up_to_date(warp);
  Order order(block(*warp.cta), w, state_.intervals, target.in_cluster);
  const bool reads = a.kind == Kind::kLoad || a.kind == Kind::kAsyncRead;
  if (traits.async_proxy && (a.kind == Kind::kAsyncRead || a.kind == Kind::kAsyncIssue)) {
    unfenced(warp, in, a, owner, order);
  }
  if (!reads && a.kind != Kind::kAsyncLand && target.async_reads != nullptr) still_read(warp, in, a, owner, order);
  if (a.kind != Kind::kAsyncRead || !traits.async_proxy) return;
  if (target.async_reads == nullptr) target.async_reads = std::make_unique<AsyncReads>(target.shared_bytes);
  // Of copies to shared memory, an mbarrier tells when they have ended; who waits there may write what they have read.
  const bool product = warp.program().origins[in.index].kind == ptxsim::Kind::kTensor;
  if (!product && in.memory.space == Space::kShared) return;
  const auto reader = static_cast<Manner>(product ? AsyncReader::kProduct : AsyncReader::kBulkCopy);
  const IntervalId id = block(*warp.cta).interval(w);
  each_lane(a.mask, [&](int l) {
    // The lanes of a product only share the rows between them.
    const Record r = record::make(id, in.index, w.index, product ? 0 : static_cast<uint32_t>(l), reader);
    for (uint64_t at = 0; at < a.bytes; at += AsyncReads::kGranule) target.async_reads->note(a.address[l] + at, r);
  });
}

/// What threads have written, the async proxy is to read or to overwrite.
void Watcher::unfenced(Warp& warp, const Instruction& in, const Access& a, const Cta& owner, Order& order) {
  const BlockShadow& target = block(owner);
  const WarpShadow& w = shadow(warp);
  const Granules& words = target.shared->words();
  const Granules* bytes = target.shared->bytes();
  const Record first = Record{target.first} << record::kIdShift;
  const auto look = [&](int lane, uint64_t place, Record r) {
    if (r < first || record::manner(r) == Manner::kAsync || record::manner(r) == Manner::kLanded) return false;
    if (order.whose(record::id(r)) != Order::Whose::kThisBlock) return false;
    if (!order.before(r, lane, true)) return false;  // a race
    if (w.async.fenced.knows(record::warp(r), record::lane(r), record::id(r))) return false;
    const uint32_t there = record::place(r);
    reporter_.add(
        {7, uint64_t{in.index} << 32 | there, 0},
        [&] { return fmt::format("proxy|{}|{}", reporter_.site(in.index), reporter_.site(there)); },
        [&] {
          return fmt::format(
              "{}: {} through the async proxy of {}, which thread {} has written at {}: no "
              "fence.proxy.async between them",
              reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(lane), in.index),
              a.kind == Access::Kind::kAsyncRead ? "read" : "write", shared_place(place),
              reporter_.thread(record::warp(r), record::lane(r)), reporter_.where(there));
        });
    return true;
  };
  each_lane(a.mask, [&](int l) {
    const uint64_t end = a.address[l] + a.bytes;
    for (uint64_t at = a.address[l]; at < end; at += 4) {
      if (look(l, at, words.write[at / 4]) || look(l, at, words.sync[at / 4])) return;
    }
    for (uint64_t at = a.address[l]; at < end && bytes != nullptr; ++at) {
      if (look(l, at, bytes->write[at]) || look(l, at, bytes->sync[at])) return;
    }
  });
}

/// Shared memory is written that the async proxy may not have read yet.
void Watcher::still_read(Warp& warp, const Instruction& in, const Access& a, const Cta& owner, Order& order) {
  const BlockShadow& target = block(owner);
  if (!target.async_reads->any()) return;
  const WarpShadow& w = shadow(warp);
  const Record first = Record{target.first} << record::kIdShift;
  const auto ended = [&](Record r) {
    const auto reader = static_cast<int>(record::manner(r));
    if (&owner == warp.cta && w.async.ended[reader][record::warp(r)] > record::id(r)) return true;
    if (!target.in_cluster || record::id(r) >= w.clock(static_cast<int>(record::lane(r))).acquired) return false;
    LaunchShadow::Released* by = launch_->released(target.number);
    if (by == nullptr) return false;
    const std::lock_guard lock(by->mutex);
    return by->async.ended[reader][record::warp(r)] > record::id(r);
  };
  const auto look = [&](int lane, uint64_t place, Record r) {
    if (r < first || ended(r)) return false;
    if (!order.before(r & ~record::kMannerBits, lane, false)) return false;  // a race
    const uint32_t there = record::place(r);
    const bool product = static_cast<AsyncReader>(record::manner(r)) == AsyncReader::kProduct;
    reporter_.add(
        {8, uint64_t{in.index} << 32 | there, 0},
        [&] { return fmt::format("still read|{}|{}", reporter_.site(in.index), reporter_.site(there)); },
        [&] {
          return fmt::format(
              "{}: write of {} bytes of {}, which {} may still read (issued by warp {} at {}): the wait "
              "for it, {}, is missing or too loose",
              reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(lane), in.index), a.bytes, shared_place(place),
              product ? "a product" : "a bulk copy", record::warp(r), reporter_.where(there),
              product ? "wgmma.wait_group" : "cp.async.bulk.wait_group.read");
        });
    return true;
  };
  each_lane(a.mask, [&](int l) {
    constexpr uint64_t kGranule = AsyncReads::kGranule;
    for (uint64_t at = a.address[l] / kGranule * kGranule; at < a.address[l] + a.bytes; at += kGranule) {
      const Record* r = target.async_reads->at(at);
      for (uint32_t slot = 0; slot < AsyncReads::kSlots; ++slot) {
        if (look(l, std::max(at, a.address[l]), r[slot])) return;
      }
    }
  });
}

// --- registers -------------------------------------------------------------------------------------------------------

void Watcher::product_issued(Warp& warp, const Instruction& in) {
  WarpShadow& w = shadow(warp);
  const RegisterUse::Use& use = launch_->register_use(warp.program()).of(in.index);
  const uint32_t frame = warp.running().frame;
  for (const uint32_t d : use.destinations) {
    if (d == RegisterUse::kNone) continue;
    w.under_way.entries[AsyncRegisters::key(frame, d)] = {w.product_groups.size(), in.index};
  }
  if (!warp.watched) {
    warp.watched = true;
    warp.switch_pc = 0;
  }
}

void Watcher::step_under_way(Warp& warp, const Instruction& in, const RegisterUse::Use& use) {
  auto& entries = shadow(warp).under_way.entries;
  const uint32_t frame = warp.running().frame;
  const auto find = [&](uint32_t number) {
    return number == RegisterUse::kNone ? entries.end() : entries.find(AsyncRegisters::key(frame, number));
  };
  const bool product = launch_->traits(in.index).async_proxy;
  const bool copy = use.kind == RegisterUse::Kind::kCopy;
  const auto used = [&](uint32_t number) {
    const auto at = find(number);
    if (at == entries.end()) return;
    // Products add to the same registers one after the other.
    if (product && std::find(use.destinations.begin(), use.destinations.end(), number) != use.destinations.end())
      return;
    const uint32_t there = at->second.place;
    entries.erase(at);
    reporter_.add(
        {9, uint64_t{in.index} << 32 | there, 0},
        [&] { return fmt::format("register|{}|{}", reporter_.site(in.index), reporter_.site(there)); },
        [&] {
          return fmt::format(
              "{}: use of a register that a product has yet to write (issued at {}): the wait for it, "
              "wgmma.wait_group, is missing or too loose",
              reporter_.who(*warp.cta, warp.index, 0, in.index), reporter_.where(there));
        });
  };
  if (!copy) {
    used(use.guard);
    for (const uint32_t number : use.addresses) used(number);
    for (const uint32_t number : use.sources) used(number);
  }
  if (product) return;
  const auto from = copy && use.sources.size() == 1 ? find(use.sources[0]) : entries.end();
  const bool moves = from != entries.end();
  const AsyncRegisters::Entry entry = moves ? from->second : AsyncRegisters::Entry{};
  for (const uint32_t d : use.destinations) {
    if (d == RegisterUse::kNone) continue;
    if (moves) {
      entries[AsyncRegisters::key(frame, d)] = entry;
    } else {
      entries.erase(AsyncRegisters::key(frame, d));
    }
  }
}

}  // namespace ptxsim
