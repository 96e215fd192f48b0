#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <span>
#include <string_view>

namespace cpvt {

/// What a path that is no regular file leads to, for messages: "a folder", "a pipe".
std::string_view kind_text(std::filesystem::file_type type);

/// A file's bytes, mapped read-only. Throws Error naming the path where it cannot be opened or is no regular file: a
/// pipe that nobody writes to is refused too, not waited for.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Lets the kernel take back the pages; they are read again from the file when next touched.
  void drop_pages() const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Writes a file beside `path` and renames it when `write` returned: readers see the old file or the whole new one.
/// Throws Error naming the path; nothing is left behind then, nor where the process is killed, if the file system has
/// files without names.
void write_file(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write);

}  // namespace cpvt
