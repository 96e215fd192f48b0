#pragma once

#include <memory>

#include "engine/backends/backend.h"
#include "engine/graph.h"

namespace cpvt {

/// A device that computes nothing, but knows: a kernel fills its output with a number of its own and, before, reads
/// whether every input still holds its maker's number. So it throws Error where a plan lets one value overwrite another
/// that is still to be read, or a workspace anything. It has `memory` bytes and allows no more.
/// Kernels ask for workspaces of odd sizes that depend on the batch.
std::unique_ptr<Backend> make_stamp_backend(const Graph& graph, size_t memory = size_t{1} << 30);

/// What a value is filled with.
float stamp(ValueId value);

}  // namespace cpvt
