// attention()'s 16-bit heads of 32 and 64 on a Hopper: both products by wgmma, keys and values brought by TMA.
//
// The mathematics is attention.cu's: an online softmax over keys in their order, here 128 at a time, S and P in
// registers. A warpgroup has 64 queries. S = q k^T takes q and k from shared memory; P, packed from where the
// accumulators of S were, is the left operand of O += P v, which takes v as it lies, a row for each key. A tile's
// scores and the sums of the one before are under way together, and the sums go on while the scores become weights.
// While the weights are packed and O is rescaled no product of this warpgroup is: the multiprocessor's other warpgroups
// have them.
//
// A cluster has 256 queries of one head, as 2 blocks of two warpgroups or, where that gives no multiprocessor more than
// one, 4 blocks of one; results are the same bits. One thread of a warp of its own brings the block's share of each
// tile, 32 rows at a time, to all blocks of the cluster. So the second-level cache is asked for keys and values once
// for 256 queries: with 128 it would be the limit of long images. Two stages, each with separate barriers for its keys
// and its values.
//
// The last tile costs what its keys cost, in steps of 16, each of the eight possible ones with code of its own: 197
// tokens are 128 + 69, as much as 208. Its boxes bring rows of the next image too. As keys they weigh nothing; as
// values those within the step are overwritten with zeros, which a weight of zero leaves alone whatever they were: an
// image's results don't depend on the company. A warp whose queries are all beyond the image makes no weights.
//
//   head_dim  queries of a block  registers  shared memory, KiB
//   64        128, 64             165, 164   81, 73
//   32        128, 64             150, 147   41, 37
//
// Estimates by ptxsim's counters, h200, not measurements: 4096 tokens, 6 heads of 64: 34 us (attention.cu: 50), limited
// by exponentials, 16 per clock and multiprocessor, and by 192 blocks on 132 multiprocessors; the tensor cores need as
// long. 32 images of 196 tokens, 6 heads: 4.2 us (5.6), by instruction issue.
//
// Tried: the next tile's scores begun before this one's weights are packed, and awaited at the loop's head: ptxas then
// serialises all products (C7518), since some are under way where the loop begins anew; the last tile by products of 16
// keys behind branches: the same (C7511).

#include "kernels/cuda/attention_hopper.h"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/ptx_hopper.cuh"

namespace cpvt::cuda {
namespace {

constexpr int kKeys = 128;      // of a tile
constexpr int kBoxRows = 32;    // that a copy brings
constexpr int kGroupRows = 64;  // queries of a warpgroup
constexpr int kGroupThreads = 128;
constexpr int kStages = 2;
constexpr int kClusterQueries = static_cast<int>(kAttentionQueries);
constexpr int kAtom = 1024;  // where the swizzling begins anew

template <class T_, int kDim_, int kGroups_>
struct Config {
  using T = T_;
  static constexpr int kDim = kDim_;
  static constexpr int kGroups = kGroups_;
  static constexpr int kQueries = kGroups * kGroupRows;  // of a block
  static constexpr int kCluster = kClusterQueries / kQueries;
  static constexpr int kThreads = kGroups * kGroupThreads + 32;
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(T));
  static constexpr int kBoxBytes = kBoxRows * kRowBytes;
  static constexpr int kTileBytes = kKeys / kBoxRows * kBoxBytes;
  static constexpr int kQueryBytes = kQueries * kRowBytes;
  static constexpr size_t kSharedBytes = kAtom + kQueryBytes + 2 * kStages * kTileBytes + 8 * (1 + 4 * kStages);
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// The block's shared memory, as addresses for the asynchronous proxy.
template <class C>
struct Memory {
  uint32_t queries;

  __device__ uint32_t keys(int stage) const { return queries + C::kQueryBytes + stage * C::kTileBytes; }
  __device__ uint32_t values(int stage) const { return keys(kStages + stage); }
  __device__ uint32_t queries_here() const { return keys(2 * kStages); }
  __device__ uint32_t keys_here(int stage) const { return queries_here() + 8 * (1 + stage); }
  __device__ uint32_t values_here(int stage) const { return keys_here(kStages + stage); }
  __device__ uint32_t keys_read(int stage) const { return keys_here(2 * kStages + stage); }
  __device__ uint32_t values_read(int stage) const { return keys_here(3 * kStages + stage); }
};

/// The part that a block, and its cluster, have in an image and head.
struct Share {
  int first_row;    // of the image
  int tokens;       // of the image
  int first_query;  // of the block
  int groups;       // of 64 queries in the cluster, as far as the image goes
  int blocks;       // of the cluster that have any
  int own_groups;   // of the block
  int rank;         // of the block

