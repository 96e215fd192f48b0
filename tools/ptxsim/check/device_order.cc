#include "tools/ptxsim/check/device_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tools/ptxsim/program/program.h"

namespace ptxsim {

std::string DeviceWork::what() const {
  return description.kind == Kind::kKernel ? description.kernel.readable_name() : std::string(description.call);
}

std::string DeviceWork::name() const {
  return description.stream == 0 ? what() + " in the default stream"
                                 : fmt::format("{} in stream {}", what(), description.stream);
}

void DeviceWork::meets_host(bool tells, bool hears) {
  if (hears && !hears_host.load(std::memory_order_relaxed)) hears_host = true;
  if (tells && !tells_host.load(std::memory_order_relaxed) && !tells_host.exchange(true)) order.host_knows(*this);
}

void DeviceOrder::join(WorkClock& into, const WorkClock& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

WorkPointer DeviceOrder::submitted(DeviceWork::Description description, std::vector<WorkPointer> after) {
  auto work = std::make_shared<DeviceWork>(*this, std::move(description));
  const std::lock_guard lock(mutex_);
  std::erase(after, nullptr);
  work->after = std::move(after);
  work->host = host_;
  ++unfinished_[host_];
  return work;
}

void DeviceOrder::begins(DeviceWork& work) {
  const std::lock_guard lock(mutex_);
  work.clock = *work.host;
  for (const WorkPointer& before : work.after) join(work.clock, before->clock);
  work.clock.resize(ends_.size());
  // It goes on with a chain of which all works come before it: with one that it directly follows, or any other.
  size_t chain = ends_.size();
  const auto fits = [&](size_t c) { return ends_[c] <= work.clock[c]; };
  for (const WorkPointer& before : work.after) {
    if (chain == ends_.size() && fits(before->chain)) chain = before->chain;
  }
  for (size_t c = 0; c < ends_.size() && chain == ends_.size(); ++c) {
    if (fits(c)) chain = c;
  }
  if (chain == ends_.size()) {
    ends_.push_back(0);
    work.clock.push_back(0);
  }
  work.chain = static_cast<uint32_t>(chain);
  work.position = work.clock[chain] = ++ends_[chain];
  work.after.clear();
}

void DeviceOrder::ends(const WorkPointer& work, bool compare_accesses) {
  const std::lock_guard lock(mutex_);
  if (work->hears_host) join(work->clock, *host_);
  if (compare_accesses) compare(work);
  for (const AccessSet::Part& part : work->accesses.parts()) {
    for (const Touch touch : {Touch::kRead, Touch::kWrite, Touch::kSyncRead, Touch::kSyncWrite}) {
      std::vector<uint32_t> places = part.places(touch);
      if (!places.empty()) work->places.push_back({part.allocation().sequence, touch, std::move(places)});
    }
  }
  work->accesses.clear();
  work->peers.clear();
  const auto snapshot = unfinished_.find(work->host);
  if (--snapshot->second == 0) unfinished_.erase(snapshot);
  work->host = nullptr;
  if (history_.grown()) {
    history_.forget([common = common()](const DeviceWork& past) { return past.before_clock(common); });
  }
}

void DeviceOrder::host_knows(const DeviceWork& work) {
  const std::lock_guard lock(mutex_);
  if (work.before_clock(*host_)) return;
  auto joined = std::make_shared<WorkClock>(*host_);
  join(*joined, work.clock);
  host_ = std::move(joined);
  // Mostly it has waited for everything, and nothing needs to be remembered.
  if (unfinished_.empty() && std::ranges::equal(ends_, *host_)) history_.clear();
}

bool DeviceOrder::known_to_host(const DeviceWork& work) {
  const std::lock_guard lock(mutex_);
  return work.before_clock(*host_);
}

size_t DeviceOrder::remembered() {
  const std::lock_guard lock(mutex_);
  return history_.pieces();
}

WorkClock DeviceOrder::common() const {
  // Works that have not ended know as much of the others as the host did when it asked for them.
  WorkClock common = *host_;
  for (const auto& [host, count] : unfinished_) {
    if (common.size() > host->size()) common.resize(host->size());
    for (size_t i = 0; i < common.size(); ++i) common[i] = std::min(common[i], (*host)[i]);
  }
  return common;
}

void DeviceOrder::compare(const WorkPointer& work) {
  // What is freed by now was the launch's own, unless there is a work that freed it.
  const bool frees = work->description.kind == DeviceWork::Kind::kFree;
  const auto concerns = [&](const AccessSet::Part& part) {
    return frees || part.allocation().live || history_.knows(part.allocation());
  };
  for (const AccessSet::Part& part : work->accesses.parts()) {
    if (!concerns(part)) continue;
    for (WorkPointer& peer : history_.exchanges(*work, part)) {
      if (peer->before(*work) || peer == work) continue;
      join(work->clock, peer->clock);
      work->peers.push_back(std::move(peer));
    }
  }
  const auto ordered = [&](const DeviceWork& other) {
    return other.before(*work) || work->before(other) || std::ranges::any_of(work->peers, [&](const WorkPointer& peer) {
             return peer->before(other) || other.before(*peer);
           });
  };
  const auto over = [common = common()](const DeviceWork& other) { return other.before_clock(common); };
  std::set<const DeviceWork*> found;
  for (const AccessSet::Part& part : work->accesses.parts()) {
    if (!concerns(part)) continue;
    history_.add(work, part, ordered, over, [&](const AccessHistory::Conflict& conflict) {
      if (found.insert(conflict.past.work.get()).second) report(conflict, *work, part);
    });
  }
}

namespace {

/// "read", "write" …: of an access in these ways the one that must be ordered with `other`.
std::pair<std::string, Touch> verb(uint8_t how, uint8_t other, DeviceWork::Kind kind) {
  using H = AccessHistory;
  if (kind == DeviceWork::Kind::kAllocate) return {"allocation", Touch::kWrite};
  if (kind == DeviceWork::Kind::kFree) return {"freeing", Touch::kWrite};
  how &= H::conflicting(other);
  if ((how & (H::kWrite | H::kCopyWrite)) != 0) return {"write", Touch::kWrite};
  if ((how & H::kSyncWrite) != 0) return {"atomic or volatile write", Touch::kSyncWrite};
  if ((how & H::kRead) != 0) return {"read", Touch::kRead};
  return {"atomic or volatile read", Touch::kSyncRead};
}

/// The instructions that may have made an access, first of all.
std::string where(const DeviceWork& work, const std::vector<uint32_t>& places) {
  if (work.description.kind != DeviceWork::Kind::kKernel || places.empty()) return {};
  Kernel kernel = work.description.kernel;
  std::string text = kernel.program().place(places[0]);
  const std::string name = kernel.readable_name();
  if (text.starts_with(name)) text = text.substr(std::min(text.size(), name.size() + 2));
  return places.size() == 1 ? fmt::format(", at {}", text)
                            : fmt::format(", at {} or another of {} accesses", text, places.size());
}

}  // namespace

void DeviceOrder::report(const AccessHistory::Conflict& conflict, const DeviceWork& work, const AccessSet::Part& part) {
  const DeviceWork& other = *conflict.past.work;
  const auto [own_verb, own_touch] = verb(conflict.how, conflict.past.how, work.description.kind);
  const auto [other_verb, other_touch] = verb(conflict.past.how, conflict.how, other.description.kind);
  std::vector<uint32_t> there;
  for (const DeviceWork::Place& place : other.places) {
    if (place.allocation == conflict.allocation.sequence && place.touch == other_touch) there = place.instructions;
  }
  // The same two kernels may meet again and again, in any streams, with any memory, and in either order.
  const std::string own_what = work.what(), other_what = other.what();
  const bool kernels =
      work.description.kind == DeviceWork::Kind::kKernel || other.description.kind == DeviceWork::Kind::kKernel;
  const std::string key = fmt::format("order|{}|{}|{}", std::min(own_what, other_what), std::max(own_what, other_what),
                                      kernels ? 0 : conflict.allocation.sequence);
  findings_.add(key,
                fmt::format("{}: race: {} of byte {} of {}{}, and {} by {}{}: no event, wait or stream orders the two",
                            work.name(), own_verb, conflict.offset, conflict.allocation.describe(),
                            where(work, part.places(own_touch)), other_verb, other.name(), where(other, there)));
}

}  // namespace ptxsim
