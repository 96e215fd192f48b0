#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace ptxsim {

/// What `--check` found: each is printed to stderr the first time that its kind occurs at its place, and counted there.
class Findings {
 public:
  /// `key`: what makes two findings the same (kind, instruction, allocation). `text`: the whole message.
  void add(const std::string& key, const std::string& text);

  /// Distinct findings so far.
  uint64_t count() const;
  /// Says how often each occurred that occurred more than once.
  void summarise() const;

 private:
  struct Entry {
    uint64_t number, times;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace ptxsim
