#include "base/bytes.h"

#include <gtest/gtest.h>

namespace cpvt {
namespace {

TEST(Bytes, AFigureIsNeverNothing) {
  EXPECT_EQ(bytes_text(0), "0 bytes");
  EXPECT_EQ(bytes_text(1), "1 byte");
  EXPECT_EQ(bytes_text(10 << 10), "10240 bytes");
  EXPECT_EQ(bytes_text(52428), "52428 bytes");
  EXPECT_EQ(bytes_text(52429), "0.1 MiB");
  EXPECT_EQ(bytes_text(size_t{20} << 20), "20.0 MiB");
  EXPECT_EQ(bytes_text(size_t{5} << 40), "5242880.0 MiB");
}

}  // namespace
}  // namespace cpvt
