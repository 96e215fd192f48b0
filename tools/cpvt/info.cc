#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/cost.h"
#include "engine/runner.h"
#include "tools/cpvt/commands.h"
#include "tools/cpvt/results.h"
#include "tools/cpvt/session.h"

namespace cpvt::cli {

namespace {

struct InfoOptions : Options {
  bool json = false;
};

/// What a forward pass of a batch costs.
struct Cost {
  ImageSize size;
  int batch;
  TokenGrid grid;  // of each image
  int64_t tokens;  // of the batch
  double flops;
  size_t weights, arena, tables;  // bytes

  size_t total() const { return weights + arena + tables; }
};

Cost cost_of(const Session& session, const InfoOptions& options) {
  // Without a limit of the user's this answers for any machine, not for what happens to be free on this one.
  Runner runner(session.executable,
                options.memory_limit != 0 ? options.memory_limit : std::numeric_limits<size_t>::max());
  const ImageSize size = network_size(options, session.config());
  const int batch = std::max(options.batch, 1);
  const std::vector<ImageSize> sizes(static_cast<size_t>(batch), size);
  const std::vector<std::string> wanted{"logits"};
  const Plan& plan = runner.plan(sizes, wanted);
  return {.size = size,
          .batch = batch,
          .grid = plan.layout.images.front(),
          .tokens = plan.layout.rows,
          .flops = flops(session.executable->graph(), plan.layout),
          .weights = session.executable->weight_bytes(),
          .arena = plan.arena_bytes,
          .tables = plan.table_bytes};
}

/// "5,717,416"
std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string mebibytes(size_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

std::string position_text(const Config& c) {
  if (c.pos_embed == Config::PosEmbed::kLearned) {
    return fmt::format("learned, {0}x{0} at {1} pixels, interpolated elsewhere", c.train_grid(), c.img_size);
  }
  if (c.pos_embed != Config::PosEmbed::kPeg) return std::string(name_of(c.pos_embed));
  std::vector<std::string> places;
  for (const int block : c.peg.after) {
    places.push_back(block < 0 ? "before block 0" : fmt::format("after block {}", block));
  }
  return fmt::format("PEG {0}x{0} {1}", c.peg.kernel, fmt::join(places, ", "));
}

std::string labels_text(const Config& c) {
  if (c.label_names.empty()) return fmt::format("{}, without names", c.num_classes);
  constexpr size_t kShown = 4;
  const size_t shown = std::min(kShown, c.label_names.size());
  return fmt::format("{}: {}{}", c.num_classes,
                     fmt::join(c.label_names.begin(), c.label_names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                     shown < c.label_names.size() ? ", …" : "");
}

std::string pictures_text(const Config::Preprocessing& p) {
  return fmt::format("{}, {}, {}, {}, {}",
                     p.input_size ? fmt::format("{}x{}", p.input_size->at(1), p.input_size->at(2)) : "no input_size",
                     p.interpolation ? name_of(*p.interpolation) : "no interpolation",
                     p.crop_pct ? fmt::format("crop {:g}", *p.crop_pct) : "no crop_pct",
                     p.mean.empty() ? "no mean" : fmt::format("mean {:g}", fmt::join(p.mean, " ")),
                     p.std.empty() ? "no std" : fmt::format("std {:g}", fmt::join(p.std, " ")));
}

void print_table(const Session& session, const Cost& cost) {
  const Checkpoint& checkpoint = session.model->checkpoint();
  const Config& c = session.config();
  const auto row = [](std::string_view what, const std::string& value) {
    print_line(fmt::format("{:<14}{}", what, value));
  };
  row("weights", fmt::format("{}, {}", checkpoint.weights_path().string(), mebibytes(checkpoint.bytes_on_disk())));
  row("architecture",
      fmt::format("cpvt: {} blocks, width {}, {} heads of {}, MLP {}, patch {}x{}, {} channels", c.depth, c.embed_dim,
                  c.num_heads, c.head_dim(), c.hidden_dim(), c.patch_size, c.patch_size, c.in_chans));
  row("position", position_text(c));
  row("pooling", c.has_class_token() ? "class token" : "mean over tokens (GAP)");
  row("classes", labels_text(c));
  row("parameters", grouped(checkpoint.parameters()));
  row("pictures", pictures_text(c.pretrained_cfg));
  for (const std::string& assumption : checkpoint.assumptions()) row("assumption", assumption);
  for (const std::string& note : checkpoint.notes()) row("note", note);
  print_line("");
  row("at", fmt::format("{} pixels, batch {}", size_text(cost.size), cost.batch));
  row("tokens", fmt::format("{} = {} x ({}x{}{})", grouped(cost.tokens), cost.batch, cost.grid.height, cost.grid.width,
                            cost.grid.prefix > 0 ? " + class token" : ""));
  row("operations", fmt::format("{:.3f} GFLOP", cost.flops * 1e-9));
  row("memory", fmt::format("{} on {}: weights {}, arena {}, tables {}", mebibytes(cost.total()), session.device,
                            mebibytes(cost.weights), mebibytes(cost.arena), mebibytes(cost.tables)));
}

Json to_json(const Session& session, const Cost& cost) {
  const Checkpoint& checkpoint = session.model->checkpoint();
  const Config& c = session.config();
  Json peg = nullptr;
  if (c.pos_embed == Config::PosEmbed::kPeg) peg = {{"after", c.peg.after}, {"kernel", c.peg.kernel}};
  return {{"weights_file", checkpoint.weights_path().string()},
          {"weights_file_bytes", checkpoint.bytes_on_disk()},
          {"architecture", "cpvt"},
          {"embed_dim", c.embed_dim},
          {"depth", c.depth},
          {"num_heads", c.num_heads},
          {"hidden_dim", c.hidden_dim()},
          {"patch_size", c.patch_size},
          {"in_chans", c.in_chans},
          {"num_classes", c.num_classes},
          {"global_pool", name_of(c.global_pool)},
          {"pos_embed", name_of(c.pos_embed)},
          {"peg", peg},
          {"parameters", checkpoint.parameters()},
          {"assumptions", checkpoint.assumptions()},
          {"notes", checkpoint.notes()},
          {"device", session.device},
          {"dtype", session.dtype},
          {"size", {cost.size.height, cost.size.width}},
          {"batch", cost.batch},
          {"grid", {cost.grid.height, cost.grid.width}},
          {"tokens", cost.tokens},
          {"flops", whole_number(cost.flops)},
          {"memory_bytes",
           {{"weights", cost.weights}, {"arena", cost.arena}, {"tables", cost.tables}, {"total", cost.total()}}}};
}

int info(const InfoOptions& options) {
  Messages messages(options.level);
  const Session session(options, messages);
  const Cost cost = cost_of(session, options);
  if (options.json) {
    print_json(to_json(session, cost));
  } else {
    print_table(session, cost);
  }
  return kDone;
}

}  // namespace

Action add_info(CLI::App& app) {
  auto options = std::make_shared<InfoOptions>();
  add_model_flags(app, *options);
  add_device_flags(app, *options);
  add_geometry_flags(app, *options);
  add_batch_flag(app, *options, "Images in the batch to plan for (default: 1)");
  app.add_flag("--json", options->json, "One JSON object");
  return [options] { return info(*options); };
}

}  // namespace cpvt::cli
