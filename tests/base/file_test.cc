#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <string>

#include "base/error.h"
#include "tests/base/scratch.h"

namespace cpvt {
namespace {

namespace fs = std::filesystem;

class File : public ScratchTest {
 protected:
  static std::string error_of_mapping(const fs::path& path) {
    try {
      const MappedFile file(path);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }
};

TEST_F(File, IsMapped) {
  std::ofstream(folder / "a") << "text";
  EXPECT_EQ(MappedFile(folder / "a").bytes().size(), 4U);
  std::ofstream(folder / "empty");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST_F(File, WhatIsNoneIsNamedAndNotWaitedFor) {
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of_mapping(folder / "pipe"), (folder / "pipe").string() + ": expected a file, found a pipe");
  EXPECT_EQ(error_of_mapping(folder), folder.string() + ": expected a file, found a folder");
  EXPECT_EQ(error_of_mapping("/dev/null"), "/dev/null: expected a file, found a device");
  EXPECT_EQ(error_of_mapping(folder / "none"), (folder / "none").string() + ": cannot open: No such file or directory");
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

TEST_F(File, IsWrittenWholeOrNotAtAll) {
  const fs::path path = folder / "out";
  write_file(path, [](std::ostream& out) { out << "first"; });
  EXPECT_EQ(names_in(folder), std::set<std::string>{"out"});
  EXPECT_THROW(write_file(path,
                          [](std::ostream& out) {
                            out << "second";
                            throw Error("no more");
                          }),
               Error);
  EXPECT_EQ(names_in(folder), std::set<std::string>{"out"});
  std::string text;
  std::ifstream(path) >> text;
  EXPECT_EQ(text, "first");
  write_file(path, [](std::ostream& out) { out << "third"; });
  std::ifstream(path) >> text;
  EXPECT_EQ(text, "third");
  EXPECT_EQ(names_in(folder), std::set<std::string>{"out"});
  EXPECT_THROW(write_file(folder / "none" / "out", [](std::ostream&) {}), Error);
}

// Whatever ends the process while it writes finds nothing that could be left behind.
TEST_F(File, HasNoNameWhileItIsWritten) {
  const int nameless = open(folder.c_str(), O_TMPFILE | O_RDWR, 0600);
  if (nameless < 0) GTEST_SKIP() << "this file system has no files without names";
  close(nameless);
  write_file(folder / "out", [&](std::ostream& out) {
    out << "text" << std::flush;
    EXPECT_TRUE(names_in(folder).empty());
  });
  EXPECT_EQ(names_in(folder), std::set<std::string>{"out"});
}

}  // namespace
}  // namespace cpvt
