#include "tools/ptxsim/ptx/scopes.h"

#include <fmt/format.h>

#include <charconv>
#include <system_error>

namespace ptxsim::ptx {

void Scopes::open() {
  scopes_.push_back({.outer = current_, .symbols = {}, .ranges = {}});
  current_ = static_cast<uint32_t>(scopes_.size() - 1);
}

bool Scopes::close() {
  if (outermost()) return false;
  current_ = scopes_[current_].outer;
  return true;
}

std::string Scopes::unique(std::string_view name) {
  const uint32_t use = ++uses_[name];
  // '#' occurs in no PTX name.
  return use == 1 && !taken_.contains(name) ? std::string(name) : fmt::format("{}#{}", name, use);
}

const Scopes::Symbol* Scopes::declare(std::string_view name, Symbol::Kind kind, uint8_t lanes) {
  const auto [at, added] = scopes_[current_].symbols.try_emplace(name);
  if (!added) return nullptr;
  at->second = {.kind = kind, .unique = unique(name), .lanes = lanes};
  return &at->second;
}

bool Scopes::declare_range(std::string_view prefix, uint64_t count, Type type, uint8_t lanes) {
  std::vector<Range>& ranges = scopes_[current_].ranges;
  for (const Range& range : ranges) {
    if (range.prefix == prefix) return false;
  }
  ranges.push_back({.prefix = prefix, .count = count, .type = type, .lanes = lanes});
  return true;
}

bool Scopes::Range::contains(std::string_view name) const {
  if (name.size() <= prefix.size() || !name.starts_with(prefix)) return false;
  const std::string_view digits = name.substr(prefix.size());
  if (digits.size() > 1 && digits[0] == '0') return false;
  uint64_t number = 0;
  const char* end = digits.data() + digits.size();
  const std::from_chars_result result = std::from_chars(digits.data(), end, number);
  return result.ec == std::errc() && result.ptr == end && number < count;
}

Scopes::Found Scopes::find(std::string_view name, uint32_t scope) {
  for (;; scope = scopes_[scope].outer) {
    Scope& here = scopes_[scope];
    if (const auto at = here.symbols.find(name); at != here.symbols.end()) return {.symbol = &at->second};
    for (const Range& range : here.ranges) {
      if (!range.contains(name)) continue;
      Symbol& symbol = here.symbols[name];
      symbol = {.kind = Symbol::Kind::kRegister, .unique = unique(name), .lanes = range.lanes};
      return {.symbol = &symbol, .first_use = &range.type};
    }
    if (scope == 0) return {};
  }
}

}  // namespace ptxsim::ptx
