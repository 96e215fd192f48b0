#pragma once

#include <string_view>

#include "tools/cpvt/progress.h"

namespace cpvt::cli {

/// Everything that is said to the person rather than answered: lines on stderr, and the progress bar among them.
/// For one thread.
class Messages {
 public:
  enum class Level { kQuiet, kNormal, kVerbose };

  explicit Messages(Level level) : level_(level), progress_(level != Level::kQuiet) {}

  void failure(std::string_view text);  ///< an input that could not be answered: always said
  void warning(std::string_view text);  ///< unless quiet
  void note(std::string_view text);     ///< only when verbose

  Progress& progress() { return progress_; }

 private:
  void line(std::string_view kind, std::string_view text);

  Level level_;
  Progress progress_;
};

/// As far as it can be written.
void write_to_stderr(std::string_view text);

}  // namespace cpvt::cli
