#include "engine/graph.h"

#include <utility>

#include "base/error.h"

namespace cpvt {

namespace {

/// What an operator expects of its inputs and makes of them.
struct Signature {
  std::vector<Value> inputs;
  Value output;
};

void expect_shape(const std::string& node, const char* what, const Tensor& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape != shape) {
    throw Error("{}: {} has shape {}, expected {}", node, what, shape_text(tensor.shape), shape_text(shape));
  }
}

void expect_norm(const std::string& node, const std::optional<ops::LayerNorm>& norm, int64_t width) {
  if (!norm) return;
  expect_shape(node, "norm's weight", norm->gamma, {width});
  expect_shape(node, "norm's bias", norm->beta, {width});
}

void expect_rank(const std::string& node, const Tensor& weight, size_t rank) {
  if (weight.shape.size() != rank) {
    throw Error("{}: weight has shape {}, expected {} dimensions", node, shape_text(weight.shape), rank);
  }
}

void expect_normalisation(const std::string& node, const ops::PatchEmbed& op) {
  if (op.mean.empty() && op.std.empty()) return;
  for (const auto& [what, count] : {std::pair("means", op.mean.size()), std::pair("stds", op.std.size())}) {
    if (count != static_cast<size_t>(op.in_chans())) {
      throw Error("{}: {} {}, expected {}", node, count, what, op.in_chans());
    }
  }
}

/// Checks the weights of a node and returns its signature; `rows` are those of its first input.
Signature signature(const std::string& node, const Op& op, Rows rows) {
  const Rows tokens = Rows::kTokens;
  return std::visit(Overloaded{
                        [&](const ops::PatchEmbed& o) -> Signature {
                          expect_rank(node, o.weight, 4);
                          expect_shape(node, "weight", o.weight, {o.width(), o.in_chans(), o.patch(), o.patch()});
                          expect_shape(node, "bias", o.bias, {o.width()});
                          if (o.class_token) expect_shape(node, "class token", *o.class_token, {1, 1, o.width()});
                          expect_normalisation(node, o);
                          return {{}, {tokens, o.width()}};
                        },
                        [&](const ops::AddPosition& o) -> Signature {
                          if (o.learned) {
                            expect_rank(node, *o.learned, 3);
                            expect_shape(node, "table", *o.learned, {1, o.learned->shape[1], o.width});
                          } else if (o.width % 4 != 0) {
                            throw Error("{}: sines and cosines need a width that is a multiple of 4, found {}", node,
                                        o.width);
                          }
                          return {{{tokens, o.width}}, {tokens, o.width}};
                        },
                        [&](const ops::Peg& o) -> Signature {
                          expect_rank(node, o.weight, 4);
                          expect_shape(node, "weight", o.weight, {o.width(), 1, o.kernel(), o.kernel()});
                          if (o.kernel() % 2 == 0)
                            throw Error("{}: expected an odd kernel, found {}", node, o.kernel());
                          expect_shape(node, "bias", o.bias, {o.width()});
                          expect_norm(node, o.norm, o.width());
                          return {{{tokens, o.width()}}, {tokens, o.width()}};
                        },
                        [&](const ops::LayerNorm& o) -> Signature {
                          expect_rank(node, o.gamma, 1);
                          expect_shape(node, "bias", o.beta, o.gamma.shape);
                          return {{{rows, o.width()}}, {rows, o.width()}};
                        },
                        [&](const ops::Linear& o) -> Signature {
                          expect_rank(node, o.weight, 2);
                          expect_shape(node, "bias", o.bias, {o.out()});
                          expect_norm(node, o.norm, o.in());
                          Signature s{{{rows, o.in()}}, {rows, o.out()}};
                          if (o.residual) s.inputs.push_back({rows, o.out()});
                          return s;
                        },
                        [&](const ops::Gelu& o) -> Signature {
                          return {{{rows, o.width}}, {rows, o.width}};
                        },
                        [&](const ops::Add& o) -> Signature {
                          return {{{rows, o.width}, {rows, o.width}}, {rows, o.width}};
                        },
                        [&](const ops::Attention& o) -> Signature {
                          return {{{tokens, 3 * o.width()}}, {tokens, o.width()}};
                        },
                        [&](const ops::Pool& o) -> Signature {
                          expect_norm(node, o.norm, o.width);
                          return {{{tokens, o.width}}, {Rows::kImages, o.width}};
                        },
                    },
                    op);
}

std::string value_text(const Value& value) {
  return fmt::format("[{}, {}]", value.rows == Rows::kTokens ? "tokens" : "images", value.width);
}

}  // namespace

ValueId Graph::add(std::string name, Op op, std::vector<ValueId> inputs) {
  for (const ValueId id : inputs) {
    if (id < 0 || id >= value_count()) throw Error("{}: input {} does not exist", name, id);
  }
  const Signature s = signature(name, op, inputs.empty() ? Rows::kTokens : value(inputs[0]).rows);
  if (inputs.size() != s.inputs.size()) {
    throw Error("{}: expected {} inputs, found {}", name, s.inputs.size(), inputs.size());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& found = value(inputs[i]);
    if (found.rows != s.inputs[i].rows || found.width != s.inputs[i].width) {
      throw Error("{}: input {} is {}, expected {}", name, i, value_text(found), value_text(s.inputs[i]));
    }
  }
  const ValueId output = value_count();
  values_.push_back(s.output);
  const auto* peg = std::get_if<ops::Peg>(&op);
  const ValueId second = peg != nullptr && peg->norm ? value_count() : -1;
  if (second >= 0) values_.push_back(s.output);
  nodes_.push_back({std::move(name), std::move(op), std::move(inputs), output, second});
  return output;
}

void Graph::set_output(const std::string& name, ValueId value) {
  if (value < 0 || value >= value_count()) throw Error("output {}: value {} does not exist", name, value);
  outputs_[name] = value;
}

ValueId Graph::output(std::string_view name) const {
  if (const auto it = outputs_.find(name); it != outputs_.end()) return it->second;
  std::string known;
  for (const auto& [other, id] : outputs_) known += (known.empty() ? "" : ", ") + other;
  throw Error("no output '{}': the model has {}", name, known);
}

int in_place_input(const Op& op) {
  return std::visit(Overloaded{
                        [](const ops::AddPosition&) { return 0; },
                        [](const ops::LayerNorm&) { return 0; },
                        [](const ops::Linear& o) { return o.residual ? 1 : -1; },
                        [](const ops::Gelu&) { return 0; },
                        [](const ops::Add&) { return 0; },
                        [](const auto&) { return -1; },
                    },
                    op);
}

}  // namespace cpvt
