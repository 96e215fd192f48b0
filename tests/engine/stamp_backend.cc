#include "tests/engine/stamp_backend.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/cost.h"
#include "engine/position.h"

namespace cpvt {

namespace {

constexpr float kRubbish = -1;

class StampStream final : public Stream {
 public:
  StampStream(std::shared_ptr<size_t> taken, size_t memory, int number, std::function<void(const std::string&)> hear)
      : taken_(std::move(taken)), memory_(memory), number_(number), hear_(std::move(hear)) {}
  ~StampStream() override { release(); }
  StampStream(const StampStream&) = delete;
  StampStream& operator=(const StampStream&) = delete;

  std::byte* arena(size_t bytes) override {
    if (bytes > lines_.size() * sizeof(Line)) {
      release();
      if (*taken_ + bytes > memory_) throw Error("stamp device: no room for {} bytes", bytes);
      lines_.resize((bytes + sizeof(Line) - 1) / sizeof(Line));
      *taken_ += lines_.size() * sizeof(Line);
    }
    return reinterpret_cast<std::byte*>(lines_.data());
  }

  void begin(std::span<const ImageView> images, std::shared_ptr<void>& /*recording*/,
             const std::function<void()>& enqueue) override {
    hear_(fmt::format("{} begins {} images", number_, images.size()));
    enqueue();
  }
  void finish() override { hear_(fmt::format("{} ends", number_)); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  void release() {
    *taken_ -= lines_.size() * sizeof(Line);
    lines_ = {};
  }

  std::shared_ptr<size_t> taken_;
  size_t memory_;
  int number_;
  std::function<void(const std::string&)> hear_;
  std::vector<Line> lines_;
};

class StampBackend final : public Backend {
 public:
  StampBackend(Graph graph, size_t memory, StampTurns turns)
      : graph_(std::move(graph)), memory_(memory), turns_(std::move(turns)) {}

  std::string name() const override { return "stamp"; }
  size_t free_memory() const override { return memory_ - *taken_; }
  int runners_in_turn() const override { return turns_.runners; }
  std::unique_ptr<Stream> make_stream() const override {
    return std::make_unique<StampStream>(taken_, memory_, ++streams_, turns_.hear);
  }

  Kernel bind(const ops::PatchEmbed& /*op*/) const override { return next(); }
  Kernel bind(const ops::AddPosition& op) const override {
    Kernel kernel = next();
    kernel.table = std::make_shared<const GeometryTable>(GeometryTable{
        .bytes =
            [op](const TokenLayout& layout) {
              return static_cast<size_t>(PositionTables::of(layout, op.width).floats) * sizeof(float);
            },
        .fill = [](const TokenLayout&, std::span<std::byte> bytes) { std::ranges::fill(bytes, std::byte{1}); }});
    return kernel;
  }
  Kernel bind(const ops::Peg& /*op*/) const override { return next(); }
  Kernel bind(const ops::LayerNorm& /*op*/) const override { return next(); }
  Kernel bind(const ops::Linear& /*op*/) const override { return next(); }
  Kernel bind(const ops::Gelu& /*op*/) const override { return next(); }
  Kernel bind(const ops::Add& /*op*/) const override { return next(); }
  Kernel bind(const ops::Attention& /*op*/) const override { return next(); }
  Kernel bind(const ops::Pool& /*op*/) const override { return next(); }

 private:
  /// An executable binds the nodes in their order.
  Kernel next() const {
    const size_t at = bound_++ % graph_.nodes().size();
    const auto workspace = [at](const TokenLayout& layout) { return static_cast<int64_t>(at % 4 * 7) * layout.rows; };
    Kernel kernel;
    kernel.workspace_bytes = [workspace](const TokenLayout& layout, const Stream&) {
      return static_cast<size_t>(workspace(layout)) * sizeof(float);
    };
    kernel.run = [this, at, workspace](const Call& call) {
      const Node& node = graph_.nodes()[at];
      auto* scratch = reinterpret_cast<float*>(call.workspace);
      std::fill_n(scratch, workspace(call.layout), kRubbish);
      for (size_t i = 0; i < node.inputs.size(); ++i) expect(node, node.inputs[i], call.inputs[i], call.layout);
      const Value& value = graph_.value(node.output);
      std::fill_n(reinterpret_cast<float*>(call.output), row_count(value.rows, call.layout) * value.width,
                  stamp(node.output));
      if (node.second >= 0) {
        std::fill_n(reinterpret_cast<float*>(call.second_output), row_count(value.rows, call.layout) * value.width,
                    stamp(node.second));
        expect(node, node.output, call.output, call.layout);
      }
      const auto used = static_cast<size_t>(workspace(call.layout));
      if (std::count(scratch, scratch + used, kRubbish) != static_cast<int64_t>(used)) {
        throw Error("{}: its output lies in its workspace", node.name);
      }
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        if (call.inputs[i] != call.output) expect(node, node.inputs[i], call.inputs[i], call.layout);
      }
    };
    return kernel;
  }

  void expect(const Node& node, ValueId id, const std::byte* bytes, const TokenLayout& layout) const {
    const auto* data = reinterpret_cast<const float*>(bytes);
    const Value& value = graph_.value(id);
    const int64_t size = row_count(value.rows, layout) * value.width;
    const float* wrong = std::find_if(data, data + size, [&](float x) { return x != stamp(id); });
    if (wrong != data + size) {
      throw Error("{}: value {} holds {} at {} of {}, expected {}", node.name, id, *wrong, wrong - data, size,
                  stamp(id));
    }
  }

  const Graph graph_;
  size_t memory_;
  StampTurns turns_;
  std::shared_ptr<size_t> taken_ = std::make_shared<size_t>(0);
  mutable size_t bound_ = 0;
  mutable int streams_ = 0;
};

}  // namespace

std::unique_ptr<Backend> make_stamp_backend(const Graph& graph, size_t memory, StampTurns turns) {
  return std::make_unique<StampBackend>(graph, memory, std::move(turns));
}

float stamp(ValueId value) { return static_cast<float>(value + 1); }

}  // namespace cpvt
