#include "tools/ptxsim/runtime/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "tools/ptxsim/runtime/launch.h"
#include "tools/ptxsim/runtime/memory.h"
#include "tools/ptxsim/runtime/pool.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

cudaGraphNodeType type_of(const Operation& operation) {
  struct Types {
    cudaGraphNodeType operator()(const KernelOperation&) const { return cudaGraphNodeTypeKernel; }
    cudaGraphNodeType operator()(const CopyOperation&) const { return cudaGraphNodeTypeMemcpy; }
    cudaGraphNodeType operator()(const FillOperation&) const { return cudaGraphNodeTypeMemset; }
    cudaGraphNodeType operator()(const HostOperation&) const { return cudaGraphNodeTypeHost; }
    cudaGraphNodeType operator()(const CallbackOperation&) const { return cudaGraphNodeTypeHost; }
    cudaGraphNodeType operator()(const RecordOperation&) const { return cudaGraphNodeTypeEventRecord; }
    cudaGraphNodeType operator()(const WaitOperation&) const { return cudaGraphNodeTypeWaitEvent; }
    cudaGraphNodeType operator()(const AllocateOperation&) const { return cudaGraphNodeTypeMemAlloc; }
    cudaGraphNodeType operator()(const FreeOperation&) const { return cudaGraphNodeTypeMemFree; }
    cudaGraphNodeType operator()(const EmptyOperation&) const { return cudaGraphNodeTypeEmpty; }
    cudaGraphNodeType operator()(const ChildOperation&) const { return cudaGraphNodeTypeGraph; }
  };
  return std::visit(Types{}, operation);
}

bool is_memory_node(const Operation& operation) {
  return std::holds_alternative<AllocateOperation>(operation) || std::holds_alternative<FreeOperation>(operation);
}

cudaGraphNode_t handle_of(const Node* node) { return reinterpret_cast<cudaGraphNode_t>(const_cast<Node*>(node)); }
cudaGraph_t handle_of(const Graph* graph) { return reinterpret_cast<cudaGraph_t>(const_cast<Graph*>(graph)); }

Node& find_node(cudaGraphNode_t handle, Runtime& runtime) {
  auto* node = reinterpret_cast<Node*>(handle);
  require(runtime.nodes.contains(node));
  return *node;
}

std::shared_ptr<Graph> find_graph(cudaGraph_t handle, Runtime& runtime) {
  std::shared_ptr<Graph> graph = runtime.graphs.find(handle);
  require(graph != nullptr);
  return graph;
}

std::shared_ptr<GraphExec> find_exec(cudaGraphExec_t handle, Runtime& runtime) {
  std::shared_ptr<GraphExec> exec = runtime.execs.find(handle);
  require(exec != nullptr);
  return exec;
}

/// What a node of this type holds; throws when it is one of another type.
template <class T>
T& content(cudaGraphNode_t handle, Runtime& runtime) {
  T* held = std::get_if<T>(&find_node(handle, runtime).operation);
  require(held != nullptr);
  return *held;
}

bool same(const cudaGraphEdgeData& a, const cudaGraphEdgeData& b) {
  return a.from_port == b.from_port && a.to_port == b.to_port && a.type == b.type;
}

void check_edge_data(const cudaGraphEdgeData& data, const Node& from) {
  require(data.type == cudaGraphDependencyTypeDefault || data.type == cudaGraphDependencyTypeProgrammatic);
  require(data.to_port == 0 && data.from_port <= cudaGraphKernelNodePortLaunchCompletion);
  if (data.from_port != 0 || data.type != 0) require(from.type() == cudaGraphNodeTypeKernel);
}

std::vector<Edge> edges_of(const Graph& graph, const cudaGraphNode_t* dependencies, const cudaGraphEdgeData* data,
                           size_t count, Runtime& runtime) {
  require(count == 0 || dependencies != nullptr);
  std::vector<Edge> edges;
  for (size_t i = 0; i < count; ++i) {
    Node& node = find_node(dependencies[i], runtime);
    require(node.graph == &graph);
    Edge edge{&node, data == nullptr ? cudaGraphEdgeData{} : data[i]};
    check_edge_data(edge.data, node);
    require(std::ranges::find(edges, &node, &Edge::node) == edges.end());
    edges.push_back(edge);
  }
  return edges;
}

// ---- Operations from what the program says of nodes

KernelOperation kernel_operation(const cudaKernelNodeParams* parameters, const LaunchAttributes& attributes,
                                 Runtime& runtime) {
  require(parameters != nullptr);
  const cudaKernelNodeParams& p = *parameters;
  return make_kernel(find_function(p.func, runtime),
                     {p.gridDim, p.blockDim, p.sharedMemBytes, attributes, p.kernelParams, p.extra}, runtime);
}

KernelOperation kernel_operation(const cudaKernelNodeParamsV2& p, const LaunchAttributes& attributes,
                                 Runtime& runtime) {
  const cudaKernelNodeParams parameters{p.func, p.gridDim, p.blockDim, p.sharedMemBytes, p.kernelParams, p.extra};
  return kernel_operation(&parameters, attributes, runtime);
}

HostOperation host_operation(cudaHostFn_t function, void* data) {
  require(function != nullptr);
  return {function, data};
}

ChildOperation child_operation(cudaGraph_t child, Runtime& runtime) {
  const std::shared_ptr<Graph> graph = find_graph(child, runtime);
  require(!graph->has_memory_nodes(), cudaErrorNotSupported);
  return {graph->clone()};
}

template <class Parameters>
AllocateOperation allocate_operation(Parameters& p, Runtime& runtime) {
  require(p.bytesize > 0);
  require(p.poolProps.allocType == cudaMemAllocationTypePinned &&
          p.poolProps.location.type == cudaMemLocationTypeDevice && p.poolProps.location.id == 0 &&
          p.poolProps.handleTypes == cudaMemHandleTypeNone);
  require(p.accessDescCount == 0 || p.accessDescs != nullptr);
  AllocateOperation operation;
  operation.access.assign(p.accessDescs, p.accessDescs + p.accessDescCount);
  operation.allocation = runtime.memory().reserve(MemoryKind::kPool, p.bytesize);
  require(operation.allocation != nullptr, cudaErrorMemoryAllocation);
  p.dptr = pointer_to(operation.allocation->base);
  operation.parameters = {p.poolProps, nullptr, p.accessDescCount, p.bytesize, p.dptr};
  return operation;
}

FreeOperation free_operation(void* pointer, const Graph& graph, Runtime& runtime) {
  const Allocation* allocation = runtime.memory().find(address_of(pointer));
  require(allocation != nullptr && allocation->recurring && allocation->base == address_of(pointer));
  // A graph frees an allocation once.
  require(std::ranges::none_of(graph.nodes, [&](const auto& node) {
    const auto* free = std::get_if<FreeOperation>(&node->operation);
    return free != nullptr && free->address == allocation->base;
  }));
  return {allocation->base};
}

RecordOperation record_operation(cudaEvent_t event, Runtime& runtime) { return {runtime.event(event), nullptr}; }
WaitOperation wait_operation(cudaEvent_t event, Runtime& runtime) { return {runtime.event(event)}; }

