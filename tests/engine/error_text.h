#pragma once

#include <string>

#include "base/error.h"

namespace cpvt {

/// The message of the Error that `action` throws; "" when it throws none.
template <class Action>
std::string error_text(Action&& action) {
  try {
    std::forward<Action>(action)();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace cpvt
