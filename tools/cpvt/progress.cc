#include "tools/cpvt/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "tools/cpvt/messages.h"

namespace cpvt::cli {

namespace {

constexpr std::chrono::milliseconds kInterval{100};  // between two drawings
constexpr size_t kBarWidth = 24;
constexpr const char* kWipe = "\r\033[K";

}  // namespace

Progress::Progress(bool wanted) : enabled_(wanted && isatty(STDERR_FILENO) == 1) {}

void Progress::start(size_t total) {
  done_ = 0;
  total_ = total;
  started_ = drawn_ = Clock::now();
}

void Progress::advance() {
  ++done_;
  if (!enabled_ || total_ == 0) return;
  const auto now = Clock::now();
  if (done_ == total_) {
    hide();
  } else if (now - drawn_ >= kInterval) {
    draw(now);
  }
}

void Progress::hide() {
  if (!visible_) return;
  std::fputs(kWipe, stderr);
  visible_ = false;
}

void Progress::draw(Clock::time_point now) {
  const double rate = static_cast<double>(done_) / std::chrono::duration<double>(now - started_).count();
  const auto seconds_left = static_cast<int64_t>(static_cast<double>(total_ - done_) / rate);
  const size_t filled = kBarWidth * done_ / std::max<size_t>(total_, 1);
  write_to_stderr(fmt::format("{}[{}{}] {}/{}  {:.0f} images/s  {}:{:02} left", kWipe, std::string(filled, '='),
                              std::string(kBarWidth - filled, ' '), done_, total_, rate, seconds_left / 60,
                              seconds_left % 60));
  std::fflush(stderr);
  visible_ = true;
  drawn_ = now;
}

}  // namespace cpvt::cli