const LaunchAttributes& attributes_of(const Operation& operation) {
  static const auto* none = new LaunchAttributes;
  const auto* kernel = std::get_if<KernelOperation>(&operation);
  return kernel == nullptr ? *none : kernel->attributes;
}

/// The operation that generic node parameters describe. `before`: what the node holds already, if it is there.
Operation operation_of(cudaGraphNodeParams& p, const Graph& graph, const Operation& before, Runtime& runtime) {
  switch (p.type) {
    case cudaGraphNodeTypeKernel:
      return kernel_operation(p.kernel, attributes_of(before), runtime);
    case cudaGraphNodeTypeMemcpy:
      return copy_3d("cudaGraphAddNode", &p.memcpy.copyParams, runtime);
    case cudaGraphNodeTypeMemset: {
      const cudaMemsetParams parameters{p.memset.dst,         p.memset.pitch, p.memset.value,
                                        p.memset.elementSize, p.memset.width, p.memset.height};
      return fill_2d(&parameters, runtime);
    }
    case cudaGraphNodeTypeHost:
      return host_operation(p.host.fn, p.host.userData);
    case cudaGraphNodeTypeGraph:
      return child_operation(p.graph.graph, runtime);
    case cudaGraphNodeTypeEmpty:
      return EmptyOperation{};
    case cudaGraphNodeTypeWaitEvent:
      return wait_operation(p.eventWait.event, runtime);
    case cudaGraphNodeTypeEventRecord:
      return record_operation(p.eventRecord.event, runtime);
    case cudaGraphNodeTypeMemAlloc:
      return allocate_operation(p.alloc, runtime);
    case cudaGraphNodeTypeMemFree:
      return free_operation(p.free.dptr, graph, runtime);
    case cudaGraphNodeTypeConditional:
      refuse("a conditional graph node");
    case cudaGraphNodeTypeExtSemaphoreSignal:
    case cudaGraphNodeTypeExtSemaphoreWait:
      refuse("a graph node of an external semaphore");
    default:
      fail(cudaErrorInvalidValue);
  }
}

// ---- The three things that are done with such an operation: a new node, a change of a node, a change of a step

template <class Make>
cudaError_t add_node(const char* name, cudaGraphNode_t* result, cudaGraph_t handle, const cudaGraphNode_t* dependencies,
                     const cudaGraphEdgeData* data, size_t count, Make&& make) {
  return call(name, [&](Runtime& runtime) {
    require(result != nullptr);
    const Lock lock(runtime.order_mutex);
    const std::shared_ptr<Graph> graph = find_graph(handle, runtime);
    std::vector<Edge> edges = edges_of(*graph, dependencies, data, count, runtime);
    *result = handle_of(graph->add(make(runtime, *graph), std::move(edges)));
  });
}

template <class Make>
cudaError_t set_node(const char* name, cudaGraphNode_t handle, Make&& make) {
  return call(name, [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    Node& node = find_node(handle, runtime);
    Operation operation = make(runtime, node.operation, *node.graph);
    require(operation.index() == node.operation.index());
    node.operation = std::move(operation);
  });
}

template <class Make>
cudaError_t set_step(const char* name, cudaGraphExec_t exec_handle, cudaGraphNode_t handle, Make&& make) {
  return call(name, [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto exec = find_exec(exec_handle, runtime);
    const Node& node = find_node(handle, runtime);
    GraphExec::Step* step = exec->find(&node);
    require(step != nullptr);
    Operation operation = make(runtime, step->operation, *node.graph);
    require(operation.index() == step->operation.index());
    step->operation = std::move(operation);
  });
}

template <class T>
void give_list(const std::vector<T>& source, T* target, size_t* count) {
  require(count != nullptr);
  if (target == nullptr) {
    *count = source.size();
    return;
  }
  const size_t given = std::min(*count, source.size());
  std::copy_n(source.begin(), given, target);
  std::fill(target + given, target + *count, T{});
  *count = given;
}

void give_edges(const std::vector<std::pair<cudaGraphNode_t, cudaGraphEdgeData>>& edges, cudaGraphNode_t* nodes,
                cudaGraphEdgeData* data, size_t* count) {
  std::vector<cudaGraphNode_t> node_list;
  std::vector<cudaGraphEdgeData> data_list;
  bool plain = true;
  for (const auto& [node, edge_data] : edges) {
    node_list.push_back(node);
    data_list.push_back(edge_data);
    plain = plain && same(edge_data, {});
  }
  // Edge data that nobody asks for would be lost.
  require(plain || data != nullptr || nodes == nullptr, cudaErrorLossyQuery);
  require(count != nullptr);
  size_t data_count = *count;
  give_list(node_list, nodes, count);
  if (data != nullptr) give_list(data_list, data, &data_count);
}

std::shared_ptr<GraphExec> make_exec(const std::shared_ptr<Graph>& graph, unsigned long long flags) {
  auto exec = std::make_shared<GraphExec>();
  exec->append(*graph, {});
  exec->flags = flags;
  exec->graph = graph;
  return exec;
}

void instantiate(cudaGraphExec_t* result, cudaGraph_t handle, unsigned long long flags, Runtime& runtime) {
  constexpr unsigned long long kFlags = cudaGraphInstantiateFlagAutoFreeOnLaunch | cudaGraphInstantiateFlagUpload |
                                        cudaGraphInstantiateFlagDeviceLaunch | cudaGraphInstantiateFlagUseNodePriority;
  require(result != nullptr && (flags & ~kFlags) == 0);
  if ((flags & cudaGraphInstantiateFlagDeviceLaunch) != 0) refuse("launching a graph from the device");
  const Lock lock(runtime.order_mutex);
  const std::shared_ptr<Graph> graph = find_graph(handle, runtime);
  const bool memory = graph->has_memory_nodes();
  require(!memory || !graph->instantiated_with_memory, cudaErrorNotSupported);
  auto exec = make_exec(graph, flags);
  graph->instantiated_with_memory = memory;
  for (const auto& [object, count] : graph->user_objects) {
    object->references += 1;
    exec->user_objects.emplace_back(object, 1U);
  }
  *result = runtime.execs.add(std::move(exec));
}

/// A launch that is captured: the steps as a child graph.
std::shared_ptr<Graph> graph_of(const GraphExec& exec, Runtime& runtime) {
  auto graph = std::make_shared<Graph>(runtime);
  std::vector<Node*> made;
  for (const GraphExec::Step& step : exec.steps) {
    std::vector<Edge> edges;
    for (const size_t before : step.after) edges.push_back({made[before], {}});
    made.push_back(graph->add(step.enabled ? step.operation : Operation{EmptyOperation{}}, std::move(edges)));
  }
  return graph;
}

