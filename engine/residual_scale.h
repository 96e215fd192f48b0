#pragma once

#include "engine/graph.h"

namespace cpvt {

/// Rewrites a pre-norm network so that its residual stream x carries x * scale: what makes rows (patch embedding,
/// positions, PEG biases, the Linears added to x) is scaled, and every LayerNorm that reads x takes eps * scale^2, by
/// which norm(x * scale) is norm(x) again. With a power of two, no value changes but for what leaves fp32's range.
///
/// Why: trained vision transformers have a few channels whose residual grows by thousands ("massive activations"; Sun
/// et al., 2024), which fp16 ends at 65504. Scaled by 1/16 it reaches 10^6, and what it loses below 10^-6 no LayerNorm
/// sees. Throws Error, naming the node, where something else than a LayerNorm reads the stream's values.
Graph scale_residual(const Graph& graph, float scale);

}  // namespace cpvt
