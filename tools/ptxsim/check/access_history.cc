#include "tools/ptxsim/check/access_history.h"

#include <algorithm>
#include <bit>
#include <set>

#include "tools/ptxsim/check/device_order.h"

namespace ptxsim {

namespace {

constexpr size_t kFewStates = 1024;
// Works that nothing orders and that read the same: more of them than this, and the oldest are not remembered.
constexpr size_t kMaxPast = 64;

bool copies(const DeviceWork& work) {
  return work.description.kind == DeviceWork::Kind::kCopy || work.description.kind == DeviceWork::Kind::kFill;
}

/// Whether one hands the other a value as flags are handed on.
bool exchange(uint8_t one, uint8_t other) {
  const auto hands = [](uint8_t from, uint8_t to) {
    const bool looks = (to & AccessHistory::kSyncRead) != 0;
    // Of copies an atomic access is no way to learn.
    const bool only_looks = looks && (to & AccessHistory::kSyncWrite) == 0;
    return ((from & AccessHistory::kSyncWrite) != 0 && looks) ||
           ((from & AccessHistory::kCopyWrite) != 0 && only_looks);
  };
  return hands(one, other) || hands(other, one);
}

}  // namespace

uint8_t AccessHistory::conflicting(uint8_t how) {
  uint8_t with = 0;
  if ((how & kRead) != 0) with |= kWrite | kSyncWrite | kCopyWrite;
  if ((how & kWrite) != 0) with |= kRead | kWrite | kSyncRead | kSyncWrite | kCopyWrite;
  if ((how & kSyncRead) != 0) with |= kWrite;
  if ((how & kSyncWrite) != 0) with |= kRead | kWrite | kCopyWrite;
  if ((how & kCopyWrite) != 0) with |= kRead | kWrite | kSyncWrite | kCopyWrite;
  return with;
}

void AccessHistory::clear() {
  states_.assign(1, {});
  numbers_.clear();
  numbers_.emplace(std::vector<Past>{}, State{0});
  pages_.clear();
  enough_ = kFewStates;
}

void AccessHistory::runs_of(const AccessSet::Part& part, uint64_t page, bool copies, std::vector<Run>& runs) {
  runs.clear();
  const uint64_t* words[kTouches];
  uint8_t whole = 0;
  bool divided_page = false;
  for (size_t t = 0; t < kTouches; ++t) {
    const auto touch = static_cast<Touch>(t);
    words[t] = part.page(touch, page);
    if (words[t] == nullptr) continue;
    if (part.whole(touch, page)) {
      whole |= static_cast<uint8_t>(1 << t);
    } else {
      divided_page = true;
    }
  }
  const auto how_of = [copies](uint8_t touches) {
    return copies && (touches & kWrite) != 0 ? static_cast<uint8_t>((touches & ~kWrite) | kCopyWrite) : touches;
  };
  if (!divided_page) {
    runs.push_back({0, how_of(whole)});
    return;
  }
  uint8_t last = 0xff;  // touches, as none has them
  for (uint32_t w = 0; w < AccessSet::kPageWords; ++w) {
    uint64_t value[kTouches];
    uint8_t all = 0;
    bool divided = false;
    for (size_t t = 0; t < kTouches; ++t) {
      value[t] = words[t] == nullptr ? 0 : words[t][w];
      divided = divided || (value[t] != 0 && value[t] != ~uint64_t{0});
      all |= static_cast<uint8_t>((value[t] & 1) << t);
    }
    if (!divided) {
      if (all != last) runs.push_back({w * 64, how_of(all)});
      last = all;
      continue;
    }
    uint64_t changes = all != last ? 1 : 0;
    for (const uint64_t v : value) changes |= (v ^ v << 1) & ~uint64_t{1};
    for (; changes != 0; changes &= changes - 1) {
      const auto bit = static_cast<uint32_t>(std::countr_zero(changes));
      last = 0;
      for (size_t t = 0; t < kTouches; ++t) last |= static_cast<uint8_t>((value[t] >> bit & 1) << t);
      runs.push_back({w * 64 + bit, how_of(last)});
    }
  }
}

template <class F>
void AccessHistory::each_piece(const Page& page, const std::vector<Run>& runs, F f) {
  const Stretch whole{0, page.whole};
  const Stretch* stretch = page.stretches == nullptr ? &whole : page.stretches->data();
  const Stretch* const end = page.stretches == nullptr ? &whole + 1 : stretch + page.stretches->size();
  size_t run = 0;
  for (uint32_t at = 0; at < AccessSet::kPageBytes;) {
    f(at, stretch->state, runs[run].how);
    const uint32_t stretch_end = stretch + 1 == end ? AccessSet::kPageBytes : stretch[1].begin;
    const uint32_t run_end = run + 1 == runs.size() ? AccessSet::kPageBytes : runs[run + 1].begin;
    at = std::min(stretch_end, run_end);
    if (at == stretch_end) ++stretch;
    if (at == run_end) ++run;
  }
}

std::vector<WorkPointer> AccessHistory::exchanges(const DeviceWork& work, const AccessSet::Part& part) {
  std::vector<WorkPointer> result;
  const auto known = pages_.find(&part.allocation());
  const bool flags = part.any(Touch::kSyncRead) || part.any(Touch::kSyncWrite) || copies(work);
  if (known == pages_.end() || !flags) return result;
  std::set<std::pair<State, uint8_t>> seen;
  std::vector<Run> runs;
  for (uint64_t p = part.first_page(); p < part.end_page(); ++p) {
    runs_of(part, p, copies(work), runs);
    each_piece(known->second[p], runs, [&](uint32_t, State state, uint8_t how) {
      if (state == 0 || how == 0 || !seen.emplace(state, how).second) return;
      for (const Past& past : states_[state]) {
        if (exchange(past.how, how)) result.push_back(past.work);
      }
    });
  }
  return result;
}

void AccessHistory::add(const WorkPointer& work, const AccessSet::Part& part,
                        const std::function<bool(const DeviceWork&)>& ordered,
                        const std::function<bool(const DeviceWork&)>& over,
                        const std::function<void(const Conflict&)>& found) {
  if (part.first_page() >= part.end_page()) return;
  std::vector<Page>& pages = pages_[&part.allocation()];
  if (pages.empty()) pages.resize((part.allocation().bytes + AccessSet::kPageBytes - 1) / AccessSet::kPageBytes);
  std::unordered_map<uint64_t, State> known;
  const auto next = [&](State state, uint8_t how, uint64_t offset) {
    const auto [at, fresh] = known.try_emplace(uint64_t{state} << 8 | how, 0);
    if (!fresh) return at->second;
    const uint8_t conflicts = conflicting(how);
    std::vector<Past> result;
    for (const Past& past : states_[state]) {
      if (over(*past.work)) continue;
      if ((past.how & conflicts) != 0 && !ordered(*past.work)) found({part.allocation(), offset, how, past});
      // What must come after the former comes after this work, too.
      if (past.work->before(*work) && (conflicting(past.how) & ~conflicts) == 0) continue;
      result.push_back(past);
    }
    if (result.size() >= kMaxPast) result.erase(result.begin());
    result.push_back({work, how});
    std::sort(result.begin(), result.end());
    return at->second = state_of(std::move(result));
  };
  std::vector<Run> runs;
  std::vector<Stretch> changed;
  for (uint64_t p = part.first_page(); p < part.end_page(); ++p) {
    runs_of(part, p, copies(*work), runs);
    if (runs.size() == 1 && runs[0].how == 0) continue;
    Page& page = pages[p];
    changed.clear();
    State last_state = 0, last_next = 0;
    uint8_t last_how = 0;
    each_piece(page, runs, [&](uint32_t begin, State state, uint8_t how) {
      State to = state;
      if (how != 0) {
        if (state != last_state || how != last_how) {
          last_next = next(state, how, p * AccessSet::kPageBytes + begin);
          last_state = state;
          last_how = how;
        }
        to = last_next;
      }
      if (changed.empty() || changed.back().state != to) changed.push_back({begin, to});
    });
    if (changed.size() == 1) {
      page.whole = changed[0].state;
      page.stretches = nullptr;
    } else {
      page.stretches = std::make_unique<std::vector<Stretch>>(changed);
    }
  }
}

AccessHistory::State AccessHistory::state_of(std::vector<Past> past) {
  const auto [at, fresh] = numbers_.try_emplace(std::move(past), static_cast<State>(states_.size()));
  if (fresh) states_.push_back(at->first);
  return at->second;
}

size_t AccessHistory::pieces() const {
  size_t pieces = 0;
  for (const auto& [allocation, pages] : pages_) {
    for (const Page& page : pages)
      pieces += page.stretches != nullptr ? page.stretches->size() : size_t{page.whole != 0};
  }
  return pieces;
}

void AccessHistory::forget(const std::function<bool(const DeviceWork&)>& over) {
  std::vector<std::vector<Past>> before;
  before.swap(states_);
  states_.assign(1, {});
  numbers_.clear();
  numbers_.emplace(std::vector<Past>{}, State{0});
  constexpr State kUnknown = ~State{0};
  std::vector<State> now(before.size(), kUnknown);
  const auto renumbered = [&](State state) {
    if (now[state] == kUnknown) {
      std::erase_if(before[state], [&](const Past& past) { return over(*past.work); });
      now[state] = state_of(std::move(before[state]));
    }
    return now[state];
  };
  for (auto& [allocation, pages] : pages_) {
    for (Page& page : pages) {
      if (page.stretches == nullptr) {
        page.whole = renumbered(page.whole);
        continue;
      }
      auto& stretches = *page.stretches;
      for (Stretch& stretch : stretches) stretch.state = renumbered(stretch.state);
      const auto rest = std::ranges::unique(stretches, {}, &Stretch::state);
      stretches.erase(rest.begin(), rest.end());
      if (stretches.size() > 1) continue;
      page.whole = stretches[0].state;
      page.stretches = nullptr;
    }
  }
  std::erase_if(pages_, [](const auto& entry) {
    return std::ranges::all_of(entry.second,
                               [](const Page& page) { return page.stretches == nullptr && page.whole == 0; });
  });
  enough_ = std::max(kFewStates, 2 * states_.size());
}

}  // namespace ptxsim
