#pragma once

#include "kernels/cuda/linear.h"

namespace cpvt::cuda {

/// Whether linear() leaves the product to linear_hopper(), whose sums may be rounded in another way: it never depends
/// on the number of rows.
bool takes_hopper(const LinearArgs& args);

int linear_hopper(const LinearArgs& args, void* stream);

}  // namespace cpvt::cuda
