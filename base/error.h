#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace cpvt {

/// The one exception of the project. Its message is for the user: it names the thing, what was expected, what was
/// found.
class Error : public std::runtime_error {
 public:
  template <class... Args>
  explicit Error(fmt::format_string<Args...> text, Args&&... args)
      : std::runtime_error(fmt::format(text, std::forward<Args>(args)...)) {}
};

}  // namespace cpvt
