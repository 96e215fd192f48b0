#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace cpvt {

/// How a run of the built cpvt ended.
struct Outcome {
  int code = -1;   // exit code; -1 where a signal ended it
  int signal = 0;  // which
  std::string out;
  std::string err;
};

struct Surroundings {
  std::string input = {};                 // what standard input holds
  std::filesystem::path input_path = {};  // what standard input is instead
  std::filesystem::path output = {};      // where stdout goes instead of Outcome::out; "closed" closes it
  std::filesystem::path error = {};       // the same for stderr
  std::filesystem::path folder = {};      // where it runs; this process's own where there is none
  size_t address_space = 0;               // bytes that it may have; 0: as many as it likes
};

/// Runs CPVT_BINARY with these arguments and waits for it.
Outcome run_cpvt(const std::vector<std::string>& arguments, const Surroundings& surroundings = {});

/// A folder for one test, empty, gone with it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::vector<std::string> names() const;  ///< of what lies in it, sorted

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);
std::vector<std::string> lines_of(const std::string& text);

}  // namespace cpvt
