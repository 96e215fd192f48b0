#include "tools/cpvt/messages.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/printable.h"

namespace cpvt::cli {

void Messages::failure(std::string_view text) { line("", text); }

void Messages::warning(std::string_view text) {
  if (level_ != Level::kQuiet) line("warning: ", text);
}

void Messages::note(std::string_view text) {
  if (level_ == Level::kVerbose) line("note: ", text);
}

void Messages::line(std::string_view kind, std::string_view text) {
  progress_.hide();
  write_to_stderr(fmt::format("cpvt: {}{}\n", kind, printable(text, "\n")));
}

void write_to_stderr(std::string_view text) {
  // A full disk or a closed terminal behind stderr changes nothing of what comes out.
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));
  std::fflush(stderr);
}

}  // namespace cpvt::cli
