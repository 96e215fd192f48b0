#include "kernels/cpu/tile_gemm.h"

#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <mutex>

#include "kernels/cpu/openmp.h"

namespace cpvt::cpu {

namespace {

using dnnl::memory;

// A chunk's weights should fill about half of a 1 MiB L2, and leave several chunks to share out when there are few
// rows.
constexpr int64_t kChunkFloats = 147456;
constexpr int64_t kWidest = 384;
constexpr int64_t kColumns = 16;  // chunks start at multiples of this

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t chunk_width_for(int64_t n, int64_t k) {
  const int64_t most = std::clamp(kChunkFloats / k / kColumns * kColumns, kColumns, kWidest);
  return ceil_div(ceil_div(n, ceil_div(n, most)), kColumns) * kColumns;
}

memory::desc dense(int64_t rows, int64_t columns) {
  return {{rows, columns}, memory::data_type::f32, memory::format_tag::ab};
}

dnnl::matmul::primitive_desc tile_product(int64_t width, int64_t k) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const memory::desc weights({k, width}, memory::data_type::f32, memory::format_tag::any);
  return {dnnl::matmul::desc(dense(TileGemm::kRows, k), weights, dense(TileGemm::kRows, width)), attributes, engine()};
}

}  // namespace

/// The primitive for one width of chunk: the common one, and perhaps a narrower last one.
struct TileGemmShape {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
  TileGemmShape(int64_t width, int64_t k) : description(tile_product(width, k)), primitive(description) {}
};

struct TileGemm::Chunk {
  int64_t begin;
  int64_t width;
  const TileGemmShape* shape;
  memory weights;
};

class TileGemm::Team {
 public:
  explicit Team(const TileGemm& gemm, int threads);
  int threads() const { return static_cast<int>(members_.size()); }

  struct Member {
    explicit Member(const TileGemm& gemm);
    dnnl::stream stream;
    memory x;
    std::map<const TileGemmShape*, std::pair<memory, memory>> out_and_scratch;
  };
  Member& member(int thread) { return members_[static_cast<size_t>(thread)]; }

 private:
  std::vector<Member> members_;
};

struct TileGemm::Shared {
  std::map<int64_t, TileGemmShape> shapes;  // by width
  std::mutex mutex;
  std::vector<std::unique_ptr<Team>> idle;  // teams between runs
};

TileGemm::Team::Member::Member(const TileGemm& gemm) : stream(engine()), x(dense(kRows, gemm.k_), engine(), nullptr) {
  for (const auto& [width, shape] : gemm.shared_->shapes) {
    out_and_scratch.emplace(&shape, std::pair(memory(dense(kRows, width), engine(), nullptr),
                                              memory(shape.description.scratchpad_desc(), engine())));
  }
}

TileGemm::Team::Team(const TileGemm& gemm, int threads) {
  members_.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) members_.emplace_back(gemm);
}

TileGemm::TileGemm(const float* weight, const float* bias, int64_t n, int64_t k)
    : n_(n), k_(k), bias_(static_cast<size_t>(n)), shared_(std::make_unique<Shared>()) {
  const OneThreadForOpenMP one;
  if (bias != nullptr) std::copy_n(bias, n, bias_.begin());
  dnnl::stream stream(engine());
  const int64_t widest = chunk_width_for(n, k);
  for (int64_t begin = 0; begin < n; begin += widest) {
    const int64_t width = std::min(widest, n - begin);
    const auto& shape = shared_->shapes.try_emplace(width, width, k).first->second;
    const memory::desc plain({k, width}, memory::data_type::f32, memory::dims{1, k});
    memory from(plain, engine(), const_cast<float*>(weight + begin * k));
    memory packed(shape.description.weights_desc(), engine());
    dnnl::reorder(from, packed).execute(stream, from, packed);
    stream.wait();
    chunks_.push_back({begin, width, &shape, packed});
  }
}

TileGemm::~TileGemm() = default;
TileGemm::TileGemm(TileGemm&&) noexcept = default;
TileGemm& TileGemm::operator=(TileGemm&&) noexcept = default;

int64_t TileGemm::chunks() const { return static_cast<int64_t>(chunks_.size()); }
int64_t TileGemm::chunk_begin(int64_t chunk) const { return chunks_[static_cast<size_t>(chunk)].begin; }
int64_t TileGemm::chunk_width(int64_t chunk) const { return chunks_[static_cast<size_t>(chunk)].width; }

size_t TileGemm::bytes() const {
  size_t sum = bias_.size() * sizeof(float);
  for (const auto& chunk : chunks_) sum += chunk.weights.get_desc().get_size();
  return sum;
}

TileGemm::Borrowed::Borrowed(const TileGemm& gemm, int threads) : gemm_(gemm) {
  {
    const std::lock_guard lock(gemm.shared_->mutex);
    if (!gemm.shared_->idle.empty()) {
      team_ = std::move(gemm.shared_->idle.back());
      gemm.shared_->idle.pop_back();
    }
  }
  if (team_ == nullptr || team_->threads() < threads) team_ = std::make_unique<Team>(gemm, threads);
}

TileGemm::Borrowed::~Borrowed() {
  const std::lock_guard lock(gemm_.shared_->mutex);
  gemm_.shared_->idle.push_back(std::move(team_));
}

void TileGemm::Borrowed::multiply(int thread, int64_t chunk, const float* x, float* out) const {
  const Chunk& part = gemm_.chunks_[static_cast<size_t>(chunk)];
  auto& member = team_->member(thread);
  auto& [out_memory, scratch] = member.out_and_scratch.find(part.shape)->second;
  dnnl_stream_t stream = member.stream.get();
  // The C interface: the C++ one builds a hash table per call.
  dnnl_memory_set_data_handle_v2(member.x.get(), const_cast<float*>(x), stream);
  dnnl_memory_set_data_handle_v2(out_memory.get(), out, stream);
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, member.x.get()},
                                       {DNNL_ARG_WEIGHTS, part.weights.get()},
                                       {DNNL_ARG_DST, out_memory.get()},
                                       {DNNL_ARG_SCRATCHPAD, scratch.get()}};
  dnnl::error::wrap_c_api(dnnl_primitive_execute(part.shape->primitive.get(), stream, 4, arguments),
                          "cannot run a matrix product");
}

}  // namespace cpvt::cpu
