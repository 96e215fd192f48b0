#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace cpvt {

/// Bytes that are appended first and read afterwards, of any number: they lie in a file without a name, not in memory,
/// and nothing is left behind of them, however the program ends.
class Spool {
 public:
  /// The file lies beside `path`, which is named in errors. Throws Error where there can be none.
  explicit Spool(std::filesystem::path path);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  /// Throws Error where the disk has no room.
  void append(std::span<const std::byte> bytes);
  size_t size() const { return size_; }
  /// All of them, valid until the next append().
  std::span<const std::byte> bytes();

 private:
  void unmap();

  std::filesystem::path path_;
  int fd_;
  size_t size_ = 0;
  std::span<std::byte> mapped_;
};

}  // namespace cpvt
