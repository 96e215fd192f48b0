#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tools/ptxsim/check/findings.h"
#include "tools/ptxsim/exec/observer.h"

namespace ptxsim {

struct Grid;
class Machine;

/// The checks of `--check` that need to remember: uninitialised memory, races in shared memory and between blocks,
/// diverged barriers, leaks. One per machine; each worker of a launch has an observer of its own. (Bounds, alignment
/// and use after free are always checked, by exec/memory_access.cc.)
class Checker {
 public:
  Checker(Machine& machine, Findings& findings);
  ~Checker();

  std::unique_ptr<Observer> observe(Grid& grid);

  // What the host does to device memory; see Machine.
  void host_wrote(uint64_t address, uint64_t bytes);
  void host_reads(uint64_t address, uint64_t bytes, const char* call);
  void device_copied(uint64_t to, uint64_t from, uint64_t bytes);

  /// Device, pool, managed and host memory that the program never freed.
  void find_leaks();

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace ptxsim
