#pragma once

#include <cstddef>
#include <filesystem>

namespace cpvt {

/// Bytes that this process may still take: the least of what the machine has available, what its control groups
/// (version 2, a container's limit among them) leave it, and what its own limit of addresses (ulimit -v) leaves it.
/// `root` is where /proc and /sys are looked for.
size_t free_memory(const std::filesystem::path& root = "/");

}  // namespace cpvt
