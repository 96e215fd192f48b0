#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/program/lowering.h"

/// Instructions by which the lanes of a warp tell each other something: shfl, vote, match, redux, elect.
namespace ptxsim {

namespace {

/// Lets f see each set of lanes that name the same members: f(members, lanes). f may overwrite `members` for its lanes,
/// as a destination that is the same register does.
template <class F>
void each_party(Mask mask, const uint32_t* members, F f) {
  while (mask != 0) {
    const uint32_t named = members[std::countr_zero(mask)];
    Mask same = 0;
    for (int l = 0; l < kLanes; ++l) same |= Mask{members[l] == named} << l;
    same &= mask;
    mask &= ~same;
    f(named, same);
  }
}

// --- meeting ---------------------------------------------------------------------------------------------------------

// flags. The first is the operation's.
constexpr int kShape = 1;  // index in kShapes
constexpr int kMet = 2;    // the lanes are together already

/// What the slots of an operation hold.
struct Operand {
  uint8_t bits;
  bool written = false;
};
struct Shape {
  size_t members;  // which slot names the lanes
  std::vector<Operand> slots;
};
enum ShapeName : uint8_t {
  kShuffleShape,
  kBallotShape,
  kVoteShape,
  kMatchShape,
  kWideMatchShape,
  kReduxShape,
  kElectShape
};
const Shape kShapes[] = {{4, {{32, true}, {32}, {32}, {32}, {32}, {1, true}}},
                         {2, {{32, true}, {1}, {32}}},
                         {2, {{1, true}, {1}, {32}}},
                         {2, {{32, true}, {32}, {32}, {1, true}}},
                         {2, {{32, true}, {64}, {32}, {1, true}}},
                         {2, {{32, true}, {32}, {32}}},
                         {1, {{32, true}, {32}, {1, true}}}};

/// Lanes at one of the places of an operation that lanes execute at several.
struct Party {
  const Instruction* in;
  std::byte* frame;
  Mask lanes;
  size_t group;

