// Capturing streams into graphs: what becomes of each call, and what ends a capture.
#include <atomic>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__global__ void append(int* x, int value) { *x = *x * 10 + value; }
__global__ void store(int* x, int value) { *x = value; }

struct Streams {
  Streams() {
    EXPECT_OK(cudaStreamCreate(&a));
    EXPECT_OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    EXPECT_OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    EXPECT_OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  }
  ~Streams() {
    cudaGetLastError();
    EXPECT_OK(cudaEventDestroy(fork));
    EXPECT_OK(cudaEventDestroy(join));
    EXPECT_OK(cudaStreamDestroy(a));
    EXPECT_OK(cudaStreamDestroy(b));
  }
  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal) const {
    EXPECT_OK(cudaStreamBeginCapture(a, mode));
  }
  cudaStreamCaptureStatus status() const {
    cudaStreamCaptureStatus result;
    EXPECT_OK(cudaStreamIsCapturing(a, &result));
    return result;
  }
  /// Ends the capture, which must have this result.
  void end(cudaError_t error) const {
    cudaGraph_t graph;
    EXPECT_ERROR(cudaStreamEndCapture(a, &graph), error);
    if (error == cudaSuccess) {
      EXPECT_OK(cudaGraphDestroy(graph));
    } else {
      EXPECT(graph == nullptr);
    }
    EXPECT(status() == cudaStreamCaptureStatusNone);
  }
  cudaStream_t a, b;
  cudaEvent_t fork, join;
};

void run(cudaGraph_t graph, cudaStream_t stream, int times) {
  cudaGraphExec_t exec;
  EXPECT_OK(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < times; ++i) EXPECT_OK(cudaGraphLaunch(exec, stream));
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT_OK(cudaGraphExecDestroy(exec));
}

void every_kind_of_call() {
  const Streams s;
  const Buffer<int> x(std::vector<int>{7}), y(1);
  std::vector<int> in{3}, out{0};
  std::atomic<int> calls{0};
  s.begin();
  EXPECT(s.status() == cudaStreamCaptureStatusActive);
  EXPECT_OK(cudaMemsetAsync(y.get(), 0, 4, s.a));
  EXPECT_OK(cudaMemcpyAsync(x.get(), in.data(), 4, cudaMemcpyHostToDevice, s.a));
  append<<<1, 1, 0, s.a>>>(x.get(), 5);
  EXPECT_OK(cudaLaunchHostFunc(
      s.a, [](void* data) { ++*static_cast<std::atomic<int>*>(data); }, &calls));
  int* temporary;
  EXPECT_OK(cudaMallocAsync(&temporary, 4, s.a));
  EXPECT_OK(cudaMemcpyAsync(temporary, x.get(), 4, cudaMemcpyDeviceToDevice, s.a));
  EXPECT_OK(cudaMemcpyAsync(out.data(), temporary, 4, cudaMemcpyDeviceToHost, s.a));
  EXPECT_OK(cudaFreeAsync(temporary, s.a));
  cudaGraph_t graph;
  EXPECT_OK(cudaStreamEndCapture(s.a, &graph));
  size_t count = 0;
  EXPECT_OK(cudaGraphGetNodes(graph, nullptr, &count));
  EXPECT(count == 8);
  std::vector<cudaGraphNode_t> nodes(count);
  EXPECT_OK(cudaGraphGetNodes(graph, nodes.data(), &count));
  const cudaGraphNodeType want[] = {cudaGraphNodeTypeMemset, cudaGraphNodeTypeMemcpy,   cudaGraphNodeTypeKernel,
                                    cudaGraphNodeTypeHost,   cudaGraphNodeTypeMemAlloc, cudaGraphNodeTypeMemcpy,
                                    cudaGraphNodeTypeMemcpy, cudaGraphNodeTypeMemFree};
  for (size_t i = 0; i < count; ++i) {
    cudaGraphNodeType type;
    EXPECT_OK(cudaGraphNodeGetType(nodes[i], &type));
    EXPECT(type == want[i]);
  }
  EXPECT(out[0] == 0 && calls == 0 && x.download()[0] == 7);  // nothing has run
  in[0] = 4;                                                  // the graph reads what is there when it runs
  run(graph, s.a, 3);
  EXPECT(out[0] == 45 && calls == 3);
  EXPECT_OK(cudaGraphDestroy(graph));
}

