#include "tools/ptxsim/machine/address_space.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tools/ptxsim/error.h"

namespace ptxsim {
namespace {

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

uint64_t as_address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

bool in_device_memory(MemoryKind kind) {
  return kind == MemoryKind::kDevice || kind == MemoryKind::kPool || kind == MemoryKind::kModule;
}

bool host_may_touch(MemoryKind kind) { return kind == MemoryKind::kManaged || kind == MemoryKind::kHost; }

uint64_t system_bytes() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
}

const char* kind_name(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kDevice:
      return "device memory";
    case MemoryKind::kPool:
      return "pool memory";
    case MemoryKind::kManaged:
      return "managed memory";
    case MemoryKind::kHost:
      return "pinned host memory";
    case MemoryKind::kRegistered:
      return "registered host memory";
    case MemoryKind::kModule:
      return "module memory";
    case MemoryKind::kHeap:
      return "device heap memory";
  }
  return "memory";
}

void* map(uint64_t bytes, int protection, int flags, int file) {
  void* result = mmap(nullptr, bytes, protection, flags | MAP_NORESERVE, file, 0);
  if (result == MAP_FAILED) {
    throw Error("cannot reserve {} GiB of addresses for device memory (ulimit -v must not limit them): {}", bytes >> 30,
                std::strerror(errno));
  }
  return result;
}

}  // namespace

std::string Allocation::describe() const {
  const char* freed = live ? "" : ", freed";
  if (!name.empty()) {
    return fmt::format("{} variable '{}' ({} bytes at {:#x}{})",
                       kind == MemoryKind::kManaged ? "__managed__"
                       : read_only                  ? "__constant__"
                                                    : "__device__",
                       name, bytes, base, freed);
  }
  return fmt::format("allocation {} ({} bytes of {} at {:#x}{})", sequence, bytes, kind_name(kind), base, freed);
}

