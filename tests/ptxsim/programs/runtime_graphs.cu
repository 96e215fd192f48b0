// Graphs made node by node: every kind of node, their order, what can be asked and changed, memory nodes.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__device__ int variable;

__global__ void append(int* x, int value) { *x = *x * 10 + value; }
__global__ void add(int* x, int value) { x[threadIdx.x] += value; }

struct KernelNode {
  KernelNode(void (*kernel)(int*, int), int* pointer, int number, unsigned threads = 1) : x(pointer), value(number) {
    parameters.func = reinterpret_cast<void*>(kernel);
    parameters.gridDim = dim3(1);
    parameters.blockDim = dim3(threads);
    parameters.kernelParams = arguments;
  }
  int* x;
  int value;
  void* arguments[2] = {&x, &value};
  cudaKernelNodeParams parameters{};
};

cudaGraphExec_t instantiate(cudaGraph_t graph, unsigned long long flags = 0) {
  cudaGraphExec_t exec;
  EXPECT_OK(cudaGraphInstantiate(&exec, graph, flags));
  return exec;
}

void run(cudaGraphExec_t exec, int times = 1) {
  for (int i = 0; i < times; ++i) EXPECT_OK(cudaGraphLaunch(exec, nullptr));
  EXPECT_OK(cudaDeviceSynchronize());
}

void count_call(void* data) { ++*static_cast<std::atomic<int>*>(data); }