  template <class T>
  T* at(const Warp& w, size_t slot) const {
    const Slot s = in->slots[slot];
    return reinterpret_cast<T*>((s.base() == Slot::kFrame ? frame : w.base[s.base()]) + s.offset());
  }
};

void copy_lanes(std::byte* to, const std::byte* from, uint32_t bits, Mask lanes) {
  if (bits == 1) {
    Mask& d = *reinterpret_cast<Mask*>(to);
    d = (d & ~lanes) | (*reinterpret_cast<const Mask*>(from) & lanes);
    return;
  }
  const size_t bytes = bits / 8;
  each_lane(lanes, [&](int l) {
    std::memcpy(to + static_cast<size_t>(l) * bytes, from + static_cast<size_t>(l) * bytes, bytes);
  });
}

/// Executes the operation for those of its lanes that are complete, of whom some wait at other places: their operands
/// are brought together in a frame of its own. False: it was not for these alone to see to, and nothing has happened.
bool meet_elsewhere(Warp& w, const Instruction& in, Mask mask) {
  const Shape& shape = kShapes[in.flags[kShape]];
  const Instruction* const code = w.program().code.data();
  std::vector<Party> parties = {{&in, w.base[Slot::kFrame], mask, ~size_t{0}}};
  for (size_t g = 0; g < w.groups().size(); ++g) {
    const Group& other = w.groups()[g];
    if (other.state != Group::State::kConverge || !other.anywhere || code[other.pc].execute != in.execute) continue;
    parties.push_back({&code[other.pc], w.frame_at(other.frame), other.mask, g});
  }
  Mask here = 0, complete = 0, missing = 0;
  alignas(64) uint32_t members[kLanes] = {};
  for (const Party& p : parties) {
    here |= p.lanes;
    copy_lanes(reinterpret_cast<std::byte*>(members), p.at<std::byte>(w, shape.members), 32, p.lanes);
  }
  each_lane(here, [&](int l) { complete |= Mask{(members[l] & w.alive() & ~here) == 0} << l; });
  if ((complete & ~mask) == 0) return false;

  constexpr uint32_t kSlotBytes = kLanes * 8, kMostSlots = 6;
  alignas(64) std::byte frame[kSlotBytes * kMostSlots] = {};
  Slot slots[kMostSlots];
  for (size_t s = 0; s < shape.slots.size(); ++s) {
    const auto offset = static_cast<uint32_t>(s) * kSlotBytes;
    slots[s] = Slot::at(Slot::kFrame, offset);
    if (shape.slots[s].written) continue;
    for (const Party& p : parties) {
      Mask predicate = 0;
      const auto* from = p.at<std::byte>(w, s);
      if (shape.slots[s].bits == 1 && p.in->flags[0] != 0) {  // a vote's, negated
        predicate = ~*p.at<Mask>(w, s);
        from = reinterpret_cast<const std::byte*>(&predicate);
      }
      copy_lanes(frame + offset, from, shape.slots[s].bits, p.lanes & complete);
    }
  }
  Instruction together = in;
  together.slots = slots;
  const bool votes = in.flags[kShape] == kBallotShape || in.flags[kShape] == kVoteShape;
  together.flags[0] = votes ? 0 : 1;  // the others have a predicate for a second result
  together.flags[kMet] = 1;
  std::byte* const own_frame = std::exchange(w.base[Slot::kFrame], frame);
  in.execute(w, together, complete);
  w.base[Slot::kFrame] = own_frame;
  if (w.active == 0) return true;  // a fault
  for (size_t s = 0; s < shape.slots.size(); ++s) {
    if (!shape.slots[s].written) continue;
    for (const Party& p : parties) {
      if (s >= p.in->slot_count) continue;
      copy_lanes(p.at<std::byte>(w, s), frame + s * kSlotBytes, shape.slots[s].bits, p.lanes & complete);
    }
  }

  const auto count = [&](uint32_t index, int executed, Mask lanes) {
    if (!w.counting) return;
    w.worker->executed[index] += static_cast<uint64_t>(executed);
    w.worker->threads[index] += static_cast<uint64_t>(std::popcount(lanes));
  };
  for (const Party& p : parties) {
    const Mask done = p.lanes & complete;
    if (p.in == &in && p.group == ~size_t{0}) continue;
    Group go_on = w.groups()[p.group];
    w.groups()[p.group].mask &= ~done;
    if (done == 0) continue;
    go_on.mask = done;
    go_on.state = Group::State::kReady;
    ++go_on.pc;
    count(p.in->index, 1, done);
    w.groups().push_back(std::move(go_on));
  }
  const Mask wait = mask & ~complete;
  each_lane(wait, [&](int l) { missing |= members[l]; });
  if (w.counting) w.worker->threads[in.index] -= static_cast<uint64_t>(std::popcount(wait));
  if (wait == mask) count(in.index, -1, 0);
  if (wait != 0) w.hold(in, wait, missing, true);
  w.switch_pc = 0;
  return true;
}

/// Brings the lanes of a .sync instruction together. False: these lanes wait, or have executed it, or the launch has
/// ended.
bool meet(Warp& w, const Instruction& in, Mask& mask, const uint32_t* members) {
  if (in.flags[kMet] == 0) {
    if (mask != w.alive() && w.waits_elsewhere(in) && meet_elsewhere(w, in, mask)) return false;
    if (!w.converge(in, mask, members, true)) return false;
  }
  if (w.observer == nullptr) return true;
  bool fine = true;
  each_party(mask, members, [&](uint32_t named, Mask lanes) {
    w.tell_warp_sync(lanes);
    fine = fine && w.named_itself(in, lanes, named);
  });
  return fine;
}

/// A value for all of a party's lanes.
template <class D>
void give(D* d, Mask lanes, D value) {
  for_lanes(d, lanes, [value](int) { return value; });
}

void give(Mask& predicate, Mask lanes, bool value) { predicate = value ? predicate | lanes : predicate & ~lanes; }

// --- shfl ------------------------------------------------------------------------------------------------------------

enum class Shuffle { kUp, kDown, kButterfly, kIndex };

/// slots: destination, source, b, c, [members], [predicate]. flags[0]: there is a predicate.
template <Shuffle kMode, bool kSync>
void shfl(Warp& w, const Instruction& in, Mask m) {
  if (kSync && !meet(w, in, m, w.lanes<uint32_t>(in.slots[4]))) return;
  const auto* b = w.lanes<uint32_t>(in.slots[2]);
  const auto* c = w.lanes<uint32_t>(in.slots[3]);
  // What a lane that does not take part would hand over is undefined on the device; here it is zero, always.
  alignas(64) uint32_t source[kLanes] = {};
  const auto* a = w.lanes<uint32_t>(in.slots[1]);
  for_lanes(source, m, [a](int l) { return a[l]; });
  alignas(64) uint32_t from[kLanes];
  Mask inside = 0;
  for (int l = 0; l < kLanes; ++l) {
    const int segment = static_cast<int>(c[l] >> 8 & 31);
    const int offset = static_cast<int>(b[l] & 31);
    const int lowest = l & segment;
    const int highest = lowest | (static_cast<int>(c[l] & 31) & ~segment);
    int j = 0;
    if constexpr (kMode == Shuffle::kUp) j = l - offset;
    if constexpr (kMode == Shuffle::kDown) j = l + offset;
    if constexpr (kMode == Shuffle::kButterfly) j = l ^ offset;
    if constexpr (kMode == Shuffle::kIndex) j = lowest | (offset & ~segment);
    const bool good = kMode == Shuffle::kUp ? j >= highest : j <= highest;
    from[l] = static_cast<uint32_t>(good ? j : l);
    inside |= Mask{good} << l;
  }
  for_lanes(w.lanes<uint32_t>(in.slots[0]), m, [&](int l) { return source[from[l]]; });
  if (in.flags[0] != 0) {
    Mask& p = w.predicate(in.slots[kSync ? 5 : 4]);
    p = (p & ~m) | (inside & m);
  }
}

template <bool kSync>
Handler shuffle_of(std::string_view mode) {
  if (mode == "up") return shfl<Shuffle::kUp, kSync>;
  if (mode == "down") return shfl<Shuffle::kDown, kSync>;
  if (mode == "bfly") return shfl<Shuffle::kButterfly, kSync>;
  if (mode == "idx") return shfl<Shuffle::kIndex, kSync>;
  return nullptr;
}

/// The modifiers as written, which for these instructions come in a fixed order; without .sync.
std::vector<std::string_view> modifiers(const Lowering& l, bool& sync) {
  std::vector<std::string_view> words;
  sync = false;
  for (const std::string& m : l.text().modifiers) {
    if (m == "sync") {
      sync = true;
    } else {
      words.push_back(m);
    }
  }
  return words;
}

void expect_operands(const Lowering& l, size_t count) {
  if (l.operand_count() != count) l.fail("expected {} operands, found {}", count, l.operand_count());
}

/// `d|p` or `d`.
struct Destinations {
  const ptx::Operand* value;
  const ptx::Operand* predicate;  // null for none
};

Destinations destinations(const Lowering& l) {
  const ptx::Operand& d = l.operand(0);
  if (d.kind != ptx::Operand::Kind::kPair) return {&d, nullptr};
  if (d.parts.size() != 2) l.unknown();
  return {&d.parts[0], &d.parts[1]};
}

void lower_shfl(Lowering& l) {
  bool sync = false;
  const auto words = modifiers(l, sync);
  if (words.size() != 2 || words[1] != "b32") l.unknown();
  const Handler handler = sync ? shuffle_of<true>(words[0]) : shuffle_of<false>(words[0]);
  if (handler == nullptr) l.unknown();
  expect_operands(l, sync ? 5 : 4);
  const Destinations d = destinations(l);
  std::vector<Slot> slots = {l.write(*d.value, 32), l.read(1, 32), l.read(2, 32), l.read(3, 32)};
  if (sync) slots.push_back(l.read(4, 32));
  if (d.predicate != nullptr) slots.push_back(l.write_predicate(*d.predicate));
  Instruction& in = l.emit(handler, slots);
  in.flags[0] = d.predicate != nullptr ? 1 : 0;
  in.flags[kShape] = kShuffleShape;
}

// --- vote ------------------------------------------------------------------------------------------------------------

enum class Vote { kAll, kAny, kUniform, kBallot };

/// slots: destination, predicate, [members]. flags[0]: the predicate is negated.
template <Vote kMode, bool kSync>
void vote(Warp& w, const Instruction& in, Mask m) {
  const auto decide = [&](Mask voters, Mask lanes, Mask predicate) {
    const Mask yes = predicate & voters;
    if constexpr (kMode == Vote::kBallot) give(w.lanes<uint32_t>(in.slots[0]), lanes, yes);
    if constexpr (kMode == Vote::kAll) give(w.predicate(in.slots[0]), lanes, yes == voters);
    if constexpr (kMode == Vote::kAny) give(w.predicate(in.slots[0]), lanes, yes != 0);
    if constexpr (kMode == Vote::kUniform) give(w.predicate(in.slots[0]), lanes, yes == voters || yes == 0);
  };
  const auto votes = [&] {
    const Mask p = w.predicate(in.slots[1]);
    return in.flags[0] != 0 ? ~p : p;
  };
  if constexpr (kSync) {
    const auto* members = w.lanes<uint32_t>(in.slots[2]);
    if (!meet(w, in, m, members)) return;
    const Mask predicate = votes();  // the destination may be the same register
    each_party(m, members, [&](uint32_t named, Mask lanes) { decide(named & lanes, lanes, predicate); });
  } else {
    decide(m, m, votes());
  }
}

template <bool kSync>
Handler vote_of(std::string_view mode) {
  if (mode == "all") return vote<Vote::kAll, kSync>;
  if (mode == "any") return vote<Vote::kAny, kSync>;
  if (mode == "uni") return vote<Vote::kUniform, kSync>;
  if (mode == "ballot") return vote<Vote::kBallot, kSync>;
  return nullptr;
}

void lower_vote(Lowering& l) {
  bool sync = false;
  const auto words = modifiers(l, sync);
  if (words.size() != 2) l.unknown();
  const bool ballot = words[0] == "ballot";
  const Handler handler = sync ? vote_of<true>(words[0]) : vote_of<false>(words[0]);
  if (handler == nullptr || words[1] != (ballot ? "b32" : "pred")) l.unknown();
  expect_operands(l, sync ? 3 : 2);
  bool negated = false;
  const Slot p = l.read_predicate(l.operand(1), negated);
  const Slot d = ballot ? l.write(0, 32) : l.write_predicate(l.operand(0));
  std::vector<Slot> slots = {d, p};
  if (sync) slots.push_back(l.read(2, 32));
  Instruction& in = l.emit(handler, slots);
  in.flags[0] = negated ? 1 : 0;
  in.flags[kShape] = ballot ? kBallotShape : kVoteShape;
}

// --- match -----------------------------------------------------------------------------------------------------------

/// slots: destination, source, members.
template <class T>
void match_any(Warp& w, const Instruction& in, Mask m) {
  const auto* members = w.lanes<uint32_t>(in.slots[2]);
  if (!meet(w, in, m, members)) return;
  const auto* source = w.lanes<T>(in.slots[1]);
  alignas(64) T value[kLanes];
  std::memcpy(value, source, sizeof(value));
  auto* d = w.lanes<uint32_t>(in.slots[0]);
  each_party(m, members, [&](uint32_t named, Mask lanes) {
    while (lanes != 0) {
      const T wanted = value[std::countr_zero(lanes)];
      Mask equal = 0;
      for (int l = 0; l < kLanes; ++l) equal |= Mask{value[l] == wanted} << l;
      equal &= lanes;
      give(d, equal, equal & named);
      lanes &= ~equal;
    }
  });
}

/// slots: destination, source, members, [predicate]. flags[0]: there is a predicate.
template <class T>
void match_all(Warp& w, const Instruction& in, Mask m) {
  const auto* members = w.lanes<uint32_t>(in.slots[2]);
  if (!meet(w, in, m, members)) return;
  const auto* source = w.lanes<T>(in.slots[1]);
  alignas(64) T value[kLanes];
  std::memcpy(value, source, sizeof(value));
  auto* d = w.lanes<uint32_t>(in.slots[0]);
  each_party(m, members, [&](uint32_t named, Mask lanes) {
    const T first = value[std::countr_zero(lanes)];
    Mask different = 0;
    for (int l = 0; l < kLanes; ++l) different |= Mask{value[l] != first} << l;
    const bool same = (different & lanes & named) == 0;
    give(d, lanes, same ? lanes & named : 0);
    if (in.flags[0] != 0) give(w.predicate(in.slots[3]), lanes, same);
  });
}

void lower_match(Lowering& l) {
  bool sync = false;
  const auto words = modifiers(l, sync);
  if (!sync || words.size() != 2 || (words[0] != "any" && words[0] != "all")) l.unknown();
  if (words[1] != "b32" && words[1] != "b64") l.unknown();
  expect_operands(l, 3);
  const bool wide = words[1] == "b64";
  const Destinations d = destinations(l);
  std::vector<Slot> slots = {l.write(*d.value, 32), l.read(1, wide ? 64 : 32), l.read(2, 32)};
  if (words[0] == "any") {
    if (d.predicate != nullptr) l.unknown();
    l.emit(wide ? match_any<uint64_t> : match_any<uint32_t>, slots).flags[kShape] =
        wide ? kWideMatchShape : kMatchShape;
    return;
  }
  if (d.predicate != nullptr) slots.push_back(l.write_predicate(*d.predicate));
  Instruction& in = l.emit(wide ? match_all<uint64_t> : match_all<uint32_t>, slots);
  in.flags[0] = d.predicate != nullptr ? 1 : 0;
  in.flags[kShape] = wide ? kWideMatchShape : kMatchShape;
}

// --- redux -----------------------------------------------------------------------------------------------------------

struct Add {
  uint32_t operator()(uint32_t a, uint32_t b) const { return a + b; }
};
struct And {
  uint32_t operator()(uint32_t a, uint32_t b) const { return a & b; }
};
struct Or {
  uint32_t operator()(uint32_t a, uint32_t b) const { return a | b; }
};
struct Xor {
  uint32_t operator()(uint32_t a, uint32_t b) const { return a ^ b; }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

/// slots: destination, source, members.
template <class T, class Combine>
void redux(Warp& w, const Instruction& in, Mask m) {
  const auto* members = w.lanes<uint32_t>(in.slots[2]);
  if (!meet(w, in, m, members)) return;
  alignas(64) T value[kLanes];
  std::memcpy(value, w.lanes<T>(in.slots[1]), sizeof(value));
  each_party(m, members, [&](uint32_t named, Mask lanes) {
    const Mask parts = (lanes & named) != 0 ? lanes & named : lanes;
    T result = value[std::countr_zero(parts)];
    each_lane(parts & (parts - 1), [&](int l) { result = Combine{}(result, value[l]); });
    give(w.lanes<T>(in.slots[0]), lanes, result);
  });
}

void lower_redux(Lowering& l) {
  bool sync = false;
  const auto words = modifiers(l, sync);
  if (!sync || words.size() != 2) l.unknown();
  expect_operands(l, 3);
  const std::string_view op = words[0];
  const bool is_signed = words[1] == "s32";
  Handler handler = nullptr;
  if (is_signed || words[1] == "u32") {
    if (op == "add") handler = redux<uint32_t, Add>;
    if (op == "min") handler = is_signed ? redux<int32_t, Min> : redux<uint32_t, Min>;
    if (op == "max") handler = is_signed ? redux<int32_t, Max> : redux<uint32_t, Max>;
  } else if (words[1] == "b32") {
    if (op == "and") handler = redux<uint32_t, And>;
    if (op == "or") handler = redux<uint32_t, Or>;
    if (op == "xor") handler = redux<uint32_t, Xor>;
  }
  if (handler == nullptr) l.unknown();
  l.emit(handler, {l.write(0, 32), l.read(1, 32), l.read(2, 32)}).flags[kShape] = kReduxShape;
}

// --- elect -----------------------------------------------------------------------------------------------------------

/// slots: destination, members, predicate. The lowest lane leads.
void elect(Warp& w, const Instruction& in, Mask m) {
  const auto* members = w.lanes<uint32_t>(in.slots[1]);
  if (!meet(w, in, m, members)) return;
  each_party(m, members, [&](uint32_t named, Mask lanes) {
    const Mask candidates = (lanes & named) != 0 ? lanes & named : lanes;
    const int leader = std::countr_zero(candidates);
    give(w.lanes<uint32_t>(in.slots[0]), lanes, static_cast<uint32_t>(leader));
    Mask& p = w.predicate(in.slots[2]);
    p = (p & ~lanes) | (Mask{1} << leader);
  });
}

void lower_elect(Lowering& l) {
  bool sync = false;
  const auto words = modifiers(l, sync);
  if (!sync || !words.empty()) l.unknown();
  expect_operands(l, 2);
  const Destinations d = destinations(l);
  if (d.predicate == nullptr) l.unknown();
  l.emit(elect, {l.write(*d.value, 32), l.read(1, 32), l.write_predicate(*d.predicate)}).flags[kShape] = kElectShape;
}

}  // namespace

void add_warp(OpcodeTable& t) {
  t.add("shfl", Kind::kWarp, lower_shfl);
  t.add("vote", Kind::kWarp, lower_vote);
  t.add("match", Kind::kWarp, lower_match);
  t.add("redux", Kind::kWarp, lower_redux);
  t.add("elect", Kind::kWarp, lower_elect);
}

}  // namespace ptxsim
