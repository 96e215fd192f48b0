#pragma once

#include "engine/graph.h"

namespace cpvt {

/// Linear, then Gelu  ->  Linear with its activation;   residual + Linear  ->  Linear with its residual.
/// The same values come out (to rounding), under the same output names; what is read in between stays as it is.
Graph fuse(const Graph& graph);

}  // namespace cpvt
