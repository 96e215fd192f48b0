// The correct twins of faults/async_proxy.cu: nothing may be found here.
#include "tests/ptxsim/programs/async_proxy.h"

__global__ void unfenced_store(float* out) {
  __shared__ alignas(128) float s[128];
  s[threadIdx.x] = 3;
  proxy_fence();
  __syncthreads();
  if (threadIdx.x == 0) {
    store(out, s);
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
  }
}

__global__ void reused_source(float* out) {
  __shared__ alignas(128) float s[128];
  for (int round = 0; round < 3; ++round) {
    s[threadIdx.x] = round;
    proxy_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
      store(out + round * 128, s);
      asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Two buffers in turn: before one is filled again, all copies but the latest must have read theirs.
__global__ void two_sources(float* out) {
  __shared__ alignas(128) float s[2][128];
  for (int round = 0; round < 4; ++round) {
    if (threadIdx.x == 0) asm volatile("cp.async.bulk.wait_group.read 1;" ::: "memory");
    __syncthreads();
    s[round % 2][threadIdx.x] = round;
    proxy_fence();
    __syncthreads();
    if (threadIdx.x == 0) store(out + round * 128, s[round % 2]);
  }
  if (threadIdx.x == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

__global__ void loaded_over(const float* in, float* out) {
  __shared__ alignas(128) float s[128];
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) initialise(&barrier);
  s[threadIdx.x] = 0;
  __syncthreads();
  out[threadIdx.x] = s[127 - threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) {
    proxy_fence();
    load(s, in, &barrier);
  }
  wait(&barrier, 0);
  out[threadIdx.x] += s[127 - threadIdx.x];
}

__global__ void unfenced_operands(float* out) {
  __shared__ alignas(128) __nv_bfloat16 s[kA + kB];
  float d[4] = {};
  fill(s);
  proxy_fence();
  __syncthreads();
  fence();
  multiply(d, s);
  commit();
  wait_products<0>();
  pin(d);
  out[threadIdx.x] = d[0] + d[3];
}

__global__ void early_result(float* out) {
  __shared__ alignas(128) __nv_bfloat16 s[kA + kB];
  float d[4] = {};
  fill(s);
  proxy_fence();
  __syncthreads();
  fence();
  for (int i = 0; i < 3; ++i) multiply(d, s);
  commit();
  wait_products<0>();
  pin(d);
  out[threadIdx.x] = d[0];
}

// Of two groups the first may be read, the second not yet.
__global__ void loose_result(float* out) {
  __shared__ alignas(128) __nv_bfloat16 s[kA + kB];
  float d[4] = {}, e[4] = {};
  fill(s);
  proxy_fence();
  __syncthreads();
  fence();
  multiply(d, s);
  commit();
  fence();
  multiply(e, s);
  commit();
  wait_products<1>();
  pin(d);
  out[threadIdx.x] = d[0];
  wait_products<0>();
  pin(e);
  out[threadIdx.x] = e[0];
  wait_products<0>();
}

__global__ void overwritten(float* out) {
  __shared__ alignas(128) __nv_bfloat16 s[kA + kB];
  float d[4] = {};
  fill(s);
  proxy_fence();
  __syncthreads();
  fence();
  multiply(d, s);
  commit();
  wait_products<0>();
  __syncthreads();
  s[threadIdx.x] = __float2bfloat16(2.0f);
  wait_products<0>();
  pin(d);
  out[threadIdx.x] = d[0];
}

// Two warpgroups share their operands: before those are overwritten, both must have waited.
__global__ void shared_operands(float* out) {
  __shared__ alignas(128) __nv_bfloat16 s[kA + kB];
  float d[4] = {};
  fill(s);
  proxy_fence();
  __syncthreads();
  fence();
  multiply(d, s);
  commit();
  wait_products<0>();
  __syncthreads();
  s[threadIdx.x] = __float2bfloat16(2.0f);
  wait_products<0>();
  pin(d);
  out[threadIdx.x] = d[0];
}

// A ring of two stages: a producer warp loads into what the products have read, as it is told by one thread of the
// warpgroup.
__global__ void ring(const __nv_bfloat16* in, float* out, int steps) {
  __shared__ alignas(128) __nv_bfloat16 s[2][kA + kB];
  __shared__ uint64_t full[2], empty[2];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      initialise(&full[i]);
      initialise(&empty[i]);
    }
  }
  fill(s[0]);
  fill(s[1]);
  proxy_fence();
  __syncthreads();
  if (threadIdx.x >= 128) {
    if (threadIdx.x != 128) return;
    for (int step = 0; step < steps; ++step) {
      wait(&empty[step % 2], (step / 2 + 1) & 1);
      load(s[step % 2], in, &full[step % 2]);
    }
    return;
  }
  float d[4] = {};
  for (int step = 0; step < steps; ++step) {
    wait(&full[step % 2], step / 2 & 1);
    fence();
    multiply(d, s[step % 2]);
    commit();
    wait_products<0>();
    if (threadIdx.x == 0) {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(&empty[step % 2])) : "memory");
    }
  }
  wait_products<0>();
  pin(d);
  out[threadIdx.x] = d[0];
}

