#pragma once

#include <cstdint>

#include "engine/graph.h"
#include "engine/token_layout.h"

namespace cpvt {

/// Rows that a value has for a batch.
int64_t row_count(Rows rows, const TokenLayout& layout);

/// Floating-point operations of one node on one batch: a multiply-add counts two, an exponential or square root one.
/// Exact up to 2^53, and rounded beyond: attention over a large picture has more than an int64_t can count.
double flops(const Graph& graph, const Node& node, const TokenLayout& layout);

/// Of a whole forward pass.
double flops(const Graph& graph, const TokenLayout& layout);

}  // namespace cpvt