void fork_and_join() {
  const Streams s;
  const Buffer<int> x(std::vector<int>{0}), y(std::vector<int>{0});
  s.begin();
  append<<<1, 1, 0, s.a>>>(x.get(), 1);
  EXPECT_OK(cudaEventRecord(s.fork, s.a));
  EXPECT_OK(cudaStreamWaitEvent(s.b, s.fork));
  append<<<1, 1, 0, s.b>>>(y.get(), 2);
  append<<<1, 1, 0, s.a>>>(x.get(), 3);
  EXPECT_OK(cudaEventRecord(s.join, s.b));
  EXPECT_OK(cudaStreamWaitEvent(s.a, s.join));
  append<<<1, 1, 0, s.a>>>(x.get(), 4);
  cudaGraph_t graph;
  EXPECT_OK(cudaStreamEndCapture(s.a, &graph));
  size_t nodes = 0, edges = 0, roots = 0;
  EXPECT_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_OK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  EXPECT_OK(cudaGraphGetRootNodes(graph, nullptr, &roots));
  EXPECT(nodes == 4 && edges == 4 && roots == 1);
  run(graph, s.a, 1);
  EXPECT(x.download()[0] == 134 && y.download()[0] == 2);
  EXPECT_OK(cudaGraphDestroy(graph));

  // An event that was last recorded in a capture is of no use outside of it.
  EXPECT_ERROR(cudaEventQuery(s.fork), cudaErrorCapturedEvent);
  EXPECT_ERROR(cudaStreamWaitEvent(s.a, s.fork), cudaErrorCapturedEvent);
  cudaGetLastError();
  EXPECT_OK(cudaEventRecord(s.fork, s.a));
  EXPECT_OK(cudaEventSynchronize(s.fork));
}

void streams_destroyed_meanwhile() {
  const Streams s;
  const Buffer<int> x(std::vector<int>{0});
  for (const bool joins : {true, false}) {
    cudaStream_t side;
    EXPECT_OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    s.begin();
    append<<<1, 1, 0, s.a>>>(x.get(), 1);
    EXPECT_OK(cudaEventRecord(s.fork, s.a));
    EXPECT_OK(cudaStreamWaitEvent(side, s.fork));
    append<<<1, 1, 0, side>>>(x.get(), 2);
    EXPECT_OK(cudaEventRecord(s.join, side));
    if (joins) EXPECT_OK(cudaStreamWaitEvent(s.a, s.join));
    EXPECT_OK(cudaStreamDestroy(side));
    if (!joins) {
      s.end(cudaErrorStreamCaptureUnjoined);
      continue;
    }
    append<<<1, 1, 0, s.a>>>(x.get(), 3);
    cudaGraph_t graph;
    EXPECT_OK(cudaStreamEndCapture(s.a, &graph));
    run(graph, s.a, 1);
    EXPECT(x.download()[0] == 123);
    EXPECT_OK(cudaGraphDestroy(graph));
  }
}

