#include "tools/ptxsim/binary/cubin.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "tests/ptxsim/front/data_files.h"
#include "tools/ptxsim/binary/fatbin.h"
#include "tools/ptxsim/error.h"

namespace ptxsim {
namespace {

/// Every cubin of the data by its name in resources.txt.
std::map<std::string, std::vector<std::byte>> cubins() {
  std::map<std::string, std::vector<std::byte>> result;
  for (const Image& image : read_fatbin(data_file("zstd.fatbin").data())) {
    if (image.kind == Image::Kind::kCubin) result[image.architecture == 80 ? "80" : "90a"] = image.data;
  }
  result["linked"] = read_fatbin(data_file("linked.fatbin").data()).at(0).data;
  return result;
}

TEST(Cubin, AsPtxasSays) {
  const std::map<std::string, std::vector<std::byte>> all = cubins();
  std::ifstream expected(std::string(PTXSIM_TEST_DATA) + "/resources.txt");
  std::string cubin, kernel;
  uint32_t registers = 0, barriers = 0, shared = 0, stack = 0;
  int compared = 0;
  for (; expected >> cubin >> kernel >> registers >> barriers >> shared >> stack; compared++) {
    const KernelResources found = read_cubin(all.at(cubin)).at(kernel);
    EXPECT_EQ(found.registers, registers) << cubin << ' ' << kernel;
    EXPECT_EQ(found.barriers, barriers) << cubin << ' ' << kernel;
    // nvlink, unlike ptxas, counts the 1024 bytes that sm_90 reserves.
    EXPECT_EQ(found.shared_bytes, cubin == "linked" ? shared - 1024 : shared) << cubin << ' ' << kernel;
    EXPECT_EQ(found.local_bytes, stack) << cubin << ' ' << kernel;
    EXPECT_EQ(found.max_threads, kernel == "plain" ? 192U : 0U) << cubin << ' ' << kernel;
  }
  EXPECT_EQ(compared, 11);
}

TEST(Cubin, OnlyKernelsAreListed) {
  EXPECT_EQ(read_cubin(cubins().at("linked")).size(), 1U);  // and not the device function that it calls
  EXPECT_EQ(read_cubin(cubins().at("80")).size(), 5U);
}

/// A unit that is not linked yet reserves nothing.
TEST(Cubin, Relocatable) {
  const std::vector<Image> images = read_fatbin(data_file("unit_caller.fatbin").data());
  const KernelResources found = read_cubin(choose_cubin(images, 90)->data).at("_Z6callerPi");
  EXPECT_EQ(found.shared_bytes, 28U);
  EXPECT_EQ(found.registers, 24U);
}

TEST(Cubin, WhatIsNone) {
  EXPECT_THROW(read_cubin({}), Error);
  EXPECT_THROW(read_cubin(std::vector<std::byte>(64)), Error);
  std::vector<std::byte> host = cubins().at("80");
  host[18] = std::byte{62};  // x86-64
  try {
    read_cubin(host);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cubin: expected ELF machine 190, found 62");
  }
}

TEST(Cubin, Damaged) {
  for (const auto& [name, original] : cubins()) {
    size_t refused = 0;
    const auto read = [&](std::span<const std::byte> cubin) {
      try {
        read_cubin(cubin);
      } catch (const Error&) {
        refused++;
      }
    };
    for (size_t at = 0; at < original.size(); at++) {
      std::vector<std::byte> damaged = original;
      damaged[at] ^= std::byte{static_cast<unsigned char>(at % 3 == 0 ? 0xFF : 1U << at % 8)};
      read(damaged);
    }
    EXPECT_GT(refused, 20U) << name;
    for (size_t size = 0; size < original.size(); size += 5) {
      const std::vector<std::byte> cut(original.begin(), original.begin() + static_cast<ptrdiff_t>(size));
      read(cut);
    }
    EXPECT_GT(refused, original.size() / 5) << name;
  }
}

}  // namespace
}  // namespace ptxsim
