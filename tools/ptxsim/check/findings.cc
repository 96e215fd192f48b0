#include "tools/ptxsim/check/findings.h"

#include <fmt/format.h>

#include <cstdio>

namespace ptxsim {

void Findings::add(const std::string& key, const std::string& text) {
  const std::lock_guard lock(mutex_);
  const auto [entry, fresh] = entries_.emplace(key, Entry{entries_.size() + 1, 0});
  ++entry->second.times;
  if (!fresh) return;
  fmt::print(stderr, "ptxsim: finding {}: {}\n", entry->second.number, text);
  if (tell_) tell_();
}

uint64_t Findings::count() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

void Findings::summarise() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [key, entry] : entries_) {
    if (entry.times > 1) fmt::print(stderr, "ptxsim: finding {} occurred {} times\n", entry.number, entry.times);
  }
}

}  // namespace ptxsim