void every_kind_of_node() {
  const Buffer<int> x(4), y(4);
  std::vector<int> in{1, 2, 3, 4}, out(4);
  std::atomic<int> calls{0};
  cudaGraph_t graph, child;
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  EXPECT_OK(cudaGraphCreate(&child, 0));

  cudaGraphNode_t copy, fill, empty, kernel, host, nested, symbol, from_symbol, record, wait, back;
  EXPECT_OK(cudaGraphAddMemcpyNode1D(&copy, graph, nullptr, 0, x.get(), in.data(), 16, cudaMemcpyHostToDevice));
  cudaMemsetParams memset{};
  memset.dst = y.get();
  memset.elementSize = 4;
  memset.value = 1000;
  memset.width = 4;
  memset.height = 1;
  EXPECT_OK(cudaGraphAddMemsetNode(&fill, graph, nullptr, 0, &memset));
  const cudaGraphNode_t both[] = {copy, fill};
  EXPECT_OK(cudaGraphAddEmptyNode(&empty, graph, both, 2));
  KernelNode k(add, x.get(), 10, 4);
  EXPECT_OK(cudaGraphAddKernelNode(&kernel, graph, &empty, 1, &k.parameters));
  const cudaHostNodeParams host_parameters{count_call, &calls};
  EXPECT_OK(cudaGraphAddHostNode(&host, graph, &kernel, 1, &host_parameters));
  KernelNode inner(add, x.get(), 100, 4);
  cudaGraphNode_t inner_node;
  EXPECT_OK(cudaGraphAddKernelNode(&inner_node, child, nullptr, 0, &inner.parameters));
  EXPECT_OK(cudaGraphAddChildGraphNode(&nested, graph, &host, 1, child));
  EXPECT_OK(cudaGraphAddMemcpyNodeToSymbol(&symbol, graph, &nested, 1, variable, x.get() + 3, 4, 0,
                                           cudaMemcpyDeviceToDevice));
  EXPECT_OK(cudaGraphAddMemcpyNodeFromSymbol(&from_symbol, graph, &symbol, 1, y.get() + 1, variable, 4, 0,
                                             cudaMemcpyDeviceToDevice));
  cudaEvent_t event, other_event;
  EXPECT_OK(cudaEventCreate(&event));
  EXPECT_OK(cudaEventCreate(&other_event));
  EXPECT_OK(cudaGraphAddEventRecordNode(&record, graph, &from_symbol, 1, event));
  EXPECT_OK(cudaGraphAddEventWaitNode(&wait, graph, &record, 1, event));
  cudaMemcpy3DParms copy3d{};
  copy3d.srcPtr = make_cudaPitchedPtr(y.get(), 16, 4, 1);
  copy3d.dstPtr = make_cudaPitchedPtr(out.data(), 16, 4, 1);
  copy3d.extent = make_cudaExtent(16, 1, 1);
  copy3d.kind = cudaMemcpyDeviceToHost;
  EXPECT_OK(cudaGraphAddMemcpyNode(&back, graph, &wait, 1, &copy3d));

  cudaGraphExec_t exec = instantiate(graph);
  run(exec);
  EXPECT(out == (std::vector<int>{1000, 114, 1000, 1000}));
  EXPECT(x.download() == (std::vector<int>{111, 112, 113, 114}));
  EXPECT(calls == 1);
  EXPECT_OK(cudaEventQuery(event));
  run(exec, 3);
  EXPECT(calls == 4);

  // What nodes answer.
  const std::pair<cudaGraphNode_t, cudaGraphNodeType> types[] = {
      {copy, cudaGraphNodeTypeMemcpy},        {fill, cudaGraphNodeTypeMemset},    {empty, cudaGraphNodeTypeEmpty},
      {kernel, cudaGraphNodeTypeKernel},      {host, cudaGraphNodeTypeHost},      {nested, cudaGraphNodeTypeGraph},
      {record, cudaGraphNodeTypeEventRecord}, {wait, cudaGraphNodeTypeWaitEvent},
  };
  for (const auto& [node, want] : types) {
    cudaGraphNodeType type;
    EXPECT_OK(cudaGraphNodeGetType(node, &type));
    EXPECT(type == want);
  }
  cudaKernelNodeParams kernel_parameters;
  EXPECT_OK(cudaGraphKernelNodeGetParams(kernel, &kernel_parameters));
  EXPECT(kernel_parameters.func == reinterpret_cast<void*>(add) && kernel_parameters.blockDim.x == 4);
  EXPECT(*static_cast<int*>(kernel_parameters.kernelParams[1]) == 10);
  cudaMemsetParams memset_back;
  EXPECT_OK(cudaGraphMemsetNodeGetParams(fill, &memset_back));
  EXPECT(memset_back.dst == memset.dst && memset_back.value == 1000 && memset_back.width == 4 &&
         memset_back.elementSize == 4);
  cudaMemcpy3DParms copy_back;
  EXPECT_OK(cudaGraphMemcpyNodeGetParams(back, &copy_back));
  EXPECT(copy_back.srcPtr.ptr == y.get() && copy_back.extent.width == 16);
  cudaHostNodeParams host_back;
  EXPECT_OK(cudaGraphHostNodeGetParams(host, &host_back));
  EXPECT(host_back.fn == count_call && host_back.userData == &calls);
  cudaEvent_t event_back;
  EXPECT_OK(cudaGraphEventRecordNodeGetEvent(record, &event_back));
  EXPECT(event_back == event);
  cudaGraph_t child_back;
  EXPECT_OK(cudaGraphChildGraphNodeGetGraph(nested, &child_back));
  EXPECT(child_back != child);  // the node has a copy
  EXPECT_ERROR(cudaGraphKernelNodeGetParams(host, &kernel_parameters), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaGraphDestroy(child_back), cudaErrorInvalidValue);
  cudaGetLastError();

  // Changes of the executable graph change neither the graph nor each other.
  int* const x_pointer = x.get();
  KernelNode changed(add, x_pointer, 20, 4);
  EXPECT_OK(cudaGraphExecKernelNodeSetParams(exec, kernel, &changed.parameters));
  memset.value = 2000;
  EXPECT_OK(cudaGraphExecMemsetNodeSetParams(exec, fill, &memset));
  std::vector<int> other_in{5, 6, 7, 8};
  EXPECT_OK(cudaGraphExecMemcpyNodeSetParams1D(exec, copy, x.get(), other_in.data(), 16, cudaMemcpyHostToDevice));
  std::atomic<int> other_calls{0};
  const cudaHostNodeParams other_host{count_call, &other_calls};
  EXPECT_OK(cudaGraphExecHostNodeSetParams(exec, host, &other_host));
  EXPECT_OK(cudaGraphExecEventRecordNodeSetEvent(exec, record, other_event));
  EXPECT_OK(cudaGraphExecEventWaitNodeSetEvent(exec, wait, other_event));
  cudaGraph_t other_child;
  EXPECT_OK(cudaGraphCreate(&other_child, 0));
  KernelNode other_inner(add, x.get(), 300, 4);
  EXPECT_OK(cudaGraphAddKernelNode(&inner_node, other_child, nullptr, 0, &other_inner.parameters));
  EXPECT_OK(cudaGraphExecChildGraphNodeSetParams(exec, nested, other_child));
  run(exec);
  EXPECT(x.download() == (std::vector<int>{325, 326, 327, 328}));
  EXPECT(out == (std::vector<int>{2000, 328, 2000, 2000}));
  EXPECT(calls == 4 && other_calls == 1);
  EXPECT_OK(cudaEventQuery(other_event));

  // A node that is switched off.
  EXPECT_OK(cudaGraphNodeSetEnabled(exec, kernel, 0));
  unsigned enabled = 1;
  EXPECT_OK(cudaGraphNodeGetEnabled(exec, kernel, &enabled));
  EXPECT(enabled == 0);
  run(exec);
  EXPECT(x.download() == (std::vector<int>{305, 306, 307, 308}));
  EXPECT_ERROR(cudaGraphNodeSetEnabled(exec, host, 0), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaGraphExecDestroy(exec));

  // The graph itself is as it was; and can be changed for the next one.
  EXPECT_OK(cudaGraphKernelNodeSetParams(kernel, &changed.parameters));
  exec = instantiate(graph);
  run(exec);
  EXPECT(x.download() == (std::vector<int>{121, 122, 123, 124}));
  EXPECT_OK(cudaGraphExecDestroy(exec));
  for (const cudaGraph_t g : {graph, child, other_child}) EXPECT_OK(cudaGraphDestroy(g));
  EXPECT_OK(cudaEventDestroy(event));
  EXPECT_OK(cudaEventDestroy(other_event));
}

