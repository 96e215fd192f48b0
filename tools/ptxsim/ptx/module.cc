#include "tools/ptxsim/ptx/module.h"

#include <fmt/format.h>

namespace ptxsim::ptx {

std::string Module::place(uint32_t source) const {
  if (source == 0) return {};
  const SourceLine* line = &lines.at(source - 1);
  while (line->inlined_at != 0) line = &lines.at(line->inlined_at - 1);
  const auto file = files.find(line->file);
  if (file == files.end()) return {};
  return fmt::format("{}:{}", file->second.substr(file->second.rfind('/') + 1), line->line);
}

}  // namespace ptxsim::ptx
