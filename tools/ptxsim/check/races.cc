#include "tools/ptxsim/check/races.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace ptxsim {

// --- order -----------------------------------------------------------------------------------------------------------

Order::Whose Order::whose(IntervalId id) {
  if (!across_blocks_) return id < block_.first ? Whose::kFormerLaunch : Whose::kThisBlock;
  if (id < block_.launch->first) return Whose::kFormerLaunch;
  if (id == last_) return last_whose_;
  last_ = id;
  const Intervals::Owner owner = intervals_.owner(id);
  if (owner.launch != static_cast<uint32_t>(block_.launch->sequence)) {
    last_whose_ = Whose::kFormerLaunch;
  } else if (owner.block == block_.number) {
    last_whose_ = Whose::kThisBlock;
  } else {
    last_whose_ = Whose::kOtherBlock;
    last_released_ = block_.launch->released(owner.block);
  }
  return last_whose_;
}

bool Order::released(LaunchShadow::Released* by, Record r, bool wrote) {
  if (by == nullptr) return false;
  const std::lock_guard lock(by->mutex);
  if (!wrote && by->reads.knows(record::warp(r), record::lane(r), record::id(r))) return true;
  return by->clock.knows(record::warp(r), record::lane(r), record::id(r));
}

bool Order::before(Record r, int lane, bool wrote) {
  const IntervalId id = record::id(r);
  const Clock& clock = warp_.clock(lane);
  switch (whose(id)) {
    case Whose::kFormerLaunch:
      return true;
    case Whose::kOtherBlock:
      return id < clock.acquired && released(last_released_, r, wrote);
    case Whose::kThisBlock:
      break;
  }
  const uint32_t by = record::lane(r);
  if (record::warp(r) == warp_.index && (by == static_cast<uint32_t>(lane) || id < warp_.known(lane, by))) return true;
  if (clock.knows(record::warp(r), by, id)) return true;
  // By way of another block.
  return across_blocks_ && id < clock.acquired && released(block_.released, r, wrote);
}

// --- races -----------------------------------------------------------------------------------------------------------

RaceCheck::RaceCheck(Order& order, BlockShadow& block, WarpShadow& warp, IntervalId floor, uint32_t place,
                     Manner manner, What what)
    : order_(order), block_(block), warp_(warp), what_(what), manner_(manner) {
  const IntervalId id = block.interval(warp);
  stamp_ = record::make(what == What::kIssue ? kInFlight : id, place, warp.index, 0, manner);
  // Where other blocks come, the number of a warp says nothing, but that of an interval does.
  const bool across = order.across_blocks();
  filter_.floor = Record{floor} << record::kIdShift;
  filter_.together = across ? 0 : Record{warp.together} << record::kIdShift;
  filter_.same_warp = across ? record::kIdBits : record::kWarpBits;
  filter_.same_thread = filter_.same_warp | record::kLaneBits | record::kMannerBits;
}

bool RaceCheck::all_pass(const Record* records, const Range& range) const {
  const Filter filter = filter_;
  const Range r = range;
  const Record stamp = stamp_;
  const Record* const at = records + r.first;
  uint64_t bad = 0;
  for (uint64_t i = 0; i < r.count; ++i) bad |= filter.passes(at[i], mine(stamp, r, i)) ? 0 : 1;
  return bad == 0;
}

bool RaceCheck::same_value(int lane, uint64_t place, uint32_t width, Record other) const {
  const Lanes& l = *lanes_;
  if (l.value == nullptr) return false;
  const auto value_of = [&](int of) { return l.value + static_cast<uint32_t>(of) * l.bytes + (place - l.place[of]); };
  const std::byte* before = l.memory + place;
  // Lanes of one instruction that write the same place: memory is not yet what the other has written.
  const auto by = static_cast<int>(record::lane(other));
  if (((other ^ stamp_) & ~record::kLaneBits) == 0 && (l.mask >> by & 1) != 0 && place - l.place[by] < l.bytes) {
    before = value_of(by);
  }
  return std::memcmp(value_of(lane), before, width) == 0;
}

void RaceCheck::examine(Record r, const Range& range, uint64_t i, uint32_t width, bool other_writes) {
  const Record own = mine(stamp_, range, i);
  if (filter_.passes(r, own)) return;
  const auto lane = static_cast<int>(record::lane(own));
  const uint64_t place = (range.first + i) * width;
  if (record::manner(r) == Manner::kAsync) {
    under_way(lane, place, r);
    return;
  }
  if (order_.before(r, lane, other_writes)) return;
  if (other_writes && record::synchronising(manner_) && record::manner(r) != Manner::kPlain &&
      record::manner(r) != Manner::kLanded) {
    const bool scoped = manner_ == Manner::kBlockScope || record::manner(r) == Manner::kBlockScope;
    if (!scoped || order_.whose(record::id(r)) != Order::Whose::kOtherBlock) return;
  }
  if (other_writes && what_ == What::kWrite && same_value(lane, place, width, r)) return;
  race(lane, place, r, other_writes, true);
}

