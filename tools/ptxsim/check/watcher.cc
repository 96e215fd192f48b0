#include "tools/ptxsim/check/watcher.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

/// Events of execution, on their way to those that judge them.
namespace ptxsim {

Watcher::Watcher(Checker::State& state, Grid& grid)
    : state_(state), grid_(grid), launch_(state.launch_begins(grid)), reporter_(*state.findings, grid) {
  if (grid.work != nullptr) collector_.emplace(*grid.work, *grid.program);
}

Watcher::~Watcher() { state_.launch_ends(&grid_); }

void Watcher::begin_cta(Cta& cta) {
  std::unique_ptr<BlockShadow> block = state_.take_block();
  block->begin(cta, *launch_, state_.intervals);
  // The block may end in the hands of another worker, whose state is the same.
  struct Home {
    static void give(void* p) {
      std::unique_ptr<BlockShadow> own(static_cast<BlockShadow*>(p));
      Checker::State* home = own->home;
      home->give_block(std::move(own));
    }
  };
  block->home = &state_;
  cta.shadow = {block.release(), Home::give};
}

void Watcher::access(Warp& warp, const Instruction& in, const Access& a) {
  switch (a.space) {
    case Space::kShared:
      shared(warp, in, a, *warp.cta);
      break;
    case Space::kSharedCluster:
      cluster(warp, in, a);
      break;
    case Space::kGlobal:
    case Space::kConst:
      global(warp, in, a);
      break;
    case Space::kLocal:
      local(warp, in, a);
      return;
    default:
      return;
  }
  if (a.kind == Access::Kind::kStore || a.kind == Access::Kind::kAtomic) note_store(warp, in, a.mask);
}

void Watcher::warp_sync(Warp& warp, Mask lanes) { block(*warp.cta).warp_sync(up_to_date(warp), lanes, warp.alive()); }

void Watcher::barrier_complete(Cta& cta, int barrier) {
  block(cta).barrier_complete(cta.alive_threads(), cta.grid.threads_per_block, barrier);
}

void Watcher::barrier_leave(Warp& warp, Mask lanes, int barrier) {
  block(*warp.cta).barrier_leave(shadow(warp), lanes, warp.alive(), barrier);
}

void Watcher::release(Warp& warp, Mask lanes, Space space, uint64_t object) {
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = up_to_date(warp);
  if (space == Space::kGlobal) {
    // By itself, a fence tells nobody: what comes behind it does.
    w.fenced = true;
    b.fence(w, lanes, warp.alive(), !launch_->traits(warp.pc - 1).block_scope);
    return;
  }
  const Object at = object_of(warp, object);
  if (at.owner == &b) {
    b.release(w, lanes, warp.alive(), b.objects[at.offset]);
    if (launch_->async_proxy()) b.async_objects[at.offset].join(w.async);
  } else if (at.owner != nullptr) {
    // Clocks speak of the warps of one block: others know that there is something to see.
    b.release_to_blocks(w, lanes, warp.alive());
    Clock& clock = at.owner->objects[at.offset];
    clock.acquired = std::max(clock.acquired, state_.intervals.now());
  }
}

void Watcher::acquire(Warp& warp, Mask lanes, Space space, uint64_t object) {
  // What a fence acquires, the loads before it have acquired already.
  if (space == Space::kGlobal) return;
  BlockShadow& b = block(*warp.cta);
  const Object from = object_of(warp, object);
  if (from.owner == nullptr) return;
  const auto at = from.owner->objects.find(from.offset);
  if (at == from.owner->objects.end()) return;
  if (from.owner == &b) {
    b.acquire(shadow(warp), lanes, warp.alive(), at->second);
    if (launch_->async_proxy()) shadow(warp).async.join(b.async_objects[from.offset]);
  } else {
    Clock seen;
    seen.acquired = state_.intervals.now();
    b.acquire(shadow(warp), lanes, warp.alive(), seen);
  }
}

Watcher::Object Watcher::object_of(const Warp& warp, uint64_t object) {
  const uint64_t rank = object >> kClusterRankShift, offset = object & ((uint64_t{1} << kClusterRankShift) - 1);
  if (rank == 0 || rank - 1 == warp.cta->cluster_rank) return {&block(*warp.cta), offset};
  const Cta& owner = *warp.cta->cluster->blocks.at(rank - 1);
  return {owner.shadow == nullptr ? nullptr : &block(owner), offset};
}

// --- initialisation --------------------------------------------------------------------------------------------------

template <class Describe>
void Watcher::initialisation(Warp& warp, const Instruction& in, const Access& a, uint8_t* flags, const uint64_t* place,
                             uint64_t same, Describe describe) {
  using Kind = Access::Kind;
  uint64_t apart = 0;
  for (uint64_t l = 0; l < kLanes; ++l) apart |= place[l] ^ (place[0] + l * a.bytes);
  const bool together = a.mask == kAllLanes && apart == 0;
  const bool reads = a.kind == Kind::kLoad || a.kind == Kind::kAsyncRead ||
                     (a.kind == Kind::kAtomic && !launch_->traits(in.index).exchange);
  if (reads && !(together && written::all(flags + place[0], uint64_t{a.bytes} * kLanes))) {
    // Padding is copied with its neighbours: only an element of which nothing was written is a finding.
    const uint32_t element = in.memory.total() == a.bytes ? in.memory.bytes : a.bytes;
    const bool real = launch_->traits(in.index).real;
    for (uint32_t at = 0; at < a.bytes; at += element) {
      Mask undefined = 0;
      each_lane(a.mask, [&](int l) {
        const uint8_t* own = flags + place[l] + at;
        if (real ? !written::all(own, element) : !written::any(own, element)) undefined |= Mask{1} << l;
      });
      if (undefined == 0 || load_undefined(warp, in, a, element, at / element, undefined, same)) continue;
      const int l = std::countr_zero(undefined);
      const std::string& key =
          *reporter_
               .key_of({1, in.index, same},
                       [&] { return fmt::format("uninitialised|{}|{}", reporter_.site(in.index), same); })
               .first;
      launch_->defer(key, reporter_.site(in.index), [&] {
        return fmt::format("{}: {} of {} bytes of uninitialised {}",
                           reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(l), in.index),
                           a.kind == Kind::kAtomic ? "atomic access" : "read", element, describe(l, at));
      });
    }
  }
  if (a.kind == Kind::kLoad || a.kind == Kind::kAsyncRead) return;
  if (together) {
    written::set(flags + place[0], uint64_t{a.bytes} * kLanes);
  } else {
    each_lane(a.mask, [&](int l) { written::set(flags + place[l], a.bytes); });
  }
  if (warp.watched && a.kind == Kind::kStore) store_undefined(warp, in, a, flags, place);
}

