#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/ops.h"

namespace cpvt {

/// A value is a matrix whose rows are the batch's tokens or its images; how many there are is the geometry's business.
enum class Rows { kTokens, kImages };

struct Value {
  Rows rows;
  int64_t width;
};

using ValueId = int;

struct Node {
  std::string name;  // "blocks.3.mlp.fc1"
  Op op;
  std::vector<ValueId> inputs;
  ValueId output;
  ValueId second = -1;  // what else it makes: a Peg with a norm does
};

/// A forward pass: operators in the order in which they run. Independent of image sizes.
class Graph {
 public:
  /// Appends an operator and returns the (first) value that it makes. Throws Error where weights, widths and inputs do
  /// not fit.
  ValueId add(std::string name, Op op, std::vector<ValueId> inputs = {});

  /// Names a value that a run can be asked for.
  void set_output(const std::string& name, ValueId value);

  const std::vector<Node>& nodes() const { return nodes_; }
  const Value& value(ValueId id) const { return values_.at(static_cast<size_t>(id)); }
  int value_count() const { return static_cast<int>(values_.size()); }
  const std::map<std::string, ValueId, std::less<>>& outputs() const { return outputs_; }
  ValueId output(std::string_view name) const;  ///< Throws Error with the names that there are.

 private:
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::map<std::string, ValueId, std::less<>> outputs_;
};

/// The input whose place the operator's output may take when nobody needs that input any more; -1 for none.
int in_place_input(const Op& op);

}  // namespace cpvt