void RaceCheck::check(const Granules& granules, const Range& range, uint32_t width) {
  const auto look = [&](const Record* r, bool other_writes) {
    if (all_pass(r, range)) return;
    for (uint64_t i = 0; i < range.count; ++i) examine(r[range.first + i], range, i, width, other_writes);
  };
  look(granules.write, true);
  if (synchronised_) look(granules.sync, true);
  if (!writes()) return;
  look(granules.read, false);
  look(granules.read_too, false);
  check_further_readers(granules, range, width, 1);
}

/// `per_granule`: how many of the range's units are one granule.
void RaceCheck::check_further_readers(const Granules& granules, const Range& range, uint32_t width,
                                      uint32_t per_granule) {
  if (order_.across_blocks() || !records_->further_readers()) return;
  for (uint64_t i = 0; i < range.count; ++i) {
    const uint64_t granule = (range.first + i) / per_granule;
    const Record oldest = granules.further[granule];
    if (oldest < filter_.floor) continue;
    const auto lane = static_cast<int>(record::lane(mine(stamp_, range, i)));
    const Clock& clock = warp_.clock(lane);
    const IntervalId id = record::id(oldest);
    each_lane(granules.further_warps[granule] & ~(Mask{1} << warp_.index), [&](int warp) {
      const auto w = static_cast<uint32_t>(warp);
      if (w == record::warp(oldest)) {
        if (!order_.before(oldest, lane, false)) race(lane, (range.first + i) * width, oldest, false, true);
      } else if (clock.all[w] <= id && clock.part[w] <= id && clock.floor <= id) {
        race(lane, (range.first + i) * width, record::of_warp(oldest, w), false, false);
      }
    });
  }
}

void RaceCheck::note_readers(const Granules& granules, const Range& range) {
  const Filter filter = filter_;
  const Range r = range;
  const Record stamp = stamp_;
  Record* const __restrict read = granules.read + r.first;
  uint64_t others = 0;
  for (uint64_t i = 0; i < r.count; ++i) {
    const Record own = mine(stamp, r, i), old = read[i];
    const bool take = filter.mine_or_old(old, own);
    others |= take ? 0 : 1;
    read[i] = take ? own : old;
  }
  if (others == 0) return;
  if (!order_.across_blocks()) note_further_readers(granules, range);
  Record* const __restrict read_too = granules.read_too + r.first;
  for (uint64_t i = 0; i < r.count; ++i) {
    const Record own = mine(stamp, r, i), first = read[i], second = read_too[i];
    const bool keep = filter.mine_or_old(first, own) | filter.second_stays(first, second, own);
    read_too[i] = keep ? second : own;
  }
}

/// Before the second reader is noted: whom that will drive out, or who will not be noted there.
void RaceCheck::note_further_readers(const Granules& granules, const Range& range) {
  const Filter filter = filter_;
  const Range r = range;
  const Record stamp = stamp_;
  const Record* const __restrict read = granules.read + r.first;
  const Record* const __restrict read_too = granules.read_too + r.first;
  Record* const __restrict further = granules.further + r.first;
  uint32_t* const __restrict warps = granules.further_warps + r.first;
  uint64_t any = 0;
  for (uint64_t i = 0; i < r.count; ++i) {
    const Record own = mine(stamp, r, i), first = read[i], second = read_too[i], old = further[i];
    const Record left_out = filter.second_stays(first, second, own) ? own : second;
    const bool lost = !filter.mine_or_old(first, own) & !filter.mine_or_old(second, own);
    const bool fresh = old < filter.floor;
    further[i] = lost & (fresh | (left_out < old)) ? left_out : old;
    warps[i] = lost ? (fresh ? 0 : warps[i]) | uint32_t{1} << record::warp(left_out) : warps[i];
    any |= lost ? 1 : 0;
  }
  if (any != 0) records_->set_further_readers();
}

void RaceCheck::note_writers(const Granules& granules, const Range& range) {
  const bool synchronises = record::synchronising(manner_);
  Record* const write = (synchronises ? granules.sync : granules.write) + range.first;
  if (what_ == What::kLand) {
    for (uint64_t i = 0; i < range.count; ++i) {
      if (record::manner(write[i]) != Manner::kAsync) continue;
      write[i] = mine(stamp_, range, i);
      ++in_flight_;
    }
    return;
  }
  if (order_.across_blocks() && manner_ != Manner::kPlain) {
    note_ordered_writers(write, range);
    return;
  }
  const Range r = range;
  const Record stamp = stamp_;
  for (uint64_t i = 0; i < r.count; ++i) write[i] = mine(stamp, r, i);
  // Who writes after the one who writes now is told of this write, or comes after the readers before it.
  if (records_->further_readers()) std::fill_n(granules.further + r.first, r.count, 0);
  if (what_ == What::kIssue) in_flight_ += range.count;
}

