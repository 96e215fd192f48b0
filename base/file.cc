#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "base/error.h"

namespace cpvt {

namespace {

struct Descriptor {
  int fd;
  explicit Descriptor(const std::filesystem::path& path) : fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd < 0) throw Error("{}: cannot open: {}", path.string(), std::strerror(errno));
  }
  ~Descriptor() { close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

/// A file without a name, which vanishes with the process: where the file system has such. Else none.
class NamelessFile {
 public:
  explicit NamelessFile(const std::filesystem::path& folder)
      : fd_(open(folder.empty() ? "." : folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666)) {}
  ~NamelessFile() {
    if (fd_ >= 0) close(fd_);
  }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;

  bool exists() const { return fd_ >= 0 && access(path().c_str(), W_OK) == 0; }
  std::string path() const { return fmt::format("/proc/self/fd/{}", fd_); }
  bool name(const std::filesystem::path& path) const {
    unlink(path.c_str());  // what an earlier process of this number may have left
    return linkat(AT_FDCWD, this->path().c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0;
  }

 private:
  int fd_;
};

}  // namespace

std::string_view kind_text(std::filesystem::file_type type) {
  using std::filesystem::file_type;
  switch (type) {
    case file_type::directory:
      return "a folder";
    case file_type::fifo:
      return "a pipe";
    case file_type::socket:
      return "a socket";
    case file_type::character:
    case file_type::block:
      return "a device";
    default:
      return "no regular file";
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor file(path);
  struct stat status {};
  if (fstat(file.fd, &status) != 0) throw Error("{}: cannot stat: {}", path.string(), std::strerror(errno));
  if (!S_ISREG(status.st_mode)) {
    std::error_code ignored;
    throw Error("{}: expected a file, found {}", path.string(),
                kind_text(std::filesystem::status(path, ignored).type()));
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;  // an empty range cannot be mapped; an empty span says all there is
  void* address = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (address == MAP_FAILED) throw Error("{}: cannot map {} bytes: {}", path.string(), size_, std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::drop_pages() const {
  if (data_ != nullptr) madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

void write_file(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write) {
  auto beside = path;
  beside += fmt::format(".{}.partial", getpid());
  try {
    const NamelessFile nameless(path.parent_path());
    const bool unnamed = nameless.exists();
    std::ofstream out(unnamed ? nameless.path() : beside.string(), std::ios::binary | std::ios::trunc);
    if (!out) throw Error("{}: cannot create: {}", path.string(), std::strerror(errno));
    write(out);
    out.close();
    if (!out || (unnamed && !nameless.name(beside))) {
      throw Error("{}: cannot write: {}", path.string(), std::strerror(errno));
    }
    std::filesystem::rename(beside, path);
  } catch (const std::exception& e) {
    std::error_code ignored;
    std::filesystem::remove(beside, ignored);
    if (dynamic_cast<const std::filesystem::filesystem_error*>(&e) == nullptr) throw;
    throw Error("{}: cannot write: {}", path.string(), e.what());
  }
}

}  // namespace cpvt
