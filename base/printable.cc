#include "base/printable.h"

#include <fmt/format.h>

namespace cpvt {

std::string printable(std::string_view text, std::string_view kept) {
  std::string shown;
  const auto escape = [&](char c) { shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c)); };
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // U+0080 to U+009F, the second set of them, in UTF-8
      escape(text[i]);
      escape(text[++i]);
    } else if ((byte < 0x20 || byte == 0x7F) && kept.find(text[i]) == std::string_view::npos) {
      escape(text[i]);
    } else {
      shown += text[i];
    }
  }
  return shown;
}

}  // namespace cpvt
