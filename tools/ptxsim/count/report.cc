#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/ptxsim/count/launch_counts.h"

namespace ptxsim {

namespace {

constexpr std::array<const char*, static_cast<size_t>(Kind::kCount)> kKinds = {
    "move",     "integer", "integer64",  "fp32",      "fp32_fma", "fp16",    "fp16_fma", "fp64",
    "fp64_fma", "special", "conversion", "predicate", "control",  "barrier", "warp",     "load",
    "store",    "atomic",  "async_copy", "matrix",    "tensor",   "other"};

constexpr std::array<const char*, static_cast<size_t>(Traffic::kCount)> kTraffics = {
    "global_op_ld", "global_op_st",   "global_op_atom", "shared_op_ld",
    "shared_op_st", "shared_op_atom", "local_op_ld",    "local_op_st"};

constexpr std::array<const char*, static_cast<size_t>(Traffic::kCount)> kTrafficTexts = {
    "global loads",  "global stores",  "global atomics", "shared loads",
    "shared stores", "shared atomics", "local loads",    "local stores"};

bool is_shared(size_t traffic) {
  return traffic >= static_cast<size_t>(Traffic::kSharedLoad) && traffic <= static_cast<size_t>(Traffic::kSharedAtomic);
}

double ratio(uint64_t a, uint64_t b) { return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b); }

std::string dims(const Dim3& d) {
  if (d[2] != 1) return fmt::format("{}x{}x{}", d[0], d[1], d[2]);
  return d[1] != 1 ? fmt::format("{}x{}", d[0], d[1]) : fmt::format("{}", d[0]);
}

/// 1234567 -> "1,234,567".
std::string grouped(uint64_t n) {
  if (n < 1000) return fmt::format("{}", n);
  return fmt::format("{},{:03}", grouped(n / 1000), n % 1000);
}

void line(std::string& out, std::string_view name, std::string_view value, std::string_view remark = {}) {
  out += fmt::format("  {:<26}{:>18}  {}", name, value, remark);
  while (out.back() == ' ') out.pop_back();
  out += '\n';
}

void table_of(std::string& out, const LaunchCounts& c, const Gpu& gpu) {
  out += fmt::format("\n{}\n  grid {}, block {}{}, {} launch{}{}\n", c.kernel, dims(c.grid), dims(c.block),
                     c.cluster == Dim3{1, 1, 1} ? std::string() : fmt::format(", cluster {}", dims(c.cluster)),
                     c.launches, c.launches == 1 ? "" : "es", c.launches == 1 ? "" : " (figures are sums over them)");
  line(out, "warp instructions", grouped(c.all_instructions()),
       fmt::format("{:.1f} of 32 lanes active", ratio(c.all_lanes(), c.all_instructions())));
  std::vector<size_t> order(kKinds.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return c.instructions[a] > c.instructions[b]; });
  for (const size_t k : order) {
    if (c.instructions[k] == 0) continue;
    line(out, fmt::format("  {}", kKinds[k]), grouped(c.instructions[k]),
         fmt::format("{:.1f} %", 100 * ratio(c.instructions[k], c.all_instructions())));
  }
  for (size_t t = 0; t < kTraffics.size(); ++t) {
    const MemoryCounts& m = c.traffic[t];
    if (m.requests == 0) continue;
    line(out, kTrafficTexts[t], grouped(m.requests),
         is_shared(t) ? fmt::format("{} bytes, {} wavefronts, {} bank conflicts", grouped(m.bytes),
                                    grouped(m.wavefronts), grouped(m.wavefronts - m.ideal))
                      : fmt::format("{} bytes, {} sectors, {:.2f} sectors/request", grouped(m.bytes),
                                    grouped(m.sectors), ratio(m.sectors, m.requests)));
  }
  for (const auto& [type, n] : c.tensor_operations) line(out, "tensor multiply-adds", grouped(n), type);
  if (c.branches != 0) {
    line(out, "branches", grouped(c.branches),
         fmt::format("{:.1f} % uniform", 100 - 100 * ratio(c.divergent_branches, c.branches)));
  }
  for (const auto& [name, a] : c.allocations) {
    line(out, name, grouped(a.read + a.written),
         fmt::format("bytes moved; read {} ({} distinct), written {} ({} distinct)", grouped(a.read),
                     grouped(a.unique_read), grouped(a.written), grouped(a.unique_written)));
  }
  line(out, "registers per thread", c.registers == 0 ? "unknown" : fmt::format("{}", c.registers),
       c.registers == 0 ? "no machine code lies beside the PTX"
                        : fmt::format("{} bytes of local memory", c.local_bytes));
  line(out, "shared memory per block", grouped(c.shared_bytes), "bytes");
  line(out, "occupancy", fmt::format("{:.0f} %", 100 * c.occupancy.fraction),
       fmt::format("{} blocks per multiprocessor, limited by {}; {:.2f} waves", c.occupancy.blocks, c.occupancy.limiter,
                   c.waves));
  const SpeedOfLight sol = speed_of_light(c, gpu);
  std::string next;
  for (size_t i = 1; i < sol.bounds.size() && i < 4; ++i) {
    if (sol.bounds[i].seconds > 0)
      next += fmt::format("{}{} {:.3g}", next.empty() ? "; " : ", ", sol.bounds[i].name, sol.bounds[i].seconds * 1e6);
  }
  line(out, "estimate, us per launch", fmt::format("{:.3g}", sol.seconds() * 1e6),
       fmt::format("at least, limited by {}{}", sol.bounds.front().name, next));

