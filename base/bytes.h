#pragma once

#include <cstddef>
#include <string>

namespace cpvt {

/// "20.5 MiB", or "512 bytes" of what would round to nothing.
std::string bytes_text(size_t bytes);

}  // namespace cpvt
