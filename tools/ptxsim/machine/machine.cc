#include "tools/ptxsim/machine/machine.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <unordered_set>

#include "tools/ptxsim/check/checker.h"
#include "tools/ptxsim/check/device_order.h"
#include "tools/ptxsim/count/counters.h"
#include "tools/ptxsim/error.h"
#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/machine/worker_pool.h"

namespace ptxsim {

namespace {

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != 0 ? value : nullptr;
}

/// Whether the whole text is a number.
template <class Number>
bool parse(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Options Options::from_environment() {
  Options o;
  if (const char* v = variable("PTXSIM_GPU")) o.gpu = v;
  if (const char* v = variable("PTXSIM_THREADS"); v != nullptr && (!parse(v, o.threads) || o.threads < 1)) {
    throw Error("PTXSIM_THREADS: expected a number of threads, found '{}'", v);
  }
  o.check = variable("PTXSIM_CHECK") != nullptr && std::strcmp(variable("PTXSIM_CHECK"), "0") != 0;
  o.count = variable("PTXSIM_REPORT") != nullptr;
  if (const char* v = variable("PTXSIM_SCHEDULE"); v != nullptr && std::strcmp(v, "plain") != 0) {
    if (!parse(v, o.seed)) throw Error("PTXSIM_SCHEDULE: expected 'plain' or a number, found '{}'", v);
    o.adversarial = true;
  }
  return o;
}

struct Machine::State {
  explicit State(Machine& machine)
      : pool(helpers(machine.options())),
        checker(machine.options().check ? std::make_unique<Checker>(machine, findings) : nullptr),
        order(machine.options().check ? std::make_unique<DeviceOrder>(findings) : nullptr),
        counters(machine.options().count ? std::make_unique<Counters>(machine) : nullptr) {}

  static int helpers(const Options& options) {
    const int n = options.threads > 0 ? options.threads : static_cast<int>(std::thread::hardware_concurrency());
    return std::max(0, n - 1);
  }

  Findings findings;
  WorkerPool pool;
  std::unique_ptr<Checker> checker;
  std::unique_ptr<DeviceOrder> order;
  std::unique_ptr<Counters> counters;
  std::atomic<uint64_t> launches{0}, changes{0};
  Allocation* grid_barriers = nullptr;
  std::mutex barrier_mutex;
};

Machine::Machine(Options options)
    : options_(std::move(options)), gpu_(&ptxsim::gpu(options_.gpu)), memory_(gpu_->memory_bytes) {
  state_ = std::make_unique<State>(*this);
}

Machine::~Machine() = default;

namespace {

/// Hands a grid's clusters to workers in their order. Those that only wait for others are put aside, so that blocks
/// which the others wait for get their turn, up to as many as would be resident on the device.
class Dispatch {
 public:
  Dispatch(Grid& grid, uint64_t clusters, uint64_t resident)
      : grid_(grid), clusters_(clusters), resident_(resident), adversarial_(grid.machine->options().adversarial) {}

  void work(Worker& worker) {
    while (!grid_.stopped.load(std::memory_order_relaxed)) {
      std::unique_ptr<Cluster> cluster = take();
      if (cluster == nullptr) {
        const std::lock_guard lock(mutex_);
        if (open_ == 0 && next_ >= clusters_) return;
        if (parked_.empty() && next_ >= clusters_) return;  // the rest is in other workers' hands
        continue;
      }
      int idle = 0;
      bool alive = true;
      while ((alive = cluster->step(worker))) {
        if (grid_.stopped.load(std::memory_order_relaxed)) break;
        idle = cluster->progressed() ? 0 : idle + 1;
        if (cluster->cycles() && for_ever(*cluster)) break;
        // The adversarial schedule stops warps before they have said that they only spin.
        if (idle > kIdleRounds || cluster->cycles() || (adversarial_ && worker.random() % kTurns == 0)) {
          if (others_wait()) break;
          std::this_thread::yield();
        }
      }
      const std::lock_guard lock(mutex_);
      if (!alive) cycling_.erase(cluster.get());
      if (alive && !grid_.stopped) {
        parked_.push_back(std::move(cluster));
      } else {
        --open_;
      }
    }
  }

 private:
  static constexpr int kIdleRounds = 4, kTurns = 16;

  std::unique_ptr<Cluster> take() {
    uint64_t index = 0;
    {
      const std::lock_guard lock(mutex_);
      const bool fresh = next_ < clusters_ && open_ < resident_;
      if (!fresh) {
        if (parked_.empty()) return nullptr;
        std::unique_ptr<Cluster> oldest = std::move(parked_.front());
        parked_.pop_front();
        return oldest;
      }
      // A parked one and a fresh one take turns.
      turn_ = !turn_;
      if (turn_ && !parked_.empty()) {
        std::unique_ptr<Cluster> oldest = std::move(parked_.front());
        parked_.pop_front();
        return oldest;
      }
      index = next_++;
      ++open_;
    }
    return std::make_unique<Cluster>(grid_, index);
  }

  bool others_wait() {
    const std::lock_guard lock(mutex_);
    return !parked_.empty() || (next_ < clusters_ && open_ < resident_);
  }

  /// Whether all that run only wait for memory which nobody changes, for so long that nobody else can be about to.
  bool for_ever(Cluster& cluster) {
    const std::lock_guard lock(mutex_);
    const uint64_t changes = grid_.machine->memory_changes();
    const auto now = std::chrono::steady_clock::now();
    if (changes != changes_seen_ || cycling_.empty()) {
      changes_seen_ = changes;
      cycling_.clear();
      cycling_since_ = now;
    }
    cycling_.insert(&cluster);
    const bool room = next_ < clusters_ && open_ < resident_;
    if (room || cycling_.size() < open_ || now - cycling_since_ < kDeadlockAfter) return false;
    cluster.fail_cycling(next_ < clusters_
                             ? fmt::format("{} of {} blocks have not started, for no more fit on the device at once",
                                           (clusters_ - next_) * grid_.blocks_per_cluster, grid_.blocks)
                             : std::string("all blocks that have not ended do the same"));
    return true;
  }

  static constexpr std::chrono::seconds kDeadlockAfter{4};

  Grid& grid_;
  uint64_t clusters_, resident_;
  bool adversarial_;
  std::mutex mutex_;
  uint64_t next_ = 0, open_ = 0;  // open: started and not done
  bool turn_ = false;
  std::deque<std::unique_ptr<Cluster>> parked_;
  std::unordered_set<const Cluster*> cycling_;  // since memory changed last
  std::chrono::steady_clock::time_point cycling_since_;
  uint64_t changes_seen_ = 0;
};

}  // namespace

Outcome Machine::run(const Launch& launch, DeviceWork* work) {
  Grid grid;
  grid.machine = this;
  grid.work = work;
  grid.launch = &launch;
  grid.sequence = ++state_->launches;
  // With checks on a fault is a finding like others; without, who asked for the launch says it.
  const auto report = [&](const Outcome& outcome) {
    if (outcome.status != Status::kOk && options_.check) state_->findings.add(outcome.message, outcome.message);
  };
  try {
    grid.program = &launch.kernel->program();
  } catch (const Error& e) {
    const Outcome outcome{Status::kIllegalInstruction, e.what()};
    report(outcome);
    return outcome;
  }
  const Program& program = *grid.program;
  grid.blocks = uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  grid.threads_per_block = launch.block[0] * launch.block[1] * launch.block[2];
  grid.warps_per_block = (grid.threads_per_block + kLanes - 1) / kLanes;
  const auto dynamic_shared = static_cast<uint32_t>(launch.dynamic_shared);
  grid.shared_bytes = program.shared_static_bytes + dynamic_shared;
  grid.shared_extent = program.shared_dynamic_offset + dynamic_shared;
  if (options_.check) {
    for (const auto& v : program.shared_variables)
      grid.shared_regions.push_back({v.name, v.offset, v.offset + v.bytes});
    grid.shared_regions.push_back({{}, program.shared_dynamic_offset, grid.shared_extent});
  }
  grid.blocks_per_cluster = launch.cluster[0] * launch.cluster[1] * launch.cluster[2];
  const std::unique_ptr<std::byte, void (*)(void*)> constants(
      static_cast<std::byte*>(std::aligned_alloc(64, program.constants.size() + 64)), std::free);
  std::memcpy(constants.get(), program.constants.data(), program.constants.size());
  grid.constants = constants.get();

  Allocation* barrier = nullptr;
  if (launch.cooperative) {
    barrier = memory_.allocate(MemoryKind::kModule, 64, "the grid's barrier");
    if (barrier == nullptr) return {Status::kIllegalAddress, "no memory for the grid's barrier"};
    std::memset(barrier->host, 0, 64);
    host_wrote(barrier->base, 64);
    grid.barrier_address = barrier->base;
  }

  const KernelResources& resources = launch.kernel->resources();
  const Occupancy fits = occupancy(*gpu_, static_cast<int>(grid.threads_per_block),
                                   static_cast<int>(resources.registers), grid.shared_bytes);
  const uint64_t resident =
      static_cast<uint64_t>(std::max(1, fits.blocks)) * static_cast<uint64_t>(gpu_->multiprocessors);
  Dispatch dispatch(grid, grid.blocks / grid.blocks_per_cluster,
                    std::max<uint64_t>(1, resident / grid.blocks_per_cluster));

  std::mutex workers_mutex;
  std::vector<std::unique_ptr<Worker>> workers;
  const std::function<void()> part = [&] {
    auto owned = std::make_unique<Worker>();
    Worker& worker = *owned;
    {
      const std::lock_guard lock(workers_mutex);
      worker.index = static_cast<int>(workers.size());
      workers.push_back(std::move(owned));
    }
    worker.random.seed(options_.seed + static_cast<uint64_t>(worker.index));
    if (state_->checker != nullptr) worker.observers.push_back(state_->checker->observe(grid));
    if (state_->counters != nullptr) {
      worker.observers.push_back(state_->counters->observe(grid));
      worker.executed.assign(program.code.size(), 0);
      worker.threads.assign(program.code.size(), 0);
      worker.divergent.assign(program.code.size(), 0);
    }
    dispatch.work(worker);
  };
  if (grid.blocks == grid.blocks_per_cluster) {
    part();
  } else {
    state_->pool.run(part);
  }
  if (barrier != nullptr) memory_.free(barrier);
  if (state_->counters != nullptr) {
    std::vector<const Worker*> all;
    for (const auto& w : workers) all.push_back(w.get());
    state_->counters->launch_ended(grid, all);
  }
  report(grid.outcome);
  return grid.outcome;
}

void Machine::host_wrote(uint64_t address, uint64_t bytes) {
  if (state_ == nullptr) return;  // it is just being made
  memory_changed();
  if (state_->checker != nullptr) state_->checker->host_wrote(address, bytes);
}

void Machine::host_reads(uint64_t address, uint64_t bytes, const char* call) {
  if (state_->checker != nullptr) state_->checker->host_reads(address, bytes, call);
}

void Machine::device_copied(uint64_t to, uint64_t from, uint64_t bytes) {
  memory_changed();
  if (state_->checker != nullptr) state_->checker->device_copied(to, from, bytes);
}

void Machine::memory_changed() { state_->changes.fetch_add(1, std::memory_order_relaxed); }
uint64_t Machine::memory_changes() const { return state_->changes.load(std::memory_order_relaxed); }

Findings& Machine::findings() { return state_->findings; }
DeviceOrder* Machine::order() { return state_->order.get(); }
const Counters* Machine::counters() const { return state_->counters.get(); }

uint64_t Machine::finish() {
  if (state_->checker != nullptr) {
    state_->checker->find_leaks();
    state_->findings.summarise();
  }
  if (state_->counters != nullptr) state_->counters->report();
  return state_->findings.count();
}

}  // namespace ptxsim
