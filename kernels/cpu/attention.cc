#include "kernels/cpu/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"

// Queries lie in the lanes. For a tile of 3 vectors of queries, transposed once to Q^T [head_dim, queries]:
//   S^T [keys, queries]     += K[key][d] * Q^T[d][:]     K broadcast from where it lies in qkv
//   O^T [head_dim, queries] += V[key][d] * P^T[key][:]   V broadcast from where it lies in qkv
// so neither K nor V is ever packed or transposed, the maximum, exponentials and sums of the softmax run down the keys
// without one shuffle, and a query's result cannot depend on which lane or tile it is in.

namespace cpvt::cpu::attention_detail {
#ifndef CPVT_ATTENTION_DETAIL
#define CPVT_ATTENTION_DETAIL
constexpr int kVectors = 3;           // of queries in a tile
constexpr int64_t kMostQueries = 48;  // of a tile: 3 vectors of 16
constexpr int64_t kKeys = 256;        // of a tile; longer images go on with an online softmax
struct Head {
  const float* q;  // of the tile's first query
  const float* k;  // of the image's first row
  const float* v;
  int64_t stride;
  int64_t head_dim;
  int64_t keys;
  int64_t queries;  // of this tile
  float scale;
  float* y;
  int64_t y_stride;
  float* workspace;
};
#endif
}  // namespace cpvt::cpu::attention_detail