  template <class C>
  static __device__ Share of(const AttentionTile& tile, int rank) {
    Share s{};
    s.first_row = tile.first_row;
    s.tokens = tile.tokens;
    s.rank = rank;
    s.first_query = tile.first_query + rank * C::kQueries;
    s.groups = min((tile.tokens - tile.first_query + kGroupRows - 1) / kGroupRows, kClusterQueries / kGroupRows);
    s.blocks = (s.groups + C::kGroups - 1) / C::kGroups;
    s.own_groups = max(min(s.groups - rank * C::kGroups, C::kGroups), 0);
    return s;
  }
};

/// What the producer does: queries to this block alone, keys and values to all.
template <class C>
__device__ void bring(const CUtensorMap& map, const Memory<C>& memory, const Share& share, int column, int width) {
  ptx::barrier_expect(memory.queries_here(), share.own_groups * kGroupRows * C::kRowBytes);
  for (int row = 0; row < share.own_groups * kGroupRows; row += kBoxRows) {
    ptx::copy_box(memory.queries + row * C::kRowBytes, map, column, share.first_row + share.first_query + row,
                  memory.queries_here());
  }
  const auto everyone = static_cast<uint16_t>((1 << share.blocks) - 1);
  RingPlace<kStages> place;
  for (int key = 0; key < share.tokens; key += kKeys, place.advance()) {
    const int boxes = (min(share.tokens - key, kKeys) + kBoxRows - 1) / kBoxRows;
    const auto bring_tile = [&](uint32_t to, uint32_t here, uint32_t read, int first_column) {
      ptx::barrier_wait(read, place.parity ^ 1);
      ptx::barrier_expect(here, boxes * C::kBoxBytes);
      for (int box = share.rank; box < boxes; box += share.blocks) {
        ptx::copy_box(to + box * C::kBoxBytes, map, first_column, share.first_row + key + box * kBoxRows, here,
                      everyone);
      }
    };
    bring_tile(memory.keys(place.stage), memory.keys_here(place.stage), memory.keys_read(place.stage), column + width);
    bring_tile(memory.values(place.stage), memory.values_here(place.stage), memory.values_read(place.stage),
               column + 2 * width);
  }
}

/// The results of products that were under way may be read from here on.
template <int kBlocks>
__device__ void touch(float (&sums)[kBlocks][4]) {
#pragma unroll
  for (auto& block : sums) {
#pragma unroll
    for (float& v : block) asm volatile("" : "+f"(v)::"memory");
  }
}

/// As wgmma's instructions name them.
template <int kBlocks>
__device__ float (&flat(float (&sums)[kBlocks][4]))[4 * kBlocks] {
  return reinterpret_cast<float(&)[4 * kBlocks]>(sums);
}

/// A warpgroup's 64 queries.
template <class C>
class Queries {
 public:
  using T = typename C::T;

  /// The first kSteps times 16 keys of a tile, of which at least one of the last 16 exists.
  template <int kSteps>
  struct Keys {
    float s[2 * kSteps][4] = {};  // scores, then weights
    uint32_t p[kSteps][4];        // weights as the second product takes them
    float factor[2] = {1, 1};     // by which sums are to be rescaled
  };

  __device__ explicit Queries(uint32_t queries) : queries_(ptx::wgmma_operand<C::kRowBytes>(queries)) {}

  /// Begins S = q k^T.
  template <int kSteps>
  __device__ void begin_scores(Keys<kSteps>& keys, uint32_t tile) {
    const uint64_t operand = ptx::wgmma_operand<C::kRowBytes>(tile);
    ptx::wgmma_fence();
#pragma unroll
    for (int k16 = 0; k16 < C::kDim / 16; ++k16) {
      ptx::Wgmma<T, kSteps * 16>::multiply(flat(keys.s), queries_ + 2 * k16, operand + 2 * k16, k16 > 0 ? 1 : 0);
    }
    ptx::wgmma_commit();
  }
  /// The scores are there; `kPending` products that began later need not be.
  template <int kPending, int kSteps>
  __device__ void finish_scores(Keys<kSteps>& keys) {
    ptx::wgmma_wait<kPending>();
    touch(keys.s);
  }

