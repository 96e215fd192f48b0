#pragma once

#include <chrono>
#include <cstddef>

namespace cpvt::cli {

/// A bar on stderr with count, rate and time left; nothing at all where stderr is no terminal.
class Progress {
 public:
  explicit Progress(bool wanted);
  ~Progress() { hide(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void start(size_t total);
  void advance();  ///< Without a start(), nothing.
  void hide();     ///< Wipes the bar; the next advance() may draw it again.

 private:
  using Clock = std::chrono::steady_clock;

  void draw(Clock::time_point now);

  bool enabled_;
  bool visible_ = false;
  size_t done_ = 0;
  size_t total_ = 0;
  Clock::time_point started_;
  Clock::time_point drawn_;
};

}  // namespace cpvt::cli
