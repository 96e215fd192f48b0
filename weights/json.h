#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cpvt {

/// Parses strict UTF-8 JSON. Beyond the grammar it refuses what nlohmann lets through or lets win silently: a key used
/// twice in one object, a byte order mark, a NUL byte (taken for the end of the text), and nesting deeper than any file
/// of ours has. Throws Error starting with `origin`.
nlohmann::json parse_strict_json(std::string_view text, std::string_view origin);

/// The name in quotes for a message, control characters escaped and cut where it is long: it comes from a file that
/// nobody has vouched for, and goes to a terminal.
std::string in_quotes(std::string_view name);

/// A value as a message shows what was found: JSON text, cut where it is long.
std::string found_text(const nlohmann::json& value);

}  // namespace cpvt
