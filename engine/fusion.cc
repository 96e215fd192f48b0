#include "engine/fusion.h"

#include <algorithm>
#include <optional>

namespace cpvt {

namespace {

/// How often each value is read, being an output counting as a reading.
std::vector<int> count_readers(const Graph& graph) {
  std::vector<int> readers(static_cast<size_t>(graph.value_count()), 0);
  for (const Node& node : graph.nodes()) {
    for (const ValueId id : node.inputs) ++readers[static_cast<size_t>(id)];
  }
  for (const auto& [name, id] : graph.outputs()) ++readers[static_cast<size_t>(id)];
  return readers;
}

/// A Linear that `node` can swallow into one Linear: which input it comes by, and the Linear that does the work of
/// both.
struct Match {
  size_t input;
  ops::Linear fused;
};

std::optional<Match> match(const Node& node, const std::vector<const ops::Linear*>& maker) {
  if (std::holds_alternative<ops::Gelu>(node.op)) {
    const ops::Linear* linear = maker[0];
    if (linear == nullptr || linear->activation != ops::Activation::kNone || linear->residual) return {};
    ops::Linear fused = *linear;
    fused.activation = ops::Activation::kGelu;
    return Match{0, fused};
  }
  if (std::holds_alternative<ops::Add>(node.op) && node.inputs[0] != node.inputs[1]) {
    for (const size_t input : {size_t{1}, size_t{0}}) {
      const ops::Linear* linear = maker[input];
      if (linear == nullptr || linear->residual) continue;
      ops::Linear fused = *linear;
      fused.residual = true;
      return Match{input, fused};
    }
  }
  return {};
}

/// Swallows the first match; nothing when there is none.
std::optional<Graph> fuse_once(const Graph& graph) {
  const std::vector<int> readers = count_readers(graph);
  std::vector<const Node*> maker(static_cast<size_t>(graph.value_count()), nullptr);
  for (const Node& node : graph.nodes()) maker[static_cast<size_t>(node.output)] = &node;

  const Node* swallowed = nullptr;
  const Node* swallower = nullptr;
  std::optional<Match> found;
  for (const Node& node : graph.nodes()) {
    std::vector<const ops::Linear*> linears;
    for (const ValueId id : node.inputs) {
      const bool only_reader = readers[static_cast<size_t>(id)] == 1;
      linears.push_back(only_reader ? std::get_if<ops::Linear>(&maker[static_cast<size_t>(id)]->op) : nullptr);
    }
    if ((found = match(node, linears))) {
      swallower = &node;
      swallowed = maker[static_cast<size_t>(node.inputs[found->input])];
      break;
    }
  }
  if (!found) return {};

  Graph result;
  std::vector<ValueId> renamed(static_cast<size_t>(graph.value_count()), -1);
  const auto rename = [&](ValueId id) { return renamed[static_cast<size_t>(id)]; };
  for (const Node& node : graph.nodes()) {
    if (&node == swallowed) continue;
    std::vector<ValueId> inputs;
    if (&node == swallower) {
      for (const ValueId id : swallowed->inputs) inputs.push_back(rename(id));
      if (found->fused.residual) inputs.push_back(rename(node.inputs[1 - found->input]));
      renamed[static_cast<size_t>(node.output)] = result.add(swallowed->name, found->fused, inputs);
    } else {
      std::transform(node.inputs.begin(), node.inputs.end(), std::back_inserter(inputs), rename);
      renamed[static_cast<size_t>(node.output)] = result.add(node.name, node.op, inputs);
    }
  }
  for (const auto& [name, id] : graph.outputs()) result.set_output(name, rename(id));
  return result;
}

}  // namespace

Graph fuse(const Graph& graph) {
  Graph result = graph;
  while (auto next = fuse_once(result)) result = std::move(*next);
  return result;
}

Graph fuse_norms(const Graph& graph, int64_t widest, bool into_pool, bool into_peg) {
  const auto values = static_cast<size_t>(graph.value_count());
  std::vector<Node> nodes = graph.nodes();
  std::vector<size_t> maker(values);  // index of the node
  for (size_t i = 0; i < nodes.size(); ++i) {
    maker[static_cast<size_t>(nodes[i].output)] = i;
    if (nodes[i].second >= 0) maker[static_cast<size_t>(nodes[i].second)] = i;
  }
  std::vector<bool> swallowed(nodes.size(), false);  // norms
  for (Node& node : nodes) {
    if (node.inputs.empty()) continue;
    const size_t at = maker[static_cast<size_t>(node.inputs[0])];
    const auto* norm = std::get_if<ops::LayerNorm>(&graph.nodes()[at].op);
    if (norm == nullptr) continue;
    auto* linear = std::get_if<ops::Linear>(&node.op);
    auto* pool = std::get_if<ops::Pool>(&node.op);
    if (linear != nullptr && !linear->norm && norm->width() <= widest) {
      linear->norm = *norm;
    } else if (pool != nullptr && !pool->norm && into_pool) {
      pool->norm = *norm;
    } else {
      continue;
    }
    node.inputs[0] = graph.nodes()[at].inputs[0];
    swallowed[at] = true;
  }

  std::vector<int> readers(values, 0);
  for (const Node& node : nodes) {
    for (const ValueId id : node.inputs) ++readers[static_cast<size_t>(id)];
  }
  for (const auto& [name, id] : graph.outputs()) ++readers[static_cast<size_t>(id)];
  std::vector<bool> left_out(nodes.size(), false);
  std::vector<ValueId> peg_of_norm(nodes.size(), -1);  // whose second value a norm's becomes
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto* norm = std::get_if<ops::LayerNorm>(&nodes[i].op);
    if (norm == nullptr) continue;
    if (swallowed[i]) {
      left_out[i] = readers[static_cast<size_t>(nodes[i].output)] == 0;
      continue;
    }
    Node& before = nodes[maker[static_cast<size_t>(nodes[i].inputs[0])]];
    auto* peg = std::get_if<ops::Peg>(&before.op);
    if (!into_peg || peg == nullptr || peg->norm || before.output != nodes[i].inputs[0]) continue;
    peg->norm = *norm;
    left_out[i] = true;
    peg_of_norm[i] = before.output;
  }

  Graph result;
  std::vector<ValueId> renamed(values, -1);
  std::vector<ValueId> second_of(values, -1);  // by a Peg's first value, as it was called
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    const auto output = static_cast<size_t>(node.output);
    if (left_out[i]) {
      if (peg_of_norm[i] >= 0) renamed[output] = second_of[static_cast<size_t>(peg_of_norm[i])];
      continue;
    }
    std::vector<ValueId> inputs;
    for (const ValueId id : node.inputs) inputs.push_back(renamed[static_cast<size_t>(id)]);
    renamed[output] = result.add(node.name, node.op, inputs);
    second_of[output] = result.nodes().back().second;
    if (node.second >= 0) renamed[static_cast<size_t>(node.second)] = second_of[output];
  }
  for (const auto& [name, id] : graph.outputs()) result.set_output(name, renamed[static_cast<size_t>(id)]);
  return result;
}

}  // namespace cpvt
