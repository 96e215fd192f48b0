#include "engine/cost.h"

namespace cpvt {

int64_t row_count(Rows rows, const TokenLayout& layout) {
  return rows == Rows::kTokens ? layout.rows : static_cast<int64_t>(layout.images.size());
}

int64_t flops(const Graph& graph, const Node& node, const TokenLayout& layout) {
  const int64_t rows = row_count(graph.value(node.output).rows, layout);
  int64_t patches = 0;
  int64_t pairs = 0;  // of tokens that see each other
  for (const TokenGrid& grid : layout.images) {
    patches += grid.patches();
    pairs += grid.rows() * grid.rows();
  }
  return std::visit(Overloaded{
                        [&](const ops::PatchEmbed& o) { return 2 * patches * o.weight.size(); },
                        [&](const ops::AddPosition& o) { return rows * o.width; },
                        [&](const ops::Peg& o) { return 2 * patches * o.weight.size() + patches * o.width(); },
                        [&](const ops::LayerNorm& o) { return 7 * rows * o.width(); },
                        [&](const ops::Linear& o) {
                          return 2 * rows * o.weight.size() + (o.residual ? rows * o.out() : 0) +
                                 (o.norm ? 7 * rows * o.in() : 0);
                        },
                        [&](const ops::Gelu& o) { return 4 * rows * o.width; },
                        [&](const ops::Add& o) { return rows * o.width; },
                        [&](const ops::Attention& o) { return 4 * pairs * o.width() + 4 * pairs * o.heads; },
                        [&](const ops::Pool& o) {
                          const bool mean = o.kind == ops::Pool::Kind::kMean;
                          return (mean ? patches * o.width : 0) + (o.norm ? 7 * (mean ? patches : rows) * o.width : 0);
                        },
                    },
                    node.op);
}

int64_t flops(const Graph& graph, const TokenLayout& layout) {
  int64_t total = 0;
  for (const Node& node : graph.nodes()) total += flops(graph, node, layout);
  return total;
}

}  // namespace cpvt
