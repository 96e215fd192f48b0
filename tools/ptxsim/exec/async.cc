#include <algorithm>
#include <cstring>

#include "tools/ptxsim/exec/bulk_copy.h"
#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/mbarrier.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/program/lowering.h"

/// cp.async and its groups. Data are read when the copy is issued, and land when its group is waited for: who looks too
/// early finds what was there before. What nobody waits for never lands.
namespace ptxsim {

namespace {

constexpr uint32_t kOpen = ~uint32_t{0};  // not yet in a group
constexpr uint64_t kEverything = ~uint64_t{0};

// flags of a copy.
constexpr int kBase32 = 0;  // the destination's base has 32 bits
constexpr int kHasSize = 1;
constexpr int kIgnores = 2;  // a predicate says whether the source is ignored; 2: when it is false

/// Copies that have landed leave their memory to the next ones of this thread.
thread_local std::vector<std::unique_ptr<PendingCopy>> spare_copies;

std::unique_ptr<PendingCopy> take_copy() {
  if (spare_copies.empty()) return std::make_unique<PendingCopy>();
  std::unique_ptr<PendingCopy> copy = std::move(spare_copies.back());
  spare_copies.pop_back();
  return copy;
}

/// f(n), with n() a constant 4, 8 or 16: copies of a known size are single instructions.
template <class F>
void with_size(uint32_t bytes, F f) {
  switch (bytes) {
    case 4:
      return f(std::integral_constant<int, 4>());
    case 8:
      return f(std::integral_constant<int, 8>());
    default:
      return f(std::integral_constant<int, 16>());
  }
}

/// slots: destination, source, bytes of the source (32), predicate. immediate: the destination's offset; target: the
/// source's.
void copy(Warp& w, const Instruction& in, Mask m) {
  const uint32_t bytes = in.memory.bytes;
  alignas(64) uint64_t to[kLanes], from[kLanes];
  form_addresses(w, in.slots[0], in.flags[kBase32] != 0, static_cast<int64_t>(in.immediate), to);
  form_addresses(w, in.slots[1], false, static_cast<int32_t>(in.target), from);
  Located at;
  // What the copy writes must be there, though it writes later.
  if (!locate(w, in, m, to, Space::kShared, bytes, bytes, Access::Kind::kAsyncIssue, false, nullptr, at)) return;
  std::unique_ptr<PendingCopy> pending = take_copy();
  pending->mask = m;
  pending->bytes = bytes;
  pending->instruction = &in;
  for (int l = 0; l < kLanes; ++l) pending->destination[l] = static_cast<uint32_t>(to[l]);
  std::fill_n(pending->group, kLanes, kOpen);

  // Lanes that read all, a part, or nothing are accesses of their own; the rest of the destination becomes zero.
  const auto* size = w.lanes<uint32_t>(in.slots[2]);
  const bool has_size = in.flags[kHasSize] != 0;
  Mask reads = m;
  if (in.flags[kIgnores] != 0) {
    const Mask predicate = w.predicate(in.slots[3]);
    reads &= in.flags[kIgnores] == 2 ? predicate : ~predicate;
  }
  if (has_size || reads != m) std::memset(pending->data, 0, sizeof pending->data);
  while (reads != 0) {
    uint32_t part = bytes;
    Mask same = reads;
    if (has_size) {
      part = std::min(size[std::countr_zero(reads)], bytes);
      same = reads & lane_mask([&](int l) { return std::min(size[l], bytes) == part; });
    }
    reads &= ~same;
    if (part == 0) continue;
    if (!locate(w, in, same, from, Space::kGlobal, part, bytes, Access::Kind::kAsyncRead, false, nullptr, at)) return;
    std::byte* const data = pending->data;
    if (part == bytes) {
      with_size(bytes, [&](auto size_of_all) {
        each_lane(same, [&](int l) { std::memcpy(data + l * size_of_all(), at.pointer[l], size_of_all()); });
      });
    } else {
      each_lane(same, [&](int l) { std::memcpy(data + static_cast<size_t>(l) * bytes, at.pointer[l], part); });
    }
  }
  w.pending_copies.push_back(std::move(pending));
}

/// Lands what these lanes issued up to all but the `keep` latest groups, or kEverything.
void land(Warp& w, Mask m, uint64_t keep) {
  bool landed = false;
  for (const auto& pending : w.pending_copies) {
    Mask due = pending->mask & m;
    if (keep != kEverything) {
      const uint32_t* group = pending->group;
      due &= lane_mask([&](int l) { return group[l] != kOpen && group[l] + keep < w.commits[l]; });
    }
    if (due == 0) continue;
    alignas(64) uint64_t address[kLanes];
    for (int l = 0; l < kLanes; ++l) address[l] = pending->destination[l];
    const std::byte* const data = pending->data;
    Located at;
    if (!locate(w, *pending->instruction, due, address, Space::kShared, pending->bytes, pending->bytes,
                Access::Kind::kAsyncLand, false, data, at)) {
      return;
    }
    with_size(pending->bytes, [&](auto size) {
      each_lane(due, [&](int l) { std::memcpy(at.pointer[l], data + l * size(), size()); });
    });
    pending->mask &= ~due;
    landed = true;
  }
  if (!landed) return;
  std::erase_if(w.pending_copies, [](std::unique_ptr<PendingCopy>& p) {
    if (p->mask != 0) return false;
    spare_copies.push_back(std::move(p));
    return true;
  });
}

void commit(Warp& w, const Instruction&, Mask m) {
  for (const auto& pending : w.pending_copies) {
    for_lanes(pending->group, pending->mask & m,
              [&](int l) { return pending->group[l] == kOpen ? w.commits[l] : pending->group[l]; });
  }
  for_lanes(w.commits, m, [&](int l) { return w.commits[l] + 1; });
}

void wait_group(Warp& w, const Instruction& in, Mask m) { land(w, m, in.immediate); }
void wait_all(Warp& w, const Instruction&, Mask m) { land(w, m, kEverything); }

void lower_copy(Lowering& l) {
  allow_modifiers(
      l, {"async", "ca", "cg", "shared", "shared::cta", "global", "L2::cache_hint", "L2::64B", "L2::128B", "L2::256B"});
  if (l.has("ca") == l.has("cg") || !l.has("global") || l.type_count() != 0) l.unknown();
  const uint64_t bytes = l.literal(2);
  if (bytes != 4 && bytes != 8 && bytes != 16) l.fail("cp.async of {} bytes, expected 4, 8 or 16", bytes);
  if (l.has("cg") && bytes != 16) l.fail("cp.async.cg of {} bytes, expected 16", bytes);
  const Lowering::Address to = l.address(l.operand(0), Space::kShared), from = l.address(l.operand(1), Space::kGlobal);
  if (from.base_bits == 32) l.fail("global addresses have 64 bits");
  if (from.offset != static_cast<int32_t>(from.offset)) l.fail("an offset of {} is too large", from.offset);
  Slot size = l.constant(bytes, 32), ignore = l.constant(0, 32);
  bool has_size = false, ignores = false, negated = false;
  size_t next = 3;
  const size_t end = l.operand_count() - (l.has("L2::cache_hint") ? 1 : 0);
  if (next < end) {
    if (l.register_bits(l.operand(next)) == 1) {
      ignore = l.read_predicate(l.operand(next), negated);
      ignores = true;
    } else {
      size = l.read(next, 32);
      has_size = true;
    }
    ++next;
  }
  if (next != end) l.unknown();
  if (l.has("L2::cache_hint")) static_cast<void>(l.read(end, 64));
  Instruction& in = l.emit(copy, {to.base, from.base, size, ignore});
  in.memory.space = Space::kShared;
  in.memory.bytes = static_cast<uint8_t>(bytes);
  in.immediate = static_cast<uint64_t>(to.offset);
  in.target = static_cast<uint32_t>(static_cast<int32_t>(from.offset));
  in.flags[kBase32] = to.base_bits == 32 ? 1 : 0;
  in.flags[kHasSize] = has_size ? 1 : 0;
  in.flags[kIgnores] = ignores ? (negated ? 2 : 1) : 0;
}

void lower_cp(Lowering& l) {
  if (l.has("bulk")) return lower_bulk_copy(l);
  if (l.text().modifiers.empty() || l.text().modifiers.front() != "async") l.unknown();
  if (l.has("commit_group")) {
    allow_modifiers(l, {"async", "commit_group"});
    expect_shape(l, 0, 0);
    l.emit(commit, {});
  } else if (l.has("wait_group")) {
    allow_modifiers(l, {"async", "wait_group"});
    expect_shape(l, 0, 1);
    l.emit(wait_group, {}).immediate = l.literal(0);
  } else if (l.has("wait_all")) {
    allow_modifiers(l, {"async", "wait_all"});
    expect_shape(l, 0, 0);
    l.emit(wait_all, {});
  } else if (l.has("mbarrier")) {
    // The copies so far land, then the lane arrives.
    l.emit(wait_all, {});
    l.hide();
    lower_copy_arrival(l);
  } else {
    lower_copy(l);
  }
}

// --- what changes no result -----------------------------------------------------------------------------------------

void nothing(Warp&, const Instruction&, Mask) {}

/// Grids run one after the other: what they would wait for has happened.
void lower_griddepcontrol(Lowering& l) {
  allow_modifiers(l, {"launch_dependents", "wait"});
  if (l.text().modifiers.size() != 1) l.unknown();
  expect_shape(l, 0, 0);
  l.emit(nothing, {});
}

void lower_setmaxnreg(Lowering& l) {
  allow_modifiers(l, {"inc", "dec", "sync", "aligned"});
  if (l.has("inc") == l.has("dec")) l.unknown();
  expect_shape(l, 1, 1);
  const uint64_t count = l.literal(0);
  if (count < 24 || count > 256 || count % 8 != 0)
    l.fail("{} registers, expected a multiple of 8 from 24 to 256", count);
  l.emit(nothing, {});
}

void policy(Warp& w, const Instruction& in, Mask m) {
  for_lanes(w.lanes<uint64_t>(in.slots[0]), m, [&](int) { return uint64_t{0}; });
}

/// Cache policies are only ever handed back; any value will do.
void lower_createpolicy(Lowering& l) {
  allow_modifiers(l, {"range", "fractional", "cvt", "L2", "global", "L2::evict_last", "L2::evict_normal",
                      "L2::evict_first", "L2::evict_unchanged"});
  if (l.type_count() != 1 || l.type() != DataType::kB64) l.unknown();
  l.emit(policy, {l.write(0, 64)});
}

void lower_tensormap(Lowering& l) { l.fail("changing tensor maps is not supported"); }

}  // namespace

void add_async(OpcodeTable& t) {
  t.add("cp", Kind::kAsyncCopy, lower_cp);
  t.add("mbarrier", Kind::kBarrier, lower_mbarrier);
  t.add("griddepcontrol", Kind::kOther, lower_griddepcontrol);
  t.add("setmaxnreg", Kind::kOther, lower_setmaxnreg);
  t.add("createpolicy", Kind::kOther, lower_createpolicy);
  t.add("tensormap", Kind::kAsyncCopy, lower_tensormap);
}

}  // namespace ptxsim
