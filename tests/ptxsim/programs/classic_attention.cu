// A small flash attention: one warp for 16 queries, keys and values by cp.async in tiles of 16, scores and outputs by
// mma.sync m16n8k16, softmax on the way.
#include <cuda_fp16.h>

#include <cstdint>

#include "tests/ptxsim/programs/expect.h"

constexpr int kHead = 32, kKeys = 16, kPitch = kHead + 8;

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ void ldmatrix(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

__device__ void ldmatrix_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

__device__ void load_tile(half* tile, const half* rows, int first, int n) {
  for (int chunk = threadIdx.x; chunk < kKeys * kHead / 8; chunk += 32) {
    const int row = chunk / (kHead / 8), column = chunk % (kHead / 8) * 8;
    const int bytes = first + row < n ? 16 : 0;  // beyond the end: zeros
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(tile + row * kPitch + column)),
                 "l"(rows + (bytes ? (first + row) * kHead + column : 0)), "r"(bytes));
  }
}

__device__ uint32_t pack(float low, float high) {
  const half2 h = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(h);
}

__global__ void attention(const half* q, const half* k, const half* v, float* out, int n, float scale) {
  __shared__ alignas(16) half q_tile[16 * kPitch], k_tile[2][kKeys * kPitch], v_tile[2][kKeys * kPitch];
  const int lane = threadIdx.x, first_query = blockIdx.x * 16;
  const auto start = [&](int stage, int key) {
    load_tile(k_tile[stage], k, key, n);
    load_tile(v_tile[stage], v, key, n);
    asm volatile("cp.async.commit_group;");
  };
  load_tile(q_tile, q, first_query, n);
  start(0, 0);
  uint32_t query[kHead / 16][4];
  float result[kHead / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int key = 0, stage = 0; key < n; key += kKeys, stage ^= 1) {
    if (key + kKeys < n) {
      start(stage ^ 1, key + kKeys);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncwarp();
    if (key == 0) {
      for (int c = 0; c < kHead / 16; ++c) {
        ldmatrix(query[c], shared_address(q_tile + lane % 16 * kPitch + c * 16 + lane / 16 * 8));
      }
    }
    float score[2][4] = {};
    for (int c = 0; c < kHead / 16; ++c) {
      uint32_t b[4];
      ldmatrix(b, shared_address(k_tile[stage] + lane % 16 * kPitch + c * 16 + lane / 16 * 8));
      mma(score[0], query[c], b[0], b[2]);
      mma(score[1], query[c], b[1], b[3]);
    }
    float peak[2] = {most[0], most[1]};
    for (int t = 0; t < 2; ++t) {
      for (int e = 0; e < 4; ++e) {
        const int column = key + t * 8 + lane % 4 * 2 + e % 2;
        score[t][e] = column < n ? score[t][e] * scale : -INFINITY;
        peak[e / 2] = fmaxf(peak[e / 2], score[t][e]);
      }
    }
    float shrink[2];
    for (int r = 0; r < 2; ++r) {
      peak[r] = fmaxf(peak[r], __shfl_xor_sync(~0u, peak[r], 1));
      peak[r] = fmaxf(peak[r], __shfl_xor_sync(~0u, peak[r], 2));
      shrink[r] = __expf(most[r] - peak[r]);
      most[r] = peak[r];
      sum[r] *= shrink[r];
    }
    for (auto& tile : score) {
      for (int e = 0; e < 4; ++e) {
        tile[e] = __expf(tile[e] - most[e / 2]);
        sum[e / 2] += tile[e];
      }
    }
    const uint32_t p[4] = {pack(score[0][0], score[0][1]), pack(score[0][2], score[0][3]),
                           pack(score[1][0], score[1][1]), pack(score[1][2], score[1][3])};
    for (int c = 0; c < kHead / 16; ++c) {
      uint32_t b[4];
      ldmatrix_transposed(b, shared_address(v_tile[stage] + lane % 16 * kPitch + c * 16 + lane / 16 * 8));
      for (int half_ = 0; half_ < 2; ++half_) {
        float(&o)[4] = result[c * 2 + half_];
        for (int e = 0; e < 4; ++e) o[e] *= shrink[e / 2];
        mma(o, p, b[half_ * 2], b[half_ * 2 + 1]);
      }
    }
    __syncwarp();
  }
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
  }
  for (int c = 0; c < kHead / 8; ++c) {
    for (int e = 0; e < 4; ++e) {
      const int row = first_query + lane / 4 + e / 2 * 8;
      if (row < n) out[row * kHead + c * 8 + lane % 4 * 2 + e % 2] = result[c][e] / sum[e / 2];
    }
  }
}

int main() {
  for (const int n : {1, 15, 16, 17, 49, 197}) {
    std::vector<half> q, k, v;
    for (const float x : numbers(n * kHead, 1)) q.push_back(half(3 * x));
    for (const float x : numbers(n * kHead, 2)) k.push_back(half(3 * x));
    for (const float x : numbers(n * kHead, 3)) v.push_back(half(x));
    const float scale = 1 / std::sqrt(float(kHead));
    const Buffer<half> device_q(q), device_k(k), device_v(v);
    const Buffer<float> out(n * kHead);
    attention<<<(n + 15) / 16, 32>>>(device_q.get(), device_k.get(), device_v.get(), out.get(), n, scale);
    EXPECT_RAN();
    const std::vector<float> got = out.download();
    double worst = 0;
    for (int i = 0; i < n; ++i) {
      std::vector<double> weight(n);
      double most = -1e30, sum = 0;
      for (int j = 0; j < n; ++j) {
        for (int c = 0; c < kHead; ++c) weight[j] += double(float(q[i * kHead + c])) * float(k[j * kHead + c]) * scale;
        most = std::max(most, weight[j]);
      }
      for (double& w : weight) sum += w = std::exp(w - most);
      for (int c = 0; c < kHead; ++c) {
        double want = 0;
        for (int j = 0; j < n; ++j) want += weight[j] / sum * float(v[j * kHead + c]);
        worst = std::max(worst, std::abs(want - got[i * kHead + c]));
      }
    }
    std::printf("%d tokens: error %.2g\n", n, worst);
    EXPECT(worst < 1e-3);
  }
}
