// ptxsim: runs a CUDA program on the simulator's CUDA runtime library, with the environment that it needs.

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/ptxsim/error.h"
#include "tools/ptxsim/machine/gpu.h"

namespace ptxsim {
namespace {

constexpr int kFindings = 1, kWrongUse = 2, kCannotExecute = 127, kKilled = 128;
constexpr std::string_view kLibrary = "libcudart.so.13";

struct Request {
  bool check = false;
  std::string report;  // empty: none; "-": a table on stderr; else the file of the JSON form
  std::string gpu, schedule;
  int threads = 0;
  std::vector<std::string> program;
};

std::string gpu_keys() {
  std::string keys;
  for (const Gpu& gpu : gpus()) keys += fmt::format("{}{}", keys.empty() ? "" : ", ", gpu.key);
  return keys;
}

std::string check_gpu(const std::string& key) {
  try {
    gpu(key);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

std::string check_schedule(const std::string& text) {
  if (text == "plain") return {};
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error == std::errc{} && end == text.data() + text.size()) return {};
  return fmt::format("expected 'plain' or a seed, found '{}'", text);
}

std::string check_threads(const std::string& text) {
  constexpr int kMost = 1024;
  int threads = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
  if (error == std::errc{} && end == text.data() + text.size() && threads >= 1 && threads <= kMost) return {};
  return fmt::format("expected a whole number from 1 to {}, found '{}'", kMost, text);
}

/// The program's file: as the shell would find it.
std::optional<std::filesystem::path> find_program(const std::string& name) {
  const auto executable = [](const std::filesystem::path& path) {
    return access(path.c_str(), X_OK) == 0 && !std::filesystem::is_directory(path);
  };
  if (name.find('/') != std::string::npos) {
    return executable(name) ? std::optional<std::filesystem::path>(name) : std::nullopt;
  }
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    const std::filesystem::path candidate = std::filesystem::path(rest.substr(0, colon)) / name;
    if (executable(candidate)) return candidate;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return std::nullopt;
}

/// The folder with the simulator's library: beside this program's own.
std::filesystem::path library_folder() {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  std::filesystem::path folder = self.parent_path().parent_path() / "lib" / "ptxsim";
  if (!std::filesystem::exists(folder / kLibrary)) {
    throw Error("{} is not in {}, where this program's own place says that it is", kLibrary, folder.string());
  }
  return folder;
}

/// Whether a program has kernels, and the static CUDA runtime, through which nothing of them is seen.
bool is_static(const std::filesystem::path& program) {
  std::ifstream file(program, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  return content.find(".nv_fatbin") != std::string::npos && content.find(kLibrary) == std::string::npos;
}

/// Throws Error where the report could not be written in the end.
void check_report(const std::string& report) {
  if (report.empty() || report == "-") return;
  const std::filesystem::path path(report);
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code ignored;
  const bool exists = std::filesystem::exists(path, ignored);
  if (access(exists ? path.c_str() : folder.c_str(), W_OK) == 0 && !std::filesystem::is_directory(path, ignored))
    return;
  throw Error("cannot write the report to {}", report);
}

void set(const char* name, const std::string& value) {
  if (value.empty()) {
    unsetenv(name);
  } else {
    setenv(name, value.c_str(), 1);
  }
}

void set_environment(const Request& request, const std::filesystem::path& folder, int result) {
  const char* before = std::getenv("LD_LIBRARY_PATH");
  set("LD_LIBRARY_PATH", before == nullptr || *before == 0 ? folder.string() : folder.string() + ":" + before);
  set("PTXSIM_CHECK", request.check ? "1" : "");
  // The program may go to another folder before the file is written.
  const bool to_file = !request.report.empty() && request.report != "-";
  set("PTXSIM_REPORT", to_file ? std::filesystem::absolute(request.report).string() : request.report);
  set("PTXSIM_GPU", request.gpu);
  set("PTXSIM_SCHEDULE", request.schedule);
  set("PTXSIM_THREADS", request.threads > 0 ? std::to_string(request.threads) : "");
  set("PTXSIM_RESULT_FD", std::to_string(result));
}

volatile std::sig_atomic_t g_child = 0;

void pass_on(int signal) {
  if (g_child > 0) kill(static_cast<pid_t>(g_child), signal);
}

/// Signals that ask a program to end or to look up are for the child.
void pass_signals_on() {
  struct sigaction action {};
  action.sa_handler = pass_on;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) sigaction(signal, &action, nullptr);
}

[[noreturn]] void execute(const std::vector<std::string>& program, const std::filesystem::path& file) {
  std::vector<char*> arguments;
  arguments.reserve(program.size() + 1);
  for (const std::string& argument : program) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execv(file.c_str(), arguments.data());
  fmt::print(stderr, "ptxsim: cannot run {}: {}\n", file.string(), std::strerror(errno));
  _exit(kCannotExecute);
}

struct Results {
  bool called = false;  // some process has used the library
  uint64_t findings = 0;
};

/// Reads what is there: a byte for each finding, and one when a process begins to use the library or ends.
Results read_results(int descriptor) {
  Results results;
  std::array<char, 256> buffer{};
  for (;;) {
    const ssize_t count = read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return results;
    results.called = true;
    results.findings += static_cast<uint64_t>(std::count(buffer.begin(), buffer.begin() + count, 'f'));
  }
}

int run(const Request& request) {
  const std::optional<std::filesystem::path> file = find_program(request.program.front());
  if (!file) throw Error("there is no program '{}' that can be run", request.program.front());
  check_report(request.report);
  const std::filesystem::path folder = library_folder();

  std::array<int, 2> pipe_ends{};
  if (pipe(pipe_ends.data()) != 0) throw Error("cannot make a pipe: {}", std::strerror(errno));
  fcntl(pipe_ends[0], F_SETFD, FD_CLOEXEC);
  // Nobody reads before the end: whoever finds more than the pipe holds must not wait for that.
  fcntl(pipe_ends[1], F_SETFL, O_NONBLOCK);
  const pid_t child = fork();
  if (child < 0) throw Error("cannot start a process: {}", std::strerror(errno));
  if (child == 0) {
    set_environment(request, folder, pipe_ends[1]);
    execute(request.program, *file);
  }
  g_child = child;
  pass_signals_on();
  close(pipe_ends[1]);

  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  // What the program has left running keeps the pipe open; its results count as well.
  fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK);
  const Results results = read_results(pipe_ends[0]);

  const bool killed = WIFSIGNALED(status);
  int code = killed ? kKilled + WTERMSIG(status) : WEXITSTATUS(status);
  if (killed) {
    fmt::print(stderr, "ptxsim: {} was killed by signal {} ({})\n", file->string(), WTERMSIG(status),
               strsignal(WTERMSIG(status)));
  } else if (!results.called && code != kCannotExecute) {
    if (is_static(*file)) {
      fmt::print(stderr,
                 "ptxsim: {} is linked with the static CUDA runtime, which cannot be replaced: build it with nvcc "
                 "-cudart shared\n",
                 file->string());
      if (code == 0) code = kWrongUse;
    } else {
      fmt::print(stderr, "ptxsim: {} never called the CUDA runtime through {}; build it with nvcc -cudart shared\n",
                 file->string(), kLibrary);
    }
  }
  if (!request.check) return code;
  fmt::print(stderr, "ptxsim: {} findings\n", results.findings);
  return results.findings > 0 ? kFindings : code;
}

int main_of(int count, char** arguments) {
  Request request;
  CLI::App app{
      "Runs a CUDA program without a GPU: executes the PTX that nvcc has put into it on the CPU.\n"
      "The program must be linked with the shared CUDA runtime (nvcc -cudart shared).",
      "ptxsim"};
  app.footer(
      "Exit codes: the program's own; 1 when --check has found something; 128 + N when signal N killed it; 2 for "
      "wrong use.");
  app.add_flag("--check", request.check, "Look for wrong accesses, races, uninitialised reads, leaks and the like");
  app.add_flag("--report{-}", request.report,
               "Count what kernels do: a table on stderr, or JSON into a file with --report=FILE");
  app.add_option("--gpu", request.gpu, "The GPU to stand in for: " + gpu_keys())->check(check_gpu);
  app.add_option("--schedule", request.schedule,
                 "plain, or the seed of an order of warps that hides no missing barrier")
      ->check(check_schedule);
  app.add_option("--threads", request.threads, "Worker threads; as many as there are processors if not given")
      ->check(check_threads);
  app.add_option("program", request.program, "The program and its arguments, after --")->required();
  app.prefix_command(false);
  app.positionals_at_end();
  try {
    app.parse(count, arguments);
    return run(request);
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ExtrasError&) {
    std::vector<std::string> unknown = app.remaining();
    std::erase(unknown, "--");
    fmt::print(stderr, "ptxsim: not expected: {}\n", fmt::join(unknown, " "));
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "ptxsim: {}; --help tells how it is used\n", error.what());
  } catch (const Error& error) {
    fmt::print(stderr, "ptxsim: {}\n", error.what());
  } catch (const std::exception& error) {
    fmt::print(stderr, "ptxsim: {}\n", error.what());
  }
  return kWrongUse;
}

}  // namespace
}  // namespace ptxsim

int main(int count, char** arguments) {
  try {
    return ptxsim::main_of(count, arguments);
  } catch (...) {  // stderr is gone
    return ptxsim::kWrongUse;
  }
}
