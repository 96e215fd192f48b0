#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tools/ptxsim/ptx/module.h"

namespace ptxsim::ptx {

/// The names of one function: nested scopes may use a name again, so each gets a spelling that is unique in the
/// function.
class Scopes {
 public:
  struct Symbol {
    enum class Kind : uint8_t { kRegister, kVariable, kLabel };
    Kind kind = Kind::kRegister;
    std::string unique;
    uint8_t lanes = 1;  // of a register declared .v2 or .v4: its elements are the registers unique.x, unique.y…
  };

  /// `taken`: the module's own names, which a function's must differ from too; it must outlive this.
  explicit Scopes(const std::unordered_set<std::string_view>& taken) : taken_(taken) { open(); }

  void open();
  /// False when the outermost scope would be closed.
  bool close();
  bool outermost() const { return current_ == 0; }
  uint32_t current() const { return current_; }

  /// Adds a name to the current scope; null when the scope has it already.
  const Symbol* declare(std::string_view name, Symbol::Kind kind, uint8_t lanes = 1);
  /// Adds `.reg TYPE prefix<count>`: prefix0 … prefix(count-1). False when the scope has that prefix already.
  bool declare_range(std::string_view prefix, uint64_t count, Type type, uint8_t lanes);

  struct Found {
    const Symbol* symbol = nullptr;   // null when no scope has the name
    const Type* first_use = nullptr;  // set when this call made the symbol from a range: the type it was declared with
  };
  /// What a name means in a scope: the innermost declaration.
  Found find(std::string_view name, uint32_t scope);

 private:
  struct Range {
    std::string_view prefix;
    uint64_t count = 0;
    Type type;
    uint8_t lanes = 1;

    bool contains(std::string_view name) const;
  };
  struct Scope {
    uint32_t outer = 0;
    std::unordered_map<std::string_view, Symbol> symbols;
    std::vector<Range> ranges;
  };

  std::string unique(std::string_view name);

  const std::unordered_set<std::string_view>& taken_;
  std::vector<Scope> scopes_;  // closed ones stay: labels are looked up when the function is complete
  uint32_t current_ = 0;
  std::unordered_map<std::string_view, uint32_t> uses_;
};

}  // namespace ptxsim::ptx
