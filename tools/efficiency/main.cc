// cuda_efficiency check|renew|page BUDGETS DOCS   what the CUDA kernels cost, counted without a GPU.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "tools/efficiency/budgets.h"
#include "tools/efficiency/page.h"

namespace cpvt::efficiency {
namespace {

namespace fs = std::filesystem;

std::vector<Launch> read(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw Error("{}: cannot open", path.string());
  return read_budgets(file, path.string());
}

void make_page(const fs::path& budgets, const fs::path& docs) {
  const std::vector<Launch> launches = read(budgets);
  fs::create_directories(docs);
  write_file(docs / "cuda-kernels.md", [&](std::ostream& out) { write_page(out, launches); });
  write_file(docs / "cuda-kernels.svg", [&](std::ostream& out) { write_picture(out, launches); });
}

/// Whether the page is what the budgets say.
bool page_is_current(const std::vector<Launch>& budgets, const fs::path& docs) {
  std::ostringstream expected;
  write_page(expected, budgets);
  std::ostringstream found;
  found << std::ifstream(docs / "cuda-kernels.md").rdbuf();
  return found.str() == expected.str();
}

int check(const fs::path& path, const fs::path& docs, const std::string& only) {
  std::vector<Pass> wanted;
  for (const Pass& pass : passes()) {
    if (pass.name().find(only) != std::string::npos) wanted.push_back(pass);
  }
  if (wanted.empty()) throw Error("--only {}: no pass has that in its name", only);
  const std::vector<Launch> budgets = read(path);
  const std::vector<Launch> found = simulate(wanted);
  const Comparison result = compare(budgets, found);
  for (const std::string& text : result.exceeded) fmt::print("worse: {}\n", text);
  for (const std::string& text : result.better) fmt::print("better: {}\n", text);
  const bool current = page_is_current(budgets, docs);
  if (!current) fmt::print("{} is not what {} says\n", (docs / "cuda-kernels.md").string(), path.string());
  const bool good = result.exceeded.empty() && current;
  fmt::print("{} kernels of {} passes: {} counters worse than their budgets, {} better\n", found.size(), wanted.size(),
             result.exceeded.size(), result.better.size());
  if (!good || !result.better.empty()) fmt::print("tools/efficiency/renew.sh renews budgets and page\n");
  return good ? 0 : 1;
}

void renew(const fs::path& path, const fs::path& docs) {
  const std::vector<Launch> found = simulate(passes());
  if (fs::exists(path)) {
    const Comparison change = compare(read(path), found);
    for (const std::string& text : change.exceeded) fmt::print("worse: {}\n", text);
    for (const std::string& text : change.better) fmt::print("better: {}\n", text);
  }
  write_file(path, [&](std::ostream& out) { write_budgets(out, found); });
  make_page(path, docs);
}

int run(int argc, char** argv) {
  CLI::App app("What the CUDA kernels cost, counted by ptxsim at the shapes of CPVT-GAP; no GPU is used.");
  std::string command;
  fs::path budgets;
  fs::path docs;
  std::string only;
  app.add_option("command", command,
                 "check: count and compare; renew: count, write budgets and page; page: write the page")
      ->required()
      ->check(CLI::IsMember({"check", "renew", "page"}));
  app.add_option("budgets", budgets, "tests/kernels/cuda/budgets.txt")->required();
  app.add_option("docs", docs, "the page's folder")->required();
  app.add_option("--only", only, "check: passes with this in their names, as 'B 1024 px'");
  CLI11_PARSE(app, argc, argv);
  if (command == "check") return check(budgets, docs, only);
  if (command == "renew") {
    renew(budgets, docs);
  } else {
    make_page(budgets, docs);
  }
  return 0;
}

}  // namespace
}  // namespace cpvt::efficiency

int main(int argc, char** argv) {
  try {
    return cpvt::efficiency::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "cuda_efficiency: {}\n", error.what());
    return 2;
  }
}
