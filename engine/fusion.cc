#include "engine/fusion.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cpvt {

namespace {

/// How often each of the graph's values is read by these nodes, being an output counting as a reading.
std::vector<int> count_readers(const std::vector<Node>& nodes, const Graph& graph) {
  std::vector<int> readers(static_cast<size_t>(graph.value_count()), 0);
  for (const Node& node : nodes) {
    for (const ValueId id : node.inputs) ++readers[static_cast<size_t>(id)];
  }
  for (const auto& [name, id] : graph.outputs()) ++readers[static_cast<size_t>(id)];
  return readers;
}

/// Which node, by its index, makes each value.
std::vector<size_t> makers(const Graph& graph) {
  std::vector<size_t> maker(static_cast<size_t>(graph.value_count()));
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& node = graph.nodes()[i];
    maker[static_cast<size_t>(node.output)] = i;
    if (node.second >= 0) maker[static_cast<size_t>(node.second)] = i;
  }
  return maker;
}

/// A graph written anew node by node, values being called as they are in the old one.
class Rewriting {
 public:
  explicit Rewriting(const Graph& old) : old_(old), renamed_(static_cast<size_t>(old.value_count()), -1) {}

  /// Appends what makes the values of `node`, from values of the old graph. Returns its second value in the new one.
  ValueId add(const Node& node, const std::string& name, const Op& op, const std::vector<ValueId>& inputs) {
    std::vector<ValueId> renamed;
    for (const ValueId id : inputs) renamed.push_back(renamed_[static_cast<size_t>(id)]);
    put(node.output, result_.add(name, op, renamed));
    const ValueId second = result_.nodes().back().second;
    if (node.second >= 0) put(node.second, second);
    return second;
  }
  void put(ValueId old, ValueId now) { renamed_[static_cast<size_t>(old)] = now; }

  Graph finish() {
    for (const auto& [name, id] : old_.outputs()) result_.set_output(name, renamed_[static_cast<size_t>(id)]);
    return std::move(result_);
  }

 private:
  const Graph& old_;
  Graph result_;
  std::vector<ValueId> renamed_;
};

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
  const std::vector<int> readers = count_readers(graph.nodes(), graph);
  const std::vector<size_t> maker = makers(graph);
  const auto maker_of = [&](ValueId id) { return &graph.nodes()[maker[static_cast<size_t>(id)]]; };

  const Node* swallowed = nullptr;
  const Node* swallower = nullptr;
  std::optional<Match> found;
  for (const Node& node : graph.nodes()) {
    std::vector<const ops::Linear*> linears;
    for (const ValueId id : node.inputs) {
      const bool only_reader = readers[static_cast<size_t>(id)] == 1;
      linears.push_back(only_reader ? std::get_if<ops::Linear>(&maker_of(id)->op) : nullptr);
    }
    if ((found = match(node, linears))) {
      swallower = &node;
      swallowed = maker_of(node.inputs[found->input]);
      break;
    }
  }
  if (!found) return {};

  Rewriting rewriting(graph);
  for (const Node& node : graph.nodes()) {
    if (&node == swallowed) continue;
    if (&node == swallower) {
      std::vector<ValueId> inputs = swallowed->inputs;
      if (found->fused.residual) inputs.push_back(node.inputs[1 - found->input]);
      rewriting.add(node, swallowed->name, found->fused, inputs);
    } else {
      rewriting.add(node, node.name, node.op, node.inputs);
    }
  }
  return rewriting.finish();
}

}  // namespace

Graph fuse(const Graph& graph) {
  Graph result = graph;
  while (auto next = fuse_once(result)) result = std::move(*next);
  return result;
}

Graph fuse_norms(const Graph& graph, int64_t widest, bool into_pool, bool into_peg) {
  std::vector<Node> nodes = graph.nodes();
  const std::vector<size_t> maker = makers(graph);
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

  const std::vector<int> readers = count_readers(nodes, graph);
  std::vector<bool> left_out(nodes.size(), false);
  std::vector<ValueId> joined(nodes.size(), -1);  // per Peg: the norm's value that becomes its second
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto* norm = std::get_if<ops::LayerNorm>(&nodes[i].op);
    if (norm == nullptr) continue;
    if (swallowed[i]) {
      left_out[i] = readers[static_cast<size_t>(nodes[i].output)] == 0;
      continue;
    }
    const size_t at = maker[static_cast<size_t>(nodes[i].inputs[0])];
    Node& before = nodes[at];
    auto* peg = std::get_if<ops::Peg>(&before.op);
    if (!into_peg || peg == nullptr || peg->norm || before.output != nodes[i].inputs[0]) continue;
    peg->norm = *norm;
    left_out[i] = true;
    joined[at] = nodes[i].output;
  }

  Rewriting rewriting(graph);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (left_out[i]) continue;
    const ValueId second = rewriting.add(nodes[i], nodes[i].name, nodes[i].op, nodes[i].inputs);
    if (joined[i] >= 0) rewriting.put(joined[i], second);
  }
  return rewriting.finish();
}

}  // namespace cpvt
