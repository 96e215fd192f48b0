#include "tools/ptxsim/check/undefined.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <map>
#include <string_view>

#include "tools/ptxsim/check/watcher.h"

namespace ptxsim {

namespace {

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Instructions without a destination in front.
bool only_reads(const ptx::Instruction& text) {
  return one_of(text.opcode,
                {"st",    "red",           "bra",       "brx",      "bar",   "barrier",       "call",      "ret",
                 "exit",  "trap",          "membar",    "fence",    "cp",    "prefetch",      "prefetchu", "discard",
                 "brkpt", "applypriority", "nanosleep", "stmatrix", "wgmma", "griddepcontrol"});
}

RegisterUse::Kind kind_of(const ptx::Instruction& text, const Instruction& in) {
  using Kind = RegisterUse::Kind;
  const std::string_view op = text.opcode;
  if (op == "ld" || op == "ldu") return in.memory.space == Space::kParam ? Kind::kCompute : Kind::kLoad;
  if (op == "st") return in.memory.space == Space::kParam || text.has("async") ? Kind::kDecide : Kind::kStore;
  if (op == "mov") return Kind::kCopy;
  if (op == "selp") return Kind::kSelect;
  if ((op == "and" || op == "or") && text.has("pred")) return Kind::kLogic;
  if (op == "setp" && (text.has("and") || text.has("or"))) return Kind::kCompare;
  if (only_reads(text) || one_of(op, {"shfl", "vote", "match", "redux", "elect", "atom", "mma", "wmma", "ldmatrix",
                                      "movmatrix", "mbarrier", "tensormap", "mapa"})) {
    return Kind::kDecide;
  }
  return Kind::kCompute;
}

}  // namespace

RegisterUse::RegisterUse(const Program& program) : uses_(program.code.size()) {
  std::map<std::pair<const ptx::Function*, std::string>, uint32_t> numbers;
  const ptx::Function* function = program.functions.front().function;
  const auto number = [&](const std::string& name) {
    const auto [at, fresh] = numbers.try_emplace({function, name}, static_cast<uint32_t>(reads_.size()));
    if (fresh) reads_.push_back(0);
    return at->second;
  };
  const ptx::Instruction* last = nullptr;
  for (size_t i = 0; i < uses_.size(); ++i) {
    const ptx::Instruction* text = program.origins[i].text;
    if (text == nullptr) continue;
    for (const FunctionEntry& f : program.functions) {
      const auto& body = f.function->body;
      if (text >= body.data() && text < body.data() + body.size()) function = f.function;
    }
    Use& use = uses_[i];
    use.kind = kind_of(*text, program.code[i]);
    const bool counts = text != last;
    last = text;
    if (text->guard) {
      use.guard = number(text->guard->predicate);
      if (counts) ++reads_[use.guard];
    }
    const std::function<void(const ptx::Operand&, bool)> visit = [&](const ptx::Operand& o, bool written) {
      if (o.kind == ptx::Operand::Kind::kAddress) {
        if (o.of_symbol || o.name.empty()) return;
        use.addresses.push_back(number(o.name));
        if (counts) ++reads_[use.addresses.back()];
      } else if (!o.parts.empty()) {
        for (const ptx::Operand& part : o.parts) visit(part, written);
      } else {
        const bool is_register = o.kind == ptx::Operand::Kind::kRegister;
        (written ? use.destinations : use.sources).push_back(is_register ? number(o.name) : kNone);
        if (is_register && !written && counts) ++reads_[use.sources.back()];
      }
    };
    for (size_t o = 0; o < text->operands.size(); ++o) visit(text->operands[o], o == 0 && !only_reads(*text));
    if (text->opcode == "wgmma" && !text->operands.empty()) visit(text->operands[0], true);
  }
}

void Watcher::report_undefined(Warp& warp, const UndefinedLoad& load, int lane) {
  const std::string& key =
      *reporter_
           .key_of({1, load.place, load.same},
                   [&] { return fmt::format("uninitialised|{}|{}", reporter_.site(load.place), load.same); })
           .first;
  launch_->defer(key, reporter_.site(load.place), [&] {
    const uint64_t address = load.address[lane];
    const std::string where = load.space == Space::kLocal ? fmt::format("local memory at {:#x}", address)
                              : load.allocation == nullptr
                                  ? shared_place(address)
                                  : fmt::format("global memory at {:#x}, in {}", address, load.allocation->describe());
    return fmt::format("{}: read of {} bytes of uninitialised {}",
                       reporter_.who(*warp.cta, warp.index, static_cast<uint32_t>(lane), load.place), load.element,
                       where);
  });
}

void Watcher::step(Warp& warp, const Instruction& in, Mask active, Mask mask) {
  if (warp.program().origins[in.index].hidden) return;
  using Kind = RegisterUse::Kind;
  UndefinedRegisters& registers = shadow(warp).undefined;
  const RegisterUse& all = launch_->register_use(warp.program());
  const RegisterUse::Use& use = all.of(in.index);
  const uint32_t frame = warp.running().frame;
  if (!shadow(warp).under_way.entries.empty()) step_under_way(warp, in, use);
  const auto find = [&](size_t source) -> UndefinedRegisters::Entry {
    if (source >= use.sources.size()) return {};
    const auto* e = registers.find(frame, use.sources[source]);
    if (e == nullptr || (e->lanes & mask) == 0) return {};
    return {e->lanes & mask, e->computed, e->load};
  };
  const auto decides = [&](uint32_t number, Mask lanes) {
    const auto* e = number == RegisterUse::kNone ? nullptr : registers.find(frame, number);
    if (e == nullptr || (e->lanes & lanes) == 0) return;
    const std::shared_ptr<const UndefinedLoad> load = e->load;
    const int lane = std::countr_zero(e->lanes & lanes);
    registers.define(frame, number, kAllLanes);
    report_undefined(warp, *load, lane);
  };
  decides(use.guard, active);
  for (const uint32_t address : use.addresses) decides(address, mask);
  UndefinedRegisters::Entry result;
  const auto join = [&](const UndefinedRegisters::Entry& e, Mask lanes, bool computed) {
    if ((e.lanes & lanes) == 0) return;
    result.lanes |= e.lanes & lanes;
    result.computed = result.computed || computed || e.computed;
    result.load = e.load;
  };
  // Of a predicate and one that alone settles the result where `settles`.
  const auto settled = [](const UndefinedRegisters::Entry& other, Mask settles) { return settles & ~other.lanes; };
  switch (use.kind) {
    case Kind::kDecide:
      for (const uint32_t source : use.sources) decides(source, mask);
      break;
    case Kind::kCopy:
      if (use.destinations.size() == 1 && use.sources.size() > 1) {
        Mask whole = mask;
        for (size_t s = 0; s < use.sources.size(); ++s) whole &= find(s).lanes;
        for (size_t s = 0; s < use.sources.size(); ++s) join(find(s), whole, false);
      } else {
        join(find(0), mask, false);
      }
      break;
    case Kind::kSelect: {
      const Mask p = warp.predicate(in.slots[3]) ^ (in.flags[0] != 0 ? kAllLanes : 0);
      join(find(0), p, false);
      join(find(1), ~p, false);
      join(find(2), mask, true);
      break;
    }
    case Kind::kLogic: {
      const bool conjunction = warp.program().origins[in.index].text->opcode == "and";
      const auto settles = [&](size_t slot) {
        const Mask value = warp.predicate(in.slots[1 + slot]) ^ (in.flags[slot] != 0 ? kAllLanes : 0);
        return conjunction ? ~value : value;
      };
      const auto a = find(0), b = find(1);
      join(a, ~settled(b, settles(1)), true);
      join(b, ~settled(a, settles(0)), true);
      break;
    }
    case Kind::kCompare: {
      const bool conjunction = warp.program().origins[in.index].text->has("and");
      const Mask value = warp.predicate(in.slots[in.slot_count - 1]) ^ (in.flags[1] != 0 ? kAllLanes : 0);
      const auto c = find(2);
      const Mask open = ~settled(c, conjunction ? ~value : value);
      join(find(0), open, true);
      join(find(1), open, true);
      join(c, mask, true);
      break;
    }
    case Kind::kCompute:
      for (size_t s = 0; s < use.sources.size(); ++s) join(find(s), mask, true);
      break;
    case Kind::kLoad:
    case Kind::kStore:
      break;
  }
  for (const uint32_t destination : use.destinations) {
    registers.define(frame, destination, mask);
    registers.add(frame, destination, result);
  }
  if (use.kind != Kind::kStore) forget_used(registers, all, use, frame, mask);
  if (registers.empty() && shadow(warp).under_way.entries.empty()) {
    warp.watched = false;
    warp.switch_pc = 0;
  }
}

/// What no other instruction reads need not be followed any longer.
void Watcher::forget_used(UndefinedRegisters& registers, const RegisterUse& all, const RegisterUse::Use& use,
                          uint32_t frame, Mask mask) {
  for (const uint32_t source : use.sources) {
    if (source == RegisterUse::kNone || all.reads(source) != 1) continue;
    if (std::find(use.destinations.begin(), use.destinations.end(), source) != use.destinations.end()) continue;
    registers.define(frame, source, mask);
  }
}

bool Watcher::load_undefined(Warp& warp, const Instruction& in, const Access& a, uint32_t element, uint32_t number,
                             Mask lanes, uint64_t same) {
  const ptx::Instruction* text = warp.program().origins[in.index].text;
  if (a.kind != Access::Kind::kLoad || text == nullptr || text->opcode != "ld" || warp.observer != this) return false;
  const RegisterUse& all = launch_->register_use(warp.program());
  const RegisterUse::Use& use = all.of(in.index);
  if (number >= use.destinations.size() || all.reads(use.destinations[number]) == 0) return false;
  auto load = std::make_shared<UndefinedLoad>();
  load->place = in.index;
  load->space = a.space;
  load->allocation = a.space == Space::kGlobal || a.space == Space::kConst
                         ? state_.machine->memory().find(a.address[std::countr_zero(lanes)])
                         : nullptr;
  load->same = same;
  load->element = element;
  for (int l = 0; l < kLanes; ++l) load->address[l] = a.address[l] + number * element;
  shadow(warp).undefined.add(warp.running().frame, use.destinations[number], {lanes, false, std::move(load)});
  if (!warp.watched) {
    warp.watched = true;
    warp.switch_pc = 0;
  }
  return true;
}

void Watcher::store_undefined(Warp& warp, const Instruction& in, const Access& a, uint8_t* flags,
                              const uint64_t* place) {
  UndefinedRegisters& registers = shadow(warp).undefined;
  const RegisterUse& all = launch_->register_use(warp.program());
  const RegisterUse::Use& use = all.of(in.index);
  if (use.kind != RegisterUse::Kind::kStore) return;
  const uint32_t frame = warp.running().frame;
  Mask whole = a.mask;  // lanes that store nothing else
  for (const uint32_t source : use.sources) {
    const auto* e = source == RegisterUse::kNone ? nullptr : registers.find(frame, source);
    whole &= e == nullptr ? 0 : e->lanes;
  }
  const bool result = a.space == Space::kGlobal;
  for (size_t s = 0; s < use.sources.size(); ++s) {
    const auto* e = use.sources[s] == RegisterUse::kNone ? nullptr : registers.find(frame, use.sources[s]);
    if (e == nullptr) continue;
    const Mask lanes = e->lanes & a.mask;
    const Mask wrong = e->computed ? lanes : result ? lanes & whole : 0;
    if (wrong != 0) {
      report_undefined(warp, *e->load, std::countr_zero(wrong));
    } else if (flags != nullptr) {
      each_lane(lanes, [&](int l) { std::memset(flags + place[l] + s * in.memory.bytes, 0, in.memory.bytes); });
    }
  }
  forget_used(registers, all, use, frame, a.mask);
}

}  // namespace ptxsim
