#include "engine/cost.h"

namespace cpvt {

int64_t row_count(Rows rows, const TokenLayout& layout) {
  return rows == Rows::kTokens ? layout.rows : static_cast<int64_t>(layout.images.size());
}

double flops(const Graph& graph, const Node& node, const TokenLayout& layout) {
  const auto rows = static_cast<double>(row_count(graph.value(node.output).rows, layout));
  double patches = 0;
  double pairs = 0;  // of tokens that see each other
  for (const TokenGrid& grid : layout.images) {
    const auto tokens = static_cast<double>(grid.rows());
    patches += static_cast<double>(grid.patches());
    pairs += tokens * tokens;
  }
  const auto number = [](int64_t n) { return static_cast<double>(n); };
  return std::visit(
      Overloaded{
          [&](const ops::PatchEmbed& o) { return 2 * patches * number(o.weight.size()); },
          [&](const ops::AddPosition& o) { return rows * number(o.width); },
          [&](const ops::Peg& o) {
            return 2 * patches * number(o.weight.size()) + patches * number(o.width()) +
                   (o.norm ? 7 * rows * number(o.width()) : 0);
          },
          [&](const ops::LayerNorm& o) { return 7 * rows * number(o.width()); },
          [&](const ops::Linear& o) {
            return 2 * rows * number(o.weight.size()) + (o.residual ? rows * number(o.out()) : 0) +
                   (o.norm ? 7 * rows * number(o.in()) : 0);
          },
          [&](const ops::Gelu& o) { return 4 * rows * number(o.width); },
          [&](const ops::Add& o) { return rows * number(o.width); },
          [&](const ops::Attention& o) { return 4 * pairs * number(o.width()) + 4 * pairs * number(o.heads); },
          [&](const ops::Pool& o) {
            const bool mean = o.kind == ops::Pool::Kind::kMean;
            return (mean ? patches * number(o.width) : 0) +
                   (o.norm ? 7 * (mean ? patches : rows) * number(o.width) : 0);
          },
      },
      node.op);
}

double flops(const Graph& graph, const TokenLayout& layout) {
  double total = 0;
  for (const Node& node : graph.nodes()) total += flops(graph, node, layout);
  return total;
}

}  // namespace cpvt
