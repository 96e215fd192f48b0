#include "engine/residual_scale.h"

#include <utility>
#include <vector>

#include "base/error.h"

namespace cpvt {

Graph scale_residual(const Graph& graph, float scale) {
  Graph result;
  std::vector<bool> scaled;  // per value: whether it is the stream's
  for (const Node& node : graph.nodes()) {
    const auto is_scaled = [&](size_t input) -> bool { return scaled[static_cast<size_t>(node.inputs[input])]; };
    const auto expect = [&](size_t input, bool wanted) {
      if (is_scaled(input) == wanted) return;
      throw Error("{}: input {} {} the residual stream: only LayerNorm may read it, only residuals join it", node.name,
                  input, wanted ? "does not come from" : "comes from");
    };
    Op op = node.op;
    const bool made_scaled = std::visit(Overloaded{
                                            [&](ops::PatchEmbed& o) {
                                              o.scale *= scale;
                                              return true;
                                            },
                                            [&](ops::AddPosition& o) {
                                              expect(0, true);
                                              o.scale *= scale;
                                              return true;
                                            },
                                            [&](ops::Peg& o) {
                                              expect(0, true);
                                              o.scale *= scale;
                                              if (o.norm) o.norm->eps *= scale * scale;
                                              return true;
                                            },
                                            [&](ops::LayerNorm& o) {
                                              if (is_scaled(0)) o.eps *= scale * scale;
                                              return false;
                                            },
                                            [&](ops::Linear& o) {
                                              if (o.norm && is_scaled(0)) {
                                                o.norm->eps *= scale * scale;
                                              } else {
                                                expect(0, false);
                                              }
                                              if (!o.residual || !is_scaled(1)) return false;
                                              o.scale *= scale;
                                              return true;
                                            },
                                            [&](ops::Gelu&) {
                                              expect(0, false);
                                              return false;
                                            },
                                            [&](ops::Add&) {
                                              expect(1, is_scaled(0));
                                              return is_scaled(0);
                                            },
                                            [&](ops::Attention&) {
                                              expect(0, false);
                                              return false;
                                            },
                                            [&](ops::Pool& o) {
                                              if (!o.norm) return is_scaled(0);
                                              if (is_scaled(0)) o.norm->eps *= scale * scale;
                                              return false;
                                            },
                                        },
                                        op);
    scaled.push_back(made_scaled);
    if (node.second >= 0) scaled.push_back(false);
    result.add(node.name, std::move(op), node.inputs);
  }
  for (const auto& [name, id] : graph.outputs()) {
    if (scaled[static_cast<size_t>(id)])
      throw Error("output {}: comes from the residual stream, which is scaled", name);
    result.set_output(name, id);
  }
  return result;
}

}  // namespace cpvt