/// Before a launch: allocations of an earlier one that nobody has freed are freed if the program has asked for it, and
/// forbid the launch if not.
void free_outstanding(GraphExec& exec, const Stream& stream, std::vector<TaskPointer>& after, Runtime& runtime) {
  for (const GraphExec::Step& step : exec.steps) {
    const auto* allocate = std::get_if<AllocateOperation>(&step.operation);
    if (allocate == nullptr || !runtime.notes(allocate->allocation).outstanding) continue;
    require((exec.flags & cudaGraphInstantiateFlagAutoFreeOnLaunch) != 0);
    after.push_back(runtime.submit(stream, FreeOperation{allocate->allocation->base}, after));
  }
}

void note_memory(const GraphExec& exec, Runtime& runtime) {
  const auto note = [&runtime](const Allocation* allocation, bool outstanding) {
    runtime.change_notes(allocation, [&](Runtime::Notes& notes) { notes.outstanding = outstanding; });
  };
  for (const GraphExec::Step& step : exec.steps) {
    if (const auto* allocate = std::get_if<AllocateOperation>(&step.operation)) {
      note(allocate->allocation, true);
    } else if (const auto* free = std::get_if<FreeOperation>(&step.operation)) {
      note(runtime.memory().find(free->address), false);
    }
  }
}

void launch(GraphExec& exec, Stream& stream, Runtime& runtime) {
  const Lock lock(runtime.order_mutex);
  if (stream.capture != nullptr) {
    runtime.capture(stream, ChildOperation{graph_of(exec, runtime)});
    return;
  }
  if (stream.kind == Stream::Kind::kLegacy) runtime.forbid_legacy_while_capturing();
  std::vector<TaskPointer> after = runtime.order_after(stream);
  after.push_back(exec.last);
  free_outstanding(exec, stream, after, runtime);
  const TaskPointer begin = runtime.submit(stream, EmptyOperation{}, std::move(after));
  std::vector<TaskPointer> tasks;
  std::vector<bool> followed(exec.steps.size());
  for (const GraphExec::Step& step : exec.steps) {
    std::vector<TaskPointer> before{begin};
    for (const size_t index : step.after) {
      before.push_back(tasks[index]);
      followed[index] = true;
    }
    Operation operation = step.enabled ? step.operation : Operation{EmptyOperation{}};
    if (auto* kernel = std::get_if<KernelOperation>(&operation)) kernel->launch.stream = stream.id;
    tasks.push_back(runtime.submit(stream, std::move(operation), std::move(before)));
  }
  std::vector<TaskPointer> ends{begin};
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (!followed[i]) ends.push_back(tasks[i]);
  }
  stream.last = exec.last = runtime.submit(stream, EmptyOperation{}, std::move(ends));
  note_memory(exec, runtime);
}

struct UpdateFailure {
  cudaGraphExecUpdateResult result;
  const Node* node;
};

/// Takes over the operations of a graph of the same shape.
void update(GraphExec& exec, const std::shared_ptr<Graph>& graph) {
  auto fresh = make_exec(graph, exec.flags);
  if (graph->has_memory_nodes()) throw UpdateFailure{cudaGraphExecUpdateErrorNotSupported, nullptr};
  if (fresh->steps.size() != exec.steps.size()) throw UpdateFailure{cudaGraphExecUpdateErrorTopologyChanged, nullptr};
  for (size_t i = 0; i < exec.steps.size(); ++i) {
    const GraphExec::Step& from = fresh->steps[i];
    if (from.type != exec.steps[i].type) throw UpdateFailure{cudaGraphExecUpdateErrorNodeTypeChanged, from.origin};
    if (from.after != exec.steps[i].after) throw UpdateFailure{cudaGraphExecUpdateErrorTopologyChanged, from.origin};
  }
  for (size_t i = 0; i < exec.steps.size(); ++i) exec.steps[i].operation = std::move(fresh->steps[i].operation);
}

// ---- The picture of a graph

std::string label_of(const Node& node) {
  struct Labels {
    std::string operator()(const KernelOperation& kernel) const {
      const Launch& launch = kernel.launch;
      return fmt::format("KERNEL\\n{}\\n<<<({},{},{}), ({},{},{}), {}>>>", launch.kernel->readable_name(),
                         launch.grid[0], launch.grid[1], launch.grid[2], launch.block[0], launch.block[1],
                         launch.block[2], launch.dynamic_shared);
    }
    std::string operator()(const CopyOperation& copy) const {
      return fmt::format("MEMCPY\\n{:#x} <- {:#x}\\n{} x {} x {}", copy.to.address, copy.from.address,
                         copy.extent.width, copy.extent.height, copy.extent.depth);
    }
    std::string operator()(const FillOperation& fill) const {
      return fmt::format("MEMSET\\n{:#x}\\n{} x {} of {:#x}", fill.to.address, fill.extent.width, fill.extent.height,
                         fill.value);
    }
    std::string operator()(const HostOperation&) const { return "HOST"; }
    std::string operator()(const CallbackOperation&) const { return "HOST"; }
    std::string operator()(const RecordOperation&) const { return "EVENT_RECORD"; }
    std::string operator()(const WaitOperation&) const { return "EVENT_WAIT"; }
    std::string operator()(const AllocateOperation& allocate) const {
      return fmt::format("MEM_ALLOC\\n{:#x}\\n{} bytes", allocate.allocation->base, allocate.allocation->bytes);
    }
    std::string operator()(const FreeOperation& free) const { return fmt::format("MEM_FREE\\n{:#x}", free.address); }
    std::string operator()(const EmptyOperation&) const { return "EMPTY"; }
    std::string operator()(const ChildOperation&) const { return "GRAPH"; }
  };
  return fmt::format("{}\\n{}", node.id, std::visit(Labels{}, node.operation));
}

void draw(const Graph& graph, std::string& text) {
  text += fmt::format("subgraph cluster_{} {{\nlabel=\"graph_{}\"\n", graph.id, graph.id);
  const auto name = [&graph](const Node& node) { return fmt::format("\"graph_{}_node_{}\"", graph.id, node.id); };
  for (const auto& node : graph.nodes) {
    text += fmt::format("{} [shape=\"rectangle\" label=\"{}\"];\n", name(*node), label_of(*node));
  }
  for (const auto& node : graph.nodes) {
    for (const Edge& edge : node->dependencies) text += fmt::format("{} -> {};\n", name(*edge.node), name(*node));
  }
  text += "}\n";
  for (const auto& node : graph.nodes) {
    if (const auto* child = std::get_if<ChildOperation>(&node->operation)) draw(*child->graph, text);
  }
}

}  // namespace

cudaGraphNodeType Node::type() const { return type_of(operation); }

Graph::Graph(Runtime& runtime) : runtime(runtime), id(runtime.next_id++) {}

Graph::~Graph() {
  const Lock lock(runtime.order_mutex);
  for (const auto& node : nodes) {
    runtime.nodes.erase(node.get());
    if (const auto* child = std::get_if<ChildOperation>(&node->operation)) {
      runtime.graphs.remove(handle_of(child->graph.get()));
    }
  }
  for (const auto& [object, count] : user_objects) release(object, count);
}

