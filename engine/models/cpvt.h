#pragma once

#include "engine/graph.h"
#include "weights/checkpoint.h"

namespace cpvt {

/// CPVT and its position-encoding baselines as a graph of semantic operators, unfused.
/// Outputs: "features" (tokens after the final norm, [T, D]) and "logits" ([B, classes]).
/// Chu et al., "Conditional Positional Encodings for Vision Transformers", ICLR 2023;
/// timm/models/vision_transformer.py.
Graph build_cpvt(const Checkpoint& checkpoint);

}  // namespace cpvt
