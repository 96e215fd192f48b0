#include "tools/efficiency/budgets.h"

#include <algorithm>
#include <array>
#include <istream>
#include <ostream>
#include <sstream>

#include "base/error.h"

namespace cpvt::efficiency {

namespace {

using Bound = Counter::Bound;

// The slack is for another minor version of nvcc, and for changes that are worth a few instructions. What may not get
// worse at all: how many blocks a multiprocessor holds. What no kernel may have: bank conflicts and spills.
constexpr std::array kCounters = {
    Counter{"launches", &Launch::count, 0, Bound::kMost},
    Counter{"blocks", &Launch::blocks, 0, Bound::kNone},
    Counter{"threads", &Launch::threads, 0, Bound::kNone},
    Counter{"waves", &Launch::waves, 3, Bound::kNone},
    Counter{"multiply_adds", &Launch::multiply_adds, 0, Bound::kNone},
    Counter{"estimate_us", &Launch::estimate_us, 3, Bound::kNone},
    Counter{"instructions", &Launch::instructions, 0, Bound::kMost, 0.03},
    Counter{"tensor_percent", &Launch::tensor_percent, 2, Bound::kLeast, 0.03},
    Counter{"tensor_work", &Launch::tensor_work, 3, Bound::kMost, 0, 0.001},
    Counter{"device_bytes", &Launch::device_bytes, 0, Bound::kMost, 0.01},
    Counter{"l2_bytes", &Launch::l2_bytes, 0, Bound::kMost, 0.02},
    Counter{"load_sectors", &Launch::load_sectors, 2, Bound::kLeast, 0.02, 0.01},
    Counter{"store_sectors", &Launch::store_sectors, 2, Bound::kLeast, 0.02, 0.01},
    Counter{"wavefronts", &Launch::wavefronts, 0, Bound::kMost, 0.02},
    Counter{"conflicts", &Launch::conflicts, 0, Bound::kZero},
    Counter{"registers", &Launch::registers, 0, Bound::kMost, 0, 8},
    Counter{"local_bytes", &Launch::local_bytes, 0, Bound::kZero},
    Counter{"shared_bytes", &Launch::shared_bytes, 0, Bound::kMost},
    Counter{"resident", &Launch::resident, 0, Bound::kLeast},
};

constexpr const char* kIntroduction =
    R"(# Budgets of the CUDA kernels, per launch: what ptxsim counted, as on an NVIDIA H200; no measured times.
# Renewed by tools/efficiency/renew.sh, checked by the test kernels_cuda.budgets, shown in docs/cuda-kernels.md.
#
)";

std::string number(double value, int decimals) { return fmt::format("{:.{}f}", value, decimals); }

/// Columns in the file's order: the operator, the counters, the limiter, and the kernel, whose name has spaces.
std::vector<std::string> head() {
  std::vector<std::string> cells = {"operator"};
  for (const Counter& counter : kCounters) cells.emplace_back(counter.name);
  cells.emplace_back("limiter");
  cells.emplace_back("kernel");
  return cells;
}

std::vector<std::string> cells_of(const Launch& launch) {
  std::vector<std::string> cells = {launch.op};
  for (const Counter& counter : kCounters) cells.push_back(number(launch.*counter.value, counter.decimals));
  cells.push_back(launch.limiter);
  std::ranges::replace(cells.back(), ' ', '_');
  cells.push_back(launch.kernel);
  return cells;
}

void write_slack(std::ostream& out) {
  for (const Counter& counter : kCounters) {
    if (counter.bound == Bound::kNone) continue;
    if (counter.bound == Bound::kZero) {
      out << fmt::format("#   {:<16}none, of any kernel\n", counter.name);
      continue;
    }
    const char* bound = counter.bound == Bound::kMost ? "at most" : "at least";
    std::string slack;
    if (counter.slack != 0) slack = fmt::format("{:.0f} %", 100 * counter.slack);
    if (counter.steps != 0) slack += fmt::format("{}{:g}", slack.empty() ? "" : " and ", counter.steps);
    out << fmt::format("#   {:<16}{:<10}{}\n", counter.name, bound, slack.empty() ? "no slack" : "slack " + slack);
  }
}

/// The launches of one operator in one pass, which come in the order of the launches.
std::vector<const Launch*> of_operator(std::span<const Launch> all, const Launch& like) {
  std::vector<const Launch*> result;
  for (const Launch& launch : all) {
    if (launch.pass == like.pass && launch.op == like.op) result.push_back(&launch);
  }
  return result;
}

bool first_of_operator(std::span<const Launch> all, const Launch& launch) {
  return of_operator(all, launch).front() == &launch;
}

void compare_launch(const Launch& budget, const Launch& found, Comparison& result) {
  const std::string what = fmt::format("{}: {}: {}", found.pass, found.op, found.kernel);
  if (budget.kernel != found.kernel) {
    result.exceeded.push_back(fmt::format("{}: another kernel than the budget's, {}", what, budget.kernel));
    return;
  }
  for (const Counter& counter : kCounters) {
    if (counter.bound == Bound::kNone) continue;
    const double value = found.*counter.value;
    const double wanted = counter.bound == Bound::kZero ? 0 : budget.*counter.value;
    const double slack = wanted * counter.slack + counter.steps;
    const bool most = counter.bound != Bound::kLeast;
    const bool within = most ? value <= wanted + slack : value >= wanted - slack;  // false for NaN
    const bool better = most ? value < wanted - slack : value > wanted + slack;
    const std::string text =
        fmt::format("{}: {}: found {}, budget {} {}", what, counter.name, number(value, counter.decimals),
                    most ? "at most" : "at least", number(wanted, counter.decimals));
    if (!within) result.exceeded.push_back(text);
    if (better) result.better.push_back(text);
  }
}

}  // namespace