void shape() {
  const Buffer<int> x(std::vector<int>{0});
  cudaGraph_t graph;
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  std::vector<cudaGraphNode_t> nodes(4);
  for (int i = 0; i < 4; ++i) {
    KernelNode k(append, x.get(), i + 1);
    EXPECT_OK(cudaGraphAddKernelNode(&nodes[static_cast<size_t>(i)], graph, nullptr, 0, &k.parameters));
  }
  // 4 before 3 before 2 before 1: against the order in which they were made.
  const cudaGraphNode_t from[] = {nodes[3], nodes[2], nodes[1]}, to[] = {nodes[2], nodes[1], nodes[0]};
  EXPECT_OK(cudaGraphAddDependencies(graph, from, to, nullptr, 3));
  EXPECT_ERROR(cudaGraphAddDependencies(graph, from, to, nullptr, 1), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaGraphAddDependencies(graph, from, from, nullptr, 1), cudaErrorInvalidValue);
  size_t count = 10;
  cudaGraphNode_t found[10], found_to[10];
  EXPECT_OK(cudaGraphGetRootNodes(graph, found, &count));
  EXPECT(count == 1 && found[0] == nodes[3]);
  count = 10;
  EXPECT_OK(cudaGraphGetEdges(graph, found, found_to, nullptr, &count));
  EXPECT(count == 3);
  count = 10;
  EXPECT_OK(cudaGraphNodeGetDependencies(nodes[1], found, nullptr, &count));
  EXPECT(count == 1 && found[0] == nodes[2]);
  count = 10;
  EXPECT_OK(cudaGraphNodeGetDependentNodes(nodes[1], found, nullptr, &count));
  EXPECT(count == 1 && found[0] == nodes[0]);
  cudaGraphExec_t exec = instantiate(graph);
  run(exec);
  EXPECT(x.download()[0] == 4321);
  EXPECT_OK(cudaGraphExecDestroy(exec));

  cudaGraphExec_t none;
  EXPECT_OK(cudaGraphAddDependencies(graph, &nodes[0], &nodes[3], nullptr, 1));  // a circle
  EXPECT_ERROR(cudaGraphInstantiate(&none, graph, 0), cudaErrorInvalidValue);
  EXPECT_OK(cudaGraphRemoveDependencies(graph, &nodes[0], &nodes[3], nullptr, 1));
  EXPECT_ERROR(cudaGraphRemoveDependencies(graph, &nodes[0], &nodes[3], nullptr, 1), cudaErrorInvalidValue);

  // Copies, and what in them corresponds to what.
  cudaGraph_t copy;
  cudaGraphNode_t in_copy;
  EXPECT_OK(cudaGraphClone(&copy, graph));
  EXPECT_OK(cudaGraphNodeFindInClone(&in_copy, nodes[2], copy));
  EXPECT(in_copy != nodes[2]);
  EXPECT_OK(cudaGraphDestroyNode(in_copy));
  EXPECT_ERROR(cudaGraphDestroyNode(in_copy), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaGraphNodeFindInClone(&in_copy, nodes[2], copy), cudaErrorInvalidValue);
  count = 0;
  EXPECT_OK(cudaGraphGetNodes(copy, nullptr, &count));
  EXPECT(count == 3);
  EXPECT_OK(cudaGraphGetNodes(graph, nullptr, &count));
  EXPECT(count == 4);
  EXPECT_OK(cudaGraphDestroy(copy));

  // The picture.
  const std::string path = "runtime_graphs_" + std::to_string(reinterpret_cast<uintptr_t>(&count)) + ".dot";
  EXPECT_OK(cudaGraphDebugDotPrint(graph, path.c_str(), cudaGraphDebugDotFlagsVerbose));
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT(text.find("digraph") == 0 && text.find("append") != std::string::npos);
  EXPECT(text.find("->") != std::string::npos);
  std::remove(path.c_str());
  EXPECT_OK(cudaGraphDestroy(graph));
  EXPECT_ERROR(cudaGraphDestroy(graph), cudaErrorInvalidValue);
  cudaGetLastError();
}