void what_ends_a_capture() {
  const Streams s;
  const Buffer<int> x(std::vector<int>{0});
  cudaGraph_t graph;
  void* pointer;
  EXPECT_ERROR(cudaStreamEndCapture(s.a, &graph), cudaErrorIllegalState);
  EXPECT_ERROR(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported);

  s.begin();
  EXPECT_ERROR(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
  s.end(cudaSuccess);  // an empty graph

  s.begin();
  EXPECT_ERROR(cudaStreamSynchronize(s.a), cudaErrorStreamCaptureUnsupported);
  EXPECT(s.status() == cudaStreamCaptureStatusInvalidated);
  append<<<1, 1, 0, s.a>>>(x.get(), 1);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();
  EXPECT_ERROR(cudaMalloc(&pointer, 4), cudaErrorStreamCaptureUnsupported);
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();  // the default stream would have to wait for the captured one
  append<<<1, 1>>>(x.get(), 1);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorStreamCaptureImplicit);
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();  // work in another stream that nothing joins
  EXPECT_OK(cudaEventRecord(s.fork, s.a));
  EXPECT_OK(cudaStreamWaitEvent(s.b, s.fork));
  append<<<1, 1, 0, s.b>>>(x.get(), 1);
  EXPECT_ERROR(cudaStreamEndCapture(s.b, &graph), cudaErrorStreamCaptureUnmatched);
  s.end(cudaErrorStreamCaptureUnjoined);

  EXPECT_OK(cudaEventRecord(s.fork, s.b));  // an event from outside
  s.begin();
  EXPECT_ERROR(cudaStreamWaitEvent(s.a, s.fork), cudaErrorStreamCaptureIsolation);
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();  // two captures cannot become one
  EXPECT_OK(cudaStreamBeginCapture(s.b, cudaStreamCaptureModeGlobal));
  EXPECT_OK(cudaEventRecord(s.fork, s.b));
  EXPECT_ERROR(cudaStreamWaitEvent(s.a, s.fork), cudaErrorStreamCaptureMerge);
  EXPECT_ERROR(cudaStreamEndCapture(s.b, &graph), cudaErrorStreamCaptureInvalidated);
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();
  std::thread([&] {
    EXPECT_ERROR(cudaStreamEndCapture(s.a, &graph), cudaErrorStreamCaptureWrongThread);
    EXPECT_ERROR(cudaMalloc(&pointer, 4), cudaErrorStreamCaptureUnsupported);  // forbidden to all threads
  }).join();
  s.end(cudaErrorStreamCaptureInvalidated);

  s.begin();  // but not to one that looks after itself alone
  std::thread([&] {
    cudaStreamCaptureMode own = cudaStreamCaptureModeThreadLocal;
    EXPECT_OK(cudaThreadExchangeStreamCaptureMode(&own));
    EXPECT_OK(cudaMalloc(&pointer, 4));
    EXPECT_OK(cudaFree(pointer));
  }).join();
  s.end(cudaSuccess);

  s.begin(cudaStreamCaptureModeThreadLocal);
  std::thread([&] {
    EXPECT_OK(cudaMalloc(&pointer, 4));
    EXPECT_OK(cudaFree(pointer));
  }).join();
  s.end(cudaSuccess);

  s.begin(cudaStreamCaptureModeRelaxed);
  EXPECT_OK(cudaMalloc(&pointer, 4));
  EXPECT_OK(cudaFree(pointer));
  s.end(cudaSuccess);

  s.begin();  // a thread may take the danger upon itself
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  EXPECT_OK(cudaThreadExchangeStreamCaptureMode(&mode));
  EXPECT(mode == cudaStreamCaptureModeGlobal);
  EXPECT_OK(cudaMalloc(&pointer, 4));
  EXPECT_OK(cudaFree(pointer));
  EXPECT_OK(cudaThreadExchangeStreamCaptureMode(&mode));
  EXPECT(mode == cudaStreamCaptureModeRelaxed);
  s.end(cudaSuccess);
  cudaGetLastError();
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT(x.download()[0] == 0);
}