  std::vector<std::pair<std::string, const LineCounts*>> lines;
  for (const auto& [place, counts] : c.by_line) lines.emplace_back(place, &counts);
  std::stable_sort(lines.begin(), lines.end(),
                   [](const auto& a, const auto& b) { return a.second->instructions > b.second->instructions; });
  if (!lines.empty()) out += "  by line:                     instructions    sectors  wavefronts  conflicts\n";
  for (size_t i = 0; i < lines.size() && i < 12; ++i) {
    uint64_t sectors = 0, wavefronts = 0, ideal = 0;
    for (const MemoryCounts& m : lines[i].second->traffic) {
      sectors += m.sectors;
      wavefronts += m.wavefronts;
      ideal += m.ideal;
    }
    // What it was inlined into stands behind the figures: it may be long.
    const std::string& place = lines[i].first;
    const size_t end = std::min(place.find(" ("), place.size());
    out += fmt::format("    {:<26}{:>14}{:>11}{:>12}{:>11}{}{}\n", place.substr(0, end),
                       grouped(lines[i].second->instructions), grouped(sectors), grouped(wavefronts),
                       grouped(wavefronts - ideal), end < place.size() ? " " : "", place.substr(end));
  }
}

nlohmann::ordered_json traffic_json(const TrafficCounts& traffic) {
  nlohmann::ordered_json j = nlohmann::ordered_json::object();  // also for a kernel that touches no memory
  for (size_t t = 0; t < kTraffics.size(); ++t) {
    const MemoryCounts& m = traffic[t];
    if (m.requests == 0) continue;
    const std::string name = kTraffics[t];
    j[fmt::format("l1tex__t_requests_pipe_lsu_mem_{}.sum", name)] = m.requests;
    j[fmt::format("bytes_mem_{}", name)] = m.bytes;
    if (is_shared(t)) {
      j[fmt::format("l1tex__data_pipe_lsu_wavefronts_mem_{}.sum", name)] = m.wavefronts;
      j[fmt::format("l1tex__data_bank_conflicts_pipe_lsu_mem_{}.sum", name)] = m.wavefronts - m.ideal;
    } else {
      j[fmt::format("l1tex__t_sectors_pipe_lsu_mem_{}.sum", name)] = m.sectors;
    }
  }
  return j;
}

}  // namespace

std::string report_table(const std::vector<const LaunchCounts*>& launches, const Gpu& gpu) {
  std::string out = fmt::format(
      "\nptxsim: counters of {} kernel configuration{} (exact for the PTX); estimates for {}, not measured\n",
      launches.size(), launches.size() == 1 ? "" : "s", gpu.name);
  for (const LaunchCounts* c : launches) table_of(out, *c, gpu);
  return out;
}

std::string report_json(const std::vector<const LaunchCounts*>& launches, const Gpu& gpu) {
  nlohmann::ordered_json all;
  all["gpu"] = gpu.name;
  all["kernels"] = nlohmann::ordered_json::array();
  for (const LaunchCounts* c : launches) {
    nlohmann::ordered_json j;
    j["kernel"] = c->kernel;
    j["launches"] = c->launches;
    j["launch__grid_size"] = c->grid;
    j["launch__block_size"] = c->block;
    j["launch__cluster_size"] = c->cluster;
    if (c->registers != 0) j["launch__registers_per_thread"] = c->registers;
    j["local_bytes_per_thread"] = c->local_bytes;
    j["launch__shared_mem_per_block"] = c->shared_bytes;
    j["launch__waves_per_multiprocessor"] = c->waves;
    j["sm__maximum_warps_per_active_cycle_pct"] = 100 * c->occupancy.fraction;
    j["blocks_per_multiprocessor"] = c->occupancy.blocks;
    j["occupancy_limiter"] = c->occupancy.limiter;
    j["smsp__inst_executed.sum"] = c->all_instructions();
    j["smsp__thread_inst_executed.sum"] = c->all_lanes();
    for (size_t k = 0; k < kKinds.size(); ++k) {
      if (c->instructions[k] == 0) continue;
      j["instructions"][kKinds[k]] = c->instructions[k];
      j["lanes"][kKinds[k]] = c->lanes[k];
    }
    j["branches"] = c->branches;
    j["divergent_branches"] = c->divergent_branches;
    j.update(traffic_json(c->traffic));
    j["tensor_multiply_adds"] = c->tensor_operations;
    j["unique_bytes_read"] = c->unique_read;
    j["unique_bytes_written"] = c->unique_written;
    for (const auto& [name, a] : c->allocations) {
      j["allocations"][name] = {{"bytes", a.bytes},
                                {"read", a.read},
                                {"written", a.written},
                                {"unique_read", a.unique_read},
                                {"unique_written", a.unique_written}};
    }
    const SpeedOfLight sol = speed_of_light(*c, gpu);
    j["estimate"]["seconds_per_launch"] = sol.seconds();
    j["estimate"]["limiter"] = sol.bounds.front().name;
    for (const auto& b : sol.bounds) j["estimate"]["bounds"][b.name] = b.seconds;
    for (const auto& [place, counts] : c->by_line) {
      nlohmann::ordered_json l = traffic_json(counts.traffic);
      l["smsp__inst_executed.sum"] = counts.instructions;
      l["smsp__thread_inst_executed.sum"] = counts.lanes;
      j["lines"][place] = l;
    }
    all["kernels"].push_back(std::move(j));
  }
  return all.dump(2) + "\n";
}

}  // namespace ptxsim