Node* Graph::add(Operation operation, std::vector<Edge> dependencies) {
  auto& node = nodes.emplace_back(std::make_unique<Node>());
  node->graph = this;
  node->id = runtime.next_id++;
  // The program may ask for the embedded graph.
  if (const auto* child = std::get_if<ChildOperation>(&operation)) runtime.graphs.add(child->graph);
  node->operation = std::move(operation);
  node->dependencies = std::move(dependencies);
  runtime.nodes.insert(node.get());
  return node.get();
}

void Graph::remove(Node* node) {
  for (const auto& other : nodes) {
    std::erase_if(other->dependencies, [node](const Edge& edge) { return edge.node == node; });
  }
  runtime.nodes.erase(node);
  if (const auto* child = std::get_if<ChildOperation>(&node->operation)) {
    runtime.graphs.remove(handle_of(child->graph.get()));
  }
  std::erase_if(nodes, [node](const auto& candidate) { return candidate.get() == node; });
}

bool Graph::has_memory_nodes() const {
  return std::ranges::any_of(nodes, [](const auto& node) { return is_memory_node(node->operation); });
}

std::shared_ptr<Graph> Graph::clone() const {
  auto result = std::make_shared<Graph>(runtime);
  for (const auto& node : nodes) {
    Operation operation = node->operation;
    if (auto* child = std::get_if<ChildOperation>(&operation)) child->graph = child->graph->clone();
    result->copies[node.get()] = result->add(std::move(operation), {});
  }
  for (const auto& node : nodes) {
    std::vector<Edge>& edges = result->copies[node.get()]->dependencies;
    for (const Edge& edge : node->dependencies) edges.push_back({result->copies[edge.node], edge.data});
  }
  for (const auto& [object, count] : user_objects) {
    object->references += count;
    result->user_objects[object] = count;
  }
  return result;
}

std::vector<Node*> Graph::sorted() const {
  std::unordered_map<const Node*, size_t> missing;
  std::unordered_map<const Node*, std::vector<Node*>> followers;
  std::deque<Node*> ready;
  for (const auto& node : nodes) {
    missing[node.get()] = node->dependencies.size();
    for (const Edge& edge : node->dependencies) followers[edge.node].push_back(node.get());
    if (node->dependencies.empty()) ready.push_back(node.get());
  }
  std::vector<Node*> result;
  while (!ready.empty()) {
    Node* node = ready.front();
    ready.pop_front();
    result.push_back(node);
    for (Node* follower : followers[node]) {
      if (--missing[follower] == 0) ready.push_back(follower);
    }
  }
  require(result.size() == nodes.size());
  return result;
}

std::vector<size_t> GraphExec::append(const Graph& source, const std::vector<size_t>& after) {
  std::vector<size_t> ends;
  for (const Node* node : source.sorted()) {
    Step step;
    step.origin = node;
    step.type = node->type();
    for (const Edge& edge : node->dependencies) step.after.push_back(index.at(edge.node));
    if (node->dependencies.empty()) step.after = after;
    for (const size_t before : step.after) std::erase(ends, before);
    step.child_begin = steps.size();
    if (const auto* child = std::get_if<ChildOperation>(&node->operation)) {
      // The node itself is left as the place where the child graph has ended.
      std::vector<size_t> child_ends = append(*child->graph, step.after);
      if (!child_ends.empty()) step.after = std::move(child_ends);
      step.operation = EmptyOperation{};
    } else {
      step.operation = node->operation;
    }
    index[node] = steps.size();
    ends.push_back(steps.size());
    steps.push_back(std::move(step));
  }
  return ends;
}

GraphExec::Step* GraphExec::find(const Node* node) {
  const auto found = index.find(node);
  return found == index.end() ? nullptr : &steps[found->second];
}

void release(const std::shared_ptr<UserObject>& object, unsigned count) {
  require(count > 0 && object->references >= count);
  object->references -= count;
  if (object->references == 0) object->destroy(object->pointer);
}

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags) {
  return call("cudaGraphCreate", [&](Runtime& runtime) {
    require(graph != nullptr && flags == 0);
    *graph = runtime.graphs.add(std::make_shared<Graph>(runtime));
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call("cudaGraphDestroy", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const std::shared_ptr<Graph> found = find_graph(graph, runtime);
    // A child graph is its node's.
    require(std::ranges::none_of(runtime.nodes, [&found](const Node* node) {
      const auto* child = std::get_if<ChildOperation>(&node->operation);
      return child != nullptr && child->graph == found;
    }));
    runtime.graphs.remove(graph);
  });
}

cudaError_t cudaGraphClone(cudaGraph_t* result, cudaGraph_t graph) {
  return call("cudaGraphClone", [&](Runtime& runtime) {
    require(result != nullptr);
    const Lock lock(runtime.order_mutex);
    const auto original = find_graph(graph, runtime);
    require(!original->has_memory_nodes(), cudaErrorNotSupported);
    *result = runtime.graphs.add(original->clone());
  });
}

cudaError_t cudaGraphNodeFindInClone(cudaGraphNode_t* result, cudaGraphNode_t original, cudaGraph_t clone) {
  return call("cudaGraphNodeFindInClone", [&](Runtime& runtime) {
    require(result != nullptr);
    const Lock lock(runtime.order_mutex);
    const auto graph = find_graph(clone, runtime);
    const auto found = graph->copies.find(&find_node(original, runtime));
    require(found != graph->copies.end() && runtime.nodes.contains(found->second));
    *result = handle_of(found->second);
  });
}

// ---- Nodes

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                   size_t count, const cudaKernelNodeParams* parameters) {
  return add_node("cudaGraphAddKernelNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) { return kernel_operation(parameters, {}, runtime); });
}

cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                   size_t count, const cudaMemcpy3DParms* parameters) {
  return add_node(
      "cudaGraphAddMemcpyNode", node, graph, dependencies, nullptr, count,
      [&](Runtime& runtime, const Graph&) { return copy_3d("cudaGraphAddMemcpyNode", parameters, runtime); });
}

cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                     size_t count, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return add_node("cudaGraphAddMemcpyNode1D", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) {
                    return copy_1d("cudaGraphAddMemcpyNode1D", to, from, bytes, kind, runtime);
                  });
}

cudaError_t cudaGraphAddMemcpyNodeToSymbol(cudaGraphNode_t* node, cudaGraph_t graph,
                                           const cudaGraphNode_t* dependencies, size_t count, const void* symbol,
                                           const void* from, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return add_node("cudaGraphAddMemcpyNodeToSymbol", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) {
                    return copy_to_symbol("cudaGraphAddMemcpyNodeToSymbol", symbol, from, bytes, offset, kind, runtime);
                  });
}

cudaError_t cudaGraphAddMemcpyNodeFromSymbol(cudaGraphNode_t* node, cudaGraph_t graph,
                                             const cudaGraphNode_t* dependencies, size_t count, void* to,
                                             const void* symbol, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return add_node("cudaGraphAddMemcpyNodeFromSymbol", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) {
                    return copy_from_symbol("cudaGraphAddMemcpyNodeFromSymbol", to, symbol, bytes, offset, kind,
                                            runtime);
                  });
}

cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                   size_t count, const cudaMemsetParams* parameters) {
  return add_node("cudaGraphAddMemsetNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) { return fill_2d(parameters, runtime); });
}

cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                 size_t count, const cudaHostNodeParams* parameters) {
  return add_node("cudaGraphAddHostNode", node, graph, dependencies, nullptr, count, [&](Runtime&, const Graph&) {
    require(parameters != nullptr);
    return host_operation(parameters->fn, parameters->userData);
  });
}

cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                       size_t count, cudaGraph_t child) {
  return add_node("cudaGraphAddChildGraphNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) { return child_operation(child, runtime); });
}

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                  size_t count) {
  return add_node("cudaGraphAddEmptyNode", node, graph, dependencies, nullptr, count,
                  [](Runtime&, const Graph&) { return EmptyOperation{}; });
}

cudaError_t cudaGraphAddEventRecordNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                        size_t count, cudaEvent_t event) {
  return add_node("cudaGraphAddEventRecordNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) { return record_operation(event, runtime); });
}

cudaError_t cudaGraphAddEventWaitNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                      size_t count, cudaEvent_t event) {
  return add_node("cudaGraphAddEventWaitNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) { return wait_operation(event, runtime); });
}

cudaError_t cudaGraphAddMemAllocNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                     size_t count, cudaMemAllocNodeParams* parameters) {
  return add_node("cudaGraphAddMemAllocNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph&) {
                    require(parameters != nullptr);
                    return allocate_operation(*parameters, runtime);
                  });
}

cudaError_t cudaGraphAddMemFreeNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                    size_t count, void* pointer) {
  return add_node("cudaGraphAddMemFreeNode", node, graph, dependencies, nullptr, count,
                  [&](Runtime& runtime, const Graph& into) { return free_operation(pointer, into, runtime); });
}

cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                             const cudaGraphEdgeData* data, size_t count, cudaGraphNodeParams* parameters) {
  return add_node("cudaGraphAddNode", node, graph, dependencies, data, count, [&](Runtime& runtime, const Graph& into) {
    require(parameters != nullptr);
    return operation_of(*parameters, into, EmptyOperation{}, runtime);
  });
}

cudaError_t cudaGraphDestroyNode(cudaGraphNode_t node) {
  return call("cudaGraphDestroyNode", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    Node& found = find_node(node, runtime);
    require(!is_memory_node(found.operation), cudaErrorNotSupported);
    found.graph->remove(&found);
  });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  return call("cudaGraphNodeGetType", [&](Runtime& runtime) {
    require(type != nullptr);
    const Lock lock(runtime.order_mutex);
    *type = find_node(node, runtime).type();
  });
}

// ---- What nodes hold

cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, cudaKernelNodeParams* parameters) {
  return call("cudaGraphKernelNodeGetParams", [&](Runtime& runtime) {
    require(parameters != nullptr);
    const Lock lock(runtime.order_mutex);
    auto& kernel = content<KernelOperation>(node, runtime);
    Launch& launch = kernel.launch;
    // The list that is given out lives as long as the node.
    kernel.argument_list.clear();
    for (const Kernel::Parameter& parameter : launch.kernel->parameters()) {
      kernel.argument_list.push_back(launch.parameters.data() + parameter.offset);
    }
    const void* function = kernel.function->host != nullptr ? kernel.function->host : kernel.function.get();
    *parameters = {const_cast<void*>(function),
                   {launch.grid[0], launch.grid[1], launch.grid[2]},
                   {launch.block[0], launch.block[1], launch.block[2]},
                   static_cast<unsigned>(launch.dynamic_shared),
                   kernel.argument_list.data(),
                   nullptr};
  });
}

cudaError_t cudaGraphKernelNodeSetParams(cudaGraphNode_t node, const cudaKernelNodeParams* parameters) {
  return set_node("cudaGraphKernelNodeSetParams", node,
                  [&](Runtime& runtime, const Operation& before, const Graph&) -> Operation {
                    return kernel_operation(parameters, attributes_of(before), runtime);
                  });
}

cudaError_t cudaGraphKernelNodeCopyAttributes(cudaGraphNode_t target, cudaGraphNode_t source) {
  return call("cudaGraphKernelNodeCopyAttributes", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const LaunchAttributes attributes = content<KernelOperation>(source, runtime).attributes;
    content<KernelOperation>(target, runtime).attributes = attributes;
  });
}

cudaError_t cudaGraphKernelNodeGetAttribute(cudaGraphNode_t node, cudaLaunchAttributeID id,
                                            cudaLaunchAttributeValue* value) {
  return call("cudaGraphKernelNodeGetAttribute", [&](Runtime& runtime) {
    require(value != nullptr);
    const Lock lock(runtime.order_mutex);
    const auto& kernel = content<KernelOperation>(node, runtime);
    const cudaLaunchAttributeValue* set = kernel.attributes.find(id);
    *value = set == nullptr ? cudaLaunchAttributeValue{} : *set;
  });
}

cudaError_t cudaGraphKernelNodeSetAttribute(cudaGraphNode_t node, cudaLaunchAttributeID id,
                                            const cudaLaunchAttributeValue* value) {
  return call("cudaGraphKernelNodeSetAttribute", [&](Runtime& runtime) {
    require(value != nullptr);
    const Lock lock(runtime.order_mutex);
    auto& kernel = content<KernelOperation>(node, runtime);
    const cudaLaunchAttribute attribute{id, {}, *value};
    for (const cudaLaunchAttribute& checked : read_attributes(&attribute, 1).values) {
      LaunchAttributes attributes = kernel.attributes;
      attributes.set(checked.id, checked.val);
      kernel.launch.cluster = cluster_of(*kernel.function, attributes, runtime);
      if (id == cudaLaunchAttributeCooperative) kernel.launch.cooperative = value->cooperative != 0;
      kernel.attributes = std::move(attributes);
    }
  });
}

cudaError_t cudaGraphMemcpyNodeGetParams(cudaGraphNode_t node, cudaMemcpy3DParms* parameters) {
  return call("cudaGraphMemcpyNodeGetParams", [&](Runtime& runtime) {
    require(parameters != nullptr);
    const Lock lock(runtime.order_mutex);
    *parameters = parameters_of(content<CopyOperation>(node, runtime));
  });
}

cudaError_t cudaGraphMemcpyNodeSetParams(cudaGraphNode_t node, const cudaMemcpy3DParms* parameters) {
  return set_node("cudaGraphMemcpyNodeSetParams", node, [&](Runtime& runtime, const Operation&, const Graph&) {
    return copy_3d("cudaGraphMemcpyNodeSetParams", parameters, runtime);
  });
}

cudaError_t cudaGraphMemcpyNodeSetParams1D(cudaGraphNode_t node, void* to, const void* from, size_t bytes,
                                           cudaMemcpyKind kind) {
  return set_node("cudaGraphMemcpyNodeSetParams1D", node, [&](Runtime& runtime, const Operation&, const Graph&) {
    return copy_1d("cudaGraphMemcpyNodeSetParams1D", to, from, bytes, kind, runtime);
  });
}

