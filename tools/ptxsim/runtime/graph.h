#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tools/ptxsim/runtime/operation.h"
#include "tools/ptxsim/runtime/scheduler.h"

namespace ptxsim::runtime {

struct Node;
class Runtime;

struct Edge {
  Node* node = nullptr;  // the one that comes first
  cudaGraphEdgeData data{};
};

struct Node {
  Graph* graph = nullptr;
  uint64_t id = 0;
  Operation operation;
  std::vector<Edge> dependencies;

  cudaGraphNodeType type() const;
};

/// A reference-counted object of the program's, which graphs keep alive.
struct UserObject {
  void* pointer = nullptr;
  cudaHostFn_t destroy = nullptr;
  unsigned references = 0;
};

struct Graph {
  explicit Graph(Runtime& runtime);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  Node* add(Operation operation, std::vector<Edge> dependencies);
  void remove(Node* node);
  bool has_memory_nodes() const;
  /// A deep copy, which remembers what each of its nodes is a copy of.
  std::shared_ptr<Graph> clone() const;
  /// Nodes in an order that the edges allow. Throws Failure when there is a cycle.
  std::vector<Node*> sorted() const;

  Runtime& runtime;
  uint64_t id;
  std::vector<std::unique_ptr<Node>> nodes;       // in the order of their making
  std::unordered_map<const Node*, Node*> copies;  // of a clone: original -> its copy
  std::map<std::shared_ptr<UserObject>, unsigned> user_objects;
  bool instantiated_with_memory = false;  // such a graph has one executable form at a time
};

/// A graph ready to run: child graphs taken apart, every step after those that it depends on.
struct GraphExec {
  struct Step {
    Operation operation;
    std::vector<size_t> after;     // indices of earlier steps
    const Node* origin = nullptr;  // in the graph that it was made of
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    bool enabled = true;
    size_t child_begin = 0;  // of a child graph: where the steps of its nodes begin; they end before this step
  };
  std::vector<Step> steps;
  std::unordered_map<const Node*, size_t> index;  // origin -> step
  unsigned long long flags = 0;
  TaskPointer last;  // the end of its latest launch: the next one comes after it
  std::weak_ptr<Graph> graph;
  std::vector<std::pair<std::shared_ptr<UserObject>, unsigned>> user_objects;

  /// Adds the steps of `graph` to the end, its roots after the steps `after`. Returns the steps that nothing follows.
  std::vector<size_t> append(const Graph& graph, const std::vector<size_t>& after);
  Step* find(const Node* node);
};

void release(const std::shared_ptr<UserObject>& object, unsigned count);

}  // namespace ptxsim::runtime
