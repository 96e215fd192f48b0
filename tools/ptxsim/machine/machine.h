#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/ptxsim/binary/cubin.h"
#include "tools/ptxsim/machine/address_space.h"
#include "tools/ptxsim/machine/gpu.h"
#include "tools/ptxsim/ptx/module.h"

namespace ptxsim {

class Counters;
class DeviceOrder;
struct DeviceWork;
class Findings;
struct Program;  // program/program.h: a kernel compiled to the internal form
class LoadedModule;

using Dim3 = std::array<uint32_t, 3>;

/// What launching a kernel takes to know of it; compiled on first use.
class Kernel {
 public:
  const std::string& name() const;    // mangled
  std::string readable_name() const;  // demangled
  const ptx::Function& function() const;
  /// Offset and size of each parameter in the parameter buffer, and the buffer's size.
  struct Parameter {
    uint32_t offset, bytes;
  };
  std::span<const Parameter> parameters() const;
  uint32_t parameter_bytes() const;
  const KernelResources& resources() const;  // of the machine code beside the PTX; zeros in part where there is none
  bool has_machine_code() const;
  uint32_t static_shared_bytes() const;
  uint32_t local_bytes() const;  // per thread, as PTX declares it
  uint32_t max_threads() const;  // launch bounds, else the GPU's limit
  LoadedModule& module() const;
  const Program& program();  ///< compiles; throws Error with kernel and line for an instruction it does not know

 private:
  friend class LoadedModule;
  struct State;
  std::shared_ptr<State> state_;
};

/// A PTX module on the device: its variables have addresses, its kernels can be launched.
class LoadedModule {
 public:
  /// `cubin` may be empty. Allocates the module's variables and writes their initial values.
  LoadedModule(class Machine& machine, std::string ptx, std::span<const std::byte> cubin);
  ~LoadedModule();

  Kernel* kernel(std::string_view mangled);  ///< null when the module has none of this name
  std::vector<Kernel*> kernels();
  Allocation* variable(std::string_view name);  ///< global, const or managed variable; null when there is none
  /// Of a variable, or what a pointer to a function holds; none for a name that is neither.
  std::optional<uint64_t> address_of(std::string_view name) const;
  const ptx::Module& text() const;
  Machine& machine() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct Launch {
  Kernel* kernel = nullptr;
  Dim3 grid{1, 1, 1}, block{1, 1, 1}, cluster{1, 1, 1};
  uint64_t dynamic_shared = 0;
  std::vector<std::byte> parameters;  // parameter_bytes() of them
  bool cooperative = false;
  uint64_t stream = 0;  // for reports
};

/// How a launch or the device ended up. kIllegalAddress and later are sticky: the context is lost, as on a real device.
enum class Status : uint8_t {
  kOk,
  kIllegalAddress,
  kMisalignedAddress,
  kIllegalInstruction,  // also: an instruction that the simulator does not know
  kAssert,              // device-side assert
  kTrap,                // trap, or printf-like abort
  kDeadlock,            // barriers that can never be passed, in the kernel
  kStackOverflow,
};

struct Outcome {
  Status status = Status::kOk;
  std::string message;  // for stderr: kernel, block, thread, place, what happened
};

struct Options {
  std::string gpu = "h100";
  int threads = 0;  // workers; 0: as many as this process may use
  bool check = false;
  bool count = false;        // counters and report
  bool adversarial = false;  // seeded schedule instead of the plain one
  uint64_t seed = 0;
  static Options from_environment();  // PTXSIM_GPU, PTXSIM_THREADS, PTXSIM_CHECK, PTXSIM_REPORT, PTXSIM_SCHEDULE
};

/// The device: memory, workers, and what has been asked of it to watch. One per process.
class Machine {
 public:
  explicit Machine(Options options);
  ~Machine();

  const Options& options() const { return options_; }
  const Gpu& gpu() const { return *gpu_; }
  AddressSpace& memory() { return memory_; }

  /// Runs a grid to its end on the calling thread and the workers. Thread-safe; grids of several callers share the
  /// workers. Checks nothing of the configuration: the runtime above has. `work`: collects what the grid accesses.
  Outcome run(const Launch& launch, DeviceWork* work = nullptr);

  /// What the host did to device memory (copies, fills): keeps the checker's shadow true. `address` is in an
  /// allocation.
  void host_wrote(uint64_t address, uint64_t bytes);
  /// Before the host reads device memory, e.g. by a copy to the host: the checker may say that it is uninitialised.
  void host_reads(uint64_t address, uint64_t bytes, const char* call);
  /// Copies device -> device carry their state of initialisation along.
  void device_copied(uint64_t to, uint64_t from, uint64_t bytes);

  /// Something has changed in memory that kernels may wait for; and how often that was.
  void memory_changed();
  uint64_t memory_changes() const;

  /// At the end of the process: leaks (when checking), then the report (when counting). Returns the number of findings.
  uint64_t finish();

  /// Bytes for device-side malloc and the printf buffer, as cudaDeviceSetLimit sets them.
  std::atomic<uint64_t> heap_limit{8 << 20}, stack_limit{1024};
  std::atomic<uint64_t> heap_used{0};  // by malloc in device code

  Findings& findings();
  DeviceOrder* order();              ///< null unless checking
  const Counters* counters() const;  ///< null unless counting

 private:
  struct State;
  Options options_;
  const Gpu* gpu_;
  AddressSpace memory_;
  std::unique_ptr<State> state_;
};

}  // namespace ptxsim
