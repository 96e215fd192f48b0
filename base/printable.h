#pragma once

#include <string>
#include <string_view>

namespace cpvt {

/// The text with control characters, by which a name out of a file could steer a terminal, written as \x1b. Those of
/// `kept` stay as they are.
std::string printable(std::string_view text, std::string_view kept = "");

}  // namespace cpvt
