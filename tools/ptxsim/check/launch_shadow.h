#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/check/async_proxy.h"
#include "tools/ptxsim/check/clock.h"
#include "tools/ptxsim/check/shadow.h"
#include "tools/ptxsim/check/undefined.h"
#include "tools/ptxsim/exec/cta.h"

namespace ptxsim {

/// Hands out numbers of intervals and knows whose they are.
class Intervals {
 public:
  struct Owner {
    uint32_t launch, block;
  };

  /// kNobody when the numbers are used up: then races go unseen.
  IntervalId open(Owner owner) {
    if (next_.load(std::memory_order_relaxed) >= kLimit) return kNobody;
    const IntervalId id = next_.fetch_add(1, std::memory_order_relaxed);
    owners_.as<Owner>()[id] = owner;
    return id;
  }
  /// Above all intervals that exist, not above those to come.
  IntervalId now() const { return next_.load(std::memory_order_relaxed); }
  Owner owner(IntervalId id) const { return owners_.as<Owner>()[id]; }

  bool nearly_used_up() const { return now() > kLimit / 4 * 3; }
  void restart() {
    owners_.clear();
    next_ = 1;
  }
  void forget_owners() {
    if (now() - forgotten_ < kManyOwners && now() >= forgotten_) return;
    owners_.clear();
    forgotten_ = now();
  }

 private:
  static constexpr IntervalId kLimit = 0xffff0000, kManyOwners = 1 << 20;

  std::atomic<IntervalId> next_{1};
  IntervalId forgotten_ = 0;
  LazyZeros owners_{sizeof(Owner) << 32};
};

/// What all blocks of a launch share.
class LaunchShadow {
 public:
  LaunchShadow(const Program& program, uint64_t sequence, IntervalId first);

  const uint64_t sequence;
  const IntervalId first;  // intervals below it belong to launches that came before

  /// By instruction.
  struct Traits {
    uint16_t store = 0;       // from 1: the number of a store or atomic among them
    bool optimistic = false;  // a load whose value a later compare-and-swap of the same place checks again
    bool polls = false;       // a load in a loop that goes on or ends by what it finds
    bool is_volatile = false;
    bool block_scope = false;  // .cta
    bool releases = false;     // st.release
    bool invalidates = false;  // mbarrier.inval, which belongs to the object's own operations
    bool exchange = false;     // an atomic that writes whatever was there
    bool object = false;       // of an mbarrier, whose events say what it orders
    bool noncoherent = false;  // ld.global.nc: of what nobody writes during the launch
    bool real = false;         // a load of floating-point numbers, which have no padding
    bool async_proxy = false;  // bulk copies and products of warpgroups
  };
  const Traits& traits(uint32_t index) const { return traits_[index]; }
  bool async_proxy() const { return async_proxy_; }  ///< some of its instructions are
  size_t stores() const { return store_places_.size(); }
  uint32_t store_place(size_t number) const { return store_places_[number - 1]; }

  /// Made when first asked for.
  const RegisterUse& register_use(const Program& program) {
    std::call_once(register_use_once_, [&] { register_use_ = std::make_unique<RegisterUse>(program); });
    return *register_use_;
  }

  /// A read of what nobody has written may be a read that came before the write: then the race is the finding, and this
  /// one is none. Which it is, the end of the launch tells.
  struct Deferred {
    std::string site, text;
    uint64_t times = 0;
  };
  void defer(const std::string& key, const std::string& site, std::function<std::string()> text);
  void raced(const std::string& reading_site);
  /// What is left at the end, by key.
  std::map<std::string, Deferred> deferred() const;

  /// What a block's releases to other blocks cover. Outlives the block.
  struct Released {
    std::mutex mutex;
    Clock clock;
    /// Reads need no fence: what has been read, no later write changes.
    Clock reads;
    AsyncClock async;
  };
  Released* released(uint32_t block) const;  ///< null when it has released nothing
  Released& will_release(uint32_t block);

 private:
  std::vector<Traits> traits_;
  bool async_proxy_ = false;
  std::vector<uint32_t> store_places_;  // instructions, by number - 1
  std::once_flag register_use_once_;
  std::unique_ptr<const RegisterUse> register_use_;
  mutable std::mutex mutex_;
  std::unordered_map<uint32_t, std::unique_ptr<Released>> released_;
  std::map<std::string, Deferred> deferred_;
  std::set<std::string> raced_;
};

}  // namespace ptxsim