std::span<const Counter> counters() { return kCounters; }

void write_budgets(std::ostream& out, std::span<const Launch> launches) {
  out << kIntroduction;
  write_slack(out);
  std::string pass;
  for (size_t begin = 0; begin < launches.size();) {
    size_t end = begin;
    std::vector<std::vector<std::string>> table = {head()};
    for (; end < launches.size() && launches[end].pass == launches[begin].pass; ++end) {
      table.push_back(cells_of(launches[end]));
    }
    out << fmt::format("\n[{}]\n", launches[begin].pass);
    for (const auto& row : table) {
      std::string line;
      for (size_t c = 0; c + 1 < row.size(); ++c) {
        size_t width = 0;
        for (const auto& other : table) width = std::max(width, other[c].size());
        const bool text = c == 0 || c + 2 == row.size();
        line += text ? fmt::format("{:<{}}  ", row[c], width) : fmt::format("{:>{}}  ", row[c], width);
      }
      out << line << row.back() << '\n';
    }
    begin = end;
  }
}

std::vector<Launch> read_budgets(std::istream& in, const std::string& origin) {
  std::vector<Launch> launches;
  std::string pass;
  std::string line;
  for (int at = 1; std::getline(in, line); ++at) {
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '[' && line.back() == ']') {
      pass = line.substr(1, line.size() - 2);
      continue;
    }
    std::istringstream words(line);
    std::vector<std::string> cells(kCounters.size() + 2);
    for (std::string& cell : cells) words >> cell;
    std::string kernel;
    std::getline(words >> std::ws, kernel);
    if (!words || pass.empty()) throw Error("{}:{}: not a row of the table", origin, at);
    cells.push_back(kernel);
    if (cells[0] == "operator") {
      if (cells != head()) throw Error("{}:{}: columns of another version: renew the budgets", origin, at);
      continue;
    }
    Launch launch;
    launch.pass = pass;
    launch.op = cells[0];
    launch.kernel = kernel;
    launch.limiter = cells[cells.size() - 2];
    std::ranges::replace(launch.limiter, '_', ' ');
    for (size_t c = 0; c < kCounters.size(); ++c) {
      size_t used = 0;
      try {
        launch.*kCounters[c].value = std::stod(cells[c + 1], &used);
      } catch (const std::logic_error&) {  // the check below says it
      }
      if (used == 0 || used != cells[c + 1].size()) {
        throw Error("{}:{}: {}: expected a number, found '{}'", origin, at, kCounters[c].name, cells[c + 1]);
      }
    }
    launches.push_back(launch);
  }
  return launches;
}

Comparison compare(std::span<const Launch> budgets, std::span<const Launch> found) {
  Comparison result;
  for (const Launch& launch : found) {
    if (!first_of_operator(found, launch)) continue;
    const auto mine = of_operator(found, launch);
    const auto wanted = of_operator(budgets, launch);
    for (size_t i = 0; i < mine.size() && i < wanted.size(); ++i) compare_launch(*wanted[i], *mine[i], result);
    for (size_t i = wanted.size(); i < mine.size(); ++i) {
      result.exceeded.push_back(fmt::format("{}: {}: {}: has no budget", mine[i]->pass, mine[i]->op, mine[i]->kernel));
    }
    for (size_t i = mine.size(); i < wanted.size(); ++i) {
      result.exceeded.push_back(
          fmt::format("{}: {}: {}: has a budget but no launch", wanted[i]->pass, wanted[i]->op, wanted[i]->kernel));
    }
  }
  for (const Launch& budget : budgets) {
    const bool looked_at = std::ranges::any_of(found, [&](const Launch& l) { return l.pass == budget.pass; });
    if (looked_at && first_of_operator(budgets, budget) && of_operator(found, budget).empty()) {
      result.exceeded.push_back(fmt::format("{}: {}: has a budget but no launch", budget.pass, budget.op));
    }
  }
  return result;
}

}  // namespace cpvt::efficiency