void captured_by_hand() {
  const Streams s;
  const Buffer<int> x(std::vector<int>{0});
  // Into a graph that is there, behind one of its nodes.
  cudaGraph_t graph, info_graph;
  cudaGraphNode_t first;
  EXPECT_OK(cudaGraphCreate(&graph, 0));
  EXPECT_OK(cudaGraphAddEmptyNode(&first, graph, nullptr, 0));
  EXPECT_OK(cudaStreamBeginCaptureToGraph(s.a, graph, &first, nullptr, 1, cudaStreamCaptureModeGlobal));
  append<<<1, 1, 0, s.a>>>(x.get(), 1);
  cudaStreamCaptureStatus status;
  unsigned long long id = 0;
  const cudaGraphNode_t* last;
  size_t count = 0;
  EXPECT_OK(cudaStreamGetCaptureInfo(s.a, &status, &id, &info_graph, &last, nullptr, &count));
  EXPECT(status == cudaStreamCaptureStatusActive && id != 0 && info_graph == graph && count == 1);
  // A node that is added by hand, and that the stream goes on behind.
  int* target = x.get();
  int value = 2;
  void* arguments[] = {&target, &value};
  cudaKernelNodeParams parameters{};
  parameters.func = reinterpret_cast<void*>(append);
  parameters.gridDim = parameters.blockDim = dim3(1);
  parameters.kernelParams = arguments;
  cudaGraphNode_t by_hand;
  EXPECT_OK(cudaGraphAddKernelNode(&by_hand, graph, last, count, &parameters));
  EXPECT_OK(cudaStreamUpdateCaptureDependencies(s.a, &by_hand, nullptr, 1, cudaStreamSetCaptureDependencies));
  append<<<1, 1, 0, s.a>>>(x.get(), 3);
  EXPECT_OK(cudaStreamEndCapture(s.a, &info_graph));
  EXPECT(info_graph == graph);
  size_t nodes = 0;
  EXPECT_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT(nodes == 4);
  run(graph, s.a, 1);
  EXPECT(x.download()[0] == 123);

  // The launch of a graph within a capture.
  cudaGraphExec_t exec;
  EXPECT_OK(cudaGraphInstantiate(&exec, graph, 0));
  s.begin();
  EXPECT_OK(cudaGraphLaunch(exec, s.a));
  append<<<1, 1, 0, s.a>>>(x.get(), 4);
  cudaGraph_t outer;
  EXPECT_OK(cudaStreamEndCapture(s.a, &outer));
  EXPECT_OK(cudaMemset(x.get(), 0, 4));
  EXPECT_OK(cudaDeviceSynchronize());  // the host does not wait for a fill, nor does a non-blocking stream
  run(outer, s.b, 1);
  EXPECT(x.download()[0] == 1234);
  EXPECT_OK(cudaGraphDestroy(outer));
  EXPECT_OK(cudaGraphExecDestroy(exec));
  EXPECT_OK(cudaGraphDestroy(graph));
}

/// Events that the program outside sees, recorded from within a graph.
void external_events() {
  const Streams s;
  const Buffer<int> x(std::vector<int>{0});
  EXPECT_OK(cudaEventRecord(s.fork, s.b));
  s.begin();
  EXPECT_OK(cudaStreamWaitEvent(s.a, s.fork, cudaEventWaitExternal));
  store<<<1, 1, 0, s.a>>>(x.get(), 1);
  EXPECT_OK(cudaEventRecordWithFlags(s.join, s.a, cudaEventRecordExternal));
  cudaGraph_t graph;
  EXPECT_OK(cudaStreamEndCapture(s.a, &graph));
  cudaGraphExec_t exec;
  EXPECT_OK(cudaGraphInstantiate(&exec, graph, 0));
  EXPECT_OK(cudaGraphLaunch(exec, s.a));
  EXPECT_OK(cudaEventSynchronize(s.join));
  EXPECT(x.download()[0] == 1);
  EXPECT_OK(cudaGraphExecDestroy(exec));
  EXPECT_OK(cudaGraphDestroy(graph));
}

int main() {
  every_kind_of_call();
  fork_and_join();
  streams_destroyed_meanwhile();
  what_ends_a_capture();
  captured_by_hand();
  external_events();
  return 0;
}