void edges_with_data() {
  const Buffer<int> x(std::vector<int>{0});
  cudaGraph_t graph;
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  KernelNode k(append, x.get(), 1), l(append, x.get(), 2);
  cudaGraphNode_t first, second;
  cudaGraphNodeParams parameters{};
  parameters.type = cudaGraphNodeTypeKernel;
  parameters.kernel.func = k.parameters.func;
  parameters.kernel.gridDim = parameters.kernel.blockDim = dim3(1);
  parameters.kernel.kernelParams = k.arguments;
  EXPECT_OK(cudaGraphAddNode(&first, graph, nullptr, nullptr, 0, &parameters));
  cudaGraphEdgeData edge{};
  edge.type = cudaGraphDependencyTypeProgrammatic;
  edge.from_port = cudaGraphKernelNodePortProgrammatic;
  parameters.kernel.kernelParams = l.arguments;
  EXPECT_OK(cudaGraphAddNode(&second, graph, &first, &edge, 1, &parameters));
  size_t count = 1;
  cudaGraphNode_t from, to;
  EXPECT_ERROR(cudaGraphGetEdges(graph, &from, &to, nullptr, &count), cudaErrorLossyQuery);
  cudaGraphEdgeData data{};
  count = 1;
  EXPECT_OK(cudaGraphGetEdges(graph, &from, &to, &data, &count));
  EXPECT(data.type == edge.type && data.from_port == edge.from_port && from == first && to == second);
  cudaGraphExec_t exec = instantiate(graph);
  run(exec);
  EXPECT(x.download()[0] == 12);
  int value = 7;
  int* pointer = x.get();
  void* arguments[] = {&pointer, &value};
  parameters.kernel.kernelParams = arguments;
  EXPECT_OK(cudaGraphExecNodeSetParams(exec, second, &parameters));
  run(exec);
  EXPECT(x.download()[0] == 1217);
  EXPECT_OK(cudaGraphExecDestroy(exec));
  parameters = {};
  parameters.type = cudaGraphNodeTypeConditional;
  EXPECT_ERROR(cudaGraphAddNode(&second, graph, nullptr, nullptr, 0, &parameters), cudaErrorNotSupported);
  cudaGetLastError();
  EXPECT_OK(cudaGraphDestroy(graph));
}

