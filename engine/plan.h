#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/token_layout.h"

namespace cpvt {

/// Where everything lies for one batch geometry: which nodes the wanted outputs need, a place in one arena for every
/// value and workspace of theirs, from their lifetimes, and the tables that their kernels read. Immutable once made.
struct Plan {
  TokenLayout layout;
  std::vector<std::string> wanted;       // names of the outputs that outlive the run
  std::vector<bool> needed;              // per node; the others do not run, and have no places
  std::vector<size_t> value_offset;      // per value, bytes into the arena
  std::vector<size_t> workspace_offset;  // per node
  size_t arena_bytes = 0;

  std::vector<size_t> table_offset;  // per node, bytes into the tables
  std::vector<size_t> table_size;    // per node, in bytes
  size_t table_bytes = 0;
  std::shared_ptr<const std::byte> tables;  // in the device's memory

  size_t bytes() const { return arena_bytes + table_bytes; }
  std::span<const std::byte> table(size_t node) const { return {tables.get() + table_offset[node], table_size[node]}; }

  /// Wanted outputs keep their place until the end of the run; every other value's is free after its last reader.
  /// Computes places and sizes only; fill_tables makes the tables that `table_bytes` announces.
  static Plan make(const Executable& executable, TokenLayout layout, std::vector<std::string> wanted,
                   const Stream& stream);
  void fill_tables(const Executable& executable, Stream& stream);
};

}  // namespace cpvt
