#include "tools/efficiency/simulation.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"

namespace cpvt::efficiency {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// Something that a process of its own does: the simulator counts per process, and adds up launches that look alike.
struct Job {
  std::string what;
  std::function<void()> body;
};

pid_t start(const Job& job) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw Error("cannot make a process");
  if (child != 0) return child;
  try {
    job.body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", job.what.c_str(), error.what());
    _exit(1);
  }
  std::exit(0);  // at which the simulator writes its report
}

void run(const std::vector<Job>& jobs) {
  std::map<pid_t, const Job*> running;
  std::string failed;
  const auto finish_one = [&] {
    int status = 0;
    const auto ended = running.find(wait(&status));
    if (ended == running.end()) return;
    if (status != 0 && failed.empty()) failed = ended->second->what;
    running.erase(ended);
  };
  const size_t at_once = std::max(1U, std::thread::hardware_concurrency());
  for (size_t i = 0; i < jobs.size() && failed.empty(); ++i) {
    if (running.size() == at_once) finish_one();
    const pid_t child = start(jobs[i]);
    running[child] = &jobs[i];
    if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r%zu of %zu ", i + 1, jobs.size());
  }
  while (!running.empty()) finish_one();
  if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r            \r");
  if (!failed.empty()) throw Error("{} failed on the simulator", failed);
}

json read_json(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw Error("{}: the simulator left no report", path.string());
  return json::parse(file);
}

/// "void a::(anonymous namespace)::k<a::b::C<__half, 2>, 3>(a::D)" -> "k<C<__half, 2>, 3>".
std::string short_name(std::string name) {
  static const std::string kAnonymous = "(anonymous namespace)::";
  for (size_t at = name.find(kAnonymous); at != std::string::npos; at = name.find(kAnonymous)) {
    name.erase(at, kAnonymous.size());
  }
  name = name.substr(0, name.find('('));
  if (name.starts_with("void ")) name.erase(0, 5);
  std::string result;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name.compare(i, 2, "::") == 0) {
      while (!result.empty() &&
             (std::isalnum(static_cast<unsigned char>(result.back())) != 0 || result.back() == '_')) {
        result.pop_back();
      }
      ++i;
    } else {
      result += name[i];
    }
  }
  return result;
}

Launch launch_of(const Pass& pass, const Operator& op, const json& kernel) {
  const auto number = [&](const std::string& key) { return kernel.value(key, 0.0); };
  const double launches = number("launches");
  const auto each = [&](const std::string& key) { return number(key) / launches; };
  const auto ratio = [](double a, double b) { return b == 0 ? 0 : a / b; };
  const auto sum = [&](const std::string& prefix, std::initializer_list<const char*> spaces, const char* suffix = "") {
    double all = 0;
    for (const char* space : spaces) all += each(prefix + space + suffix);
    return all;
  };
  const auto extent = [&](const char* key) {
    double all = 1;
    for (const json& side : kernel.at(key)) all *= side.get<double>();
    return all;
  };
  const auto sectors = [&](std::initializer_list<const char*> spaces) {
    return sum("l1tex__t_sectors_pipe_lsu_mem_", spaces, ".sum");
  };
  const auto requests = [&](std::initializer_list<const char*> spaces) {
    return sum("l1tex__t_requests_pipe_lsu_mem_", spaces, ".sum");
  };
  Launch l;
  l.pass = pass.name();
  l.op = op.name;
  l.kernel = short_name(kernel.at("kernel"));
  l.count = op.count * launches;
  l.multiply_adds = op.multiply_adds;
  l.blocks = extent("launch__grid_size");
  l.threads = extent("launch__block_size");
  l.waves = number("launch__waves_per_multiprocessor");
  l.estimate_us = kernel.at("estimate").at("seconds_per_launch").get<double>() * 1e6;
  l.limiter = kernel.at("estimate").at("limiter");

  l.instructions = each("smsp__inst_executed.sum");
  l.tensor_percent = 100 * ratio(kernel.at("instructions").value("tensor", 0.0) / launches, l.instructions);
  double tensor = 0;
  for (const json& of_type : kernel.at("tensor_multiply_adds")) tensor += of_type.get<double>();
  l.tensor_work = ratio(tensor / launches, op.multiply_adds);
  l.device_bytes = each("unique_bytes_read") + each("unique_bytes_written");
  l.l2_bytes = 32 * sectors({"global_op_ld", "global_op_st", "global_op_atom", "local_op_ld", "local_op_st"});
  l.load_sectors = ratio(sectors({"global_op_ld"}), requests({"global_op_ld"}));
  l.store_sectors = ratio(sectors({"global_op_st"}), requests({"global_op_st"}));
  l.wavefronts =
      sum("l1tex__data_pipe_lsu_wavefronts_mem_", {"shared_op_ld", "shared_op_st", "shared_op_atom"}, ".sum");
  l.conflicts =
      sum("l1tex__data_bank_conflicts_pipe_lsu_mem_", {"shared_op_ld", "shared_op_st", "shared_op_atom"}, ".sum");
  l.registers = number("launch__registers_per_thread");
  l.local_bytes = number("local_bytes_per_thread");
  l.shared_bytes = number("launch__shared_mem_per_block");
  l.resident = number("blocks_per_multiprocessor");
  return l;
}

