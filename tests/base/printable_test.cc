#include "base/printable.h"

#include <gtest/gtest.h>

namespace cpvt {
namespace {

TEST(Printable, ControlCharactersAreWritten) {
  EXPECT_EQ(printable("H\xc3\xbcndin \xe2\x80\xa6 \xc2\xa0"), "H\xc3\xbcndin \xe2\x80\xa6 \xc2\xa0");
  EXPECT_EQ(printable("a\x1b[31mb\x7f\r\n"), "a\\x1b[31mb\\x7f\\x0d\\x0a");
  EXPECT_EQ(printable("a\nb\tc", "\n"), "a\nb\\x09c");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");
  EXPECT_EQ(printable(std::string_view("\0\xc2", 2)), "\\x00\xc2");
  EXPECT_EQ(printable("caf\xe9"), "caf\xe9");
}

}  // namespace
}  // namespace cpvt