AddressSpace::AddressSpace(uint64_t device_bytes) : device_bytes_(device_bytes) {
  memory_file_ = memfd_create("ptxsim device memory", MFD_CLOEXEC);
  if (memory_file_ < 0 || ftruncate(memory_file_, static_cast<off_t>(kArenaBytes)) != 0) {
    throw Error("cannot make a file for device memory: {}", std::strerror(errno));
  }
  // Pages of the file exist once they are touched: what is reserved here costs nothing.
  arena_ = static_cast<std::byte*>(map(kArenaBytes, PROT_NONE, MAP_SHARED, memory_file_));
  alias_ = static_cast<std::byte*>(map(kArenaBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file_));
  pages_ = static_cast<std::atomic<Allocation*>*>(map(kArenaBytes / kPage * sizeof(std::atomic<Allocation*>),
                                                      PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
}

AddressSpace::~AddressSpace() {
  munmap(arena_, kArenaBytes);
  munmap(alias_, kArenaBytes);
  munmap(pages_, kArenaBytes / kPage * sizeof(std::atomic<Allocation*>));
  close(memory_file_);
}

bool AddressSpace::charge(MemoryKind kind, uint64_t bytes) {
  if (!in_device_memory(kind)) return bytes <= system_bytes();
  const uint64_t charged = round_up(bytes, kAccountingUnit);
  uint64_t used = used_bytes_.load();
  do {
    if (charged > device_bytes_ || used > device_bytes_ - charged) return false;
  } while (!used_bytes_.compare_exchange_weak(used, used + charged));
  return true;
}

void AddressSpace::discharge(const Allocation& allocation) {
  if (in_device_memory(allocation.kind)) used_bytes_ -= round_up(allocation.bytes, kAccountingUnit);
}

void AddressSpace::set_host_access(const Allocation& allocation, bool allowed) {
  if (!host_may_touch(allocation.kind)) return;
  mprotect(arena_ + (allocation.base - as_address(arena_)), round_up(allocation.bytes, kPage),
           allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
}

Allocation* AddressSpace::place(MemoryKind kind, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t pages = round_up(bytes, kPage) / kPage;
  if (pages + 1 > kArenaBytes / kPage - next_page_) return nullptr;
  auto& allocation = allocations_.emplace_back(std::make_unique<Allocation>());
  allocation->base = as_address(arena_) + next_page_ * kPage;
  allocation->bytes = bytes;
  allocation->host = alias_ + next_page_ * kPage;
  allocation->kind = kind;
  allocation->sequence = allocations_.size();
  // The page behind belongs to the allocation as well: an access just past the end names it.
  for (uint64_t page = next_page_; page <= next_page_ + pages; ++page) {
    pages_[page].store(allocation.get(), std::memory_order_release);
  }
  next_page_ += pages + 1;
  return allocation.get();
}

Allocation* AddressSpace::reserve(MemoryKind kind, uint64_t bytes) {
  Allocation* allocation = place(kind, bytes);
  if (allocation != nullptr) allocation->recurring = true;
  return allocation;
}

bool AddressSpace::revive(Allocation* allocation) {
  if (allocation->live || !charge(allocation->kind, allocation->bytes)) return false;
  const std::lock_guard lock(mutex_);
  allocation->shadow.reset();
  set_host_access(*allocation, true);
  allocation->live = true;
  return true;
}

Allocation* AddressSpace::allocate(MemoryKind kind, uint64_t bytes, std::string name, uint64_t align) {
  if (bytes > kArenaBytes || align > kPage || !charge(kind, bytes)) return nullptr;
  Allocation* allocation = place(kind, bytes);
  if (allocation == nullptr) {
    if (in_device_memory(kind)) used_bytes_ -= round_up(bytes, kAccountingUnit);
    return nullptr;
  }
  allocation->name = std::move(name);
  set_host_access(*allocation, true);
  allocation->live = true;
  return allocation;
}

Allocation* AddressSpace::register_host(void* pointer, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::unique_lock registered_lock(registered_mutex_);
  const uint64_t base = as_address(pointer);
  const auto after = registered_.lower_bound(base);
  if (after != registered_.end() && after->first < base + bytes) return nullptr;
  if (after != registered_.begin()) {
    const Allocation& before = *std::prev(after)->second;
    if (before.base + before.bytes > base) return nullptr;
  }
  auto& allocation = allocations_.emplace_back(std::make_unique<Allocation>());
  allocation->base = base;
  allocation->bytes = bytes;
  allocation->host = static_cast<std::byte*>(pointer);
  allocation->kind = MemoryKind::kRegistered;
  allocation->sequence = allocations_.size();
  allocation->live = true;
  registered_[base] = allocation.get();
  return allocation.get();
}

void AddressSpace::free(Allocation* allocation) {
  const std::lock_guard lock(mutex_);
  if (!allocation->live.exchange(false)) return;
  if (allocation->kind == MemoryKind::kRegistered) {
    const std::unique_lock registered_lock(registered_mutex_);
    registered_.erase(allocation->base);
    return;
  }
  discharge(*allocation);
  if (allocation->shadow != nullptr) allocation->shadow->forget();
  set_host_access(*allocation, false);
  fallocate(memory_file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(allocation->base - as_address(arena_)),
            static_cast<off_t>(round_up(allocation->bytes, kPage)));
}

Allocation* AddressSpace::find_registered(uint64_t address) const {
  const std::shared_lock lock(registered_mutex_);
  const auto after = registered_.upper_bound(address);
  if (after == registered_.begin()) return nullptr;
  Allocation* candidate = std::prev(after)->second;
  return address - candidate->base < candidate->bytes + kPage ? candidate : nullptr;
}

Allocation* AddressSpace::find(uint64_t address) const {
  const uint64_t offset = address - as_address(arena_);
  if (offset < kArenaBytes) return pages_[offset / kPage].load(std::memory_order_acquire);
  return find_registered(address);
}

Allocation* AddressSpace::find_live(uint64_t address, uint64_t bytes) const {
  Allocation* allocation = find(address);
  if (allocation == nullptr || !allocation->live) return nullptr;
  const uint64_t offset = address - allocation->base;
  return offset <= allocation->bytes && bytes <= allocation->bytes - offset ? allocation : nullptr;
}

std::vector<Allocation*> AddressSpace::live_allocations() const {
  const std::lock_guard lock(mutex_);
  std::vector<Allocation*> result;
  for (const auto& allocation : allocations_) {
    if (allocation->live) result.push_back(allocation.get());
  }
  return result;
}

}  // namespace ptxsim
