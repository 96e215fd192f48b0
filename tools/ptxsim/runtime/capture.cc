#include <algorithm>
#include <unordered_set>
#include <utility>

#include "tools/ptxsim/runtime/graph.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

/// Whether a capture forbids this thread what may synchronise: the rules of cudaThreadExchangeStreamCaptureMode.
bool forbids(const Capture& capture) {
  const cudaStreamCaptureMode mode = this_thread().capture_mode;
  if (mode == cudaStreamCaptureModeRelaxed) return false;
  if (capture.thread == std::this_thread::get_id()) return capture.mode != cudaStreamCaptureModeRelaxed;
  return mode == cudaStreamCaptureModeGlobal && capture.mode == cudaStreamCaptureModeGlobal;
}

void add_unique(std::vector<Node*>& nodes, const std::vector<Node*>& more) {
  for (Node* node : more) {
    if (std::ranges::find(nodes, node) == nodes.end()) nodes.push_back(node);
  }
}

void join(Stream& stream, const Event& event, Runtime& runtime) {
  const std::shared_ptr<Capture> capture = event.capture;
  require(capture->graph != nullptr, cudaErrorCapturedEvent);  // it has ended
  require(capture->invalidated == cudaSuccess, cudaErrorStreamCaptureInvalidated);
  if (stream.kind == Stream::Kind::kLegacy) {
    runtime.invalidate(*capture, cudaErrorStreamCaptureImplicit);
    fail(cudaErrorStreamCaptureImplicit);
  }
  if (stream.capture == nullptr) {
    stream.capture = capture;
    stream.captured_last.clear();
    capture->streams.insert(&stream);
  }
  if (stream.capture != capture) {
    runtime.invalidate(*stream.capture, cudaErrorStreamCaptureMerge);
    runtime.invalidate(*capture, cudaErrorStreamCaptureMerge);
    fail(cudaErrorStreamCaptureMerge);
  }
  add_unique(stream.captured_last, event.captured_nodes);
}

/// Whether the origin's end comes after all that was captured in the streams that have joined.
bool joined(const Capture& capture) {
  std::unordered_set<const Node*> before;
  std::vector<const Node*> open(capture.origin->captured_last.begin(), capture.origin->captured_last.end());
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (!before.insert(node).second) continue;
    for (const Edge& edge : node->dependencies) open.push_back(edge.node);
  }
  const auto all_before = [&before](const std::vector<Node*>& nodes) {
    return std::ranges::all_of(nodes, [&before](const Node* node) { return before.contains(node); });
  };
  return all_before(capture.left_behind) &&
         std::ranges::all_of(capture.streams, [&](const Stream* stream) { return all_before(stream->captured_last); });
}

void begin(Stream& stream, std::shared_ptr<Graph> graph, cudaStreamCaptureMode mode, std::vector<Node*> after,
           Runtime& runtime) {
  require(mode >= cudaStreamCaptureModeGlobal && mode <= cudaStreamCaptureModeRelaxed);
  require(stream.kind != Stream::Kind::kLegacy, cudaErrorStreamCaptureUnsupported);
  require(stream.capture == nullptr, cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->id = runtime.next_id++;
  capture->graph = std::move(graph);
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = &stream;
  capture->streams.insert(&stream);
  stream.capture = capture;
  stream.captured_last = std::move(after);
  runtime.captures.push_back(std::move(capture));
}

std::vector<Node*> checked_nodes(const cudaGraphNode_t* nodes, size_t count, Runtime& runtime) {
  require(count == 0 || nodes != nullptr);
  std::vector<Node*> result;
  for (size_t i = 0; i < count; ++i) {
    auto* node = reinterpret_cast<Node*>(nodes[i]);
    require(runtime.nodes.contains(node));
    result.push_back(node);
  }
  return result;
}

}  // namespace

std::shared_ptr<Graph> Runtime::end_capture(const std::shared_ptr<Capture>& capture) {
  for (Stream* stream : capture->streams) {
    stream->capture = nullptr;
    stream->captured_last.clear();
  }
  std::erase(captures, capture);
  return std::exchange(capture->graph, nullptr);
}

void Runtime::invalidate(Capture& capture, cudaError_t why) {
  if (capture.invalidated == cudaSuccess) capture.invalidated = why;
}

void Runtime::forbid_while_capturing() {
  const std::lock_guard lock(order_mutex);
  bool forbidden = false;
  for (const auto& capture : captures) {
    if (!forbids(*capture)) continue;
    invalidate(*capture, cudaErrorStreamCaptureUnsupported);
    forbidden = true;
  }
  require(!forbidden, cudaErrorStreamCaptureUnsupported);
}

void Runtime::forbid_while_capturing(Stream& stream) {
  const std::lock_guard lock(order_mutex);
  if (stream.capture != nullptr) {
    invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported);
    fail(cudaErrorStreamCaptureUnsupported);
  }
  if (stream.kind == Stream::Kind::kLegacy) forbid_legacy_while_capturing();
  forbid_while_capturing();
}

void Runtime::forbid_legacy_while_capturing() {
  // The legacy stream would depend on what is being captured.
  bool forbidden = false;
  for (const auto& capture : captures) {
    if (std::ranges::none_of(capture->streams, [](const Stream* stream) { return stream->blocking(); })) continue;
    invalidate(*capture, cudaErrorStreamCaptureImplicit);
    forbidden = true;
  }
  require(!forbidden, cudaErrorStreamCaptureImplicit);
}

Node* Runtime::capture_node(Stream& stream, Operation operation) {
  Capture& capture = *stream.capture;
  require(capture.invalidated == cudaSuccess, cudaErrorStreamCaptureInvalidated);
  std::vector<Edge> edges;
  for (Node* node : stream.captured_last) edges.push_back({node, {}});
  Node* node = capture.graph->add(std::move(operation), std::move(edges));
  stream.captured_last = {node};
  return node;
}

