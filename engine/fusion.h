#pragma once

#include "engine/graph.h"

namespace cpvt {

/// Linear, then Gelu  ->  Linear with its activation;   residual + Linear  ->  Linear with its residual.
/// The same values come out (to rounding), under the same output names; what is read in between stays as it is.
Graph fuse(const Graph& graph);

/// LayerNorm, then Linear of at most `widest` inputs  ->  Linear with its norm;   LayerNorm, then Pool  ->  Pool with
/// its norm;   Peg, then one of the LayerNorms that are left  ->  Peg with its norm. Who else reads a LayerNorm, or is
/// given it as an output, still can: it stays, and what it costs is only paid where that output is wanted.
Graph fuse_norms(const Graph& graph, int64_t widest, bool into_pool, bool into_peg);

}  // namespace cpvt