std::string Watcher::shared_place(uint64_t offset) const {
  const auto& regions = grid_.shared_regions;
  const auto behind =
      std::find_if(regions.begin() + 1, regions.end(), [&](const Grid::SharedRegion& r) { return r.offset > offset; });
  return fmt::format("shared memory at {:#x} (byte {} of {})", offset, offset - behind[-1].offset,
                     Grid::describe(behind[-1]));
}

void Watcher::local(Warp& warp, const Instruction& in, const Access& a) {
  const uint64_t size = warp.program().local_bytes;
  alignas(64) uint64_t place[kLanes];
  for (uint64_t l = 0; l < kLanes; ++l) place[l] = (uint64_t{warp.index} * kLanes + l) * size + a.address[l];
  initialisation(warp, in, a, block(*warp.cta).local_written.data(), place, ~uint64_t{0},
                 [&](int l, uint32_t at) { return fmt::format("local memory at {:#x}", a.address[l] + at); });
}

void Watcher::shared(Warp& warp, const Instruction& in, const Access& a, const Cta& owner) {
  BlockShadow& target = block(owner);
  IntervalId floor = target.first;
  if (!target.in_cluster) {
    const WarpShadow& w = shadow(warp);
    floor = ~IntervalId{0};
    for (const WarpShadow::View& v : w.views) {
      if ((v.lanes & a.mask) != 0) floor = std::min(floor, v.clock.floor);
    }
  }
  if (launch_->async_proxy()) async_proxy(warp, in, a, owner);
  races(warp, in, a, {*target.shared, a.address, owner.shared, floor, target.in_cluster, nullptr, &owner});
  // Bytes under way are a matter of their own.
  if (a.kind == Access::Kind::kAsyncLand) return;
  initialisation(warp, in, a, target.shared_written.data(), a.address, ~uint64_t{0} - 1,
                 [&](int l, uint32_t at) { return shared_place(a.address[l] + at); });
}

