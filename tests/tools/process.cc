#include "tests/tools/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/error.h"

namespace cpvt {

namespace {

/// In the child: `path` becomes file descriptor `fd`.
void redirect(int fd, const std::string& path, int flags) {
  if (path == "closed") {
    close(fd);
    return;
  }
  const int file = open(path.c_str(), flags, 0600);
  if (file < 0 || dup2(file, fd) < 0) _exit(126);
  if (file != fd) close(file);
}

}  // namespace

Outcome run_cpvt(const std::vector<std::string>& arguments, const Surroundings& surroundings) {
  const ScratchFolder scratch;
  const std::string in = surroundings.input_path.empty() ? scratch / "in" : surroundings.input_path.string();
  const std::string out = surroundings.output.empty() ? scratch / "out" : surroundings.output.string();
  const std::string err = surroundings.error.empty() ? scratch / "err" : surroundings.error.string();
  if (surroundings.input_path.empty()) write_text(in, surroundings.input);

  std::vector<std::string> words{CPVT_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const pid_t child = fork();
  if (child < 0) throw Error("cannot fork");
  if (child == 0) {
    redirect(STDIN_FILENO, in, O_RDONLY);
    redirect(STDERR_FILENO, err, O_WRONLY | O_CREAT | O_TRUNC);
    redirect(STDOUT_FILENO, out, O_WRONLY | O_CREAT);
    if (!surroundings.folder.empty() && chdir(surroundings.folder.c_str()) != 0) _exit(126);
    const rlimit addresses{surroundings.address_space, surroundings.address_space};
    if (surroundings.address_space != 0 && setrlimit(RLIMIT_AS, &addresses) != 0) _exit(126);
    execv(CPVT_BINARY, argv.data());
    _exit(127);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) throw Error("cannot wait for {}", CPVT_BINARY);

  Outcome outcome;
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  if (surroundings.output.empty()) outcome.out = read_text(out);
  if (surroundings.error.empty()) outcome.err = read_text(err);
  return outcome;
}

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "cpvt-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw Error("{}: cannot make this folder", name);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> ScratchFolder::names() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error("{}: cannot open", path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  if (!out.flush()) throw Error("{}: cannot write", path.string());
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace cpvt
