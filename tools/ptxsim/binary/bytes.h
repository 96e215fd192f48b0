#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "tools/ptxsim/error.h"

namespace ptxsim {

/// `size` bytes from `offset`; throws Error naming `what` when they are not all there.
inline std::span<const std::byte> part_of(std::span<const std::byte> bytes, uint64_t offset, uint64_t size,
                                          std::string_view what) {
  if (offset > bytes.size() || size > bytes.size() - offset) {
    throw Error("{}: {} bytes at {} lie outside of its {} bytes", what, size, offset, bytes.size());
  }
  return bytes.subspan(offset, size);
}

/// The number (little-endian, as on this machine) at `offset`.
template <class T>
T number_at(std::span<const std::byte> bytes, uint64_t offset, std::string_view what) {
  T value;
  std::memcpy(&value, part_of(bytes, offset, sizeof(T), what).data(), sizeof(T));
  return value;
}

}  // namespace ptxsim
