#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ptxsim {

/// What a GPU is, as far as occupancy, properties and speed-of-light estimates need it. Figures from the vendor's
/// data sheets and the CUDA programming guide's tables of compute capabilities and of arithmetic throughput; dense
/// rates. Level-2 bandwidths are what public micro-benchmarks reach, for no data sheet states them.
struct Gpu {
  std::string_view key;   // "h100": --gpu
  std::string_view name;  // cudaDeviceProp::name
  int major, minor;
  char feature;  // 'a' where sm_90a code runs; ' ' else
  int multiprocessors;
  int clock_khz, memory_clock_khz, memory_bus_bits;
  uint64_t memory_bytes;
  uint64_t l2_bytes;
  double memory_bytes_per_second;
  double l2_bytes_per_second;
  // per multiprocessor and clock; fp16x2_fma counts pairs, tensor rates are those with 32-bit accumulation
  double fp32_fma, fp16x2_fma, fp64_fma, int32_op, special_op;
  double tensor_f16_fma, tensor_tf32_fma, tensor_s8_fma;  // dense multiply-adds
  double shared_bytes, issue_slots;
  // occupancy limits
  int max_threads_per_block, max_threads_per_sm, max_blocks_per_sm, max_warps_per_sm;
  int registers_per_sm, registers_per_block, register_unit;  // allocated per warp in units of this many registers
  int shared_per_sm, shared_per_block, shared_per_block_optin, shared_reserved, shared_unit;
  int max_cluster;  // blocks of a cluster that any launch may ask for; 0 where there are no clusters
};

std::span<const Gpu> gpus();
/// By key, without regard to case. Throws Error with the keys that there are.
const Gpu& gpu(std::string_view key);

/// How many blocks of a kernel fit on one multiprocessor, and what stands in the way of more.
struct Occupancy {
  int blocks = 0;
  double fraction = 0;       // resident warps / max_warps_per_sm
  std::string_view limiter;  // "registers", "shared memory", "warps", "blocks"
};
Occupancy occupancy(const Gpu& gpu, int threads_per_block, int registers_per_thread, uint64_t shared_bytes_per_block);

}  // namespace ptxsim