/// An access to another block's shared memory, which lasts as long as that block.
void Watcher::note_remote(Warp& warp, const Instruction& in, const Cta& owner, Mask lanes) {
  BlockShadow& target = block(owner);
  const auto lane = static_cast<uint32_t>(std::countr_zero(lanes));
  target.remote = {block(*warp.cta).interval(up_to_date(warp)), in.index, warp.index, lane, warp.cta};
  if (owner.alive_threads() == 0) outlived(owner, target.remote);
}

void Watcher::outlived(const Cta& owner, const BlockShadow::Remote& by) {
  reporter_.add(
      {6, by.place, 0}, [&] { return fmt::format("outlived|{}", reporter_.site(by.place)); },
      [&] {
        return fmt::format(
            "{}: access to shared memory of {}, which may have exited: no barrier of the "
            "cluster comes before its exit",
            reporter_.who(*by.from, by.warp, by.lane, by.place), owner.describe());
      });
}

void Watcher::cluster(Warp& warp, const Instruction& in, const Access& a) {
  alignas(64) uint64_t offset[kLanes];
  for (int l = 0; l < kLanes; ++l) offset[l] = a.address[l] & ((uint64_t{1} << kClusterRankShift) - 1);
  const auto& blocks = warp.cta->cluster->blocks;
  for (Mask left = a.mask; left != 0;) {
    const uint64_t rank = a.address[std::countr_zero(left)] >> kClusterRankShift;
    Mask same = 0;
    for (int l = 0; l < kLanes; ++l) same |= Mask{a.address[l] >> kClusterRankShift == rank} << l;
    same &= left;
    left &= ~same;
    const Cta& owner = *blocks[rank - 1];
    if (owner.shadow == nullptr) continue;  // it has not begun
    note_remote(warp, in, owner, same);
    Access part = a;
    part.space = Space::kShared;
    part.mask = same;
    part.address = offset;
    shared(warp, in, part, owner);
  }
}

void Watcher::global(Warp& warp, const Instruction& in, const Access& a) {
  if (a.allocation != nullptr) {
    global(warp, in, a, *a.allocation);
    return;
  }
  const AddressSpace& memory = state_.machine->memory();
  for (Mask left = a.mask; left != 0;) {
    Allocation* allocation = memory.find(a.address[std::countr_zero(left)]);
    Access part = a;
    part.mask = 0;
    each_lane(left, [&](int l) {
      if (memory.find(a.address[l]) == allocation) part.mask |= Mask{1} << l;
    });
    left &= ~part.mask;
    part.allocation = allocation;
    if (allocation != nullptr) global(warp, in, part, *allocation);
  }
}

void Watcher::global(Warp& warp, const Instruction& in, const Access& a, Allocation& allocation) {
  if (collector_) {
    const bool fenced = a.kind == Access::Kind::kStore && shadow(warp).fenced;
    collector_->access(in.index, a, allocation, fenced);
  }
  if (allocation.read_only) return;
  // What the copy writes, it writes when it lands; nobody may tell before.
  if (a.kind == Access::Kind::kAsyncIssue) return;
  GlobalShadow& shadow = shadow_of(allocation);
  alignas(64) uint64_t place[kLanes];
  const uint64_t start = shadow.place(0);
  for (int l = 0; l < kLanes; ++l) place[l] = a.address[l] + start;
  if (launch_->traits(in.index).noncoherent) noncoherent(warp, in, a, shadow, place, allocation);
  races(warp, in, a,
        {shadow.records, place, allocation.host - shadow.place(allocation.base), launch_->first, true, &allocation,
         nullptr});
  if (uint8_t* flags = shadow.written()) {
    const bool heap = allocation.kind == MemoryKind::kHeap;  // every thread may have its own
    initialisation(warp, in, a, flags - shadow.place(allocation.base), place, heap ? 0 : allocation.sequence,
                   [&](int l, uint32_t at) {
                     return fmt::format("global memory at {:#x}, in {}", a.address[l] + at, allocation.describe());
                   });
  } else if (warp.watched && a.kind == Access::Kind::kStore) {
    store_undefined(warp, in, a, nullptr, place);
  }
}

