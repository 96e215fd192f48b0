#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace ptxsim {

/// What `--check` found: each is printed to stderr the first time that its kind occurs at its place, and counted there.
class Findings {
 public:
  /// `key`: what makes two findings the same (kind, instruction, allocation). `text`: the whole message.
  void add(const std::string& key, const std::string& text);
  /// Called for each finding that is new. The program may end at any moment, and not by a return from main.
  void on_new(std::function<void()> tell) { tell_ = std::move(tell); }

  /// Distinct findings so far.
  uint64_t count() const;
  /// Says how often each occurred that occurred more than once.
  void summarise() const;

 private:
  struct Entry {
    uint64_t number, times;
  };
  std::function<void()> tell_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace ptxsim
