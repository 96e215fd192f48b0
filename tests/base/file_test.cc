#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
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

}  // namespace
}  // namespace cpvt
