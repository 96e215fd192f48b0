#include "weights/json.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/printable.h"

namespace cpvt {

using nlohmann::json;

namespace {

constexpr int kMaxDepth = 8;            // our deepest: config.json > pretrained_cfg > input_size > a number
constexpr size_t kMaxShown = 120;       // bytes of a name or value in a message
constexpr size_t kMaxParserText = 300;  // bytes of the parser's own message

/// Cuts between characters, not within one.
std::string shortened(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  text.resize(end);
  return text + "…";
}

/// "parse error at line 1, column 5: …" of "[json.exception.parse_error.101] parse error at line 1, column 5: …".
std::string parser_message(const json::exception& e) {
  std::string text = e.what();
  if (const auto id_end = text.find("] "); id_end != std::string::npos) text.erase(0, id_end + 2);
  // It quotes the text up to the fault, which may be that it is no UTF-8.
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
  return shortened(std::move(text), kMaxParserText);
}

}  // namespace

std::string found_text(const json& value) {
  // Only the start of a long value is shown: don't print all of it first.
  if (value.is_structured() && value.size() > kMaxShown) {
    return fmt::format("{} of {} values", value.is_array() ? "an array" : "an object", value.size());
  }
  return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace), kMaxShown);
}

std::string in_quotes(std::string_view name) {
  return fmt::format("'{}'", shortened(printable(name.substr(0, kMaxShown + 1)), kMaxShown));
}

json parse_strict_json(std::string_view text, std::string_view origin) {
  if (text.starts_with("\xEF\xBB\xBF")) throw Error("{}: expected JSON, found a byte order mark before it", origin);
  if (const auto at = text.find('\0'); at != std::string_view::npos) {
    throw Error("{}: not valid JSON: NUL byte at offset {}", origin, at);
  }
  std::vector<std::set<std::string>> open_objects;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    if (depth >= kMaxDepth && (event == Event::object_start || event == Event::array_start)) {
      throw Error("{}: JSON nested deeper than {} levels", origin, kMaxDepth);
    }
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event == Event::key && !open_objects.back().insert(value.get<std::string>()).second) {
      throw Error("{}: the name {} is used twice in one object", origin, in_quotes(value.get<std::string>()));
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception& e) {
    throw Error("{}: not valid JSON: {}", origin, parser_message(e));
  }
}

}  // namespace cpvt
