#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/number.cuh"
#include "kernels/cuda/ptx.cuh"

/// The instructions of sm_90a: barriers that count bytes, copies of tensors, products of whole warpgroups, clusters.
/// Addresses are those of shared_address().
namespace cpvt::cuda::ptx {

// --- barriers in shared memory ---------------------------------------------------------------------------------------

/// A barrier whose phase ends after `arrivals` arrivals, when all bytes that it expects have come too.
__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Behind all barrier_init: the cluster's other blocks and their copies see them, after the next cluster_sync.
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Arrives, and makes the phase wait for `bytes` more.
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// At the barrier in the same place of another block of the cluster. Only for what the asynchronous proxy has done with
/// shared memory, and wgmma_wait has ended: with .release.cluster, which generic stores would need to be seen there,
/// ptxas puts a fence of the whole GPU before every arrival.
__device__ inline void barrier_arrive_at(uint32_t barrier, uint32_t block) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
      "r"(block)
      : "memory");
}

/// Waits for the end of the phase with this parity; the first one's is 0. The phase before the first counts as ended.
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra AGAIN;\n}" ::
          "r"(barrier),
      "r"(parity)
      : "memory");
}

/// Waits for `threads` threads of the block, the same ones each time; barrier 0 is __syncthreads'.
__device__ inline void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// --- clusters --------------------------------------------------------------------------------------------------------

__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ inline void cluster_sync() { asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory"); }

// --- copies of tensors -----------------------------------------------------------------------------------------------

/// What generic stores have written to shared memory is seen by wgmma and copies that come after.
__device__ inline void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// The map itself is on its way, so that the first copy need not wait for it.
__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// A box of a matrix, from column x and row y on.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, int x, int y, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

/// The same, to the same place in each of the cluster's blocks that `blocks` has a bit for, and to their barriers.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, int x, int y, uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
      "%3}], [%4], %5;" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier), "h"(blocks)
      : "memory");
}

/// A box of five dimensions, from x in the first, y in the third, z in the last on.
__device__ inline void copy_box_5d(uint32_t to, const CUtensorMap& map, int x, int y, int z, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %3, %5}], "
      "[%6];" ::"r"(to),
      "l"(&map), "r"(x), "r"(0), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

/// The same, to the same place in each of the cluster's blocks that `blocks` has a bit for, and to their barriers.
__device__ inline void copy_box_5d(uint32_t to, const CUtensorMap& map, int x, int y, int z, uint32_t barrier,
                                   uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
      "%3, %4, %3, %5}], [%6], %7;" ::"r"(to),
      "l"(&map), "r"(x), "r"(0), "r"(y), "r"(z), "r"(barrier), "h"(blocks)
      : "memory");
}

// --- registers -------------------------------------------------------------------------------------------------------

/// By all warps of a warpgroup: from here on a thread has so many registers.
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// --- products of a warpgroup -----------------------------------------------------------------------------------------

/// Before the first product, and where its registers have been touched since.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Waits until at most `kPending` of the newest groups are still under way.
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// An operand of rows of 128 or 64 bytes, in the swizzling of as many: eight rows are neighbours, at a multiple of what
/// they take. Rows go along k, of which sixteen numbers further is 2 more; or they are those of WgmmaMix, one for each
/// number of k, and sixteen further is kRowBytes more.
template <int kRowBytes = 128>
__device__ inline uint64_t wgmma_operand(uint32_t address) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
  constexpr uint64_t kEightRows = uint64_t{8 * kRowBytes >> 4} << 32;
  constexpr uint64_t kIgnored = uint64_t{1} << 16;  // the other stride, which one swizzled row does not have
  constexpr uint64_t kSwizzle = uint64_t{kRowBytes == 128 ? 1 : 2} << 62;
  return kSwizzle | kEightRows | kIgnored | (address >> 4 & 0x3FFF);
}

/// d = a b, or d += a b where `add` is not 0: 64 rows of a, kColumns rows of b, 16 numbers along k, fp32 accumulators.
/// Thread t of the warpgroup has row 16 (t / 32) + t % 32 / 4 + 8 i and columns 8 j + 2 (t % 4) + {0, 1} in
/// d[4 j + 2 i + {0, 1}]. Nothing touches d until a wait.
template <class T, int kColumns>
struct Wgmma;

/// d += a b, where a is in registers, each warp's 16 rows as mma_16x8x16 has them, and b is 16 rows along k of kColumns
/// numbers. Nothing touches a, nor d, until a wait.
template <class T, int kColumns>
struct WgmmaMix;

// Of the accumulators of so many columns, eight for each sixteen: their names in the text, and the operands.
#define CPVT_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7"
#define CPVT_NAMES_32 CPVT_NAMES_16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define CPVT_NAMES_48 CPVT_NAMES_32 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define CPVT_NAMES_64 CPVT_NAMES_48 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define CPVT_NAMES_80 CPVT_NAMES_64 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define CPVT_NAMES_96 CPVT_NAMES_80 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define CPVT_NAMES_112 CPVT_NAMES_96 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define CPVT_NAMES_128 CPVT_NAMES_112 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define CPVT_NAMES_144 CPVT_NAMES_128 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define CPVT_NAMES_160 CPVT_NAMES_144 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define CPVT_NAMES_176 CPVT_NAMES_160 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define CPVT_NAMES_192 CPVT_NAMES_176 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define CPVT_NAMES_208 CPVT_NAMES_192 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define CPVT_NAMES_224 CPVT_NAMES_208 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define CPVT_NAMES_240 CPVT_NAMES_224 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define CPVT_NAMES_256 CPVT_NAMES_240 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define CPVT_EIGHT(i)                                                                                   \
  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), "+f"(d[(i) + 5]), \
      "+f"(d[(i) + 6]), "+f"(d[(i) + 7])
