#include "tools/ptxsim/binary/fatbin.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "tests/ptxsim/front/data_files.h"
#include "tools/ptxsim/error.h"
#include "tools/ptxsim/ptx/module.h"

namespace ptxsim {
namespace {

struct Wrapper {
  uint32_t magic = 0x466243b1;
  uint32_t version = 1;
  const void* container = nullptr;
  const void* units = nullptr;
};

std::string_view text_of(const Image& image) {
  return {reinterpret_cast<const char*>(image.data.data()), image.data.size()};
}

std::string summary(const std::vector<Image>& images) {
  std::string result;
  for (const Image& image : images) {
    if (!result.empty()) result += ' ';
    result += image.kind == Image::Kind::kPtx ? "ptx" : "cubin";
    result += std::to_string(image.architecture);
    if (image.feature != ' ') result += image.feature;
    if (image.unit != 0) result += "/" + std::to_string(image.unit);
  }
  return result;
}

std::string error_of(const void* wrapper) {
  try {
    read_fatbin(wrapper);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Fatbin, EveryCompressionGivesTheSameText) {
  const std::vector<Image> zstd = read_fatbin(data_file("zstd.fatbin").data());
  EXPECT_EQ(summary(zstd), "cubin80 ptx80 cubin90a ptx90a");
  const std::vector<Image> lz4 = read_fatbin(data_file("lz4.fatbin").data());
  EXPECT_EQ(summary(lz4), "ptx80");
  EXPECT_EQ(text_of(lz4[0]), text_of(zstd[1]));
  const std::vector<Image> plain = read_fatbin(data_file("plain.fatbin").data());
  EXPECT_EQ(summary(plain), "ptx90");
  EXPECT_EQ(plain[0].data.back(), std::byte{'\n'});
  for (const auto* image : {&zstd[1], &zstd[3], lz4.data(), plain.data()}) {
    const ptx::Module module = ptx::parse(text_of(*image));
    EXPECT_EQ(module.functions.size(), 5U) << module.target;
  }
  // -lineinfo
  const ptx::Module module = ptx::parse(text_of(plain[0]));
  EXPECT_EQ(module.place(module.functions.back().body.back().source).substr(0, 11), "kernels.cu:");
}

TEST(Fatbin, OtherKindsAreLeftOut) { EXPECT_EQ(summary(read_fatbin(data_file("family.fatbin").data())), "ptx100f"); }

TEST(Fatbin, WrappersOfOneUnitAndOfSeveral) {
  const std::vector<std::byte> linked = data_file("linked.fatbin"), caller = data_file("unit_caller.fatbin"),
                               called = data_file("unit_called.fatbin");
  const std::array<const void*, 3> units = {caller.data(), called.data(), nullptr};
  Wrapper wrapper{.container = linked.data(), .units = "unused"};
  EXPECT_EQ(summary(read_fatbin(&wrapper)), "cubin90a");
  wrapper.version = 2;
  wrapper.units = units.data();
  EXPECT_EQ(summary(read_fatbin(&wrapper)), "cubin90a ptx90/1 cubin90a/1 ptx90a/1 ptx90/2 cubin90a/2 ptx90a/2");
}

TEST(Fatbin, WhatIsNone) {
  EXPECT_EQ(error_of(nullptr), "fat binary: the pointer is null");
  Wrapper wrapper;
  EXPECT_EQ(error_of(&wrapper), "fat binary: the wrapper has no container");
  wrapper.version = 3;
  EXPECT_EQ(error_of(&wrapper), "fat binary: expected wrapper version 1 or 2, found 3");
  wrapper.magic = 1;
  EXPECT_EQ(error_of(&wrapper), "fat binary: expected the magic 0x466243b1 or 0xba55ed50, found 0x1");
  const Wrapper other;
  wrapper = {.container = &other};
  EXPECT_EQ(error_of(&wrapper), "fat binary: expected the container magic 0xba55ed50, found 0x466243b1");
}

/// Damage within the container's stated size (which cannot be checked) gives an Error or other images.
TEST(Fatbin, DamagedContainers) {
  for (const char* name : {"zstd.fatbin", "lz4.fatbin", "plain.fatbin"}) {
    const std::vector<std::byte> original = data_file(name);
    size_t refused = 0;
    for (size_t at = 16; at < original.size(); at++) {
      for (const std::byte change : {std::byte{0x80}, std::byte{0xFF}}) {
        std::vector<std::byte> damaged = original;
        damaged[at] ^= change;
        if (error_of(damaged.data()) != "no error") refused++;
      }
    }
    EXPECT_GT(refused, 20U) << name;
    for (size_t size = 16; size < original.size(); size += 7) {
      std::vector<std::byte> cut(original.begin(), original.begin() + static_cast<ptrdiff_t>(size));
      const uint64_t contents = size - 16;
      std::memcpy(cut.data() + 8, &contents, sizeof(contents));
      error_of(cut.data());
    }
  }
}

Image image(Image::Kind kind, uint32_t architecture, char feature = ' ') {
  return {.kind = kind, .architecture = architecture, .feature = feature, .data = {}};
}

TEST(Fatbin, Choice) {
  constexpr auto kPtx = Image::Kind::kPtx, kCubin = Image::Kind::kCubin;
  const std::vector<Image> images = {image(kPtx, 80),       image(kPtx, 90),   image(kPtx, 90, 'a'),
                                     image(kPtx, 100, 'f'), image(kCubin, 80), image(kCubin, 90, 'a'),
                                     image(kCubin, 120)};
  EXPECT_EQ(&choose_ptx(images, 90, 'a'), &images[2]);
  EXPECT_EQ(&choose_ptx(images, 90, ' '), &images[1]);
  EXPECT_EQ(&choose_ptx(images, 89, 'a'), images.data());
  EXPECT_EQ(&choose_ptx(images, 103, 'a'), &images[3]);
  EXPECT_EQ(&choose_ptx(images, 120, 'a'), &images[1]);
  EXPECT_EQ(choose_cubin(images, 86), &images[4]);
  EXPECT_EQ(choose_cubin(images, 90), &images[5]);
  EXPECT_EQ(choose_cubin(images, 100), nullptr);
  try {
    choose_ptx(std::span(images).subspan(2), 86, ' ');
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "fat binary: no PTX that runs on sm_86; it has compute_90a, compute_100f, sm_80, sm_90a, sm_120. Build "
        "with -gencode arch=compute_86,code=compute_86, or less");
  }
}

}  // namespace
}  // namespace ptxsim
