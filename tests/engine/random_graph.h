#pragma once

#include <random>
#include <vector>

#include "engine/graph.h"
#include "engine/token_layout.h"

namespace cpvt {

using Random = std::mt19937;

int64_t pick(Random& random, int64_t least, int64_t most);

/// Normally distributed with this deviation.
Tensor random_tensor(Random& random, std::vector<int64_t> shape, float deviation = 1);

/// A shape without numbers, for what computes nothing.
Tensor shape_only(std::vector<int64_t> shape);

/// A valid graph of up to 30 operators of every kind, far more tangled than a network: values read many times, late,
/// or never; several outputs. Patches are 2×2 of one channel.
Graph random_graph(Random& random);
constexpr int64_t kRandomGraphPatch = 2;

/// One to five images of up to 14×14 pixels.
std::vector<ImageSize> random_sizes(Random& random);

}  // namespace cpvt