#define CPVT_SUMS_16 CPVT_EIGHT(0)
#define CPVT_SUMS_32 CPVT_SUMS_16, CPVT_EIGHT(8)
#define CPVT_SUMS_48 CPVT_SUMS_32, CPVT_EIGHT(16)
#define CPVT_SUMS_64 CPVT_SUMS_48, CPVT_EIGHT(24)
#define CPVT_SUMS_80 CPVT_SUMS_64, CPVT_EIGHT(32)
#define CPVT_SUMS_96 CPVT_SUMS_80, CPVT_EIGHT(40)
#define CPVT_SUMS_112 CPVT_SUMS_96, CPVT_EIGHT(48)
#define CPVT_SUMS_128 CPVT_SUMS_112, CPVT_EIGHT(56)
#define CPVT_SUMS_144 CPVT_SUMS_128, CPVT_EIGHT(64)
#define CPVT_SUMS_160 CPVT_SUMS_144, CPVT_EIGHT(72)
#define CPVT_SUMS_176 CPVT_SUMS_160, CPVT_EIGHT(80)
#define CPVT_SUMS_192 CPVT_SUMS_176, CPVT_EIGHT(88)
#define CPVT_SUMS_208 CPVT_SUMS_192, CPVT_EIGHT(96)
#define CPVT_SUMS_224 CPVT_SUMS_208, CPVT_EIGHT(104)
#define CPVT_SUMS_240 CPVT_SUMS_224, CPVT_EIGHT(112)
#define CPVT_SUMS_256 CPVT_SUMS_240, CPVT_EIGHT(120)

#define CPVT_WGMMA_OF(type, ptx_type, columns, a_name, b_name, add_name)                               \
  template <>                                                                                          \
  struct Wgmma<type, columns> {                                                                        \
    __device__ static void multiply(float (&d)[(columns) / 2], uint64_t a, uint64_t b, int32_t add) {  \
      asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, " add_name                                  \
                   ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." ptx_type "." ptx_type \
                   " {" CPVT_NAMES_##columns "}, " a_name ", " b_name ", adds, 1, 1, 0, 0;\n}"         \
                   : CPVT_SUMS_##columns                                                               \
                   : "l"(a), "l"(b), "r"(add));                                                        \
    }                                                                                                  \
  };
#define CPVT_WGMMA(columns, a_name, b_name, add_name)           \
  CPVT_WGMMA_OF(half, "f16", columns, a_name, b_name, add_name) \
  CPVT_WGMMA_OF(bfloat16, "bf16", columns, a_name, b_name, add_name)
#define CPVT_WGMMA_MIX_OF(type, ptx_type, columns, a_names, b_name)                                  \
  template <>                                                                                        \
  struct WgmmaMix<type, columns> {                                                                   \
    __device__ static void multiply(float (&d)[(columns) / 2], const uint32_t (&a)[4], uint64_t b) { \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." ptx_type "." ptx_type     \
                   " {" CPVT_NAMES_##columns "}, {" a_names "}, " b_name ", 1, 1, 1, 1;"             \
                   : CPVT_SUMS_##columns                                                             \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                            \
    }                                                                                                \
  };
#define CPVT_WGMMA_MIX(columns, a_names, b_name)           \
  CPVT_WGMMA_MIX_OF(half, "f16", columns, a_names, b_name) \
  CPVT_WGMMA_MIX_OF(bfloat16, "bf16", columns, a_names, b_name)

CPVT_WGMMA(16, "%8", "%9", "%10")
CPVT_WGMMA(32, "%16", "%17", "%18")
CPVT_WGMMA(48, "%24", "%25", "%26")
CPVT_WGMMA(64, "%32", "%33", "%34")
CPVT_WGMMA(80, "%40", "%41", "%42")
CPVT_WGMMA(96, "%48", "%49", "%50")
CPVT_WGMMA(112, "%56", "%57", "%58")
CPVT_WGMMA(128, "%64", "%65", "%66")
CPVT_WGMMA(192, "%96", "%97", "%98")
CPVT_WGMMA(256, "%128", "%129", "%130")
CPVT_WGMMA_MIX(32, "%16, %17, %18, %19", "%20")
CPVT_WGMMA_MIX(64, "%32, %33, %34, %35", "%36")

#undef CPVT_WGMMA_MIX
#undef CPVT_WGMMA_MIX_OF
#undef CPVT_WGMMA
#undef CPVT_WGMMA_OF
#undef CPVT_EIGHT
#undef CPVT_SUMS_16
#undef CPVT_SUMS_32
#undef CPVT_SUMS_48
#undef CPVT_SUMS_64
#undef CPVT_SUMS_80
#undef CPVT_SUMS_96
#undef CPVT_SUMS_112
#undef CPVT_SUMS_128
#undef CPVT_SUMS_144
#undef CPVT_SUMS_160
#undef CPVT_SUMS_176
#undef CPVT_SUMS_192
#undef CPVT_SUMS_208
#undef CPVT_SUMS_224
#undef CPVT_SUMS_240
#undef CPVT_SUMS_256
#undef CPVT_NAMES_16
#undef CPVT_NAMES_32
#undef CPVT_NAMES_48
#undef CPVT_NAMES_64
#undef CPVT_NAMES_80
#undef CPVT_NAMES_96
#undef CPVT_NAMES_112
#undef CPVT_NAMES_128
#undef CPVT_NAMES_144
#undef CPVT_NAMES_160
#undef CPVT_NAMES_176
#undef CPVT_NAMES_192
#undef CPVT_NAMES_208
#undef CPVT_NAMES_224
#undef CPVT_NAMES_240
#undef CPVT_NAMES_256

}  // namespace cpvt::cuda::ptx
