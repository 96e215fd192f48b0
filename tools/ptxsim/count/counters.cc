#include "tools/ptxsim/count/counters.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <tuple>
#include <unordered_map>

#include "tools/ptxsim/count/launch_counts.h"
#include "tools/ptxsim/count/traffic.h"
#include "tools/ptxsim/count/unique_bytes.h"
#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/program/data_type.h"

namespace ptxsim {

namespace {

struct TouchedBytes {
  uint64_t read = 0, written = 0;
  UniqueBytes unique_read, unique_written;
};

/// One worker's counters of one launch.
class CountingObserver : public Observer {
 public:
  explicit CountingObserver(size_t instructions) : traffic(instructions) {}

  void access(Warp& warp, const Instruction& in, const Access& a) override {
    // A copy under way is counted once, as the store that its landing is.
    if (a.kind == Access::Kind::kAsyncLand) return;
    const bool reads = a.kind == Access::Kind::kLoad || a.kind == Access::Kind::kAsyncRead;
    const bool atomic = a.kind == Access::Kind::kAtomic;
    const auto lanes = static_cast<uint64_t>(std::popcount(a.mask));
    MemoryCounts add;
    add.requests = 1;
    add.bytes = lanes * a.bytes;
    Traffic kind = Traffic::kCount;
    switch (a.space) {
      case Space::kGlobal:
      case Space::kConst:
        kind = atomic ? Traffic::kGlobalAtomic : reads ? Traffic::kGlobalLoad : Traffic::kGlobalStore;
        add.sectors = global_sectors(a.mask, a.address, a.bytes);
        touch(warp, a, reads || atomic, !reads);
        break;
      case Space::kShared:
      case Space::kSharedCluster: {  // of other blocks, counted as if it were here: theirs are as busy with ours
        kind = atomic ? Traffic::kSharedAtomic : reads ? Traffic::kSharedLoad : Traffic::kSharedStore;
        const auto wavefronts = a.space == Space::kShared ? shared_wavefronts : cluster_wavefronts;
        const Wavefronts w = wavefronts(a.mask, a.address, a.bytes);
        add.wavefronts = w.count;
        add.ideal = w.ideal;
        break;
      }
      case Space::kLocal:
        kind = reads ? Traffic::kLocalLoad : Traffic::kLocalStore;
        add.sectors = local_sectors(a.mask, a.address, a.bytes);
        break;
      default:
        return;
    }
    traffic[in.index][static_cast<size_t>(kind)] += add;
  }

  std::vector<TrafficCounts> traffic;  // by instruction
  std::map<const Allocation*, TouchedBytes> touched;

 private:
  void touch(Warp& warp, const Access& a, bool reads, bool writes) {
    const auto note = [&](const Allocation* allocation, uint64_t first, uint64_t bytes, uint64_t moved) {
      TouchedBytes& t = of(allocation);
      if (reads) {
        t.read += moved;
        t.unique_read.add(first, bytes);
      }
      if (writes) {
        t.written += moved;
        t.unique_written.add(first, bytes);
      }
    };
    if (a.allocation != nullptr && in_row(a.mask, a.address, a.bytes)) {
      note(a.allocation, a.address[0], uint64_t{a.bytes} * kLanes, uint64_t{a.bytes} * kLanes);
      return;
    }
    const AddressSpace& memory = warp.cta->grid.machine->memory();
    each_lane(a.mask, [&](int l) {
      note(a.allocation != nullptr ? a.allocation : memory.find(a.address[l]), a.address[l], a.bytes, a.bytes);
    });
  }

  TouchedBytes& of(const Allocation* allocation) {
    if (allocation != last_allocation_ || last_ == nullptr) {
      last_allocation_ = allocation;
      last_ = &touched[allocation];
    }
    return *last_;
  }

