#include "tools/ptxsim/check/watcher.h"

namespace ptxsim {

std::string Reporter::thread(uint32_t warp, uint32_t lane) const {
  const Dim3& block = grid_.launch->block;
  const uint32_t t = warp * kLanes + lane;
  return fmt::format("({}, {}, {})", t % block[0], t / block[0] % block[1], t / block[0] / block[1]);
}

std::string Reporter::block(uint64_t linear) const {
  const Dim3& grid = grid_.launch->grid;
  return fmt::format("({}, {}, {})", linear % grid[0], linear / grid[0] % grid[1], linear / grid[0] / grid[1]);
}

std::string Reporter::who(const Cta& cta, uint32_t warp, uint32_t lane, uint32_t place) const {
  return fmt::format("{}: {}, thread {}", program().place(place), cta.describe(), thread(warp, lane));
}

std::string Reporter::where(uint32_t place) const {
  if (place >= program().code.size()) return "an instruction far into the kernel";
  const std::string text = program().place(place), kernel = grid_.launch->kernel->readable_name();
  return text.starts_with(kernel) && text.size() > kernel.size() + 2 ? text.substr(kernel.size() + 2) : text;
}

std::string Reporter::site(uint32_t place) const {
  if (place < program().code.size() && program().origins[place].text != nullptr) {
    const std::string line = program().module->outer_place(program().origins[place].text->source);
    if (!line.empty()) return line;
  }
  return fmt::format("{}", place);
}

}  // namespace ptxsim
