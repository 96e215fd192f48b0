#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"

namespace cpvt {

/// A folder of its own for each test, gone afterwards.
class ScratchTest : public testing::Test {
 protected:
  ScratchTest() {
    std::string name = (std::filesystem::temp_directory_path() / "cpvt-base-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw Error("{}: cannot make this folder", name);
    folder = name;
  }
  ~ScratchTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  std::filesystem::path folder;
};

}  // namespace cpvt
