#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace ptxsim {

/// What the simulator cannot go on with: a module it cannot read, an instruction it does not know. The message names
/// the thing, what was expected and what was found.
class Error : public std::runtime_error {
 public:
  template <class... Args>
  explicit Error(fmt::format_string<Args...> text, Args&&... args)
      : std::runtime_error(fmt::format(text, std::forward<Args>(args)...)) {}
};

}  // namespace ptxsim
