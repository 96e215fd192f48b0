#include "tools/ptxsim/program/registers.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace ptxsim {

namespace {

using Bits = std::vector<uint64_t>;

bool test(const Bits& bits, uint32_t i) { return (bits[i / 64] >> (i % 64) & 1) != 0; }
void set(Bits& bits, uint32_t i) { bits[i / 64] |= uint64_t{1} << (i % 64); }
void clear(Bits& bits, uint32_t i) { bits[i / 64] &= ~(uint64_t{1} << (i % 64)); }

uint32_t bytes_of(uint32_t bits) {
  if (bits == 1) return 4;
  return std::max<uint32_t>(bits, 16) / 8 * kLanes;
}

struct Block {
  uint32_t first, last;  // positions in the order
  std::vector<uint32_t> successors;
  Bits in, out;
};

}  // namespace

std::vector<uint32_t> place_registers(const std::vector<Draft>& drafts, const std::vector<LaidOut>& order,
                                      std::span<const uint32_t> register_bits, uint32_t& frame_bytes) {
  const auto count = static_cast<uint32_t>(register_bits.size());
  const size_t words = (count + 63) / 64;
  const auto positions = static_cast<uint32_t>(order.size());

  // Blocks over the final order.
  std::vector<uint32_t> position_of(drafts.size(), 0);
  for (uint32_t p = 0; p < positions; ++p) {
    if (!order[p].jump) position_of[order[p].draft] = p;
  }
  std::vector<bool> leader(positions + 1, false);
  leader[0] = true;
  const auto successors_of = [&](uint32_t p) {
    std::vector<uint32_t> to;
    if (order[p].jump) {
      to.push_back(position_of[order[p].draft]);
      return to;
    }
    const Draft& d = drafts[order[p].draft];
    for (const uint32_t s : d.successors) to.push_back(position_of[s]);
    if (d.falls_through && p + 1 < positions) to.push_back(p + 1);
    return to;
  };
  for (uint32_t p = 0; p < positions; ++p) {
    const bool control =
        order[p].jump || !drafts[order[p].draft].successors.empty() || !drafts[order[p].draft].falls_through;
    if (!control) continue;
    leader[p + 1] = true;
    for (const uint32_t s : successors_of(p)) leader[s] = true;
  }
  std::vector<Block> blocks;
  std::vector<uint32_t> block_of(positions);
  for (uint32_t p = 0; p < positions; ++p) {
    if (leader[p]) blocks.push_back({p, p, {}, Bits(words), Bits(words)});
    block_of[p] = static_cast<uint32_t>(blocks.size() - 1);
    blocks.back().last = p;
  }
  for (Block& b : blocks) {
    for (const uint32_t s : successors_of(b.last)) b.successors.push_back(block_of[s]);
  }

  // Who is alive where. A write under a guard or by some lanes only leaves the others' values, which matter where the
  // guard is false; lanes that do not run this path have paths of their own.
  const auto step_back = [&](uint32_t p, Bits& live) {
    if (order[p].jump) return;
    const Draft& d = drafts[order[p].draft];
    if (d.instruction.guard == kNoGuard) {
      for (const uint32_t w : d.writes) clear(live, w);
    }
    for (const uint32_t k : d.kills) clear(live, k);
    for (const uint32_t r : d.reads) set(live, r);
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (auto b = blocks.rbegin(); b != blocks.rend(); ++b) {
      Bits live(words);
      for (const uint32_t s : b->successors) {
        for (size_t w = 0; w < words; ++w) live[w] |= blocks[s].in[w];
      }
      b->out = live;
      for (uint32_t p = b->last + 1; p-- > b->first;) step_back(p, live);
      if (live != b->in) {
        b->in = std::move(live);
        changed = true;
      }
    }
  }

  // One interval of positions for each register.
  struct Interval {
    uint32_t first, last, id;
  };
  constexpr uint32_t kNever = ~uint32_t{0};
  std::vector<Interval> intervals(count);
  for (uint32_t i = 0; i < count; ++i) intervals[i] = {kNever, 0, i};
  const auto touch = [&](uint32_t id, uint32_t p) {
    intervals[id].first = std::min(intervals[id].first, p);
    intervals[id].last = std::max(intervals[id].last, p);
  };
  for (const Block& b : blocks) {
    for (uint32_t id = 0; id < count; ++id) {
      if (test(b.in, id)) touch(id, b.first);
      if (test(b.out, id)) touch(id, b.last);
    }
  }
  for (uint32_t p = 0; p < positions; ++p) {
    if (order[p].jump) continue;
    for (const uint32_t r : drafts[order[p].draft].reads) touch(r, p);
    for (const uint32_t w : drafts[order[p].draft].writes) touch(w, p);
    for (const uint32_t k : drafts[order[p].draft].kills) touch(k, p);
  }

  // Linear scan: a place is free again behind its register's last position.
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return std::tie(a.first, a.id) < std::tie(b.first, b.id); });
  std::vector<uint32_t> offsets(count, 0);
  std::multimap<uint32_t, uint32_t> ends;          // last position -> register
  std::map<uint32_t, std::vector<uint32_t>> free;  // size -> offsets
  for (const Interval& interval : intervals) {
    if (interval.first == kNever) continue;
    while (!ends.empty() && ends.begin()->first < interval.first) {
      const uint32_t id = ends.begin()->second;
      free[bytes_of(register_bits[id])].push_back(offsets[id]);
      ends.erase(ends.begin());
    }
    const uint32_t size = bytes_of(register_bits[interval.id]);
    std::vector<uint32_t>& places = free[size];
    if (places.empty()) {
      // Predicates come sixteen to a line of 64 bytes.
      const uint32_t unit = std::max<uint32_t>(size, 64);
      for (uint32_t at = unit; at >= size && at > 0; at -= size) places.push_back(frame_bytes + at - size);
      frame_bytes += unit;
    }
    offsets[interval.id] = places.back();
    places.pop_back();
    ends.emplace(interval.last, interval.id);
  }
  return offsets;
}

}  // namespace ptxsim