/// A load by way of a cache that sees no writes: there must be none, in whatever order.
void Watcher::noncoherent(Warp& warp, const Instruction& in, const Access& a, const GlobalShadow& shadow,
                          const uint64_t* place, const Allocation& allocation) {
  Order order(block(*warp.cta), Watcher::shadow(warp), state_.intervals, true);
  const Record first = Record{launch_->first} << record::kIdShift;
  const Granules* bytes = shadow.records.bytes();
  each_lane(a.mask, [&](int l) {
    const auto look = [&](Record r) {
      if (r < first || order.whose(record::id(r)) == Order::Whose::kFormerLaunch) return false;
      reporter_.add(
          {10, uint64_t{in.index} << 32 | record::place(r), allocation.sequence},
          [&] { return fmt::format("nc|{}|{}", reporter_.site(in.index), allocation.sequence); },
          [&] {
            return fmt::format(
                "{}: read through the read-only cache of {} bytes of global memory at {:#x}, in {}, which "
                "the same kernel writes at {}",
                reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(l), in.index), a.bytes, a.address[l],
                allocation.describe(), reporter_.where(record::place(r)));
          });
      return true;
    };
    for (uint64_t at = place[l]; at < place[l] + a.bytes; ++at) {
      if (at % 4 == 0 || at == place[l]) {
        if (look(shadow.records.words().write[at / 4]) || look(shadow.records.words().sync[at / 4])) return;
      }
      if (bytes != nullptr && (look(bytes->write[at]) || look(bytes->sync[at]))) return;
    }
  });
}

// --- races -----------------------------------------------------------------------------------------------------------

template <class RecordOf>
void Watcher::acquire_from_records(Warp& warp, Mask lanes, IntervalId floor_id, Order& order, bool in_block,
                                   bool hands_on, RecordOf record_of) {
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = shadow(warp);
  const Record floor = Record{floor_id} << record::kIdShift;
  Clock seen;
  Mask from_warps = 0;
  bool any = false;
  each_lane(lanes, [&](int l) {
    const Record r = record_of(l);
    const Manner manner = record::manner(r);
    if (r < floor || (!record::synchronising(manner) && manner != Manner::kFenced)) return;
    const IntervalId id = record::id(r);
    const Order::Whose whose = order.whose(id);
    if (whose == Order::Whose::kFormerLaunch) return;
    const uint32_t by = record::lane(r);
    if (whose == Order::Whose::kOtherBlock) {
      if (in_block || manner == Manner::kBlockScope) return;
      any = true;
      seen.acquired = std::max(seen.acquired, id);
    } else if (record::warp(r) != w.index) {
      any = true;
      from_warps |= Mask{1} << record::warp(r);
    } else if (by != static_cast<uint32_t>(l) && id > w.known(l, by)) {
      if (w.mutual.empty()) w.mutual.assign(kLanes * kLanes, 0);
      IntervalId* own = w.mutual.data() + l * kLanes;
      const IntervalId* others = w.mutual.data() + by * kLanes;
      for (int about = 0; about < kLanes; ++about) own[about] = std::max(own[about], others[about]);
      own[by] = std::max(own[by], id);
    }
  });
  if (!any) return;
  each_lane(from_warps, [&](int v) {
    seen.join(b.warps[static_cast<size_t>(v)].published);
    if (launch_->async_proxy()) w.async.join(b.warps[static_cast<size_t>(v)].async);
  });
  b.acquire(w, lanes, warp.alive(), seen);
  // Whoever sees what an atomic has left sees what it followed.
  if (hands_on) w.published.join(seen);
}

