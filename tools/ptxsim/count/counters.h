#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tools/ptxsim/exec/observer.h"

namespace ptxsim {

struct Grid;
struct Worker;
class Machine;
struct LaunchCounts;

/// The counters of `--report`: exact and repeatable, joined over workers by sums only. One per machine.
class Counters {
 public:
  explicit Counters(Machine& machine);
  ~Counters();

  /// A worker's share of a launch.
  std::unique_ptr<Observer> observe(Grid& grid);

  /// A launch came to its end: takes the workers' instruction counts and their observers' (Worker::observers, made by
  /// observe(); the checker's may be among them).
  void launch_ended(const Grid& grid, std::span<const Worker* const> workers);

  /// What was counted so far, in the order of the first launches; valid until the next launch.
  std::vector<const LaunchCounts*> launches() const;

  /// Prints the table to stderr, or writes JSON where PTXSIM_REPORT names a file.
  void report() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ptxsim
