#include "engine/plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "engine/cost.h"
#include "engine/position.h"

namespace cpvt {

namespace {

constexpr size_t kAlignment = 64;

size_t align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// A place that is needed from one node to another, both included.
struct Block {
  size_t bytes;
  size_t from, to;
  size_t offset = 0;
};

/// First fit, largest first: the greedy-by-size order of Pisarchyk & Lee, "Efficient Memory Management for Deep Neural
/// Net Inference" (2020), which for these chains reaches the lower bound. Returns the arena's size.
size_t place(std::vector<Block>& blocks) {
  std::vector<Block*> order;
  order.reserve(blocks.size());
  for (Block& block : blocks) order.push_back(&block);
  std::stable_sort(order.begin(), order.end(), [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
  std::vector<const Block*> placed;  // by offset
  size_t total = 0;
  for (Block* block : order) {
    size_t offset = 0;
    for (const Block* other : placed) {
      const bool alive_together = other->from <= block->to && block->from <= other->to;
      if (!alive_together) continue;
      if (offset + block->bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    block->offset = offset;
    total = std::max(total, offset + block->bytes);
    const auto after = [](const Block* a, const Block* b) { return a->offset < b->offset; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), block, after), block);
  }
  return total;
}

using GridShape = std::pair<int64_t, int64_t>;

}  // namespace

Plan Plan::make(const Executable& executable, TokenLayout layout, std::vector<std::string> wanted,
                const Stream& stream) {
  const Graph& graph = executable.graph();
  const std::vector<Node>& nodes = graph.nodes();
  Plan plan;
  plan.layout = std::move(layout);
  plan.wanted = std::move(wanted);

  const auto values = static_cast<size_t>(graph.value_count());
  std::vector<size_t> last_use(values, 0);
  for (size_t i = 0; i < nodes.size(); ++i) {
    last_use[static_cast<size_t>(nodes[i].output)] = i;
    for (const ValueId id : nodes[i].inputs) last_use[static_cast<size_t>(id)] = i;
  }
  for (const std::string& name : plan.wanted) last_use[static_cast<size_t>(graph.output(name))] = nodes.size();

  // A value takes over its input's block where the operator works in place and is that input's last reader.
  std::vector<Block> blocks;
  std::vector<size_t> block_of_value(values);
  std::vector<size_t> block_of_workspace(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    const auto output = static_cast<size_t>(node.output);
    const int in_place = in_place_input(node.op);
    const auto input = in_place < 0 ? values : static_cast<size_t>(node.inputs[static_cast<size_t>(in_place)]);
    const bool read_once =
        in_place >= 0 && std::count(node.inputs.begin(), node.inputs.end(), static_cast<ValueId>(input)) == 1;
    if (read_once && last_use[input] == i) {
      block_of_value[output] = block_of_value[input];
      blocks[block_of_value[output]].to = last_use[output];
    } else {
      const Value& value = graph.value(node.output);
      const auto floats = static_cast<size_t>(row_count(value.rows, plan.layout) * value.width);
      block_of_value[output] = blocks.size();
      blocks.push_back({align(floats * sizeof(float)), i, last_use[output]});
    }
    const auto floats = static_cast<size_t>(executable.kernel(i).workspace_floats(plan.layout, stream));
    block_of_workspace[i] = blocks.size();
    blocks.push_back({align(floats * sizeof(float)), i, i});

    if (const auto* position = std::get_if<ops::AddPosition>(&node.op)) {
      std::set<GridShape> shapes;
      for (const TokenGrid& grid : plan.layout.images) {
        if (!shapes.insert({grid.height, grid.width}).second) continue;
        plan.position_bytes += static_cast<size_t>(grid.rows() * position->width) * sizeof(float);
      }
    }
  }
  plan.arena_bytes = place(blocks);
  for (const size_t block : block_of_value) plan.value_offset.push_back(blocks[block].offset);
  for (const size_t block : block_of_workspace) plan.workspace_offset.push_back(blocks[block].offset);
  return plan;
}

void Plan::fill_positions(const Graph& graph) {
  for (const Node& node : graph.nodes()) {
    auto& tables = positions.emplace_back();
    const auto* position = std::get_if<ops::AddPosition>(&node.op);
    if (position == nullptr) continue;
    std::map<GridShape, std::shared_ptr<const std::vector<float>>> made;
    for (const TokenGrid& grid : layout.images) {
      auto& table = made[{grid.height, grid.width}];
      if (!table) table = std::make_shared<const std::vector<float>>(position_rows(*position, grid));
      tables.push_back(table);
    }
  }
}

}  // namespace cpvt