void Watcher::catch_up(Warp& warp, WarpShadow& w) {
  const Mask lanes = std::exchange(w.acquiring, 0);
  Order order(block(*warp.cta), w, state_.intervals, true);
  acquire_from_records(warp, lanes, launch_->first, order, w.read_in_block, false, [&](int l) { return *w.read[l]; });
  acquire_from_records(warp, lanes, launch_->first, order, w.read_in_block, false,
                       [&](int l) { return *w.read_plain[l]; });
}

namespace {

class Races : public RaceCheck {
 public:
  template <class F, class G>
  Races(Order& order, BlockShadow& block, WarpShadow& warp, IntervalId floor, uint32_t place, Manner manner, What what,
        F on_race, G on_flight)
      : RaceCheck(order, block, warp, floor, place, manner, what), on_race_(on_race), on_flight_(on_flight) {}

 protected:
  void race(int lane, uint64_t place, Record other, bool other_writes, bool which_lane) override {
    on_race_(lane, place, other, other_writes, which_lane);
  }
  void under_way(int lane, uint64_t place, Record copy) override { on_flight_(lane, place, copy); }

 private:
  std::function<void(int, uint64_t, Record, bool, bool)> on_race_;
  std::function<void(int, uint64_t, Record)> on_flight_;
};

}  // namespace

