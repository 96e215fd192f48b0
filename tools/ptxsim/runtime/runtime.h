#pragma once

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tools/ptxsim/machine/machine.h"
#include "tools/ptxsim/runtime/call.h"
#include "tools/ptxsim/runtime/operation.h"
#include "tools/ptxsim/runtime/registration.h"
#include "tools/ptxsim/runtime/scheduler.h"
#include "tools/ptxsim/runtime/streams.h"

namespace ptxsim::runtime {

struct GraphExec;
struct UserObject;

/// The state of the CUDA runtime in this process: the device's context, its streams, events, graphs and pools. Made on
/// first use and never destroyed, for the program's own destructors may still call.
class Runtime {
 public:
  static Runtime& get();
  static Runtime* get_if_made();

  Machine& machine();  ///< made on first use; throws Failure(cudaErrorInitializationError), having said why
  Machine* machine_if_made() { return machine_made_.load(); }
  AddressSpace& memory() { return machine().memory(); }
  const Gpu& gpu() { return machine().gpu(); }

  Registry registry;
  Scheduler scheduler;
  Handles<Stream, cudaStream_t> streams;
  Handles<Event, cudaEvent_t> events;
  Handles<Graph, cudaGraph_t> graphs;
  Handles<GraphExec, cudaGraphExec_t> execs;
  Handles<Pool, cudaMemPool_t> pools;
  Handles<UserObject, cudaUserObject_t> user_objects;
  Handles<Code, cudaLibrary_t> libraries;

  /// Orders what is submitted: guards the streams' last tasks, the events' recordings and all captures and graphs.
  /// Recursive, for an operation that is submitted may be captured, and a graph's launch submits many.
  std::recursive_mutex order_mutex;

  // ---- Streams (stream.cc)
  /// The stream that a handle means: 0, cudaStreamLegacy, cudaStreamPerThread or a created one. Throws
  /// Failure(cudaErrorInvalidResourceHandle).
  std::shared_ptr<Stream> stream(cudaStream_t handle);
  std::shared_ptr<Event> event(cudaEvent_t handle);
  void destroy_stream(cudaStream_t handle);
  std::vector<std::shared_ptr<Stream>> every_stream();

  /// Puts an operation at the stream's end, or into the graph that the stream is captured into; null in that case.
  TaskPointer enqueue(Stream& stream, Operation operation);
  /// Hands an operation of the stream to the scheduler, after those tasks.
  TaskPointer submit(const Stream& stream, Operation operation, std::vector<TaskPointer> after);
  /// What an operation at the stream's end has to wait for.
  std::vector<TaskPointer> order_after(Stream& stream);

  /// Waits until it is done.
  void wait(const TaskPointer& task);
  /// The host has seen that it is done: what it asks for later comes after it. For checks.
  void host_knows(const TaskPointer& task);
  /// Waits; throws Failure when the context is lost by then.
  void synchronise(const TaskPointer& task);
  void synchronise_stream(Stream& stream);
  void synchronise_device();

  // ---- Capture (capture.cc)
  void capture(Stream& stream, Operation operation);
  /// The operation as a node, whatever it is; the stream must be capturing.
  Node* capture_node(Stream& stream, Operation operation);
  /// Throws Failure(cudaErrorStreamCaptureUnsupported) where a capture forbids calls that may synchronise, from this
  /// thread; the capture becomes invalid.
  void forbid_while_capturing();
  void forbid_while_capturing(Stream& stream);
  void forbid_legacy_while_capturing();
  void invalidate(Capture& capture, cudaError_t why);
  /// Takes the capture from its streams. What is left is its graph.
  std::shared_ptr<Graph> end_capture(const std::shared_ptr<Capture>& capture);
  std::vector<std::shared_ptr<Capture>> captures;  // those going on; with order_mutex held
  std::unordered_set<const Node*> nodes;           // of all graphs; with order_mutex held

  // ---- Faults
  /// A launch by <<<>>> that has failed: nobody sees that but who asks for the last error. For checks.
  void launch_failed(const void* function, ThreadState& thread);
  /// A kernel's end: the first fault loses the context. What comes after it in any stream is not executed.
  void finished(const Outcome& outcome);
  bool lost() const { return lost_.load() != cudaSuccess; }
  cudaError_t lost_code() const { return lost_.load(); }
  /// The fault as far as the program may know: as on a real device, calls fail with it from the first on that has
  /// waited for the device.
  cudaError_t observed() const { return observed_.load() ? lost_.load() : cudaSuccess; }
  void observe();
  void recover() {
    observed_ = false;
    lost_ = cudaSuccess;
  }

  // ---- Memory (memory.cc, pool.cc)
  /// What the program has said of an allocation, to be asked for again.
  struct Notes {
    unsigned flags = 0;          // of cudaHostAlloc, cudaHostRegister
    std::shared_ptr<Pool> pool;  // that it came from
    bool read_mostly = false;
    std::optional<cudaMemLocation> preferred, prefetched;
    std::vector<int> accessed_by;
    bool freeing = false;      // cudaFreeAsync is on its way
    bool outstanding = false;  // a graph's: its allocation has been launched, and nothing yet that frees it
  };
  Notes notes(const Allocation* allocation);
  void change_notes(const Allocation* allocation, const std::function<void(Notes&)>& change);
  /// Frees the memory, accounts for it where it came from, and forgets what was noted.
  void release(Allocation* allocation);
  std::shared_ptr<Pool> default_pool();
  std::shared_ptr<Pool> current_pool;  // null: the default; with order_mutex held
  std::vector<std::shared_ptr<Pool>> every_pool();
  const std::shared_ptr<Pool> graph_pool;  // accounts for the memory nodes of all graphs

  void reset();   ///< cudaDeviceReset
  void finish();  ///< at the end of the process

  std::atomic<uint64_t> next_id{1};
  std::atomic<unsigned> device_flags{cudaDeviceScheduleAuto};
  std::atomic<size_t> printf_limit{1 << 20}, persisting_l2{0}, sync_depth{2}, pending_launches{2048}, l2_fetch{64};
  std::atomic<cudaFuncCache> cache_config{cudaFuncCachePreferNone};

 private:
  Runtime();

  pid_t process_ = getpid();
  std::once_flag machine_once_;
  std::atomic<Machine*> machine_made_{nullptr};
  std::atomic<cudaError_t> lost_{cudaSuccess};
  std::atomic<bool> observed_{false};
  std::shared_ptr<Stream> legacy_ = std::make_shared<Stream>();
  std::vector<std::shared_ptr<Stream>> per_thread_streams_;  // with order_mutex held
  /// Of destroyed streams: their last task, where the host may not know that it is done. With order_mutex held.
  struct Destroyed {
    TaskPointer last;
    bool blocking;
  };
  std::vector<Destroyed> destroyed_streams_;
  bool finished_for_host(const Task& task);
  std::shared_ptr<Pool> default_pool_;
  std::mutex pool_mutex_, notes_mutex_;
  std::unordered_map<const Allocation*, Notes> notes_;
  std::mutex failed_mutex_;
  std::map<ThreadState*, std::set<std::string>> failed_launches_;  // as findings will say it
};

}  // namespace ptxsim::runtime
