#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

namespace ptxsim {

enum class MemoryKind : uint8_t {
  kDevice,      // cudaMalloc and kin: the host cannot touch it by its device address
  kPool,        // cudaMallocAsync
  kManaged,     // cudaMallocManaged, __managed__: one address for both
  kHost,        // cudaHostAlloc, cudaMallocHost: one address for both
  kRegistered,  // cudaHostRegister: the program's own memory
  kModule,      // __device__ and __constant__ variables
  kHeap,        // malloc in device code: the host has no business there
};

/// Per byte of an allocation, what `--check` needs to know; made only then. Owned by the checker (check/).
struct AllocationShadow {
  virtual ~AllocationShadow() = default;
  /// The memory is freed. A kernel may still be looking at the shadow (device code frees, too).
  virtual void forget() = 0;
};

/// One allocation. Lives as long as the address space, so that a later access can still name it.
struct Allocation {
  uint64_t base = 0;  // device address
  uint64_t bytes = 0;
  std::byte* host = nullptr;  // where the simulator reads and writes it
  MemoryKind kind = MemoryKind::kDevice;
  std::atomic<bool> live{false};
  uint64_t sequence = 0;  // 1 for the first allocation of the process: how reports name it
  std::string name;       // a module variable's; else empty
  bool read_only = false;
  bool recurring = false;  // made by reserve(): its memory comes and goes
  std::unique_ptr<AllocationShadow> shadow;
  std::string site;  // of malloc in device code, when checking: where it was called

  /// "allocation 3 (1024 bytes of device memory at 0x…)", or "__device__ variable 'counts' (…)".
  std::string describe() const;
};

/// The device's memory. Device memory has addresses that fault when the host touches them, as on a real machine; the
/// simulator works on a second mapping of the same pages. An address is never given twice, so that use after free is
/// always seen; pages of freed memory go back to the system. Thread-safe; find() takes no lock for arena addresses.
class AddressSpace {
 public:
  explicit AddressSpace(uint64_t device_bytes);
  ~AddressSpace();

  /// Null where it would exceed the device's memory (kDevice, kPool) or the system's. Zero-filled pages for kManaged
  /// and kHost. At least 512-byte aligned. `bytes` > 0.
  Allocation* allocate(MemoryKind kind, uint64_t bytes, std::string name = {}, uint64_t align = 512);
  Allocation* register_host(void* pointer, uint64_t bytes);  ///< null where it overlaps a registered range

  /// Marks dead and gives the pages back. The record stays.
  void free(Allocation* allocation);

  /// A place that stays the same while the memory in it comes and goes, as the memory nodes of a graph need it: dead
  /// until revive(), dead again after free(). Null when the address range is used up.
  Allocation* reserve(MemoryKind kind, uint64_t bytes);
  /// Makes a reserved place live, with memory that nobody has written. False when it is live already, or the device's
  /// memory is full.
  bool revive(Allocation* allocation);

  /// The allocation, live or dead, that holds this address, or the one closest below it within the guard; null for
  /// none. The caller checks extent and `live`.
  Allocation* find(uint64_t address) const;

  /// The live allocation that holds all of [address, address + bytes); null for none.
  Allocation* find_live(uint64_t address, uint64_t bytes) const;

  /// Whether the address is one that only allocations of this space can have; registered memory lies elsewhere.
  bool covers(uint64_t address) const { return address - reinterpret_cast<uint64_t>(arena_) < kArenaBytes; }

  uint64_t device_bytes() const { return device_bytes_; }
  uint64_t used_bytes() const { return used_bytes_; }  // of the device's own memory
  std::vector<Allocation*> live_allocations() const;

 private:
  // Everything but registered memory lies in one reserved range, each allocation on its own 64 KiB pages with one page
  // left free behind it: a page number finds the allocation. The range is far larger than any device's memory, because
  // addresses are not given twice.
  static constexpr uint64_t kPage = 64 << 10;
  static constexpr uint64_t kArenaBytes = uint64_t{1} << 44;
  static constexpr uint64_t kAccountingUnit = 512;

  bool charge(MemoryKind kind, uint64_t bytes);
  void discharge(const Allocation& allocation);
  void set_host_access(const Allocation& allocation, bool allowed);
  Allocation* find_registered(uint64_t address) const;
  Allocation* place(MemoryKind kind, uint64_t bytes);

  uint64_t device_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
  int memory_file_ = -1;
  std::byte* arena_ = nullptr;                 // device addresses
  std::byte* alias_ = nullptr;                 // the simulator's mapping of the same file
  std::atomic<Allocation*>* pages_ = nullptr;  // kArenaBytes / kPage
  mutable std::mutex mutex_;                   // of what follows, but for registered_
  uint64_t next_page_ = 1;
  std::vector<std::unique_ptr<Allocation>> allocations_;
  mutable std::shared_mutex registered_mutex_;
  std::map<uint64_t, Allocation*> registered_;  // live ones by base
};

}  // namespace ptxsim
