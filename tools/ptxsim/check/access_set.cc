#include "tools/ptxsim/check/access_set.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "tools/ptxsim/check/device_order.h"
#include "tools/ptxsim/exec/warp.h"

namespace ptxsim {

namespace {

struct WholePage {
  std::array<std::atomic<uint64_t>, AccessSet::kPageWords> words;
  WholePage() {
    for (auto& word : words) word = ~uint64_t{0};
  }
};

/// Stands for every page of which all bytes were accessed; nobody writes it, for there is nothing to add.
std::atomic<uint64_t>* whole_page() {
  static WholePage page;
  return page.words.data();
}

void* zeros(size_t count, size_t size) {
  void* memory = std::calloc(count, size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

AccessSet::Part::Part(const Allocation& allocation)
    : allocation_(&allocation),
      pages_((allocation.bytes + kPageBytes - 1) / kPageBytes),
      slots_(static_cast<std::atomic<Word*>*>(zeros(kTouches * pages_, sizeof(std::atomic<Word*>)))),
      first_page_(pages_) {}

AccessSet::Part::~Part() {
  for (size_t touch = 0; touch < kTouches; ++touch) {
    for (uint64_t page = first_page_; page < end_page_; ++page) {
      Word* words = slot(static_cast<Touch>(touch), page);
      if (words != whole_page()) std::free(words);
    }
  }
  std::free(slots_);
}

AccessSet::Part::Word* AccessSet::Part::make(Touch touch, uint64_t page, bool whole) {
  any_[static_cast<size_t>(touch)].store(true, std::memory_order_relaxed);
  uint64_t seen = first_page_;
  while (page < seen && !first_page_.compare_exchange_weak(seen, page)) {
  }
  seen = end_page_;
  while (page + 1 > seen && !end_page_.compare_exchange_weak(seen, page + 1)) {
  }
  Word* fresh = whole ? whole_page() : static_cast<Word*>(zeros(kPageWords, sizeof(Word)));
  Word* there = nullptr;
  if (slot(touch, page).compare_exchange_strong(there, fresh)) return fresh;
  if (!whole) std::free(fresh);
  return there;
}

void AccessSet::Part::add_range(Touch touch, uint64_t offset, uint64_t bytes) {
  const uint64_t end = offset + bytes;
  while (offset < end) {
    const uint64_t page = offset / kPageBytes, page_end = std::min(end, (page + 1) * kPageBytes);
    if (page_end - offset == kPageBytes && slot(touch, page).load(std::memory_order_acquire) == nullptr) {
      make(touch, page, true);
    }
    Word* of_page = words(touch, page);
    if (of_page == whole_page()) {
      offset = page_end;
      continue;
    }
    while (offset < page_end) {
      const uint64_t bit = offset % 64, count = std::min(64 - bit, page_end - offset);
      set(of_page[offset / 64 % kPageWords], (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << bit);
      offset += count;
    }
  }
}

bool AccessSet::Part::whole(Touch touch, uint64_t page) const {
  return slot(touch, page).load(std::memory_order_relaxed) == whole_page();
}

void AccessSet::Part::note_place(Touch touch, uint32_t place) {
  constexpr size_t kEnough = 8;
  const std::lock_guard lock(mutex_);
  auto& places = places_[static_cast<size_t>(touch)];
  if (places.size() < kEnough && std::ranges::find(places, place) == places.end()) places.push_back(place);
}

std::vector<uint32_t> AccessSet::Part::places(Touch touch) const {
  const std::lock_guard lock(mutex_);
  return places_[static_cast<size_t>(touch)];
}

AccessSet::Part& AccessSet::of(const Allocation& allocation) {
  const std::lock_guard lock(mutex_);
  for (Part& part : parts_) {
    if (&part.allocation() == &allocation) return part;
  }
  return parts_.emplace_back(allocation);
}

namespace {

bool names(const ptx::Operand& operand, const std::string& name) {
  return operand.name == name ||
         std::ranges::any_of(operand.parts, [&](const ptx::Operand& part) { return names(part, name); });
}

/// Whether nothing in the kernel uses what the atomic gives back: it counts, and learns nothing.
bool drops_result(const Program& program, uint32_t place) {
  const ptx::Instruction* text = program.origins[place].text;
  if (text == nullptr || text->opcode != "atom" || text->operands.empty()) return true;
  const ptx::Operand& result = text->operands.front();
  if (result.kind != ptx::Operand::Kind::kRegister) return result.kind == ptx::Operand::Kind::kSink;
  for (const FunctionEntry& entry : program.functions) {
    const auto& body = entry.function->body;
    if (text < body.data() || text >= body.data() + body.size()) continue;
    return std::ranges::none_of(body, [&](const ptx::Instruction& other) {
      if (&other == text) return false;
      return (other.guard && other.guard->predicate == result.name) ||
             std::ranges::any_of(other.operands, [&](const ptx::Operand& o) { return names(o, result.name); });
    });
  }
  return false;
}

}  // namespace

AccessCollector::AccessCollector(DeviceWork& work, const Program& program)
    : work_(work), program_(program), noted_(program.code.size()), drops_result_(program.code.size()) {}

AccessSet::Part& AccessCollector::part(const Allocation& allocation) {
  Cached& cached = cache_[allocation.sequence % cache_.size()];
  if (cached.allocation != &allocation) cached = {&allocation, &work_.accesses.of(allocation)};
  return *cached.part;
}

void AccessCollector::access(uint32_t place, const Access& a, const Allocation& allocation, bool fenced) {
  using Kind = Access::Kind;
  // Device code's own heap is a matter of its own; a copy's destination is written when the data land.
  if (allocation.kind == MemoryKind::kHeap || a.kind == Kind::kAsyncIssue) return;
  AccessSet::Part& target = part(allocation);
  const bool sync = a.synchronising || fenced;
  const uint64_t manner = allocation.sequence * 2 + (sync ? 1 : 0);
  const bool fresh = noted_[place] != manner;
  if (fresh && a.kind == Kind::kAtomic && noted_[place] == 0) drops_result_[place] = drops_result(program_, place);
  const bool reads =
      a.kind == Kind::kLoad || a.kind == Kind::kAsyncRead || (a.kind == Kind::kAtomic && drops_result_[place] == 0);
  const bool writes = a.kind == Kind::kStore || a.kind == Kind::kAsyncLand || a.kind == Kind::kAtomic;
  const Touch read = sync ? Touch::kSyncRead : Touch::kRead, write = sync ? Touch::kSyncWrite : Touch::kWrite;
  if (fresh) {
    noted_[place] = manner;
    if (reads) target.note_place(read, place);
    if (writes) target.note_place(write, place);
    const bool host_sees_it = allocation.kind == MemoryKind::kHost || allocation.kind == MemoryKind::kManaged ||
                              allocation.kind == MemoryKind::kRegistered;
    if (sync && host_sees_it) work_.meets_host(writes, reads);
  }

  const uint64_t base = allocation.base;
  const bool row = in_row(a.mask, a.address, a.bytes);
  const auto add = [&](Touch touch) {
    if (row) {
      target.add(touch, a.address[0] - base, uint64_t{a.bytes} * kLanes);
    } else if (a.mask == kAllLanes &&
               std::all_of(a.address, a.address + kLanes, [&](uint64_t x) { return x == a.address[0]; })) {
      target.add(touch, a.address[0] - base, a.bytes);
    } else {
      each_lane(a.mask, [&](int l) { target.add(touch, a.address[l] - base, a.bytes); });
    }
  };
  if (reads) add(read);
  if (writes) add(write);
}

}  // namespace ptxsim