/// A folder for what the children leave, gone at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "cpvt_efficiency_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw Error("cannot make {}", name);
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

}  // namespace

std::vector<Launch> simulate(std::span<const Pass> passes) {
  const TemporaryFolder folder;
  setenv("PTXSIM_GPU", "h200", 1);
  setenv("PTXSIM_THREADS", "1", 1);
  unsetenv("PTXSIM_REPORT");

  // The parent never opens the simulator: what is open cannot be forked.
  std::vector<Job> lists;
  for (size_t p = 0; p < passes.size(); ++p) {
    const Pass& pass = passes[p];
    lists.push_back(
        {pass.name(), [&pass, path = folder / fmt::format("{}.json", p), model = folder / fmt::format("{}", p)] {
           json list = json::array();
           for (const Operator& op : operators(pass, model)) {
             list.push_back({{"name", op.name}, {"count", op.count}, {"multiply_adds", op.multiply_adds}});
           }
           std::ofstream(path) << list;
         }});
  }
  run(lists);

  struct Piece {
    const Pass* pass;
    Operator op;
    fs::path report;
    std::function<void()> body;
  };
  std::vector<Piece> pieces;
  for (size_t p = 0; p < passes.size(); ++p) {
    const Pass& pass = passes[p];
    const json list = read_json(folder / fmt::format("{}.json", p));
    for (size_t i = 0; i < list.size(); ++i) {
      const Operator op{list[i].at("name"), list[i].at("count"), list[i].at("multiply_adds")};
      const fs::path report = folder / fmt::format("{}.{}.json", p, i);
      pieces.push_back({&pass, op, report, [&pass, op, report, model = folder / fmt::format("{}.{}", p, i)] {
                          setenv("PTXSIM_REPORT", report.c_str(), 1);
                          run_operator(pass, op.name, model);
                        }});
    }
  }
  std::vector<const Piece*> order;  // the longest first, so that no core waits for one that began last
  for (const Piece& piece : pieces) order.push_back(&piece);
  std::ranges::stable_sort(order, std::ranges::greater{}, [](const Piece* p) { return p->op.multiply_adds; });
  std::vector<Job> jobs;
  for (const Piece* piece : order) {
    jobs.push_back({fmt::format("{}: {}", piece->pass->name(), piece->op.name), piece->body});
  }
  run(jobs);

  std::vector<Launch> launches;
  for (const Piece& piece : pieces) {
    const json report = read_json(piece.report);
    for (const json& kernel : report.at("kernels")) launches.push_back(launch_of(*piece.pass, piece.op, kernel));
  }
  return launches;
}

}  // namespace cpvt::efficiency