// The same, with a product under way while the stage before it is given back, and A from registers.
__global__ void pipelined_ring(const __nv_bfloat16* in, float* out, int steps) {
  __shared__ alignas(128) __nv_bfloat16 s[2][kA + kB];
  __shared__ uint64_t full[2], empty[2];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      initialise(&full[i]);
      initialise(&empty[i]);
    }
  }
  fill(s[0]);
  fill(s[1]);
  proxy_fence();
  __syncthreads();
  if (threadIdx.x >= 128) {
    if (threadIdx.x != 128) return;
    for (int step = 0; step < steps; ++step) {
      wait(&empty[step % 2], (step / 2 + 1) & 1);
      load(s[step % 2], in, &full[step % 2]);
    }
    return;
  }
  float d[4] = {};
  const uint32_t ones = 0x3f803f80;
  for (int step = 0; step < steps; ++step) {
    wait(&full[step % 2], step / 2 & 1);
    fence();
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, {%4, %4, %4, %4}, %5, 1, 1, 1, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(ones), "l"(descriptor(s[step % 2] + kA, 8)));
    multiply(d, s[step % 2]);
    commit();
    wait_products<1>();
    if (step > 0 && threadIdx.x == 0) {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(&empty[(step - 1) % 2])) : "memory");
    }
  }
  wait_products<0>();
  pin(d);
  out[threadIdx.x] = d[0];
}

int main() {
  const Buffer<float> in(std::vector<float>(512, 1.0f)), out(512);
  const Buffer<__nv_bfloat16> ones(std::vector<__nv_bfloat16>(256, __float2bfloat16(1.0f)));
  unfenced_store<<<1, 128>>>(out.get());
  reused_source<<<1, 128>>>(out.get());
  two_sources<<<1, 128>>>(out.get());
  EXPECT_RAN();
  loaded_over<<<1, 128>>>(in.get(), out.get());
  unfenced_operands<<<1, 128>>>(out.get());
  EXPECT_RAN();
  EXPECT(out.download()[5] == 32);
  early_result<<<1, 128>>>(out.get());
  loose_result<<<1, 128>>>(out.get());
  overwritten<<<1, 128>>>(out.get());
  shared_operands<<<1, 256>>>(out.get());
  ring<<<1, 256>>>(ones.get(), out.get(), 7);
  EXPECT_RAN();
  EXPECT(out.download()[7] == 7 * 16);
  pipelined_ring<<<1, 256>>>(ones.get(), out.get(), 7);
  EXPECT_RAN();
  EXPECT(out.download()[7] == 2 * 7 * 16);
}
