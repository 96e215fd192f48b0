#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/token_layout.h"

namespace cpvt {

/// Where everything lies for one batch geometry: a place in one arena for every value and workspace, from their
/// lifetimes, and the position rows of each grid. Immutable once made.
struct Plan {
  TokenLayout layout;
  std::vector<std::string> wanted;       // names of the outputs that outlive the run
  std::vector<size_t> value_offset;      // per value, bytes into the arena
  std::vector<size_t> workspace_offset;  // per node
  size_t arena_bytes = 0;

  /// Per node and image, rows for AddPosition to add; empty for other operators. Images of one grid share a table.
  std::vector<std::vector<std::shared_ptr<const std::vector<float>>>> positions;
  size_t position_bytes = 0;

  size_t bytes() const { return arena_bytes + position_bytes; }

  /// Wanted outputs keep their place until the end of the run; every other value's is free after its last reader.
  /// Computes places and sizes only; fill_positions makes the position rows that `position_bytes` announces.
  static Plan make(const Executable& executable, TokenLayout layout, std::vector<std::string> wanted,
                   const Stream& stream);
  void fill_positions(const Graph& graph);
};

}  // namespace cpvt
