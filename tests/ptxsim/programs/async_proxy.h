#pragma once

// The instructions of the async proxy that faults/async_proxy.cu and its twins are made of.
#include <cuda_bf16.h>

#include <cstdint>

#include "tests/ptxsim/programs/expect.h"

__device__ uint32_t address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// 512 bytes from shared memory, as a group of their own.
__device__ void store(float* to, const float* from) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 512;\ncp.async.bulk.commit_group;" ::"l"(to),
               "r"(address(from))
               : "memory");
}

__device__ void initialise(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(address(barrier))
               : "memory");
}

// 512 bytes to shared memory, of which the barrier tells.
__device__ void load(void* to, const void* from, uint64_t* barrier) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%2], 512;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 512, [%2];" ::"r"(address(to)),
      "l"(from), "r"(address(barrier))
      : "memory");
}

__device__ void wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN%=:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra "
      "AGAIN%=;\n}" ::"r"(address(barrier)),
      "r"(parity)
      : "memory");
}

// Operands of a product: 64 x 16 and 8 x 16 values in blocks of eight rows of 16 bytes.
constexpr int kA = 64 * 16, kB = 8 * 16;

__device__ uint64_t descriptor(const __nv_bfloat16* p, int rows) {
  return uint64_t{address(p) >> 4} | static_cast<uint64_t>(rows) << 16 | uint64_t{128 >> 4} << 32;
}

__device__ void multiply(float (&d)[4], const __nv_bfloat16* operands) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "l"(descriptor(operands, 64)), "l"(descriptor(operands + kA, 8)));
}

__device__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// As the compiler's: nothing that reads or writes these registers moves across.
__device__ void pin(float (&d)[4]) { asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory"); }

__device__ void fill(__nv_bfloat16* operands) {
  for (int i = threadIdx.x; i < kA + kB; i += blockDim.x) operands[i] = __float2bfloat16(1.0f);
}
