#include "tools/ptxsim/ptx/module.h"

#include <fmt/format.h>

namespace ptxsim::ptx {

namespace {

std::string text_of(const Module& module, const SourceLine& line) {
  const auto file = module.files.find(line.file);
  if (file == module.files.end()) return {};
  return fmt::format("{}:{}", file->second.substr(file->second.rfind('/') + 1), line.line);
}

}  // namespace

std::string Module::place(uint32_t source) const {
  if (source == 0) return {};
  const SourceLine* line = &lines.at(source - 1);
  std::string text = text_of(*this, *line), callers;
  while (line->inlined_at != 0 && !text.empty()) {
    line = &lines.at(line->inlined_at - 1);
    callers += (callers.empty() ? "" : ", ") + text_of(*this, *line);
  }
  return callers.empty() ? text : fmt::format("{} (inlined at {})", text, callers);
}

std::string Module::outer_place(uint32_t source) const {
  if (source == 0) return {};
  const SourceLine* line = &lines.at(source - 1);
  while (line->inlined_at != 0) line = &lines.at(line->inlined_at - 1);
  return text_of(*this, *line);
}

}  // namespace ptxsim::ptx
