#include "tools/ptxsim/machine/gpu.h"

#include <cuda_occupancy.h>
#include <gtest/gtest.h>

#include "tools/ptxsim/error.h"

namespace ptxsim {
namespace {

/// The same question to the calculator that comes with CUDA.
int calculated_blocks(const Gpu& gpu, int threads, int registers, size_t fixed_shared, size_t dynamic_shared) {
  cudaOccDeviceProp device;
  device.computeMajor = gpu.major;
  device.computeMinor = gpu.minor;
  device.maxThreadsPerBlock = gpu.max_threads_per_block;
  device.maxThreadsPerMultiprocessor = gpu.max_threads_per_sm;
  device.regsPerBlock = gpu.registers_per_block;
  device.regsPerMultiprocessor = gpu.registers_per_sm;
  device.warpSize = 32;
  device.sharedMemPerBlock = static_cast<size_t>(gpu.shared_per_block);
  device.sharedMemPerMultiprocessor = static_cast<size_t>(gpu.shared_per_sm);
  device.numSms = gpu.multiprocessors;
  device.sharedMemPerBlockOptin = static_cast<size_t>(gpu.shared_per_block_optin);
  device.reservedSharedMemPerBlock = static_cast<size_t>(gpu.shared_reserved);

  cudaOccFuncAttributes function;
  function.maxThreadsPerBlock = gpu.max_threads_per_block;
  function.numRegs = registers;
  function.sharedSizeBytes = fixed_shared;
  function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  function.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin - fixed_shared;

  cudaOccDeviceState state;
  state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  cudaOccResult result{};
  const cudaOccError error =
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &function, &state, threads, dynamic_shared);
  EXPECT_EQ(error, CUDA_OCC_SUCCESS);
  return result.activeBlocksPerMultiprocessor;
}

TEST(Gpu, AgreesWithCudasOccupancyCalculator) {
  int compared = 0;
  for (const Gpu& gpu : gpus()) {
    for (int threads : {1, 31, 32, 33, 64, 96, 128, 160, 192, 256, 288, 384, 512, 640, 768, 992, 1024}) {
      for (int registers = 1; registers <= 257; ++registers) {
        for (size_t shared : {0, 1, 127, 1024, 7 * 1024, 16 * 1024 - 1, 32 * 1024, 48 * 1024, 49 * 1024 + 1, 75 * 1024,
                              99 * 1024, 99 * 1024 + 1, 113 * 1024, 163 * 1024, 227 * 1024}) {
          if (shared > static_cast<size_t>(gpu.shared_per_block_optin)) continue;
          const int ours = occupancy(gpu, threads, registers, shared).blocks;
          const int theirs = calculated_blocks(gpu, threads, registers, shared / 2, shared - shared / 2);
          ASSERT_EQ(ours, theirs) << gpu.key << ": " << threads << " threads, " << registers << " registers, " << shared
                                  << " bytes of shared memory";
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 200000);
}

TEST(Gpu, NamesTheLimiter) {
  const Gpu& h100 = gpu("h100");
  EXPECT_EQ(occupancy(h100, 1024, 32, 0).limiter, "warps");
  EXPECT_EQ(occupancy(h100, 1024, 32, 0).blocks, 2);
  EXPECT_EQ(occupancy(h100, 1024, 32, 0).fraction, 1.0);
  EXPECT_EQ(occupancy(h100, 32, 32, 0).limiter, "blocks");
  EXPECT_EQ(occupancy(h100, 32, 32, 0).blocks, 32);
  EXPECT_EQ(occupancy(h100, 32, 32, 0).fraction, 0.5);
  EXPECT_EQ(occupancy(h100, 256, 128, 0).limiter, "registers");
  EXPECT_EQ(occupancy(h100, 256, 128, 0).blocks, 2);
  EXPECT_EQ(occupancy(h100, 256, 32, 100 << 10).limiter, "shared memory");
  EXPECT_EQ(occupancy(h100, 256, 32, 100 << 10).blocks, 2);
}

TEST(Gpu, ABlockThatCannotRunHasNoOccupancy) {
  const Gpu& ada = gpu("rtx4090");
  EXPECT_EQ(occupancy(ada, 0, 32, 0).blocks, 0);
  EXPECT_EQ(occupancy(ada, 1025, 32, 0).blocks, 0);
  EXPECT_EQ(occupancy(ada, 1024, 65, 0).blocks, 0);
  EXPECT_EQ(occupancy(ada, 1024, 65, 0).limiter, "registers");
  EXPECT_EQ(occupancy(ada, 32, 257, 0).blocks, 0);
  EXPECT_EQ(occupancy(ada, 32, 32, (99 << 10) + 1).blocks, 0);
  EXPECT_EQ(occupancy(ada, 32, 32, 99 << 10).blocks, 1);
}

TEST(Gpu, IsFoundByItsKey) {
  EXPECT_EQ(gpu("H200").key, "h200");
  EXPECT_EQ(gpu("a100").multiprocessors, 108);
  EXPECT_EQ(gpu("rtx4090").major * 10 + gpu("rtx4090").minor, 89);
  try {
    gpu("h101");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no GPU is called 'h101'; there are: h100, h200, a100, a100-40gb, rtx4090");
  }
}

// What the data sheets say of dense rates and bandwidths must come out of the profiles' figures per clock.
TEST(Gpu, ReachesItsDataSheet) {
  struct Sheet {
    std::string_view key;
    double fp32, fp16_pairs, fp64, tensor_f16, tensor_tf32, tensor_s8;  // 1e12 operations per second
  };
  const Sheet sheets[] = {
      {"h100", 66.9, 133.8, 33.5, 1070, 535, 2141},  // tensor rates at 1980 MHz; the sheet's 989 are at 1830 MHz
      {"a100", 19.5, 78, 9.7, 312, 156, 624},
      {"rtx4090", 82.6, 82.6, 1.29, 165.2, 82.6, 660.6},
  };
  for (const Sheet& sheet : sheets) {
    const Gpu& g = gpu(sheet.key);
    const double clocks = 1e3 * g.clock_khz * g.multiprocessors;
    EXPECT_NEAR(2 * clocks * g.fp32_fma / 1e12, sheet.fp32, 0.01 * sheet.fp32) << sheet.key;
    EXPECT_NEAR(4 * clocks * g.fp16x2_fma / 1e12, sheet.fp16_pairs, 0.01 * sheet.fp16_pairs) << sheet.key;
    EXPECT_NEAR(2 * clocks * g.fp64_fma / 1e12, sheet.fp64, 0.01 * sheet.fp64) << sheet.key;
    EXPECT_NEAR(2 * clocks * g.tensor_f16_fma / 1e12, sheet.tensor_f16, 0.01 * sheet.tensor_f16) << sheet.key;
    EXPECT_NEAR(2 * clocks * g.tensor_tf32_fma / 1e12, sheet.tensor_tf32, 0.01 * sheet.tensor_tf32) << sheet.key;
    EXPECT_NEAR(2 * clocks * g.tensor_s8_fma / 1e12, sheet.tensor_s8, 0.01 * sheet.tensor_s8) << sheet.key;
  }
  // Two transfers per memory clock.
  for (const Gpu& g : gpus()) {
    const double computed = 2e3 * g.memory_clock_khz * g.memory_bus_bits / 8;
    EXPECT_NEAR(g.memory_bytes_per_second / computed, 1, 0.03) << g.key;
  }
}

}  // namespace
}  // namespace ptxsim
