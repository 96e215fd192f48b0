#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/backends/backend.h"
#include "engine/graph.h"

namespace cpvt {

/// How a stamp device takes runners in turn.
struct StampTurns {
  int runners = 1;
  /// Hears, before it happens, "1 begins 3 images" and "1 ends", streams numbered from 1; what it throws goes on.
  std::function<void(const std::string&)> hear = [](const std::string&) {};
};

/// A device that computes nothing, but knows: a kernel fills its output with a number of its own and, before, reads
/// whether every input still holds its maker's number. So it throws Error where a plan lets one value overwrite another
/// that is still to be read, or a workspace anything. It has `memory` bytes and allows no more.
/// Kernels ask for workspaces of odd sizes that depend on the batch.
std::unique_ptr<Backend> make_stamp_backend(const Graph& graph, size_t memory = size_t{1} << 30, StampTurns turns = {});

/// What a value is filled with.
float stamp(ValueId value);

}  // namespace cpvt