cudaError_t cudaGraphMemcpyNodeSetParamsToSymbol(cudaGraphNode_t node, const void* symbol, const void* from,
                                                 size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return set_node("cudaGraphMemcpyNodeSetParamsToSymbol", node, [&](Runtime& runtime, const Operation&, const Graph&) {
    return copy_to_symbol("cudaGraphMemcpyNodeSetParamsToSymbol", symbol, from, bytes, offset, kind, runtime);
  });
}

cudaError_t cudaGraphMemcpyNodeSetParamsFromSymbol(cudaGraphNode_t node, void* to, const void* symbol, size_t bytes,
                                                   size_t offset, cudaMemcpyKind kind) {
  return set_node(
      "cudaGraphMemcpyNodeSetParamsFromSymbol", node, [&](Runtime& runtime, const Operation&, const Graph&) {
        return copy_from_symbol("cudaGraphMemcpyNodeSetParamsFromSymbol", to, symbol, bytes, offset, kind, runtime);
      });
}

cudaError_t cudaGraphMemsetNodeGetParams(cudaGraphNode_t node, cudaMemsetParams* parameters) {
  return call("cudaGraphMemsetNodeGetParams", [&](Runtime& runtime) {
    require(parameters != nullptr);
    const Lock lock(runtime.order_mutex);
    const auto& fill = content<FillOperation>(node, runtime);
    *parameters = {pointer_to(fill.to.address),
                   fill.to.pitch,
                   fill.value,
                   fill.element_bytes,
                   fill.extent.width / fill.element_bytes,
                   fill.extent.height};
  });
}

cudaError_t cudaGraphMemsetNodeSetParams(cudaGraphNode_t node, const cudaMemsetParams* parameters) {
  return set_node("cudaGraphMemsetNodeSetParams", node,
                  [&](Runtime& runtime, const Operation&, const Graph&) { return fill_2d(parameters, runtime); });
}

cudaError_t cudaGraphHostNodeGetParams(cudaGraphNode_t node, cudaHostNodeParams* parameters) {
  return call("cudaGraphHostNodeGetParams", [&](Runtime& runtime) {
    require(parameters != nullptr);
    const Lock lock(runtime.order_mutex);
    const auto& host = content<HostOperation>(node, runtime);
    *parameters = {host.function, host.data};
  });
}

cudaError_t cudaGraphHostNodeSetParams(cudaGraphNode_t node, const cudaHostNodeParams* parameters) {
  return set_node("cudaGraphHostNodeSetParams", node, [&](Runtime&, const Operation&, const Graph&) {
    require(parameters != nullptr);
    return host_operation(parameters->fn, parameters->userData);
  });
}

cudaError_t cudaGraphChildGraphNodeGetGraph(cudaGraphNode_t node, cudaGraph_t* graph) {
  return call("cudaGraphChildGraphNodeGetGraph", [&](Runtime& runtime) {
    require(graph != nullptr);
    const Lock lock(runtime.order_mutex);
    *graph = handle_of(content<ChildOperation>(node, runtime).graph.get());
  });
}

cudaError_t cudaGraphEventRecordNodeGetEvent(cudaGraphNode_t node, cudaEvent_t* event) {
  return call("cudaGraphEventRecordNodeGetEvent", [&](Runtime& runtime) {
    require(event != nullptr);
    const Lock lock(runtime.order_mutex);
    *event = reinterpret_cast<cudaEvent_t>(content<RecordOperation>(node, runtime).event.get());
  });
}

cudaError_t cudaGraphEventRecordNodeSetEvent(cudaGraphNode_t node, cudaEvent_t event) {
  return set_node("cudaGraphEventRecordNodeSetEvent", node,
                  [&](Runtime& runtime, const Operation&, const Graph&) { return record_operation(event, runtime); });
}

cudaError_t cudaGraphEventWaitNodeGetEvent(cudaGraphNode_t node, cudaEvent_t* event) {
  return call("cudaGraphEventWaitNodeGetEvent", [&](Runtime& runtime) {
    require(event != nullptr);
    const Lock lock(runtime.order_mutex);
    *event = reinterpret_cast<cudaEvent_t>(content<WaitOperation>(node, runtime).event.get());
  });
}

cudaError_t cudaGraphEventWaitNodeSetEvent(cudaGraphNode_t node, cudaEvent_t event) {
  return set_node("cudaGraphEventWaitNodeSetEvent", node,
                  [&](Runtime& runtime, const Operation&, const Graph&) { return wait_operation(event, runtime); });
}

cudaError_t cudaGraphMemAllocNodeGetParams(cudaGraphNode_t node, cudaMemAllocNodeParams* parameters) {
  return call("cudaGraphMemAllocNodeGetParams", [&](Runtime& runtime) {
    require(parameters != nullptr);
    const Lock lock(runtime.order_mutex);
    const auto& allocate = content<AllocateOperation>(node, runtime);
    *parameters = allocate.parameters;
    parameters->accessDescs = allocate.access.data();
  });
}

cudaError_t cudaGraphMemFreeNodeGetParams(cudaGraphNode_t node, void* pointer) {
  return call("cudaGraphMemFreeNodeGetParams", [&](Runtime& runtime) {
    require(pointer != nullptr);
    const Lock lock(runtime.order_mutex);
    *static_cast<void**>(pointer) = pointer_to(content<FreeOperation>(node, runtime).address);
  });
}

cudaError_t cudaGraphNodeSetParams(cudaGraphNode_t node, cudaGraphNodeParams* parameters) {
  return set_node("cudaGraphNodeSetParams", node, [&](Runtime& runtime, const Operation& before, const Graph& graph) {
    require(parameters != nullptr);
    require(!is_memory_node(before), cudaErrorNotSupported);
    return operation_of(*parameters, graph, before, runtime);
  });
}

// ---- The shape of a graph

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call("cudaGraphGetNodes", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    std::vector<cudaGraphNode_t> list;
    for (const auto& node : find_graph(graph, runtime)->nodes) list.push_back(handle_of(node.get()));
    give_list(list, nodes, count);
  });
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call("cudaGraphGetRootNodes", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    std::vector<cudaGraphNode_t> list;
    for (const auto& node : find_graph(graph, runtime)->nodes) {
      if (node->dependencies.empty()) list.push_back(handle_of(node.get()));
    }
    give_list(list, nodes, count);
  });
}

cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to, cudaGraphEdgeData* data,
                              size_t* count) {
  return call("cudaGraphGetEdges", [&](Runtime& runtime) {
    require(count != nullptr && (from == nullptr) == (to == nullptr));
    const Lock lock(runtime.order_mutex);
    std::vector<std::pair<cudaGraphNode_t, cudaGraphEdgeData>> edges;
    std::vector<cudaGraphNode_t> targets;
    for (const auto& node : find_graph(graph, runtime)->nodes) {
      for (const Edge& edge : node->dependencies) {
        edges.emplace_back(handle_of(edge.node), edge.data);
        targets.push_back(handle_of(node.get()));
      }
    }
    size_t target_count = *count;
    give_edges(edges, from, data, count);
    if (to != nullptr) give_list(targets, to, &target_count);
  });
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t* dependencies, cudaGraphEdgeData* data,
                                         size_t* count) {
  return call("cudaGraphNodeGetDependencies", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    std::vector<std::pair<cudaGraphNode_t, cudaGraphEdgeData>> edges;
    for (const Edge& edge : find_node(node, runtime).dependencies) edges.emplace_back(handle_of(edge.node), edge.data);
    give_edges(edges, dependencies, data, count);
  });
}

cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t node, cudaGraphNode_t* dependents, cudaGraphEdgeData* data,
                                           size_t* count) {
  return call("cudaGraphNodeGetDependentNodes", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const Node& found = find_node(node, runtime);
    std::vector<std::pair<cudaGraphNode_t, cudaGraphEdgeData>> edges;
    for (const auto& other : found.graph->nodes) {
      for (const Edge& edge : other->dependencies) {
        if (edge.node == &found) edges.emplace_back(handle_of(other.get()), edge.data);
      }
    }
    give_edges(edges, dependents, data, count);
  });
}

cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                     const cudaGraphEdgeData* data, size_t count) {
  return call("cudaGraphAddDependencies", [&](Runtime& runtime) {
    require(count == 0 || (from != nullptr && to != nullptr));
    const Lock lock(runtime.order_mutex);
    const auto into = find_graph(graph, runtime);
    std::vector<std::pair<Node*, Edge>> additions;
    for (size_t i = 0; i < count; ++i) {
      Node& source = find_node(from[i], runtime);
      Node& target = find_node(to[i], runtime);
      const Edge edge{&source, data == nullptr ? cudaGraphEdgeData{} : data[i]};
      require(source.graph == into.get() && target.graph == into.get() && &source != &target);
      require(std::ranges::find(target.dependencies, &source, &Edge::node) == target.dependencies.end());
      check_edge_data(edge.data, source);
      additions.emplace_back(&target, edge);
    }
    for (const auto& [target, edge] : additions) target->dependencies.push_back(edge);
  });
}

cudaError_t cudaGraphRemoveDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                        const cudaGraphEdgeData* data, size_t count) {
  return call("cudaGraphRemoveDependencies", [&](Runtime& runtime) {
    require(count == 0 || (from != nullptr && to != nullptr));
    const Lock lock(runtime.order_mutex);
    const auto into = find_graph(graph, runtime);
    const auto find = [](Node& target, const Node& source) {
      return std::ranges::find(target.dependencies, &source, &Edge::node);
    };
    for (size_t i = 0; i < count; ++i) {
      Node& target = find_node(to[i], runtime);
      require(target.graph == into.get());
      const auto found = find(target, find_node(from[i], runtime));
      require(found != target.dependencies.end());
      require(data == nullptr || same(found->data, data[i]));
    }
    for (size_t i = 0; i < count; ++i) {
      Node& target = find_node(to[i], runtime);
      target.dependencies.erase(find(target, find_node(from[i], runtime)));
    }
  });
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned) {
  return call("cudaGraphDebugDotPrint", [&](Runtime& runtime) {
    require(path != nullptr);
    const Lock lock(runtime.order_mutex);
    std::string text = "digraph dot {\n";
    draw(*find_graph(graph, runtime), text);
    text += "}\n";
    std::FILE* file = std::fopen(path, "w");
    require(file != nullptr, cudaErrorOperatingSystem);
    const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    require(std::fclose(file) == 0 && written, cudaErrorOperatingSystem);
  });
}

