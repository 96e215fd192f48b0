#include "engine/runner.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/cost.h"

namespace cpvt {

namespace {

const ops::PatchEmbed& embedding(const Graph& graph) {
  for (const Node& node : graph.nodes()) {
    if (const auto* op = std::get_if<ops::PatchEmbed>(&node.op)) return *op;
  }
  throw Error("the graph has no patch embedding: nothing reads the images");
}

/// Named in profilers while it lives.
class Range {
 public:
  Range(Stream& stream, const std::function<std::string()>& name) : stream_(stream) { stream_.push_range(name); }
  ~Range() { stream_.pop_range(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  Stream& stream_;
};

double mebibytes(size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

Runner::Runner(std::shared_ptr<const Executable> executable, size_t memory_limit)
    : executable_(std::move(executable)), memory_limit_(memory_limit), stream_(executable_->backend().make_stream()) {}

Runner::~Runner() {
  if (!under_way_) return;
  try {
    stream_->finish();      // before the tables that its kernels read go
  } catch (const Error&) {  // nobody waits for that batch any more
  }
}

const Plan& Runner::plan(std::span<const ImageSize> sizes, std::span<const std::string> wanted) {
  if (under_way_) throw Error("a batch is under way: expected wait() before the next");
  const ops::PatchEmbed& embed = embedding(executable_->graph());
  TokenLayout layout = TokenLayout::of(sizes, embed.patch(), embed.class_token.has_value());
  std::vector<std::string> names(wanted.begin(), wanted.end());
  std::sort(names.begin(), names.end());

  const auto cached = std::find_if(plans_.begin(), plans_.end(),
                                   [&](const auto& p) { return p.plan->layout == layout && p.plan->wanted == names; });
  if (cached != plans_.end()) {
    plans_.splice(plans_.begin(), plans_, cached);
    return *plans_.front().plan;
  }

  Plan made = Plan::make(*executable_, std::move(layout), std::move(names), *stream_);
  // What earlier geometries hold makes room for a new one: it is as good as free.
  const size_t limit =
      memory_limit_ != 0 ? memory_limit_ : held_bytes(arena_bytes_) + executable_->backend().free_memory();
  const size_t weights = executable_->weight_bytes();
  if (weights + made.bytes() > limit) {
    throw Error("{} images, {} tokens: needs {} (weights {:.1f}, arena {:.1f}, tables {:.1f}), {} {}", sizes.size(),
                made.layout.rows, bytes_text(weights + made.bytes()), mebibytes(weights), mebibytes(made.arena_bytes),
                mebibytes(made.table_bytes), memory_limit_ != 0 ? "the limit is" : "there are", bytes_text(limit));
  }
  const size_t arena = std::max(arena_bytes_, made.arena_bytes);
  while (!plans_.empty() && (plans_.size() >= kCachedPlans || held_bytes(arena) + made.table_bytes > limit)) {
    plans_.pop_back();
  }
  made.fill_tables(*executable_, *stream_);
  plans_.push_front({std::make_shared<const Plan>(std::move(made)), nullptr});
  return *plans_.front().plan;
}

size_t Runner::held_bytes(size_t arena) const {
  size_t bytes = executable_->weight_bytes() + arena;
  for (const Prepared& p : plans_) bytes += p.plan->table_bytes;
  return bytes;
}

void Runner::run(std::span<const ImageView> images, std::span<const std::string> wanted) {
  start(images, wanted);
  wait();
}

void Runner::start(std::span<const ImageView> images, std::span<const std::string> wanted) {
  std::vector<ImageSize> sizes;
  for (const ImageView& image : images) {
    sizes.push_back(image.size);
    if ((image.bytes == nullptr) != (images.front().bytes == nullptr)) {
      throw Error("expected a batch of floats or of bytes, found both");
    }
  }
  if (!images.empty() && images.front().bytes != nullptr && embedding(executable_->graph()).mean.empty()) {
    throw Error("the model does not tell mean and std: expected normalised floats, found bytes");
  }
  last_run_ = nullptr;
  const Plan& p = plan(sizes, wanted);
  std::byte* arena = arena_of(p);

  const Range forward(*stream_, [&] {
    return fmt::format("forward: {} images of {}{}, {} tokens", images.size(), size_text(images.front().size),
                       images.size() > 1 ? "..." : "", p.layout.rows);
  });
  stream_->begin(images, plans_.front().recording, [&] {
    const Graph& graph = executable_->graph();
    std::vector<const std::byte*> inputs;
    for (size_t i = 0; i < graph.nodes().size(); ++i) {
      if (!p.needed[i]) continue;
      const Node& node = graph.nodes()[i];
      inputs.clear();
      for (const ValueId id : node.inputs) inputs.push_back(arena + p.value_offset[static_cast<size_t>(id)]);
      const int64_t rows = row_count(graph.value(node.output).rows, p.layout);
      const Range range(*stream_,
                        [&] { return fmt::format("{} [{}, {}]", node.name, rows, graph.value(node.output).width); });
      executable_->kernel(i).run(
          {.stream = *stream_,
           .layout = p.layout,
           .rows = rows,
           .images = images,
           .table = p.table(i),
           .inputs = inputs,
           .output = arena + p.value_offset[static_cast<size_t>(node.output)],
           .second_output = node.second < 0 ? nullptr : arena + p.value_offset[static_cast<size_t>(node.second)],
           .workspace = arena + p.workspace_offset[i]});
    }
  });
  under_way_ = plans_.front().plan;
}

void Runner::wait() {
  if (!under_way_) throw Error("no batch is under way: expected start() before wait()");
  const std::shared_ptr<const Plan> batch = std::exchange(under_way_, nullptr);
  stream_->finish();
  last_run_ = batch;
}

std::byte* Runner::arena_of(const Plan& plan) {
  try {
    std::byte* arena = stream_->arena(plan.arena_bytes);
    arena_ = arena;
    arena_bytes_ = std::max(arena_bytes_, plan.arena_bytes);
    return arena;
  } catch (...) {
    // The stream let go of the smaller one before. The plan goes too: what is remembered is not held to the limit
    // again.
    arena_ = nullptr;
    arena_bytes_ = 0;
    plans_.pop_front();
    throw;
  }
}

const Plan& Runner::last_run() const {
  if (!last_run_) throw Error("there are no results: no run has come to its end");
  return *last_run_;
}

std::span<const float> Runner::output(std::string_view name) const {
  const Plan& p = last_run();
  const Graph& graph = executable_->graph();
  const ValueId id = graph.output(name);
  if (std::find(p.wanted.begin(), p.wanted.end(), name) == p.wanted.end()) {
    throw Error("output '{}' was not asked for in the last run", name);
  }
  const Value& value = graph.value(id);
  return stream_->read(arena_ + p.value_offset[static_cast<size_t>(id)], row_count(value.rows, p.layout), value.width);
}

}  // namespace cpvt
