#include "base/spool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace cpvt {

Spool::Spool(std::filesystem::path path) : path_(std::move(path)) {
  std::string name = path_.string() + ".XXXXXX";
  fd_ = mkostemp(name.data(), O_CLOEXEC);
  if (fd_ < 0) throw Error("{}: cannot create: {}", path_.string(), std::strerror(errno));
  unlink(name.c_str());
}

Spool::~Spool() {
  unmap();
  close(fd_);
}

void Spool::append(std::span<const std::byte> bytes) {
  unmap();
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Error("{}: cannot write: {}", path_.string(), std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(written));
    size_ += static_cast<size_t>(written);
  }
}

std::span<const std::byte> Spool::bytes() {
  if (mapped_.empty() && size_ > 0) {
    void* address = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd_, 0);
    if (address == MAP_FAILED) throw Error("{}: cannot map {} bytes: {}", path_.string(), size_, std::strerror(errno));
    mapped_ = {static_cast<std::byte*>(address), size_};
  }
  return mapped_;
}

void Spool::unmap() {
  if (!mapped_.empty()) munmap(mapped_.data(), mapped_.size());
  mapped_ = {};
}

}  // namespace cpvt
