#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "tools/ptxsim/exec/observer.h"

/// Which bytes a piece of device work (a kernel, a copy, a fill) reads and writes.
namespace ptxsim {

enum class Touch : uint8_t { kRead, kWrite, kSyncRead, kSyncWrite };
constexpr size_t kTouches = 4;

/// A bit per byte, in pages that are made when the first of their bytes is accessed; a page that was accessed as a
/// whole takes no room. Workers add to it at the same time.
class AccessSet {
 public:
  static constexpr uint64_t kPageBytes = 16384, kPageWords = kPageBytes / 64;

  class Part {
   public:
    explicit Part(const Allocation& allocation);
    ~Part();
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

    /// `offset`: from the allocation's first byte.
    void add(Touch touch, uint64_t offset, uint64_t bytes) {
      const uint64_t word = offset / 64, bit = offset % 64;
      if (bit + bytes <= 64) {
        const uint64_t mask = (bytes == 64 ? ~uint64_t{0} : (uint64_t{1} << bytes) - 1) << bit;
        set(words(touch, word / kPageWords)[word % kPageWords], mask);
      } else {
        add_range(touch, offset, bytes);
      }
    }
    /// From the kernel's instruction number `place`: for reports.
    void note_place(Touch touch, uint32_t place);

    const Allocation& allocation() const { return *allocation_; }
    uint64_t first_page() const { return first_page_; }
    uint64_t end_page() const { return end_page_; }
    /// kPageWords of them; null where no byte of the page was accessed in this way.
    const uint64_t* page(Touch touch, uint64_t page) const {
      const auto* words = slot(touch, page).load(std::memory_order_acquire);
      return reinterpret_cast<const uint64_t*>(words);
    }
    /// All bytes of the page were accessed at once.
    bool whole(Touch touch, uint64_t page) const;
    bool any(Touch touch) const { return any_[static_cast<size_t>(touch)].load(std::memory_order_relaxed); }
    std::vector<uint32_t> places(Touch touch) const;

   private:
    using Word = std::atomic<uint64_t>;
    static_assert(sizeof(Word) == sizeof(uint64_t));

    static void set(Word& word, uint64_t mask) {
      if ((word.load(std::memory_order_relaxed) & mask) != mask) word.fetch_or(mask, std::memory_order_relaxed);
    }
    std::atomic<Word*>& slot(Touch touch, uint64_t page) const {
      return slots_[static_cast<size_t>(touch) * pages_ + page];
    }
    Word* words(Touch touch, uint64_t page) {
      Word* there = slot(touch, page).load(std::memory_order_acquire);
      return there != nullptr ? there : make(touch, page, false);
    }
    Word* make(Touch touch, uint64_t page, bool whole);
    void add_range(Touch touch, uint64_t offset, uint64_t bytes);

    const Allocation* allocation_;
    uint64_t pages_;
    std::atomic<Word*>* slots_;
    std::atomic<uint64_t> first_page_, end_page_{0};
    std::array<std::atomic<bool>, kTouches> any_{};
    mutable std::mutex mutex_;
    std::array<std::vector<uint32_t>, kTouches> places_;  // with mutex_ held
  };

  Part& of(const Allocation& allocation);
  std::deque<Part>& parts() { return parts_; }
  void clear() { parts_.clear(); }

 private:
  std::mutex mutex_;
  std::deque<Part> parts_;
};

struct DeviceWork;

/// Adds what one worker's warps access in global memory to the work's set.
class AccessCollector {
 public:
  AccessCollector(DeviceWork& work, const Program& program);

  /// `fenced`: a plain store right behind a fence, which is as good as a flag.
  void access(uint32_t place, const Access& access, const Allocation& allocation, bool fenced);

 private:
  AccessSet::Part& part(const Allocation& allocation);

  struct Cached {
    const Allocation* allocation = nullptr;
    AccessSet::Part* part = nullptr;
  };
  DeviceWork& work_;
  const Program& program_;
  std::array<Cached, 16> cache_;
  std::vector<uint64_t> noted_;        // by instruction: of which allocation its place was noted last
  std::vector<uint8_t> drops_result_;  // by instruction: an atomic whose result nothing uses, which only writes
};

}  // namespace ptxsim
