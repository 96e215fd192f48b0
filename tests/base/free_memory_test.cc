#include "base/free_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "tests/base/scratch.h"

namespace cpvt {
namespace {

constexpr size_t kMebibyte = 1 << 20;

/// A machine with 1000 MiB available, whose /proc and /sys lie in a folder.
class FreeMemory : public ScratchTest {
 protected:
  FreeMemory() { write("proc/meminfo", "MemTotal:  9999999 kB\nMemAvailable:   1024000 kB\nHugePages_Total:  0\n"); }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((folder / path).parent_path());
    std::ofstream(folder / path) << text;
  }
  void write_group(const std::string& name, const std::string& most, size_t taken, size_t of_files = 0) const {
    write("sys/fs/cgroup/" + name + "/memory.max", most + "\n");
    write("sys/fs/cgroup/" + name + "/memory.current", std::to_string(taken) + "\n");
    write("sys/fs/cgroup/" + name + "/memory.stat",
          "anon 5\ninactive_file " + std::to_string(of_files) + "\nactive_file " + std::to_string(of_files) + "\n");
  }
};

TEST_F(FreeMemory, OfThisMachine) { EXPECT_GT(free_memory(), 0U); }

TEST_F(FreeMemory, OfTheMachineWhereNothingElseBinds) {
  EXPECT_EQ(free_memory(folder), 1000 * kMebibyte);
  write("proc/self/cgroup", "3:cpu:/x\n0::/a/b\n");  // and its files are not to be seen
  EXPECT_EQ(free_memory(folder), 1000 * kMebibyte);
}

TEST_F(FreeMemory, OfTheControlGroups) {
  write("proc/self/cgroup", "0::/a/b\n");
  write_group("a/b", "max", 5 * kMebibyte);
  EXPECT_EQ(free_memory(folder), 1000 * kMebibyte);
  write_group("a/b", std::to_string(300 * kMebibyte), 200 * kMebibyte);
  EXPECT_EQ(free_memory(folder), 100 * kMebibyte);
  write_group("a/b", std::to_string(300 * kMebibyte), 200 * kMebibyte, 30 * kMebibyte);
  EXPECT_EQ(free_memory(folder), 160 * kMebibyte) << "60 of the 200 MiB are pages of files";
  write_group("a", std::to_string(50 * kMebibyte), 10 * kMebibyte);
  EXPECT_EQ(free_memory(folder), 40 * kMebibyte) << "the group above";
  write_group(".", std::to_string(20 * kMebibyte), 30 * kMebibyte);
  EXPECT_EQ(free_memory(folder), 0U) << "the one above all, and more taken than allowed";
}

TEST_F(FreeMemory, OfTheAddresses) {
  const size_t page = static_cast<size_t>(getpagesize());
  write("proc/self/statm", std::to_string(100 * kMebibyte / page) + " 1 1\n");
  EXPECT_EQ(free_memory(folder), 1000 * kMebibyte) << "without a limit";
  EXPECT_EXIT(
      {
        rlimit limit{};
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = size_t{1} << 50;
        setrlimit(RLIMIT_AS, &limit);
        write("proc/self/statm", std::to_string(((size_t{1} << 50) - 7 * kMebibyte) / page) + " 1 1\n");
        std::_Exit(free_memory(folder) == 7 * kMebibyte ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cpvt
