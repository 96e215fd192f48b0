#include "engine/plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "engine/cost.h"

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

/// The nodes that make what is wanted, and what those read.
std::vector<bool> needed_nodes(const Graph& graph, const std::vector<std::string>& wanted) {
  std::vector<bool> read(static_cast<size_t>(graph.value_count()), false);
  for (const std::string& name : wanted) read[static_cast<size_t>(graph.output(name))] = true;
  std::vector<bool> needed(graph.nodes().size(), false);
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& node = graph.nodes()[i];
    const bool second = node.second >= 0 && read[static_cast<size_t>(node.second)];
    if (!read[static_cast<size_t>(node.output)] && !second) continue;
    needed[i] = true;
    for (const ValueId id : node.inputs) read[static_cast<size_t>(id)] = true;
  }
  return needed;
}

}  // namespace

Plan Plan::make(const Executable& executable, TokenLayout layout, std::vector<std::string> wanted,
                const Stream& stream) {
  const Graph& graph = executable.graph();
  const std::vector<Node>& nodes = graph.nodes();
  Plan plan;
  plan.layout = std::move(layout);
  plan.wanted = std::move(wanted);
  plan.needed = needed_nodes(graph, plan.wanted);

  const auto values = static_cast<size_t>(graph.value_count());
  std::vector<size_t> last_use(values, 0);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (!plan.needed[i]) continue;
    last_use[static_cast<size_t>(nodes[i].output)] = i;
    if (nodes[i].second >= 0) last_use[static_cast<size_t>(nodes[i].second)] = i;
    for (const ValueId id : nodes[i].inputs) last_use[static_cast<size_t>(id)] = i;
  }
  for (const std::string& name : plan.wanted) last_use[static_cast<size_t>(graph.output(name))] = nodes.size();

  // A value takes over its input's block where the operator works in place and is that input's last reader. Block 0 is
  // empty: of nodes that are not needed.
  std::vector<Block> blocks{{}};
  std::vector<size_t> block_of_value(values, 0);
  std::vector<size_t> block_of_workspace(nodes.size(), 0);
  std::map<const GeometryTable*, size_t> tables;  // to the first node that has it
  const auto bytes = [&](ValueId id) {
    const Value& value = graph.value(id);
    const auto rows = static_cast<size_t>(row_count(value.rows, plan.layout));
    return align(rows * executable.backend().row_bytes(value.width));
  };
  for (size_t i = 0; i < nodes.size(); ++i) {
    plan.table_offset.push_back(0);
    plan.table_size.push_back(0);
    if (!plan.needed[i]) continue;
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
      block_of_value[output] = blocks.size();
      blocks.push_back({bytes(node.output), i, last_use[output]});
    }
    if (node.second >= 0) {
      block_of_value[static_cast<size_t>(node.second)] = blocks.size();
      blocks.push_back({bytes(node.second), i, last_use[static_cast<size_t>(node.second)]});
    }
    const Kernel& kernel = executable.kernel(i);
    block_of_workspace[i] = blocks.size();
    blocks.push_back({align(kernel.workspace_bytes(plan.layout, stream)), i, i});

    if (!kernel.table) continue;
    const auto [first, is_new] = tables.insert({kernel.table.get(), i});
    if (is_new) {
      plan.table_offset[i] = plan.table_bytes;
      plan.table_size[i] = kernel.table->bytes(plan.layout);
      plan.table_bytes += align(plan.table_size[i]);
    } else {
      plan.table_offset[i] = plan.table_offset[first->second];
      plan.table_size[i] = plan.table_size[first->second];
    }
  }
  plan.arena_bytes = place(blocks);
  for (const size_t block : block_of_value) plan.value_offset.push_back(blocks[block].offset);
  for (const size_t block : block_of_workspace) plan.workspace_offset.push_back(blocks[block].offset);
  return plan;
}

void Plan::fill_tables(const Executable& executable, Stream& stream) {
  std::vector<std::byte> bytes(table_bytes);
  std::set<const GeometryTable*> filled;
  for (size_t i = 0; i < needed.size(); ++i) {
    const GeometryTable* table = executable.kernel(i).table.get();
    if (!needed[i] || table == nullptr || !filled.insert(table).second) continue;
    table->fill(layout, std::span(bytes).subspan(table_offset[i], table_size[i]));
  }
  tables = stream.keep(std::move(bytes));
}

}  // namespace cpvt
