#include "tools/efficiency/passes.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "engine/backends/cuda.h"
#include "engine/cost.h"
#include "engine/model.h"
#include "engine/plan.h"
#include "weights/schema.h"

namespace cpvt::efficiency {

namespace {

constexpr int64_t kPatch = 16;

/// "blocks.3.mlp.fc1" -> "blocks.*.mlp.fc1".
std::string without_block(const std::string& name) {
  std::string result;
  for (const char c : name) {
    const bool digit = c >= '0' && c <= '9';
    if (digit && !result.empty() && result.back() == '*') continue;
    result += digit && !result.empty() && result.back() == '.' ? '*' : c;
  }
  return result;
}

constexpr int kDepth = 12;
/// Of the model that single operators are run from: a block before the PEG and one behind it. Fewer weights to pack.
constexpr int kShortDepth = 2;

/// A model with weights that are all zero: no counter depends on them.
std::shared_ptr<const Model> empty_model(const Pass& pass, int depth, const std::filesystem::path& folder) {
  const nlohmann::json config = {{"architecture", "cpvt"},
                                 {"embed_dim", pass.width},
                                 {"depth", depth},
                                 {"num_heads", pass.heads},
                                 {"mlp_ratio", 4},
                                 {"patch_size", kPatch},
                                 {"in_chans", 3},
                                 {"img_size", 224},
                                 {"layer_norm_eps", 1e-6},
                                 {"num_classes", 1000},
                                 {"global_pool", pass.class_token ? "token" : "avg"},
                                 {"pos_embed", "peg"},
                                 {"peg", {{"after", {0}}, {"kernel", pass.peg_kernel}}}};
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config;
  nlohmann::json header;
  int64_t end = 0;
  for (const TensorSpec& tensor : cpvt_schema(Config::load(folder / "config.json"))) {
    const int64_t begin = end;
    end += element_count(tensor.shape) * static_cast<int64_t>(sizeof(float));
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::filesystem::path weights = folder / "model.safetensors";
  const uint64_t size = text.size();
  std::ofstream(weights, std::ios::binary).write(reinterpret_cast<const char*>(&size), sizeof size) << text;
  std::filesystem::resize_file(weights, sizeof size + size + static_cast<uint64_t>(end));  // a hole, not bytes
  std::shared_ptr<const Model> model = Model::load(folder);
  std::filesystem::remove_all(folder);
  return model;
}

/// A pass as the engine would run it.
struct Work {
  Work(const Pass& pass, int depth, const std::filesystem::path& folder)
      : executable(empty_model(pass, depth, folder), make_cuda_backend(CudaRuntime::kSimulator, pass.dtype)),
        stream(executable.backend().make_stream()) {
    const std::vector<ImageSize> sizes(static_cast<size_t>(pass.batch), ImageSize{pass.pixels, pass.pixels});
    plan = Plan::make(executable, TokenLayout::of(sizes, kPatch, pass.class_token), {"logits"}, *stream);
  }

  const std::vector<Node>& nodes() const { return executable.graph().nodes(); }
  int64_t rows(ValueId value) const { return row_count(executable.graph().value(value).rows, plan.layout); }

  Executable executable;
  std::unique_ptr<Stream> stream;
  Plan plan;
};

double multiply_adds(const Work& work, const Node& node) {
  const auto rows = static_cast<double>(work.rows(node.output));
  return std::visit(Overloaded{[&](const ops::PatchEmbed& op) { return rows * static_cast<double>(op.weight.size()); },
                               [&](const ops::Linear& op) { return rows * static_cast<double>(op.weight.size()); },
                               [&](const ops::Attention& op) {
                                 double pairs = 0;  // of a query and a key
                                 for (const TokenGrid& image : work.plan.layout.images) {
                                   pairs += static_cast<double>(image.rows() * image.rows());
                                 }
                                 return 2 * pairs * static_cast<double>(op.width());
                               },
                               [](const auto&) { return 0.0; }},
                    node.op);
}

}  // namespace

std::string Pass::name() const { return fmt::format("{} {} px, batch {}, {}", model, pixels, batch, dtype); }

std::vector<Pass> passes() {
  return {
      {"Ti", 192, 3, 224, 1, "fp16"},
      {"S", 384, 6, 224, 1, "fp16"},
      {"B", 768, 12, 224, 1, "fp16"},
      {"Ti", 192, 3, 224, 32, "fp16"},
      {"S", 384, 6, 224, 32, "fp16"},
      {"B", 768, 12, 224, 32, "fp16"},
      {"Ti", 192, 3, 1024, 1, "fp16"},
      {"S", 384, 6, 1024, 1, "fp16"},
      {"B", 768, 12, 1024, 1, "fp16"},
      {"Ti", 192, 3, 224, 1, "fp32"},
      // What differs from the ones above in a few kernels only.
      {"Ti", 192, 3, 224, 32, "bf16"},
      {"Ti-cls", 192, 3, 224, 32, "fp16", 3, true},
      {"Ti-k7", 192, 3, 224, 32, "fp16", 7},
      {"Ti-k27", 192, 3, 224, 1, "fp16", 27},
      {"Ti-k27", 192, 3, 1024, 1, "fp16", 27},
      {"B-k9", 768, 12, 224, 1, "fp16", 9},
  };
}

std::vector<Operator> operators(const Pass& pass, const std::filesystem::path& folder) {
  const Work work(pass, kDepth, folder);
  std::vector<Operator> result;
  for (size_t i = 0; i < work.nodes().size(); ++i) {
    if (!work.plan.needed[i]) continue;
    const Node& node = work.nodes()[i];
    const std::string name = without_block(node.name);
    const auto known = std::ranges::find(result, name, &Operator::name);
    if (known == result.end()) {
      result.push_back({name, 1, multiply_adds(work, node)});
    } else {
      ++known->count;
    }
  }
  return result;
}

void run_operator(const Pass& pass, const std::string& name, const std::filesystem::path& folder) {
  Work work(pass, kShortDepth, folder);
  const Plan& plan = work.plan;
  const auto found = std::ranges::find(work.nodes(), name, [](const Node& node) { return without_block(node.name); });
  if (found == work.nodes().end()) throw Error("{} has no operator {}", pass.name(), name);
  const Node& node = *found;
  const auto index = static_cast<size_t>(found - work.nodes().begin());

  work.plan.fill_tables(work.executable, *work.stream);
  std::byte* const arena = work.stream->arena(plan.arena_bytes);
  const auto place = [&](ValueId value) { return arena + plan.value_offset[static_cast<size_t>(value)]; };
  std::vector<const std::byte*> inputs;
  for (const ValueId input : node.inputs) inputs.push_back(place(input));
  const std::vector<float> pixels(size_t{3} * static_cast<size_t>(pass.pixels * pass.pixels));
  const std::vector<ImageView> images(static_cast<size_t>(pass.batch), {pixels.data(), {pass.pixels, pass.pixels}});
  const Call call{.stream = *work.stream,
                  .layout = plan.layout,
                  .rows = work.rows(node.output),
                  .images = images,
                  .table = plan.table(index),
                  .inputs = inputs,
                  .output = place(node.output),
                  .second_output = node.second < 0 ? nullptr : place(node.second),
                  .workspace = arena + plan.workspace_offset[index]};
  std::shared_ptr<void> recording;
  work.stream->begin(images, recording, [&] { work.executable.kernel(index).run(call); });
  work.stream->finish();
}

}  // namespace cpvt::efficiency
