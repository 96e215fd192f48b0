#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cpvt::cpu {

/// Packed weights W [n, k] and the product X W^T, one tile of kRows rows by one chunk of columns at a time, by one
/// thread.
///
/// oneDNN promises no order of summation: with several threads it may split k, and its AVX2 kernels sum differently for
/// different row counts. So every product here is one primitive of one fixed shape, made and run with a team of one;
/// the bits of a row then follow from that row and W alone. Callers spread tiles over a ThreadPool and fill a short
/// last tile up.
///
/// Chunks split n so that a chunk's packed weights stay in a core's L2 while the tiles of x pass by; the split is a
/// function of (n, k) only. Measured on one core of a Zen 4 (2.6.3, AVX-512: 118 GFLOP/s peak): 10-row tiles reach 110
/// (k = 192, n = 192) to 116 GFLOP/s (k = 3072); 16 rows reach 113 to 117, but fill up 196 rows to 208 where 10 make it
/// 200.
class TileGemm {
 public:
  static constexpr int64_t kRows = 10;

  /// weight [n, k] row-major and bias [n] (or null: zeros) are copied.
  TileGemm(const float* weight, const float* bias, int64_t n, int64_t k);
  ~TileGemm();
  TileGemm(TileGemm&&) noexcept;
  TileGemm& operator=(TileGemm&&) noexcept;

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t chunks() const;
  int64_t chunk_begin(int64_t chunk) const;
  int64_t chunk_width(int64_t chunk) const;
  /// Room for one tile's product, dense [kRows, chunk_width], and after it for one tile of x, dense [kRows, k].
  int64_t product_floats() const { return kRows * chunk_width(0); }
  int64_t tile_floats() const { return product_floats() + kRows * k_; }
  const float* bias() const { return bias_.data(); }  ///< [n]
  size_t bytes() const;

  /// What oneDNN needs to run one tile (memory objects, scratchpad); one thread uses one at a time. Borrowed for a run.
  class Team;
  class Borrowed {
   public:
    Borrowed(const TileGemm& gemm, int threads);
    ~Borrowed();
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

    /// out [kRows, chunk_width(chunk)] = x [kRows, k] times the chunk's columns, no bias; both dense. No allocation.
    void multiply(int thread, int64_t chunk, const float* x, float* out) const;

   private:
    const TileGemm& gemm_;
    std::unique_ptr<Team> team_;
  };

 private:
  struct Chunk;
  struct Shared;

  int64_t n_;
  int64_t k_;
  std::vector<float> bias_;
  std::vector<Chunk> chunks_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace cpvt::cpu
