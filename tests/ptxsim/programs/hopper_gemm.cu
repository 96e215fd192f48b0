// C = A Bᵀ as it is written for sm_90: a producer warp fills a ring of stages by tensor copies that swizzle, two
// warpgroups multiply them with wgmma, and the results leave by a tensor copy. Blocks of a cluster share the rows of A
// by multicast.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cudaTypedefs.h>

#include <cstdint>
#include <random>

#include "tests/ptxsim/programs/expect.h"

constexpr int kM = 128, kN = 64, kK = 64;  // of a block's tile; a row of kK has 128 bytes
constexpr int kStages = 3, kThreads = 3 * 128, kCluster = 2;
constexpr uint32_t kBytesA = kM * kK * 2, kBytesB = kN * kK * 2;

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra THROUGH;\n"
      "bra AGAIN;\nTHROUGH:\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// A matrix of rows of 128 bytes in the swizzling of 128 bytes.
__device__ uint64_t descriptor(const void* p) {
  return uint64_t{shared_address(p) >> 4 & 0x3fff} | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

__device__ void multiply(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
      "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, "
      "1, 0, 0;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b));
}

struct Shared {
  alignas(1024) __nv_bfloat16 a[kStages][kM * kK];
  alignas(1024) __nv_bfloat16 b[kStages][kN * kK];
  alignas(128) float c[kM * kN];
  alignas(8) uint64_t full[kStages], empty[kStages];
};

/// Grid: (columns / kN, rows / kM), clusters of kCluster neighbours along the columns.
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    gemm(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
         const __grid_constant__ CUtensorMap c, int depth) {
  extern __shared__ uint8_t raw[];
  Shared& s = *reinterpret_cast<Shared*>(raw + (1024 - shared_address(raw) % 1024) % 1024);
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const int steps = depth / kK, group = static_cast<int>(threadIdx.x) / 128;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&s.full[i])));
      // The consumers of all blocks that get a part of A from here, and the own ones.
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&s.empty[i])), "r"(2 * kCluster));
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 256) {
      for (int step = 0; step < steps; ++step) {
        const int stage = step % kStages;
        wait(&s.empty[stage], (step / kStages + 1) & 1);
        const uint32_t full = shared_address(&s.full[stage]);
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full), "r"(kBytesA + kBytesB)
                     : "memory");
        // Each block of the cluster brings its half of A's rows to all.
        constexpr int kPart = kM / kCluster;
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
            "{%2, %3}], [%4], %5;" ::"r"(shared_address(s.a[stage] + rank * kPart * kK)),
            "l"(&a), "r"(step * kK), "r"(static_cast<int>(blockIdx.y * kM + rank * kPart)), "r"(full),
            "h"(static_cast<uint16_t>((1 << kCluster) - 1))
            : "memory");
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                shared_address(s.b[stage])),
            "l"(&b), "r"(step * kK), "r"(static_cast<int>(blockIdx.x * kN)), "r"(full)
            : "memory");
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    float d[32] = {};
    for (int step = 0; step < steps; ++step) {
      const int stage = step % kStages;
      wait(&s.full[stage], step / kStages & 1);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
      const uint64_t x = descriptor(s.a[stage] + group * 64 * kK), y = descriptor(s.b[stage]);
      for (uint64_t k = 0; k < kK / 16; ++k) multiply(d, x + 2 * k, y + 2 * k);
      asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
      // One thread speaks for its warpgroup, to each block that may overwrite the stage.
      if (threadIdx.x % 128 < kCluster) {
        asm volatile(
            "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
            "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(&s.empty[stage])),
            "r"(threadIdx.x % 128)
            : "memory");
      }
    }
    const int lane = static_cast<int>(threadIdx.x) % 32, row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
    for (int i = 0; i < 32; ++i) {
      s.c[(row + i % 4 / 2 * 8) * kN + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    }
    asm volatile("fence.proxy.async.shared::cta;\nbar.sync 1, 256;" ::: "memory");
    if (threadIdx.x == 0) {
      asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&c),
                   "r"(static_cast<int>(blockIdx.x * kN)), "r"(static_cast<int>(blockIdx.y * kM)),
                   "r"(shared_address(s.c))
                   : "memory");
      asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
    }
  }
  // No block leaves while others may still send to it.
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

PFN_cuTensorMapEncodeTiled_v12000 encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  EXPECT_OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result));
  EXPECT(result == cudaDriverEntryPointSuccess && function != nullptr);
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

CUtensorMap map_of(void* data, CUtensorMapDataType type, uint64_t element, int rows, int columns, uint32_t box_rows,
                   uint32_t box_columns, CUtensorMapSwizzle swizzle) {
  CUtensorMap map;
  const cuuint64_t extents[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)},
                   strides[] = {static_cast<cuuint64_t>(columns) * element};
  const cuuint32_t box[] = {box_columns, box_rows}, steps[] = {1, 1};
  EXPECT(encode()(&map, type, 2, data, extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
  return map;
}

int main() {
  // Neither rows nor columns fill their tiles.
  const int m = 200, n = 240, k = 320;
  std::mt19937 random(1);
  std::uniform_int_distribution<int> value(-4, 4);
  std::vector<__nv_bfloat16> a(static_cast<size_t>(m * k)), b(static_cast<size_t>(n * k));
  for (auto& v : a) v = __float2bfloat16(static_cast<float>(value(random)));
  for (auto& v : b) v = __float2bfloat16(static_cast<float>(value(random)));
  Buffer<__nv_bfloat16> device_a(a), device_b(b);
  Buffer<float> device_c(static_cast<size_t>(m * n));
  const CUtensorMap map_a = map_of(device_a.get(), CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, m, k, kM / kCluster, kK,
                                   CU_TENSOR_MAP_SWIZZLE_128B),
                    map_b = map_of(device_b.get(), CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, n, k, kN, kK,
                                   CU_TENSOR_MAP_SWIZZLE_128B),
                    map_c = map_of(device_c.get(), CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, m, n, kM, kN,
                                   CU_TENSOR_MAP_SWIZZLE_NONE);
  const size_t bytes = sizeof(Shared) + 1024;
  EXPECT_OK(cudaFuncSetAttribute(gemm, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  gemm<<<dim3((n + kN - 1) / kN, (m + kM - 1) / kM), kThreads, bytes>>>(map_a, map_b, map_c, k);
  EXPECT_RAN();
  const std::vector<float> c = device_c.download();
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int l = 0; l < k; ++l) {
        sum += __bfloat162float(a[static_cast<size_t>(i * k + l)]) * __bfloat162float(b[static_cast<size_t>(j * k + l)]);
      }
      EXPECT(c[static_cast<size_t>(i * n + j)] == sum);
    }
  }
}