void update() {
  const Buffer<int> x(std::vector<int>{0});
  const auto make = [&x](int a, int b, bool chained) {
    cudaGraph_t graph;
    EXPECT_OK(cudaGraphCreate(&graph, 0));
    cudaGraphNode_t first, second;
    KernelNode k(append, x.get(), a), l(append, x.get(), b);
    EXPECT_OK(cudaGraphAddKernelNode(&first, graph, nullptr, 0, &k.parameters));
    EXPECT_OK(cudaGraphAddKernelNode(&second, graph, &first, chained ? 1 : 0, &l.parameters));
    return graph;
  };
  cudaGraph_t one = make(1, 2, true), two = make(3, 4, true), other_shape = make(5, 6, false), other_type;
  EXPECT_OK(cudaGraphCreate(&other_type, 0));
  cudaGraphNode_t first, second;
  EXPECT_OK(cudaGraphAddEmptyNode(&first, other_type, nullptr, 0));
  EXPECT_OK(cudaGraphAddEmptyNode(&second, other_type, &first, 1));
  cudaGraphExec_t exec = instantiate(one);
  run(exec);
  cudaGraphExecUpdateResultInfo info;
  EXPECT_OK(cudaGraphExecUpdate(exec, two, &info));
  EXPECT(info.result == cudaGraphExecUpdateSuccess);
  run(exec);
  EXPECT(x.download()[0] == 1234);
  EXPECT_ERROR(cudaGraphExecUpdate(exec, other_shape, &info), cudaErrorGraphExecUpdateFailure);
  EXPECT(info.result == cudaGraphExecUpdateErrorTopologyChanged);
  EXPECT_ERROR(cudaGraphExecUpdate(exec, other_type, &info), cudaErrorGraphExecUpdateFailure);
  EXPECT(info.result == cudaGraphExecUpdateErrorNodeTypeChanged && info.errorNode == first);
  cudaGetLastError();
  run(exec);  // unharmed
  EXPECT(x.download()[0] == 123434);
  EXPECT_OK(cudaGraphUpload(exec, nullptr));
  unsigned long long flags = 1;
  EXPECT_OK(cudaGraphExecGetFlags(exec, &flags));
  EXPECT(flags == 0);
  EXPECT_OK(cudaGraphExecDestroy(exec));
  EXPECT_ERROR(cudaGraphLaunch(exec, nullptr), cudaErrorInvalidValue);
  cudaGetLastError();
  for (const cudaGraph_t g : {one, two, other_shape, other_type}) EXPECT_OK(cudaGraphDestroy(g));
}

uint64_t graph_memory() {
  uint64_t used;
  EXPECT_OK(cudaDeviceGetGraphMemAttribute(0, cudaGraphMemAttrUsedMemCurrent, &used));
  return used;
}

void memory_nodes() {
  const Buffer<int> out(std::vector<int>(4, 0));
  cudaGraph_t graph;
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  cudaMemAllocNodeParams allocation{};
  allocation.poolProps.allocType = cudaMemAllocationTypePinned;
  allocation.poolProps.location = {cudaMemLocationTypeDevice, 0};
  allocation.bytesize = 16;
  cudaGraphNode_t allocate, fill, work, copy, release;
  EXPECT_OK(cudaGraphAddMemAllocNode(&allocate, graph, nullptr, 0, &allocation));
  EXPECT(allocation.dptr != nullptr);
  int* temporary = static_cast<int*>(allocation.dptr);
  cudaMemsetParams memset{};
  memset.dst = temporary;
  memset.elementSize = 1;
  memset.value = 0;
  memset.width = 16;
  memset.height = 1;
  EXPECT_OK(cudaGraphAddMemsetNode(&fill, graph, &allocate, 1, &memset));
  KernelNode k(add, temporary, 5, 4);
  EXPECT_OK(cudaGraphAddKernelNode(&work, graph, &fill, 1, &k.parameters));
  EXPECT_OK(cudaGraphAddMemcpyNode1D(&copy, graph, &work, 1, out.get(), temporary, 16, cudaMemcpyDeviceToDevice));

  // Without a node that frees it the memory outlives the launch, and the next launch must wait until it is free.
  cudaGraphExec_t exec = instantiate(graph), another;
  EXPECT_ERROR(cudaGraphInstantiate(&another, graph, 0), cudaErrorNotSupported);
  EXPECT_ERROR(cudaGraphClone(&graph, graph), cudaErrorNotSupported);
  run(exec);
  EXPECT(out.download() == std::vector<int>(4, 5));
  EXPECT(graph_memory() == 512);
  EXPECT_ERROR(cudaGraphLaunch(exec, nullptr), cudaErrorInvalidValue);
  std::vector<int> direct(4);
  EXPECT_OK(cudaMemcpy(direct.data(), temporary, 16, cudaMemcpyDeviceToHost));
  EXPECT(direct == std::vector<int>(4, 5));
  EXPECT_OK(cudaFreeAsync(temporary, nullptr));
  run(exec);
  EXPECT_OK(cudaFree(temporary));
  EXPECT(graph_memory() == 0);
  run(exec);
  EXPECT_OK(cudaFree(temporary));
  EXPECT_OK(cudaGraphExecDestroy(exec));

  // Or the launch frees it.
  exec = instantiate(graph, cudaGraphInstantiateFlagAutoFreeOnLaunch);
  run(exec, 3);
  EXPECT(graph_memory() == 512);
  EXPECT_OK(cudaFree(temporary));
  EXPECT_OK(cudaGraphExecDestroy(exec));

  EXPECT_OK(cudaGraphAddMemFreeNode(&release, graph, &copy, 1, temporary));
  EXPECT_ERROR(cudaGraphAddMemFreeNode(&release, graph, &copy, 1, temporary), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaGraphDestroyNode(release), cudaErrorNotSupported);
  void* freed;
  EXPECT_OK(cudaGraphMemFreeNodeGetParams(release, &freed));
  EXPECT(freed == temporary);
  exec = instantiate(graph);
  run(exec, 5);
  EXPECT(graph_memory() == 0);
  EXPECT_OK(cudaDeviceGraphMemTrim(0));
  cudaGetLastError();
  EXPECT_OK(cudaGraphExecDestroy(exec));
  EXPECT_OK(cudaGraphDestroy(graph));
}

