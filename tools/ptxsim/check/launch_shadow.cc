#include "tools/ptxsim/check/launch_shadow.h"

#include <algorithm>
#include <utility>

namespace ptxsim {

namespace {

/// The text of an address operand, which for registers assigned once means the same address; empty for none.
std::string address_of(const ptx::Instruction& text) {
  for (const ptx::Operand& o : text.operands) {
    if (o.kind == ptx::Operand::Kind::kAddress) return fmt::format("{}+{}", o.name, o.offset);
  }
  return {};
}

void each_register(const ptx::Operand& operand, const std::function<void(const std::string&)>& f) {
  if (operand.kind == ptx::Operand::Kind::kRegister) f(operand.name);
  for (const ptx::Operand& part : operand.parts) each_register(part, f);
}

bool is_memory_access(const ptx::Instruction& text) {
  return text.opcode == "ld" || text.opcode == "st" || text.opcode == "atom" || text.opcode == "red";
}

/// The registers whose values depend on what a load has put into its destination, as far as that stays in registers.
std::set<std::string> dependent_on(const ptx::Function& function, const ptx::Instruction& load) {
  std::set<std::string> known;
  each_register(load.operands.front(), [&](const std::string& name) { known.insert(name); });
  for (size_t before = 0; before != known.size();) {
    before = known.size();
    for (const ptx::Instruction& i : function.body) {
      if (i.operands.size() < 2 || is_memory_access(i)) continue;
      bool depends = false;
      for (size_t o = 1; o < i.operands.size(); ++o) {
        each_register(i.operands[o], [&](const std::string& name) { depends = depends || known.contains(name); });
      }
      if (depends) each_register(i.operands.front(), [&](const std::string& name) { known.insert(name); });
    }
  }
  return known;
}

bool polls(const ptx::Function& function, const ptx::Instruction& load) {
  const std::set<std::string> dependent = dependent_on(function, load);
  const auto at = static_cast<size_t>(&load - function.body.data());
  const auto target = [&](const ptx::Instruction& branch) {
    const auto label = branch.operands.empty() ? function.labels.end() : function.labels.find(branch.operands[0].name);
    return label == function.labels.end() ? ~size_t{0} : label->second;
  };
  for (size_t decision = 0; decision < function.body.size(); ++decision) {
    const ptx::Instruction& branch = function.body[decision];
    if (branch.opcode != "bra" || !branch.guard || !dependent.contains(branch.guard->predicate)) continue;
    for (size_t back = std::max(decision, at); back < function.body.size(); ++back) {
      if (function.body[back].opcode == "bra" && target(function.body[back]) <= std::min(decision, at)) return true;
    }
  }
  return false;
}

/// Whether a compare-and-swap at the same address compares with what the load has found.
bool checked_again(const ptx::Function& function, const ptx::Instruction& load) {
  const std::string address = address_of(load);
  std::set<std::string> dependent;
  for (const ptx::Instruction& i : function.body) {
    if (i.opcode != "atom" || !i.has("cas") || i.operands.size() < 4 || address_of(i) != address) continue;
    if (dependent.empty()) dependent = dependent_on(function, load);
    bool compares = false;
    each_register(i.operands[2], [&](const std::string& name) { compares = compares || dependent.contains(name); });
    if (compares) return true;
  }
  return false;
}

}  // namespace

LaunchShadow::LaunchShadow(const Program& program, uint64_t the_sequence, IntervalId first_interval)
    : sequence(the_sequence), first(first_interval), traits_(program.code.size()) {
  const auto function_of = [&](const ptx::Instruction& text) -> const ptx::Function& {
    for (const FunctionEntry& f : program.functions) {
      const auto& body = f.function->body;
      if (&text >= body.data() && &text < body.data() + body.size()) return *f.function;
    }
    return *program.functions.front().function;
  };
  bool swaps = false;
  for (const Origin& origin : program.origins) {
    swaps = swaps || (origin.text != nullptr && origin.text->opcode == "atom" && origin.text->has("cas"));
  }
  const ptx::Instruction* last = nullptr;
  for (size_t i = program.code.size(); i-- > 0;) {
    const ptx::Instruction* text = program.origins[i].text;
    if (text == nullptr) continue;
    Traits& t = traits_[i];
    const std::string& opcode = text->opcode;
    if (opcode == "atom" || opcode == "red") {
      t.exchange = text->has("exch");
    } else if (opcode == "ld" && program.code[i].memory.space != Space::kParam) {
      t.optimistic = swaps && !program.code[i].memory.synchronising && checked_again(function_of(*text), *text);
      t.noncoherent = text->has("nc");
      t.real = text->has("f32") || text->has("f64");
      // In global memory every volatile load may be of a flag.
      const bool shared = program.code[i].memory.space != Space::kGlobal;
      t.polls = shared && text->has("volatile") && polls(function_of(*text), *text);
    }
    t.async_proxy = (opcode == "cp" && text->has("bulk")) || (opcode == "wgmma" && text->has("mma_async"));
    async_proxy_ = async_proxy_ || t.async_proxy;
    t.object = opcode == "mbarrier" || opcode == "cp";
    t.invalidates = opcode == "mbarrier" && text->has("inval");
    const bool stores = opcode == "st" || opcode == "atom" || opcode == "red";
    if (stores) {
      if (text != last && store_places_.size() < 0xffff) store_places_.push_back(static_cast<uint32_t>(i));
      t.store = static_cast<uint16_t>(store_places_.size());
      t.releases = opcode == "st" && text->has("release");
    }
    if (stores || opcode == "ld" || opcode == "fence" || opcode == "membar") t.block_scope = text->has("cta");
    t.is_volatile = (stores || opcode == "ld") && text->has("volatile");
    last = text;
  }
}

void LaunchShadow::defer(const std::string& key, const std::string& site, std::function<std::string()> text) {
  const std::lock_guard lock(mutex_);
  Deferred& d = deferred_[key];
  if (d.times++ == 0) d = {site, text(), 1};
}

void LaunchShadow::raced(const std::string& reading_site) {
  const std::lock_guard lock(mutex_);
  raced_.insert(reading_site);
}

std::map<std::string, LaunchShadow::Deferred> LaunchShadow::deferred() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, Deferred> rest = deferred_;
  std::erase_if(rest, [&](const auto& entry) { return raced_.contains(entry.second.site); });
  return rest;
}

LaunchShadow::Released* LaunchShadow::released(uint32_t block) const {
  const std::lock_guard lock(mutex_);
  const auto at = released_.find(block);
  return at == released_.end() ? nullptr : at->second.get();
}

LaunchShadow::Released& LaunchShadow::will_release(uint32_t block) {
  const std::lock_guard lock(mutex_);
  auto& entry = released_[block];
  if (entry == nullptr) entry = std::make_unique<Released>();
  return *entry;
}

}  // namespace ptxsim