  /// Scores to weights; with kTail, only the first `count` keys exist.
  template <bool kTail, int kSteps>
  __device__ void weigh(Keys<kSteps>& keys, int count, float scale) {
    if constexpr (kTail) __builtin_assume(count > 16 * (kSteps - 1));
    softmax_.template weigh<kTail>(keys.s, count, scale, keys.factor);
  }
  /// While no product is under way.
  template <int kSteps>
  __device__ void rescale_and_pack(Keys<kSteps>& keys) {
    OnlineSoftmax::rescale(o_, keys.factor);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) weights_of_16_keys<T>(keys.s, 2 * step, keys.p[step]);
  }

  /// Begins O += P v.
  template <int kSteps>
  __device__ void begin_sums(const Keys<kSteps>& keys, uint32_t tile) {
    const uint64_t values = ptx::wgmma_operand<C::kRowBytes>(tile);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      ptx::WgmmaMix<T, C::kDim>::multiply(flat(o_), keys.p[step], values + step * C::kRowBytes);
    }
    ptx::wgmma_commit();
  }
  /// No product is under way.
  __device__ void finish_sums() {
    ptx::wgmma_wait<0>();
    touch(o_);
  }

  /// The warp's 16 rows; `tile` is the warpgroup's.
  __device__ void store(T* tile, T* y, int64_t stride, int rows) const {
    softmax_.template store<true>(o_, tile, static_cast<int>(threadIdx.x) / 32 % 4 * 16, y, stride, rows, C::kDim);
  }

 private:
  uint64_t queries_;
  float o_[C::kDim / 8][4] = {};
  OnlineSoftmax softmax_;
};

template <class C>
__device__ void run_block(const CUtensorMap& map, const AttentionProblem<typename C::T>& problem) {
  using T = typename C::T;
  extern __shared__ char shared[];
  char* const start = shared + (0U - ptx::shared_address(shared)) % kAtom;
  const Memory<C> memory{ptx::shared_address(start)};
  const auto share = Share::of<C>(problem.tiles[blockIdx.y], static_cast<int>(ptx::cluster_rank()));
  const int head = static_cast<int>(blockIdx.x) / C::kCluster;

  const bool producer = threadIdx.x == C::kGroups * kGroupThreads;
  if (producer) {
    ptx::prefetch_map(map);
    ptx::barrier_init(memory.queries_here(), 1);
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::barrier_init(memory.keys_here(stage), 1);
      ptx::barrier_init(memory.values_here(stage), 1);
      ptx::barrier_init(memory.keys_read(stage), share.groups * kGroupThreads / 32);
      ptx::barrier_init(memory.values_read(stage), share.groups * kGroupThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  ptx::cluster_sync();
  if (share.own_groups == 0) return;
  ptx::follow_earlier_kernels();

  const int group = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  if (producer) bring<C>(map, memory, share, head * C::kDim, problem.heads * C::kDim);
  if (group < share.own_groups) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const auto release = [&](uint32_t barrier) {
      if (lane < share.blocks) ptx::barrier_arrive_at(barrier, lane);
    };
    const int query = share.first_query + group * kGroupRows + static_cast<int>(threadIdx.x) / 32 % 4 * 16;
    const int rows = share.tokens - query;  // of the warp; may be none
    Queries<C> queries(memory.queries + group * kGroupRows * C::kRowBytes);
    RingPlace<kStages> place;
    const auto await_keys = [&](const RingPlace<kStages>& at) {
      ptx::barrier_wait(memory.keys_here(at.stage), at.parity);
      return memory.keys(at.stage);
    };
    const auto await_values = [&](const RingPlace<kStages>& at) {
      ptx::barrier_wait(memory.values_here(at.stage), at.parity);
      return memory.values(at.stage);
    };
    ptx::barrier_wait(memory.queries_here(), 0);

    constexpr int kAll = kKeys / 16;
    const int whole = share.tokens / kKeys;  // tiles
    if (whole > 0) {
      typename Queries<C>::template Keys<kAll> keys;
      queries.begin_scores(keys, await_keys(place));
      queries.template finish_scores<0>(keys);
      release(memory.keys_read(place.stage));
      if (rows > 0) queries.template weigh<false>(keys, kKeys, problem.scale);
      queries.rescale_and_pack(keys);
      for (int tile = 1; tile < whole; ++tile) {
        RingPlace<kStages> next = place;
        next.advance();
        queries.begin_scores(keys, await_keys(next));
        queries.begin_sums(keys, await_values(place));
        queries.template finish_scores<1>(keys);
        release(memory.keys_read(next.stage));
        if (rows > 0) queries.template weigh<false>(keys, kKeys, problem.scale);
        queries.finish_sums();
        release(memory.values_read(place.stage));
        queries.rescale_and_pack(keys);
        place = next;
      }
      queries.begin_sums(keys, await_values(place));
      queries.finish_sums();
      release(memory.values_read(place.stage));
      place.advance();
    }
    const int rest = share.tokens % kKeys;
    const auto tail = [&]<int kSteps>() {
      typename Queries<C>::template Keys<kSteps> keys;
      queries.begin_scores(keys, await_keys(place));
      queries.template finish_scores<0>(keys);
      if (rows > 0) queries.template weigh<true>(keys, rest, problem.scale);
      queries.rescale_and_pack(keys);
      const uint32_t values = await_values(place);
      if (rest % 16 != 0) {
        // Rows behind the image's last, up to the end of a step: zeros, by all of the block's warpgroups.
        const int threads = share.own_groups * kGroupThreads;
        const int chunks = (16 - rest % 16) * C::kRowBytes / 16;
        auto* const beyond = reinterpret_cast<uint4*>(start + (values - memory.queries) + rest * C::kRowBytes);
        for (int i = static_cast<int>(threadIdx.x); i < chunks; i += threads) beyond[i] = make_uint4(0, 0, 0, 0);
        ptx::async_proxy_fence();
        ptx::sync_threads(1, threads);
      }
      queries.begin_sums(keys, values);
      queries.finish_sums();
    };
    const auto tail_of = [&]<int... kSteps>(std::integer_sequence<int, kSteps...>) {
      const int steps = (rest + 15) / 16;
      ((steps == kSteps + 1 ? tail.template operator()<kSteps + 1>() : void()), ...);
    };
    tail_of(std::make_integer_sequence<int, kAll>());
    ptx::sync_threads(2 + group, kGroupThreads);  // all four warps' products have read the queries
    if (rows > 0) {
      T* const tile = reinterpret_cast<T*>(start + group * kGroupRows * C::kRowBytes);
      T* const y = problem.y + (share.first_row + query) * problem.y_stride + head * C::kDim;
      queries.store(tile, y, problem.y_stride, rows);
    }
  }
  // No block ends while another may still send to it.
  ptx::cluster_sync();
}

#endif

template <class C>
__global__ void __launch_bounds__(C::kThreads)
    attention_warpgroups(const __grid_constant__ CUtensorMap map, const AttentionProblem<typename C::T> problem) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  run_block<C>(map, problem);
#else
  __trap();  // never launched
#endif
}