/// Other workers may be at the same place. Whoever acquires from a record must see at least what all before it have
/// released: records follow each other with growing intervals, and none is lost.
void RaceCheck::note_ordered_writers(Record* records, const Range& range) {
  for (uint64_t i = 0; i < range.count; ++i) {
    const std::atomic_ref<Record> at(records[i]);
    Record old = at.load();
    do {
      if (record::id(old) > record::id(stamp_) && record::id(old) != kInFlight) {
        warp_.id = kNobody;
        stamp_ = (stamp_ & ~record::kIdBits) | Record{block_.interval(warp_)} << record::kIdShift;
      }
    } while (!at.compare_exchange_weak(old, mine(stamp_, range, i)));
    if ((i & ((uint64_t{1} << range.lane_shift) - 1)) == 0) replaced_[record::lane(mine(stamp_, range, i))] = old;
  }
}

/// Others that see the record must see the value, too, to tell whether they write the same: so it is written now. The
/// instruction writes it again; in between nobody can write another without a race.
void RaceCheck::write_early(const Range& range, uint32_t width) const {
  const Lanes& l = *lanes_;
  if (what_ != What::kWrite || l.value == nullptr || manner_ != Manner::kPlain || !order_.across_blocks()) return;
  std::memcpy(l.memory + range.first * width, l.value + range.lane * l.bytes, range.count * width);
}

void RaceCheck::words(AccessRecords& records, const Range& range) {
  if (what_ != What::kLand) {
    check(records.words(), range, 4);
    if (const Granules* byte = records.bytes()) {
      check(*byte, {range.first * 4, range.count * 4, range.lane, range.lane_shift + 2}, 1);
    }
  }
  write_early(range, 4);
  if (what_ == What::kRead) {
    note_readers(records.words(), range);
  } else if (what_ != What::kReadOnly) {
    note_writers(records.words(), range);
  }
}

void RaceCheck::bytes(AccessRecords& records, const Granules& own, const Range& range) {
  if (what_ != What::kLand) {
    const Granules& word = records.words();
    const uint64_t first = range.first / 4, last = (range.first + range.count - 1) / 4;
    const auto look = [&](const Record* r, bool other_writes) {
      Record newest = 0;
      for (uint64_t w = first; w <= last; ++w) newest = r[w] > newest ? r[w] : newest;
      if (newest < filter_.floor) return;
      for (uint64_t i = 0; i < range.count; ++i) examine(r[(range.first + i) / 4], range, i, 1, other_writes);
    };
    look(word.write, true);
    if (synchronised_) look(word.sync, true);
    if (writes()) {
      look(word.read, false);
      look(word.read_too, false);
      check_further_readers(word, range, 1, 4);
    }
    check(own, range, 1);
  }
  write_early(range, 1);
  if (what_ == What::kRead) {
    note_readers(own, range);
  } else if (what_ != What::kReadOnly) {
    note_writers(own, range);
  }
}

void RaceCheck::run(AccessRecords& records, const Lanes& lanes) {
  lanes_ = &lanes;
  records_ = &records;
  if (writes() && record::synchronising(manner_)) records.set_synchronised();
  synchronised_ = records.synchronised();
  const uint64_t* place = lanes.place;
  const bool row = in_row(lanes.mask, place, lanes.bytes);
  const uint64_t start = place[std::countr_zero(lanes.mask)];
  uint64_t low = (start | lanes.bytes) & 3, from_first = row ? 1 : 0;
  for (uint64_t l = 0; l < kLanes && !row; ++l) {
    const bool on = (lanes.mask >> l & 1) != 0;
    low |= on ? place[l] & 3 : 0;
    from_first |= on ? place[l] ^ start : 0;
  }
  const bool as_words = low == 0;
  const Granules* byte = as_words ? nullptr : &records.need_bytes();
  const uint64_t per_lane = as_words ? lanes.bytes / 4 : lanes.bytes;
  const auto one = [&](const Range& range) {
    if (as_words) {
      words(records, range);
    } else {
      bytes(records, *byte, range);
    }
  };
  const uint64_t unit = as_words ? 4 : 1;
  if (row && std::has_single_bit(per_lane)) {
    one({start / unit, per_lane * kLanes, 0, static_cast<uint32_t>(std::countr_zero(per_lane))});
    return;
  }
  constexpr uint32_t kOneLane = 31;
  Mask mask = lanes.mask;
  if (from_first == 0 && !writes() && what_ != What::kLand) {
    // All read the same: two of them say it.
    mask = Mask{1} << std::countr_zero(mask) | Mask{1} << (31 - std::countl_zero(mask));
  }
  each_lane(mask, [&](int l) { one({place[l] / unit, per_lane, static_cast<uint32_t>(l), kOneLane}); });
}

}  // namespace ptxsim
