#pragma once

#include "kernels/cuda/attention.h"

namespace cpvt::cuda {

/// Whether attention() leaves the work to attention_hopper(), whose sums may be rounded in another way: it never depends
/// on the batch.
bool takes_hopper(const AttentionArgs& args);

int attention_hopper(const AttentionArgs& args, void* stream);

}  // namespace cpvt::cuda
