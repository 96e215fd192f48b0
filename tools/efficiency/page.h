#pragma once

#include <iosfwd>
#include <span>

#include "tools/efficiency/simulation.h"

/// docs/cuda-kernels.md and its picture, from the budgets alone.
namespace cpvt::efficiency {

/// Markdown that shows the picture `cuda-kernels.svg`.
void write_page(std::ostream& out, std::span<const Launch> launches);

/// A bar for each pass: which share of its estimated time each operator has.
void write_picture(std::ostream& out, std::span<const Launch> launches);

}  // namespace cpvt::efficiency