template <class C>
int launch_tiles(const AttentionArgs& args, void* stream) {
  const auto row_bytes = static_cast<cuuint64_t>(args.stride) * sizeof(typename C::T);
  alignas(64) CUtensorMap map;
  int error =
      encode_tensor_map<2>(&map, args.dtype, args.qkv,
                           {static_cast<cuuint64_t>(3 * args.heads) * C::kDim, static_cast<cuuint64_t>(args.rows)},
                           {row_bytes}, {C::kDim, kBoxRows});
  AttentionProblem<typename C::T> problem(args);
  constexpr int kMost = 65535;  // tiles of a grid
  for (int first = 0; error == cudaSuccess && first < args.tile_count; first += kMost) {
    problem.tiles = args.tiles + first;
    // Heads run fastest, so that clusters start in the order of the tiles.
    const dim3 grid(static_cast<uint32_t>(args.heads * C::kCluster),
                    static_cast<uint32_t>(std::min(kMost, args.tile_count - first)));
    error =
        launch_clusters(attention_warpgroups<C>, C::kCluster, grid, C::kThreads, C::kSharedBytes, stream, map, problem);
  }
  return error;
}

template <class T, int kDim>
int run(const AttentionArgs& args, void* stream) {
  // Two warpgroups to a block halve what TMA writes to shared memory; one each spread a small batch over more
  // multiprocessors. Results are the same bits.
  using Small = Config<T, kDim, 1>;
  if (int64_t{args.tile_count} * args.heads * Small::kCluster <= kProcessors) return launch_tiles<Small>(args, stream);
  return launch_tiles<Config<T, kDim, 2>>(args, stream);
}

template <class T>
int run(const AttentionArgs& args, void* stream) {
  return args.head_dim == 64 ? run<T, 64>(args, stream) : run<T, 32>(args, stream);
}

}  // namespace

bool takes_hopper(const AttentionArgs& args) {
  return args.dtype != DType::kF32 && (args.head_dim == 32 || args.head_dim == 64) && is_hopper();
}

int attention_hopper(const AttentionArgs& args, void* stream) {
  if (args.tile_count == 0) return cudaSuccess;  // no rows: no tensor map either
  return args.dtype == DType::kF16 ? run<half>(args, stream) : run<bfloat16>(args, stream);
}

}  // namespace cpvt::cuda