HWY_BEFORE_NAMESPACE();
namespace cpvt::cpu::HWY_NAMESPACE {

using attention_detail::Head;
using attention_detail::kKeys;
using attention_detail::kVectors;

// The register tile: kKeyBlock (or as many dimensions) times 3 vectors of sums, 3 vectors of operands and a broadcast.
constexpr int kBlock = HWY_TARGET <= HWY_AVX3 ? 8 : 4;

/// S^T of kCount keys for all queries of the tile; `most` is raised to the largest score of each query.
template <int kVec, int kCount>
HWY_INLINE void scores(const float* k, int64_t stride, int64_t head_dim, const float* qt, float* s, Vec (&most)[kVec]) {
  constexpr int64_t kWidth = kVec * kLanes;
  Vec sum[kCount][kVec];
  for (int i = 0; i < kCount; ++i) {
    for (int v = 0; v < kVec; ++v) sum[i][v] = hn::Zero(kF);
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    Vec q[kVec];
    for (int v = 0; v < kVec; ++v) q[v] = hn::LoadU(kF, qt + d * kWidth + v * kLanes);
    for (int i = 0; i < kCount; ++i) {
      const Vec key = Set(k[i * stride + d]);
      for (int v = 0; v < kVec; ++v) sum[i][v] = hn::MulAdd(key, q[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kCount; ++i) {
    for (int v = 0; v < kVec; ++v) {
      most[v] = hn::Max(most[v], sum[i][v]);
      hn::StoreU(sum[i][v], kF, s + i * kWidth + v * kLanes);
    }
  }
}

/// O^T = O^T * factor + V^T P^T for kCount dimensions.
template <int kVec, int kCount>
HWY_INLINE void mix(const float* v_rows, int64_t stride, int64_t keys, const float* p, const Vec (&factor)[kVec],
                    float* o) {
  constexpr int64_t kWidth = kVec * kLanes;
  Vec sum[kCount][kVec];
  for (int i = 0; i < kCount; ++i) {
    for (int v = 0; v < kVec; ++v) sum[i][v] = hn::Mul(factor[v], hn::LoadU(kF, o + i * kWidth + v * kLanes));
  }
  for (int64_t key = 0; key < keys; ++key) {
    Vec weight[kVec];
    for (int v = 0; v < kVec; ++v) weight[v] = hn::LoadU(kF, p + key * kWidth + v * kLanes);
    for (int i = 0; i < kCount; ++i) {
      const Vec value = Set(v_rows[key * stride + i]);
      for (int v = 0; v < kVec; ++v) sum[i][v] = hn::MulAdd(value, weight[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kCount; ++i) {
    for (int v = 0; v < kVec; ++v) hn::StoreU(sum[i][v], kF, o + i * kWidth + v * kLanes);
  }
}

template <int kVec>
void attend(const Head& h) {
  constexpr int64_t kWidth = kVec * kLanes;
  float* qt = h.workspace;               // [head_dim, kWidth]
  float* ot = qt + h.head_dim * kWidth;  // [head_dim, kWidth]
  float* p = ot + h.head_dim * kWidth;   // [kKeys, kWidth]
  // Scores come out in units of log2, ready for 2^x.
  const float scale = h.scale * 1.44269504088896341F;
  for (int64_t d = 0; d < h.head_dim; ++d) {
    for (int64_t i = 0; i < kWidth; ++i) qt[d * kWidth + i] = i < h.queries ? h.q[i * h.stride + d] * scale : 0.0F;
  }
  std::fill_n(ot, h.head_dim * kWidth, 0.0F);
  Vec most[kVec];
  Vec total[kVec];
  for (int v = 0; v < kVec; ++v) {
    most[v] = Set(std::numeric_limits<float>::lowest());
    total[v] = hn::Zero(kF);
  }
  for (int64_t begin = 0; begin < h.keys; begin += kKeys) {
    const int64_t keys = std::min(kKeys, h.keys - begin);
    Vec before[kVec];
    for (int v = 0; v < kVec; ++v) before[v] = most[v];
    const float* k = h.k + begin * h.stride;
    int64_t key = 0;
    for (; key + kBlock <= keys; key += kBlock) {
      scores<kVec, kBlock>(k + key * h.stride, h.stride, h.head_dim, qt, p + key * kWidth, most);
    }
    for (; key < keys; ++key) scores<kVec, 1>(k + key * h.stride, h.stride, h.head_dim, qt, p + key * kWidth, most);

    Vec factor[kVec];  // what earlier tiles count for, now that the maximum has risen
    for (int v = 0; v < kVec; ++v) {
      factor[v] = exp2_of_nonpositive(hn::Sub(before[v], most[v]));
      total[v] = hn::Mul(total[v], factor[v]);
    }
    for (key = 0; key < keys; ++key) {
      for (int v = 0; v < kVec; ++v) {
        float* at = p + key * kWidth + v * kLanes;
        const Vec e = exp2_of_nonpositive(hn::Sub(hn::LoadU(kF, at), most[v]));
        total[v] = hn::Add(total[v], e);
        hn::StoreU(e, kF, at);
      }
    }
    const float* v_rows = h.v + begin * h.stride;
    int64_t d = 0;
    for (; d + kBlock <= h.head_dim; d += kBlock)
      mix<kVec, kBlock>(v_rows + d, h.stride, keys, p, factor, ot + d * kWidth);
    for (; d < h.head_dim; ++d) mix<kVec, 1>(v_rows + d, h.stride, keys, p, factor, ot + d * kWidth);
  }
  for (int v = 0; v < kVec; ++v) hn::StoreU(hn::Div(Set(1.0F), total[v]), kF, p + v * kLanes);
  for (int64_t i = 0; i < h.queries; ++i) {
    for (int64_t d = 0; d < h.head_dim; ++d) h.y[i * h.y_stride + d] = ot[d * kWidth + i] * p[i];
  }
}

/// At most kVectors * kLanes queries of one head.
void attend_tile(const Head& h) {
  switch ((h.queries + kLanes - 1) / kLanes) {
    case 1:
      return attend<1>(h);
    case 2:
      return attend<2>(h);
    default:
      return attend<kVectors>(h);
  }
}

int64_t tile_queries() { return kVectors * kLanes; }

}  // namespace cpvt::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cpvt::cpu {

HWY_EXPORT(attend_tile);
HWY_EXPORT(tile_queries);

namespace {

int64_t thread_floats(int64_t head_dim) {
  return (2 * head_dim + attention_detail::kKeys) * attention_detail::kMostQueries;
}

}  // namespace

int64_t attention_workspace_floats(int head_dim, int threads) { return threads * thread_floats(head_dim); }

void attention(const float* qkv, int64_t stride, int heads, int head_dim, float scale,
               std::span<const TokenGrid> images, float* y, int64_t y_stride, float* workspace, ThreadPool& pool) {
  const int64_t most = HWY_DYNAMIC_DISPATCH(tile_queries)();
  const int64_t width = static_cast<int64_t>(heads) * head_dim;
  std::vector<int64_t> first(images.size() + 1, 0);  // the number of each image's first query tile
  for (size_t i = 0; i < images.size(); ++i) first[i + 1] = first[i] + (images[i].rows() + most - 1) / most;
  // An image's keys and values of one head stay in cache while its query tiles pass by.
  pool.run(first.back() * heads, [&](int64_t item, int thread) {
    const auto i = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), item / heads) - first.begin() - 1);
    const TokenGrid& image = images[i];
    const int64_t tiles = first[i + 1] - first[i];
    const int64_t head = (item - first[i] * heads) / tiles;
    const int64_t query = (item - first[i] * heads) % tiles * most;
    const float* rows = qkv + image.first_row * stride + head * head_dim;
    HWY_DYNAMIC_DISPATCH(attend_tile)
    ({.q = rows + query * stride,
      .k = rows + width,
      .v = rows + 2 * width,
      .stride = stride,
      .head_dim = head_dim,
      .keys = image.rows(),
      .queries = std::min(most, image.rows() - query),
      .scale = scale,
      .y = y + (image.first_row + query) * y_stride + head * head_dim,
      .y_stride = y_stride,
      .workspace = workspace + thread * thread_floats(head_dim)});
  });
}

}  // namespace cpvt::cpu
#endif