void Runtime::capture(Stream& stream, Operation operation) {
  if (auto* wait = std::get_if<WaitOperation>(&operation)) {
    if (wait->event->capture != nullptr) {
      join(stream, *wait->event, *this);
      return;
    }
    if (wait->event->recording == nullptr) return;  // nothing to wait for
    invalidate(*stream.capture, cudaErrorStreamCaptureIsolation);
    fail(cudaErrorStreamCaptureIsolation);
  }
  if (std::holds_alternative<CallbackOperation>(operation)) {
    invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported);
    fail(cudaErrorStreamCaptureUnsupported);
  }
  if (auto* record = std::get_if<RecordOperation>(&operation)) {
    require(stream.capture->invalidated == cudaSuccess, cudaErrorStreamCaptureInvalidated);
    record->event->capture = stream.capture;
    record->event->captured_nodes = stream.captured_last;
    return;
  }
  capture_node(stream, std::move(operation));
}

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCapture", [&](Runtime& runtime) {
    const std::lock_guard lock(runtime.order_mutex);
    begin(*runtime.stream(handle), std::make_shared<Graph>(runtime), mode, {}, runtime);
  });
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t handle, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
                                          const cudaGraphEdgeData*, size_t count, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCaptureToGraph", [&](Runtime& runtime) {
    const std::lock_guard lock(runtime.order_mutex);
    std::shared_ptr<Graph> into = runtime.graphs.find(graph);
    require(into != nullptr);
    std::vector<Node*> after = checked_nodes(dependencies, count, runtime);
    require(std::ranges::all_of(after, [&](const Node* node) { return node->graph == into.get(); }));
    begin(*runtime.stream(handle), std::move(into), mode, std::move(after), runtime);
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* result) {
  return call("cudaStreamEndCapture", [&](Runtime& runtime) {
    require(result != nullptr);
    *result = nullptr;
    const std::lock_guard lock(runtime.order_mutex);
    const auto stream = runtime.stream(handle);
    const std::shared_ptr<Capture> capture = stream->capture;
    require(capture != nullptr, cudaErrorIllegalState);
    require(capture->mode == cudaStreamCaptureModeRelaxed || capture->thread == std::this_thread::get_id(),
            cudaErrorStreamCaptureWrongThread);
    require(capture->origin == stream.get(), cudaErrorStreamCaptureUnmatched);
    const bool complete = joined(*capture);
    std::shared_ptr<Graph> graph = runtime.end_capture(capture);
    require(capture->invalidated == cudaSuccess, cudaErrorStreamCaptureInvalidated);
    require(complete, cudaErrorStreamCaptureUnjoined);
    // A graph that existed before has its handle already.
    *result = reinterpret_cast<cudaGraph_t>(graph.get());
    if (runtime.graphs.find(*result) == nullptr) runtime.graphs.add(std::move(graph));
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call("cudaStreamIsCapturing", [&](Runtime& runtime) {
    require(status != nullptr);
    const std::lock_guard lock(runtime.order_mutex);
    const auto stream = runtime.stream(handle);
    if (stream->kind == Stream::Kind::kLegacy) {
      const bool implicit = std::ranges::any_of(runtime.captures, [](const auto& capture) {
        return std::ranges::any_of(capture->streams, [](const Stream* member) { return member->blocking(); });
      });
      require(!implicit, cudaErrorStreamCaptureImplicit);
    }
    *status = stream->capture == nullptr                    ? cudaStreamCaptureStatusNone
              : stream->capture->invalidated != cudaSuccess ? cudaStreamCaptureStatusInvalidated
                                                            : cudaStreamCaptureStatusActive;
  });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edge_data, size_t* count) {
  return call("cudaStreamGetCaptureInfo", [&](Runtime& runtime) {
    const cudaError_t asked = cudaStreamIsCapturing(handle, status);
    require(asked == cudaSuccess, asked);
    if (*status != cudaStreamCaptureStatusActive) return;
    const std::lock_guard lock(runtime.order_mutex);
    const auto stream = runtime.stream(handle);
    if (id != nullptr) *id = stream->capture->id;
    if (graph != nullptr) *graph = reinterpret_cast<cudaGraph_t>(stream->capture->graph.get());
    if (dependencies != nullptr) {
      *dependencies = reinterpret_cast<const cudaGraphNode_t*>(stream->captured_last.data());
    }
    if (edge_data != nullptr) {
      stream->captured_edge_data.assign(stream->captured_last.size(), {});
      *edge_data = stream->captured_edge_data.data();
    }
    if (count != nullptr) *count = stream->captured_last.size();
  });
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t handle, cudaGraphNode_t* dependencies,
                                                const cudaGraphEdgeData*, size_t count, unsigned flags) {
  return call("cudaStreamUpdateCaptureDependencies", [&](Runtime& runtime) {
    require(flags == cudaStreamAddCaptureDependencies || flags == cudaStreamSetCaptureDependencies);
    const std::lock_guard lock(runtime.order_mutex);
    const auto stream = runtime.stream(handle);
    require(stream->capture != nullptr, cudaErrorIllegalState);
    const std::vector<Node*> nodes = checked_nodes(dependencies, count, runtime);
    if (flags == cudaStreamSetCaptureDependencies) stream->captured_last.clear();
    add_unique(stream->captured_last, nodes);
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return call("cudaThreadExchangeStreamCaptureMode", [&](Runtime&) {
    require(mode != nullptr && *mode >= cudaStreamCaptureModeGlobal && *mode <= cudaStreamCaptureModeRelaxed);
    std::swap(*mode, this_thread().capture_mode);
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