struct Calls {
  std::atomic<int> inner{0}, running{0}, most{0};
  int seen = -1;
};

void sleep_and_count(void* data) {
  auto* calls = static_cast<Calls*>(data);
  calls->most = std::max<int>(calls->most, ++calls->running);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  --calls->running;
  ++calls->inner;
}

/// What follows a child graph follows all of it; and two launches of an executable graph, be it in streams that know
/// nothing of each other, come one after the other.
void order_of_children_and_launches() {
  Calls calls;
  cudaGraph_t child, graph;
  cudaGraphNode_t inner, nested, after;
  EXPECT_OK(cudaGraphCreate(&child, 0));
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  const cudaHostNodeParams slow{sleep_and_count, &calls};
  EXPECT_OK(cudaGraphAddHostNode(&inner, child, nullptr, 0, &slow));
  EXPECT_OK(cudaGraphAddChildGraphNode(&nested, graph, nullptr, 0, child));
  const cudaHostNodeParams look{[](void* data) { static_cast<Calls*>(data)->seen = static_cast<Calls*>(data)->inner; },
                                &calls};
  EXPECT_OK(cudaGraphAddHostNode(&after, graph, &nested, 1, &look));
  cudaGraphExec_t exec = instantiate(graph);
  run(exec);
  EXPECT(calls.seen == 1);

  cudaStream_t a, b;
  EXPECT_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  EXPECT_OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  EXPECT_OK(cudaGraphLaunch(exec, a));
  EXPECT_OK(cudaGraphLaunch(exec, b));
  EXPECT_OK(cudaStreamSynchronize(b));
  EXPECT_OK(cudaStreamSynchronize(a));
  EXPECT(calls.inner == 3 && calls.seen == 3 && calls.most == 1);
  EXPECT_OK(cudaStreamDestroy(a));
  EXPECT_OK(cudaStreamDestroy(b));
  EXPECT_OK(cudaGraphExecDestroy(exec));
  EXPECT_OK(cudaGraphDestroy(graph));
  EXPECT_OK(cudaGraphDestroy(child));
}

void user_objects() {
  std::atomic<int> destroyed{0};
  cudaUserObject_t object;
  EXPECT_OK(cudaUserObjectCreate(&object, &destroyed, count_call, 1, cudaUserObjectNoDestructorSync));
  cudaGraph_t graph, copy;
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  EXPECT_OK(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
  EXPECT_OK(cudaGraphClone(&copy, graph));
  cudaGraphExec_t exec = instantiate(graph);
  EXPECT_OK(cudaGraphDestroy(graph));
  EXPECT_OK(cudaGraphDestroy(copy));
  EXPECT(destroyed == 0);
  EXPECT_OK(cudaGraphExecDestroy(exec));
  EXPECT(destroyed == 1);
}

int main() {
  every_kind_of_node();
  shape();
  edges_with_data();
  update();
  memory_nodes();
  order_of_children_and_launches();
  user_objects();
  return 0;
}