// ---- Executable graphs

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return call("cudaGraphInstantiate", [&](Runtime& runtime) { instantiate(exec, graph, flags, runtime); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return call("cudaGraphInstantiateWithFlags", [&](Runtime& runtime) { instantiate(exec, graph, flags, runtime); });
}

cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t* exec, cudaGraph_t graph,
                                           cudaGraphInstantiateParams* parameters) {
  return call("cudaGraphInstantiateWithParams", [&](Runtime& runtime) {
    require(parameters != nullptr);
    parameters->errNode_out = nullptr;
    parameters->result_out = cudaGraphInstantiateError;
    instantiate(exec, graph, parameters->flags, runtime);
    parameters->result_out = cudaGraphInstantiateSuccess;
  });
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t exec, unsigned long long* flags) {
  return call("cudaGraphExecGetFlags", [&](Runtime& runtime) {
    require(flags != nullptr);
    *flags = find_exec(exec, runtime)->flags;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return call("cudaGraphUpload", [&](Runtime& runtime) {
    find_exec(exec, runtime);  // there is nothing to bring to the device
    runtime.enqueue(*runtime.stream(stream), EmptyOperation{});
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call("cudaGraphLaunch", [&](Runtime& runtime) {
    const auto found = find_exec(exec, runtime);
    launch(*found, *runtime.stream(stream), runtime);
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call("cudaGraphExecDestroy", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto found = runtime.execs.remove(exec);
    require(found != nullptr);
    if (const auto graph = found->graph.lock()) graph->instantiated_with_memory = false;
    for (const auto& [object, count] : found->user_objects) release(object, count);
  });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* info) {
  return call("cudaGraphExecUpdate", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto target = find_exec(exec, runtime);
    const auto source = find_graph(graph, runtime);
    cudaGraphExecUpdateResultInfo result{cudaGraphExecUpdateSuccess, nullptr, nullptr};
    try {
      update(*target, source);
    } catch (const UpdateFailure& failure) {
      result = {failure.result, handle_of(failure.node), nullptr};
    }
    if (info != nullptr) *info = result;
    require(result.result == cudaGraphExecUpdateSuccess, cudaErrorGraphExecUpdateFailure);
  });
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* parameters) {
  return set_step("cudaGraphExecKernelNodeSetParams", exec, node,
                  [&](Runtime& runtime, const Operation& before, const Graph&) -> Operation {
                    return kernel_operation(parameters, attributes_of(before), runtime);
                  });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaMemcpy3DParms* parameters) {
  return set_step("cudaGraphExecMemcpyNodeSetParams", exec, node,
                  [&](Runtime& runtime, const Operation&, const Graph&) {
                    return copy_3d("cudaGraphExecMemcpyNodeSetParams", parameters, runtime);
                  });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t exec, cudaGraphNode_t node, void* to, const void* from,
                                               size_t bytes, cudaMemcpyKind kind) {
  return set_step("cudaGraphExecMemcpyNodeSetParams1D", exec, node,
                  [&](Runtime& runtime, const Operation&, const Graph&) {
                    return copy_1d("cudaGraphExecMemcpyNodeSetParams1D", to, from, bytes, kind, runtime);
                  });
}

cudaError_t cudaGraphExecMemcpyNodeSetParamsToSymbol(cudaGraphExec_t exec, cudaGraphNode_t node, const void* symbol,
                                                     const void* from, size_t bytes, size_t offset,
                                                     cudaMemcpyKind kind) {
  return set_step(
      "cudaGraphExecMemcpyNodeSetParamsToSymbol", exec, node, [&](Runtime& runtime, const Operation&, const Graph&) {
        return copy_to_symbol("cudaGraphExecMemcpyNodeSetParamsToSymbol", symbol, from, bytes, offset, kind, runtime);
      });
}

cudaError_t cudaGraphExecMemcpyNodeSetParamsFromSymbol(cudaGraphExec_t exec, cudaGraphNode_t node, void* to,
                                                       const void* symbol, size_t bytes, size_t offset,
                                                       cudaMemcpyKind kind) {
  return set_step(
      "cudaGraphExecMemcpyNodeSetParamsFromSymbol", exec, node, [&](Runtime& runtime, const Operation&, const Graph&) {
        return copy_from_symbol("cudaGraphExecMemcpyNodeSetParamsFromSymbol", to, symbol, bytes, offset, kind, runtime);
      });
}

cudaError_t cudaGraphExecMemsetNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaMemsetParams* parameters) {
  return set_step("cudaGraphExecMemsetNodeSetParams", exec, node,
                  [&](Runtime& runtime, const Operation&, const Graph&) { return fill_2d(parameters, runtime); });
}

cudaError_t cudaGraphExecHostNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                           const cudaHostNodeParams* parameters) {
  return set_step("cudaGraphExecHostNodeSetParams", exec, node, [&](Runtime&, const Operation&, const Graph&) {
    require(parameters != nullptr);
    return host_operation(parameters->fn, parameters->userData);
  });
}

cudaError_t cudaGraphExecEventRecordNodeSetEvent(cudaGraphExec_t exec, cudaGraphNode_t node, cudaEvent_t event) {
  return set_step("cudaGraphExecEventRecordNodeSetEvent", exec, node,
                  [&](Runtime& runtime, const Operation&, const Graph&) { return record_operation(event, runtime); });
}

cudaError_t cudaGraphExecEventWaitNodeSetEvent(cudaGraphExec_t exec, cudaGraphNode_t node, cudaEvent_t event) {
  return set_step("cudaGraphExecEventWaitNodeSetEvent", exec, node,
                  [&](Runtime& runtime, const Operation&, const Graph&) { return wait_operation(event, runtime); });
}

cudaError_t cudaGraphExecNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, cudaGraphNodeParams* parameters) {
  return call("cudaGraphExecNodeSetParams", [&](Runtime&) {
    require(parameters != nullptr);
    const cudaError_t result = parameters->type == cudaGraphNodeTypeGraph
                                   ? cudaGraphExecChildGraphNodeSetParams(exec, node, parameters->graph.graph)
                                   : set_step("cudaGraphExecNodeSetParams", exec, node,
                                              [&](Runtime& runtime, const Operation& before, const Graph& graph) {
                                                require(!is_memory_node(before), cudaErrorNotSupported);
                                                return operation_of(*parameters, graph, before, runtime);
                                              });
    require(result == cudaSuccess, result);
  });
}

cudaError_t cudaGraphExecChildGraphNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, cudaGraph_t child) {
  return call("cudaGraphExecChildGraphNodeSetParams", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto target = find_exec(exec, runtime);
    const GraphExec::Step* step = target->find(&find_node(node, runtime));
    require(step != nullptr && step->type == cudaGraphNodeTypeGraph);
    const auto end = static_cast<size_t>(step - target->steps.data());
    const auto fresh = make_exec(find_graph(child, runtime), 0);
    // The new graph has the old one's shape; its steps lie before the node's own.
    require(fresh->steps.size() == end - step->child_begin, cudaErrorGraphExecUpdateFailure);
    for (size_t i = 0; i < fresh->steps.size(); ++i) {
      require(fresh->steps[i].type == target->steps[step->child_begin + i].type, cudaErrorGraphExecUpdateFailure);
    }
    for (size_t i = 0; i < fresh->steps.size(); ++i) {
      target->steps[step->child_begin + i].operation = std::move(fresh->steps[i].operation);
    }
  });
}

cudaError_t cudaGraphNodeSetEnabled(cudaGraphExec_t exec, cudaGraphNode_t node, unsigned enabled) {
  return call("cudaGraphNodeSetEnabled", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    GraphExec::Step* step = find_exec(exec, runtime)->find(&find_node(node, runtime));
    require(step != nullptr);
    require(step->type == cudaGraphNodeTypeKernel || step->type == cudaGraphNodeTypeMemcpy ||
            step->type == cudaGraphNodeTypeMemset);
    step->enabled = enabled != 0;
  });
}

cudaError_t cudaGraphNodeGetEnabled(cudaGraphExec_t exec, cudaGraphNode_t node, unsigned* enabled) {
  return call("cudaGraphNodeGetEnabled", [&](Runtime& runtime) {
    require(enabled != nullptr);
    const Lock lock(runtime.order_mutex);
    const GraphExec::Step* step = find_exec(exec, runtime)->find(&find_node(node, runtime));
    require(step != nullptr);
    *enabled = step->enabled ? 1 : 0;
  });
}

// ---- Objects that live as long as a graph needs them

cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* pointer, cudaHostFn_t destroy, unsigned references,
                                 unsigned flags) {
  return call("cudaUserObjectCreate", [&](Runtime& runtime) {
    require(object != nullptr && destroy != nullptr && references > 0 && flags == cudaUserObjectNoDestructorSync);
    auto made = std::make_shared<UserObject>();
    *made = {pointer, destroy, references};
    *object = runtime.user_objects.add(std::move(made));
  });
}

cudaError_t cudaUserObjectRetain(cudaUserObject_t handle, unsigned count) {
  return call("cudaUserObjectRetain", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto object = runtime.user_objects.find(handle);
    require(object != nullptr && count > 0);
    object->references += count;
  });
}

cudaError_t cudaUserObjectRelease(cudaUserObject_t handle, unsigned count) {
  return call("cudaUserObjectRelease", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto object = runtime.user_objects.find(handle);
    require(object != nullptr);
    release(object, count);
    if (object->references == 0) runtime.user_objects.remove(handle);
  });
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t handle, unsigned count, unsigned flags) {
  return call("cudaGraphRetainUserObject", [&](Runtime& runtime) {
    require(count > 0 && (flags & ~static_cast<unsigned>(cudaGraphUserObjectMove)) == 0);
    const Lock lock(runtime.order_mutex);
    const auto into = find_graph(graph, runtime);
    const auto object = runtime.user_objects.find(handle);
    require(object != nullptr);
    if ((flags & cudaGraphUserObjectMove) == 0) object->references += count;
    into->user_objects[object] += count;
  });
}

cudaError_t cudaGraphReleaseUserObject(cudaGraph_t graph, cudaUserObject_t handle, unsigned count) {
  return call("cudaGraphReleaseUserObject", [&](Runtime& runtime) {
    const Lock lock(runtime.order_mutex);
    const auto from = find_graph(graph, runtime);
    const auto object = runtime.user_objects.find(handle);
    const auto held = from->user_objects.find(object);
    require(object != nullptr && held != from->user_objects.end() && held->second >= count);
    release(object, count);
    held->second -= count;
    if (held->second == 0) from->user_objects.erase(held);
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