  const Allocation* last_allocation_ = nullptr;
  TouchedBytes* last_ = nullptr;
};

/// Multiply-adds of one warp's tensor instruction, from its shape: m16n8k16 -> 2048; a wgmma is shared by four warps.
uint64_t multiply_adds(const ptx::Instruction& text) {
  for (const std::string& m : text.modifiers) {
    unsigned rows = 0, columns = 0, depth = 0;
    if (std::sscanf(m.c_str(), "m%un%uk%u", &rows, &columns, &depth) == 3) {
      const uint64_t all = uint64_t{rows} * columns * depth;
      return text.opcode == "wgmma" ? all / 4 : all;
    }
  }
  return 0;
}

/// The operand type of a tensor instruction: what A is made of.
std::string tensor_type(const ptx::Instruction& text) {
  std::vector<std::string> types;
  for (const std::string& m : text.modifiers) {
    if (data_type(m)) types.push_back(m);
  }
  return types.size() >= 2 ? types[1] : types.empty() ? "f16" : types[0];
}

}  // namespace

struct Counters::State {
  Machine* machine;
  std::mutex mutex;
  using Key = std::tuple<std::string, Dim3, Dim3, Dim3, uint64_t>;
  std::map<Key, size_t> index;
  std::vector<std::unique_ptr<LaunchCounts>> launches;  // in the order of their first launch
};

Counters::Counters(Machine& machine) : state_(std::make_unique<State>()) { state_->machine = &machine; }
Counters::~Counters() = default;

std::unique_ptr<Observer> Counters::observe(Grid& grid) {
  return std::make_unique<CountingObserver>(grid.program->code.size());
}

void Counters::launch_ended(const Grid& grid, std::span<const Worker* const> workers) {
  const Program& program = *grid.program;
  const Launch& launch = *grid.launch;
  const std::lock_guard lock(state_->mutex);
  const State::Key key{program.kernel, launch.grid, launch.block, launch.cluster, launch.dynamic_shared};
  const auto [at, fresh] = state_->index.emplace(key, state_->launches.size());
  if (fresh) {
    auto counts = std::make_unique<LaunchCounts>();
    counts->kernel = launch.kernel->readable_name();
    counts->grid = launch.grid;
    counts->block = launch.block;
    counts->cluster = launch.cluster;
    counts->dynamic_shared = launch.dynamic_shared;
    counts->shared_bytes = grid.shared_bytes;
    counts->registers = launch.kernel->resources().registers;
    counts->local_bytes =
        launch.kernel->has_machine_code() ? launch.kernel->resources().local_bytes : program.local_bytes;
    const Gpu& gpu = state_->machine->gpu();
    counts->occupancy = occupancy(gpu, static_cast<int>(grid.threads_per_block), static_cast<int>(counts->registers),
                                  grid.shared_bytes);
    if (counts->occupancy.blocks > 0) {
      counts->waves = static_cast<double>(grid.blocks) / (counts->occupancy.blocks * gpu.multiprocessors);
    }
    state_->launches.push_back(std::move(counts));
  }
  LaunchCounts& counts = *state_->launches[at->second];
  ++counts.launches;

  std::map<const Allocation*, TouchedBytes> touched;
  for (const Worker* worker : workers) {
    for (size_t i = 0; i < worker->executed.size(); ++i) {
      const Origin& origin = program.origins[i];
      if (worker->executed[i] == 0 || origin.hidden) continue;
      const auto kind = static_cast<size_t>(origin.kind);
      counts.instructions[kind] += worker->executed[i];
      counts.lanes[kind] += worker->threads[i];
      if (origin.text == nullptr) continue;
      if (origin.text->opcode == "bra" || origin.text->opcode == "brx") {
        counts.branches += worker->executed[i];
        counts.divergent_branches += worker->divergent[i];
      }
      if (origin.kind == Kind::kTensor) {
        if (const uint64_t n = multiply_adds(*origin.text)) {
          counts.tensor_operations[tensor_type(*origin.text)] += n * worker->executed[i];
        }
      }
      if (const std::string place = program.module->place(origin.text->source); !place.empty()) {
        LineCounts& line = counts.by_line[place];
        line.instructions += worker->executed[i];
        line.lanes += worker->threads[i];
      }
    }
    for (const auto& observer : worker->observers) {
      auto* mine = dynamic_cast<CountingObserver*>(observer.get());
      if (mine == nullptr) continue;
      for (size_t i = 0; i < mine->traffic.size(); ++i) {
        const Origin& origin = program.origins[i];
        LineCounts* line = nullptr;
        if (origin.text != nullptr) {
          const std::string place = program.module->place(origin.text->source);
          if (!place.empty()) line = &counts.by_line[place];
        }
        for (size_t t = 0; t < counts.traffic.size(); ++t) {
          counts.traffic[t] += mine->traffic[i][t];
          if (line != nullptr) line->traffic[t] += mine->traffic[i][t];
        }
      }
      for (const auto& [allocation, bytes] : mine->touched) {
        TouchedBytes& all = touched[allocation];
        all.read += bytes.read;
        all.written += bytes.written;
        all.unique_read.merge(bytes.unique_read);
        all.unique_written.merge(bytes.unique_written);
      }
    }
  }
  for (const auto& [allocation, bytes] : touched) {
    if (allocation == nullptr) continue;
    AllocationCounts& a =
        counts.allocations[allocation->name.empty() ? fmt::format("allocation {}", allocation->sequence)
                                                    : allocation->name];
    a.bytes = allocation->bytes;
    a.read += bytes.read;
    a.written += bytes.written;
    a.unique_read += bytes.unique_read.count();
    a.unique_written += bytes.unique_written.count();
    counts.unique_read += bytes.unique_read.count();
    counts.unique_written += bytes.unique_written.count();
  }
}

std::vector<const LaunchCounts*> Counters::launches() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<const LaunchCounts*> all;
  for (const auto& l : state_->launches) all.push_back(l.get());
  return all;
}

void Counters::report() const {
  const std::vector<const LaunchCounts*> all = launches();
  const char* where = std::getenv("PTXSIM_REPORT");
  if (where == nullptr || *where == 0 || std::strcmp(where, "1") == 0 || std::strcmp(where, "-") == 0) {
    const std::string table = report_table(all, state_->machine->gpu());
    std::fwrite(table.data(), 1, table.size(), stderr);
    return;
  }
  const std::string partial = fmt::format("{}.partial", where);
  std::ofstream file(partial);
  file << report_json(all, state_->machine->gpu());
  file.close();
  if (!file || std::rename(partial.c_str(), where) != 0) {
    fmt::print(stderr, "ptxsim: cannot write the report to {}\n", where);
  }
}

}  // namespace ptxsim
