#include "base/spool.h"

#include <string>

#include "tests/base/scratch.h"

namespace cpvt {
namespace {

using SpoolTest = ScratchTest;

std::string text_of(Spool& spool) {
  const auto bytes = spool.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(SpoolTest, GivesBackWhatWasAppendedAndHasNoName) {
  Spool spool(folder / "out");
  EXPECT_EQ(text_of(spool), "");
  const std::string ab = "ab";
  const std::string c(100'000, 'c');
  spool.append(std::as_bytes(std::span(ab)));
  EXPECT_EQ(text_of(spool), ab);
  spool.append(std::as_bytes(std::span(c)));
  EXPECT_EQ(spool.size(), 100'002U);
  EXPECT_EQ(text_of(spool), ab + c);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(SpoolTest, WithoutAFolderThereIsNone) {
  try {
    Spool spool(folder / "none/out");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), (folder / "none/out").string() + ": cannot create: No such file or directory");
  }
}

}  // namespace
}  // namespace cpvt
