#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace ptxsim {

/// A file that data/make.sh made.
inline std::vector<std::byte> data_file(const std::string& name) {
  std::ifstream file(std::string(PTXSIM_TEST_DATA) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file) << name;
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

}  // namespace ptxsim
