#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <span>

#include "tools/ptxsim/check/record.h"
#include "tools/ptxsim/machine/address_space.h"

/// What `--check` remembers of memory: whether each byte has been written, and who accessed it last.
namespace ptxsim {

/// Zeros that take room once they are touched.
class LazyZeros {
 public:
  LazyZeros() = default;
  explicit LazyZeros(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    start_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start_ == MAP_FAILED) throw std::bad_alloc();
    if (bytes >= kHugePages) madvise(start_, bytes, MADV_HUGEPAGE);
  }
  LazyZeros(LazyZeros&& other) noexcept { swap(other); }
  LazyZeros& operator=(LazyZeros&& other) noexcept {
    swap(other);
    return *this;
  }
  ~LazyZeros() {
    if (bytes_ != 0) munmap(start_, bytes_);
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(start_);
  }
  size_t bytes() const { return bytes_; }
  void clear() {
    if (bytes_ != 0) madvise(start_, bytes_, MADV_DONTNEED);
  }

 private:
  static constexpr size_t kHugePages = 64 << 20;

  void swap(LazyZeros& other) {
    std::swap(start_, other.start_);
    std::swap(bytes_, other.bytes_);
  }

  void* start_ = nullptr;
  size_t bytes_ = 0;
};

/// Of each granule the last plain writer, the last synchronising one (which must not hide the plain one from others),
/// and two readers: one that stays as long as it matters, and the last other one. So that a write after reads by many
/// threads still finds one that is not the writer's. Of further readers in the own block the warps, and one of the
/// records, the oldest: a writer who knows nothing of a warp since then cannot know of its read.
struct Granules {
  Record* write = nullptr;
  Record* sync = nullptr;
  Record* read = nullptr;
  Record* read_too = nullptr;
  Record* further = nullptr;
  uint32_t* further_warps = nullptr;

  static size_t bytes(size_t granules) { return granules * (5 * sizeof(Record) + sizeof(uint32_t)); }
  static Granules in(const LazyZeros& memory, size_t granules) {
    auto* first = memory.as<Record>();
    return {first,
            first + granules,
            first + 2 * granules,
            first + 3 * granules,
            first + 4 * granules,
            reinterpret_cast<uint32_t*>(first + 5 * granules)};
  }
};

/// Records of a piece of memory: words where accesses are whole words, bytes for all others. An access looks into both
/// and writes its own kind, so that threads may write different bytes of a word.
class AccessRecords {
 public:
  AccessRecords() = default;
  explicit AccessRecords(size_t memory_bytes)
      : words_(memory_bytes / 4 + 2), memory_(Granules::bytes(words_)), word_(Granules::in(memory_, words_)) {}

  const Granules& words() const { return word_; }
  /// Null until an access needs them.
  const Granules* bytes() const { return byte_in_use_.load(std::memory_order_acquire); }
  const Granules& need_bytes() {
    if (const Granules* there = bytes()) return *there;
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    if (byte_in_use_ == nullptr) {
      byte_memory_ = LazyZeros(Granules::bytes(4 * words_));
      byte_ = Granules::in(byte_memory_, 4 * words_);
      byte_in_use_ = &byte_;
    }
    return byte_;
  }
  /// Whether there are synchronising writers at all.
  bool synchronised() const { return synchronised_.load(std::memory_order_relaxed); }
  void set_synchronised() {
    if (!synchronised()) synchronised_.store(true, std::memory_order_relaxed);
  }
  /// Whether a granule of the own block has had further readers.
  bool further_readers() const { return further_readers_; }
  void set_further_readers() { further_readers_ = true; }
  void clear() {
    memory_.clear();
    byte_memory_.clear();
  }

 private:
  size_t words_ = 0;
  LazyZeros memory_, byte_memory_;
  Granules word_, byte_;
  std::atomic<const Granules*> byte_in_use_{nullptr};
  std::atomic<bool> synchronised_{false};
  bool further_readers_ = false;  // of shared memory, which is in the hands of one worker
};

/// A byte each: 1 once it has been written. (Bytes and not bits, because workers that write neighbours need no lock.)
namespace written {

inline void set(uint8_t* flags, uint64_t bytes) {
  if (bytes == 4) {
    const uint32_t ones = 0x01010101;
    std::memcpy(flags, &ones, 4);
  } else {
    std::memset(flags, 1, bytes);
  }
}

inline bool all(const uint8_t* flags, uint64_t bytes) {
  uint8_t every = 1;
  for (uint64_t i = 0; i < bytes; ++i) every &= flags[i];
  return every != 0;
}

inline bool any(const uint8_t* flags, uint64_t bytes) { return std::memchr(flags, 1, bytes) != nullptr; }

}  // namespace written

/// Of an allocation. Workers write it without locks: a record is one aligned 64-bit word, a flag one byte. Two that
/// access the same granule at the same instant may each miss the other's record; whoever comes next finds one of them.
class GlobalShadow : public AllocationShadow {
 public:
  explicit GlobalShadow(const Allocation& allocation)
      : first_(allocation.base & ~uint64_t{3}),
        written_(tracks(allocation) ? allocation.bytes : 0),
        records(allocation.bytes + 4) {}

  static bool tracks(const Allocation& a) {
    return a.kind == MemoryKind::kDevice || a.kind == MemoryKind::kPool || a.kind == MemoryKind::kHeap;
  }

  /// Flags from the allocation's first byte on; null where everything counts as written.
  uint8_t* written() const {
    return written_.bytes() == 0 || complete_.load(std::memory_order_relaxed) ? nullptr : written_.as<uint8_t>();
  }
  void set_complete() { complete_.store(true, std::memory_order_relaxed); }
  /// Where a byte address is counted from in `records`: granules are words of the address space.
  uint64_t place(uint64_t address) const { return address - first_; }

  /// The memory was given back.
  void forget() override {
    written_.clear();
    records.clear();
  }

 private:
  uint64_t first_;
  LazyZeros written_;
  std::atomic<bool> complete_{false};

 public:
  AccessRecords records;
  uint32_t generation = 0;  // of interval numbers
};

}  // namespace ptxsim