void Watcher::races(Warp& warp, const Instruction& in, const Access& a, const Tracked& memory) {
  using Kind = Access::Kind;
  using What = RaceCheck::What;
  BlockShadow& b = block(*warp.cta);
  WarpShadow& w = up_to_date(warp);
  Order order(b, w, state_.intervals, memory.across_blocks);
  const bool stores = a.kind == Kind::kStore || a.kind == Kind::kAtomic;
  const LaunchShadow::Traits& traits = launch_->traits(in.index);
  const bool shared = memory.allocation == nullptr;
  // Between warps volatile orders nothing where data is exchanged; it is for flags that somebody waits for.
  const bool exchange = shared && traits.is_volatile && !traits.polls && a.kind == Kind::kLoad;
  const bool synchronising = a.synchronising && (stores || a.kind == Kind::kLoad) && !exchange;
  const bool object = traits.object;  // which says by itself what it orders
  const bool in_block = !shared && traits.block_scope;
  const bool flag = a.kind == Kind::kStore && !synchronising && w.fenced;
  const auto cell = [&](int l, Record* Granules::*which) -> const Record* {
    const bool word = (a.bytes | memory.place[l]) % 4 == 0;
    return word ? memory.records.words().*which + memory.place[l] / 4
                : memory.records.need_bytes().*which + memory.place[l];
  };
  const bool acquires = synchronising && !object && a.kind != Kind::kStore;
  if (acquires) {
    for (const auto which : {&Granules::sync, &Granules::write}) {
      acquire_from_records(warp, a.mask, memory.floor, order, in_block, stores, [&](int l) { return *cell(l, which); });
    }
  }
  if (flag || (synchronising && !object && stores)) {
    if (traits.releases) b.fence(w, a.mask, warp.alive(), !in_block);
    b.publish(w, a.mask, warp.alive(), memory.across_blocks && !in_block);
    w.fenced = false;
  }
  const bool optimistic = a.kind == Kind::kLoad && traits.optimistic;
  Manner manner = Manner::kPlain;
  if ((synchronising && !(object && a.kind == Kind::kStore)) || optimistic || traits.invalidates) {
    manner = in_block && !optimistic ? Manner::kBlockScope : Manner::kSynchronising;
  } else if (a.kind == Kind::kAsyncIssue) {
    manner = Manner::kAsync;
  } else if (a.kind == Kind::kAsyncLand && shared) {
    manner = Manner::kLanded;
  } else if (flag) {
    manner = Manner::kFenced;
  }
  const What what = a.kind == Kind::kAsyncIssue                              ? What::kIssue
                    : a.kind == Kind::kAsyncLand                             ? (shared ? What::kLand : What::kWrite)
                    : stores                                                 ? What::kWrite
                    : record::synchronising(manner) && a.kind == Kind::kLoad ? What::kReadOnly
                                                                             : What::kRead;
  const bool writes = what != What::kRead && what != What::kReadOnly;
  const auto place_text = [&](uint64_t place) {
    if (shared) return shared_place(place);
    const uint64_t address = memory.allocation->base & ~uint64_t{3};
    return fmt::format("global memory at {:#x}, in {}", address + place, memory.allocation->describe());
  };
  const uint64_t same = shared ? 0 : memory.allocation->sequence;
  const auto on_race = [&](int lane, uint64_t place, Record other, bool other_writes, bool which_lane) {
    const uint32_t there = record::place(other);
    // The lanes of a warp that exchange volatile values step by step, as was the custom once.
    if (shared && !memory.across_blocks && record::warp(other) == w.index && traits.is_volatile &&
        there != record::kUnknownPlace && launch_->traits(there).is_volatile) {
      return;
    }
    launch_->raced(reporter_.site(other_writes ? in.index : there));
    reporter_.add(
        {2, uint64_t{std::min(in.index, there)} << 32 | std::max(in.index, there), same},
        [&] {
          const std::string x = reporter_.site(in.index), y = reporter_.site(there);
          return fmt::format("race|{}|{}|{}", std::min(x, y), std::max(x, y), same);
        },
        [&] {
          const char* own_verb = a.kind == Kind::kAtomic ? "atomic access" : writes ? "write" : "read";
          const char* other_verb = !other_writes                                  ? "read"
                                   : record::synchronising(record::manner(other)) ? "atomic or volatile write"
                                                                                  : "write";
          std::string by = which_lane ? "thread " + reporter_.thread(record::warp(other), record::lane(other))
                                      : fmt::format("a thread of warp {}", record::warp(other));
          std::string remedy = "no barrier between them";
          if (order.whose(record::id(other)) == Order::Whose::kOtherBlock) {
            by = "block " + reporter_.block(state_.intervals.owner(record::id(other)).block) + ", " + by;
            const bool scoped = manner == Manner::kBlockScope || record::manner(other) == Manner::kBlockScope;
            remedy =
                scoped ? "nothing orders the blocks, for the scope is the block (.cta)" : "nothing orders the blocks";
          } else if (record::warp(other) == w.index) {
            remedy = "no __syncwarp between them";
          }
          return fmt::format("{}: race: {} of {} bytes of {} and {} by {} at {}: {}",
                             reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(lane), in.index), own_verb,
                             a.bytes, place_text(place), other_verb, by, reporter_.where(there), remedy);
        });
  };
  const auto on_flight = [&](int lane, uint64_t place, Record copy) {
    const uint32_t there = record::place(copy);
    reporter_.add(
        {3, uint64_t{in.index} << 32 | there, same},
        [&] { return fmt::format("in flight|{}|{}", reporter_.site(in.index), reporter_.site(there)); },
        [&] {
          return fmt::format(
              "{}: {} of {} bytes of {}, to which thread {} has an asynchronous copy under way (issued at {}): the "
              "wait "
              "for it is missing or too loose",
              reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(lane), in.index), writes ? "write" : "read",
              a.bytes, place_text(place), reporter_.thread(record::warp(copy), record::lane(copy)),
              reporter_.where(there));
        });
  };
  // A function object as a reference costs nothing to make; these are called for findings only.
  Races check(order, b, w, memory.floor, in.index, manner, what, std::ref(on_race), std::ref(on_flight));
  check.run(memory.records, {a.mask, memory.place, a.bytes, a.kind == Kind::kStore ? a.value : nullptr, memory.memory});
  if (acquires && memory.across_blocks) {
    if (stores) {
      acquire_from_records(warp, a.mask, memory.floor, order, in_block, stores,
                           [&](int l) { return check.replaced()[l]; });
    }
    each_lane(a.mask, [&](int l) {
      w.read[l] = cell(l, &Granules::sync);
      w.read_plain[l] = cell(l, &Granules::write);
    });
    w.read_in_block = in_block;
    w.acquiring = a.mask;
  }
  if (what == What::kIssue) {
    block(*memory.owner).in_flight += check.in_flight();
  } else if (what == What::kLand) {
    block(*memory.owner).in_flight -= check.in_flight();
  }
}

}  // namespace ptxsim
