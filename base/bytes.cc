#include "base/bytes.h"

#include <fmt/format.h>

namespace cpvt {

std::string bytes_text(size_t bytes) {
  constexpr size_t kMebibyte = 1 << 20;
  if (bytes <= kMebibyte / 20) return fmt::format("{} byte{}", bytes, bytes == 1 ? "" : "s");
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / kMebibyte);
}

}  // namespace cpvt
