#pragma once

namespace cpvt::bench {

/// fp32 GFLOP/s of one core on nothing but independent fused multiply-adds in the widest vectors: the bound of every
/// product.
double peak_gflops();

}  // namespace cpvt::bench
