#include "base/free_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace cpvt {

namespace fs = std::filesystem;

namespace {

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

size_t difference(size_t limit, size_t taken) { return limit > taken ? limit - taken : 0; }

/// The number in a file that holds one; nothing for "max".
std::optional<size_t> number_in(const fs::path& path) {
  size_t number = 0;
  std::ifstream file(path);
  return file >> number ? std::optional(number) : std::nullopt;
}

/// The number behind a key, in a file of a key and a number per line.
std::optional<size_t> number_in(const fs::path& path, const std::string& wanted) {
  std::ifstream file(path);
  std::string key;
  std::string rest;
  for (size_t number = 0; file >> key >> number; std::getline(file, rest)) {
    if (key == wanted) return number;
  }
  return std::nullopt;
}

size_t of_machine(const fs::path& root) {
  if (const auto kibibytes = number_in(root / "proc/meminfo", "MemAvailable:")) return *kibibytes << 10U;
  return static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

size_t of_group(const fs::path& group) {
  const auto limit = number_in(group / "memory.max");
  const auto taken = number_in(group / "memory.current");
  if (!limit || !taken) return kNoLimit;
  // Pages of files count as taken, but make room for whoever asks.
  size_t of_files = 0;
  for (const char* key : {"active_file", "inactive_file"}) {
    of_files += number_in(group / "memory.stat", key).value_or(0);
  }
  return difference(*limit, difference(*taken, of_files));
}

/// A group's limit binds those below it too.
size_t of_groups(const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  const std::string version2 = "0::/";
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(version2)) continue;
    const fs::path top = root / "sys/fs/cgroup";
    size_t least = of_group(top);
    fs::path group = top;
    for (const fs::path& name : fs::path(line.substr(version2.size())))
      least = std::min(least, of_group(group /= name));
    return least;
  }
  return kNoLimit;
}

size_t of_addresses(const fs::path& root) {
  rlimit limit{};
  const auto pages = number_in(root / "proc/self/statm");
  if (!pages || getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kNoLimit;
  return difference(limit.rlim_cur, *pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

}  // namespace

size_t free_memory(const fs::path& root) { return std::min({of_machine(root), of_groups(root), of_addresses(root)}); }

}  // namespace cpvt
