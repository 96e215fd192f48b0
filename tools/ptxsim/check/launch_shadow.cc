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

}  // namespace

LaunchShadow::LaunchShadow(const Program& program, uint64_t the_sequence, IntervalId first_interval)
    : sequence(the_sequence), first(first_interval), traits_(program.code.size()) {
  const ptx::Instruction* last = nullptr;
  std::set<std::string> atomics;
  // From the end, so that the atomics behind a load are known.
  for (size_t i = program.code.size(); i-- > 0;) {
    const ptx::Instruction* text = program.origins[i].text;
    if (text == nullptr) continue;
    Traits& t = traits_[i];
    if (text->opcode == "atom" || text->opcode == "red") {
      atomics.insert(address_of(*text));
      t.exchange = text->has("exch");
    } else if (text->opcode == "ld" && !atomics.empty()) {
      t.optimistic = atomics.contains(address_of(*text));
    }
    t.object = text->opcode == "mbarrier" || text->opcode == "cp";
    if (text->opcode == "st" || text->opcode == "atom" || text->opcode == "red") {
      if (text != last && store_places_.size() < 0xffff) store_places_.push_back(static_cast<uint32_t>(i));
      t.store = static_cast<uint16_t>(store_places_.size());
    }
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
