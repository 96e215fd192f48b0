#pragma once

#include <memory>

#include "engine/backends/backend.h"

namespace cpvt {

/// Every operator as its formula in engine/ops.h says, in loops over doubles; for tests. Where a network is wrong on a
/// device and right here, the device's kernels are to blame; where it is wrong here too, the graph or the plan is.
std::unique_ptr<Backend> make_plain_backend();

}  // namespace cpvt
