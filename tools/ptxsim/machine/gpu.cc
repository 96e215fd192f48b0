#include "tools/ptxsim/machine/gpu.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "tools/ptxsim/error.h"

namespace ptxsim {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr int kKiB = 1 << 10;

// The part of a profile that its compute capability decides.
constexpr Gpu hopper() {
  Gpu gpu{};
  gpu.major = 9;
  gpu.minor = 0;
  gpu.feature = 'a';
  gpu.fp32_fma = 128;
  gpu.fp16x2_fma = 128;
  gpu.fp64_fma = 64;
  gpu.int32_op = 64;
  gpu.special_op = 16;
  gpu.tensor_f16_fma = 2048;
  gpu.tensor_tf32_fma = 1024;
  gpu.tensor_s8_fma = 4096;
  gpu.shared_bytes = 128;
  gpu.issue_slots = 4;
  gpu.max_threads_per_block = 1024;
  gpu.max_threads_per_sm = 2048;
  gpu.max_blocks_per_sm = 32;
  gpu.max_warps_per_sm = 64;
  gpu.registers_per_sm = gpu.registers_per_block = 65536;
  gpu.register_unit = 256;
  gpu.shared_per_sm = 228 * kKiB;
  gpu.shared_per_block = 48 * kKiB;
  gpu.shared_per_block_optin = 227 * kKiB;
  gpu.shared_reserved = 1 * kKiB;
  gpu.shared_unit = 128;
  gpu.max_cluster = 8;
  return gpu;
}

constexpr Gpu ampere() {
  Gpu gpu = hopper();
  gpu.major = 8;
  gpu.minor = 0;
  gpu.feature = ' ';
  gpu.fp32_fma = 64;
  gpu.fp64_fma = 32;
  gpu.tensor_f16_fma = 1024;
  gpu.tensor_tf32_fma = 512;
  gpu.tensor_s8_fma = 2048;
  gpu.shared_per_sm = 164 * kKiB;
  gpu.shared_per_block_optin = 163 * kKiB;
  gpu.max_cluster = 0;
  return gpu;
}

constexpr Gpu ada() {
  Gpu gpu = ampere();
  gpu.minor = 9;
  gpu.fp32_fma = 128;
  gpu.fp16x2_fma = 64;
  gpu.fp64_fma = 2;
  gpu.tensor_f16_fma = 256;
  gpu.tensor_tf32_fma = 128;
  gpu.tensor_s8_fma = 1024;
  gpu.max_threads_per_sm = 1536;
  gpu.max_blocks_per_sm = 24;
  gpu.max_warps_per_sm = 48;
  gpu.shared_per_sm = 100 * kKiB;
  gpu.shared_per_block_optin = 99 * kKiB;
  return gpu;
}

struct Board {
  std::string_view key, name;
  int multiprocessors, clock_khz, memory_clock_khz, memory_bus_bits;
  uint64_t memory_bytes, l2_bytes;
  double memory_bytes_per_second, l2_bytes_per_second;
};

constexpr Gpu profile(Gpu chip, const Board& board) {
  chip.key = board.key;
  chip.name = board.name;
  chip.multiprocessors = board.multiprocessors;
  chip.clock_khz = board.clock_khz;
  chip.memory_clock_khz = board.memory_clock_khz;
  chip.memory_bus_bits = board.memory_bus_bits;
  chip.memory_bytes = board.memory_bytes;
  chip.l2_bytes = board.l2_bytes;
  chip.memory_bytes_per_second = board.memory_bytes_per_second;
  chip.l2_bytes_per_second = board.l2_bytes_per_second;
  return chip;
}

constexpr std::array kGpus = {
    profile(hopper(),
            {"h100", "NVIDIA H100 80GB HBM3", 132, 1980000, 2619000, 5120, 81559 * kMiB, 50 * kMiB, 3.35e12, 5.5e12}),
    profile(hopper(), {"h200", "NVIDIA H200", 132, 1980000, 3201000, 6144, 143771 * kMiB, 60 * kMiB, 4.8e12, 5.5e12}),
    profile(ampere(),
            {"a100", "NVIDIA A100-SXM4-80GB", 108, 1410000, 1593000, 5120, 81251 * kMiB, 40 * kMiB, 2.039e12, 4.5e12}),
    profile(ampere(), {"a100-40gb", "NVIDIA A100-SXM4-40GB", 108, 1410000, 1215000, 5120, 40536 * kMiB, 40 * kMiB,
                       1.555e12, 4.5e12}),
    profile(ada(), {"rtx4090", "NVIDIA GeForce RTX 4090", 128, 2520000, 10501000, 384, 24210 * kMiB, 72 * kMiB,
                    1.008e12, 5.0e12}),
};

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return result;
}

template <class T>
T round_up(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

std::span<const Gpu> gpus() { return kGpus; }

const Gpu& gpu(std::string_view key) {
  const std::string wanted = lower(key);
  std::string known;
  for (const Gpu& candidate : kGpus) {
    if (candidate.key == wanted) return candidate;
    known += known.empty() ? "" : ", ";
    known += candidate.key;
  }
  throw Error("no GPU is called '{}'; there are: {}", key, known);
}

Occupancy occupancy(const Gpu& gpu, int threads_per_block, int registers_per_thread, uint64_t shared_bytes_per_block) {
  constexpr int kWarp = 32, kPartitions = 4, kMaxRegisters = 256;
  if (threads_per_block <= 0 || threads_per_block > gpu.max_threads_per_block) return {0, 0, "warps"};
  const int warps = round_up(threads_per_block, kWarp) / kWarp;

  Occupancy result{gpu.max_warps_per_sm / warps, 0, "warps"};
  const auto limit = [&result](uint64_t blocks, std::string_view limiter) {
    if (blocks < static_cast<uint64_t>(result.blocks)) {
      result.blocks = static_cast<int>(blocks);
      result.limiter = limiter;
    }
  };
  limit(static_cast<uint64_t>(gpu.max_blocks_per_sm), "blocks");

  // Each of the four partitions of a multiprocessor has a quarter of the registers. Whether a block fits at all is
  // decided as if its warps were spread over all of them evenly.
  const int per_warp = round_up(registers_per_thread * kWarp, gpu.register_unit);
  if (registers_per_thread > kMaxRegisters || per_warp * round_up(warps, kPartitions) > gpu.registers_per_block) {
    limit(0, "registers");
  } else if (per_warp > 0) {
    const int resident_warps = gpu.registers_per_sm / kPartitions / per_warp * kPartitions;
    limit(static_cast<uint64_t>(resident_warps / warps), "registers");
  }

  const auto optin = static_cast<uint64_t>(gpu.shared_per_block_optin);
  const auto shared = round_up(shared_bytes_per_block + static_cast<uint64_t>(gpu.shared_reserved),
                               static_cast<uint64_t>(gpu.shared_unit));
  if (shared_bytes_per_block > optin) {
    limit(0, "shared memory");
  } else if (shared > 0) {
    limit(static_cast<uint64_t>(gpu.shared_per_sm) / shared, "shared memory");
  }

  result.fraction = static_cast<double>(result.blocks * warps) / gpu.max_warps_per_sm;
  return result;
}

}  // namespace ptxsim
