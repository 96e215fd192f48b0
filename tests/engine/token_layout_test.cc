#include "engine/token_layout.h"

#include <gtest/gtest.h>

#include "tests/engine/error_text.h"

namespace cpvt {
namespace {

TEST(TokenLayout, FloorsGridsAndPutsImagesOneAfterTheOther) {
  const std::vector<ImageSize> sizes{{32, 47}, {16, 16}, {31, 1000}};
  const TokenLayout with = TokenLayout::of(sizes, 16, true);
  EXPECT_EQ(with.images, (std::vector<TokenGrid>{{0, 2, 2, 1}, {5, 1, 1, 1}, {7, 1, 62, 1}}));
  EXPECT_EQ(with.rows, 70);
  EXPECT_EQ(with.images[2].first_patch(), 8);
  const TokenLayout without = TokenLayout::of(sizes, 16, false);
  EXPECT_EQ(without.images, (std::vector<TokenGrid>{{0, 2, 2, 0}, {4, 1, 1, 0}, {5, 1, 62, 0}}));
  EXPECT_EQ(without.rows, 67);
  EXPECT_NE(with, without);
}

TEST(TokenLayout, RefusesWhatHasNoGrid) {
  const auto text = [](std::vector<ImageSize> sizes) { return error_text([&] { TokenLayout::of(sizes, 16, true); }); };
  EXPECT_EQ(text({}), "expected at least one image in a batch, found none");
  EXPECT_EQ(text({{16, 16}, {15, 400}}), "image of 15x400 pixels: expected at least one patch of 16x16");
  EXPECT_EQ(text({{400, 15}}), "image of 400x15 pixels: expected at least one patch of 16x16");
  EXPECT_EQ(text({{0, 0}}), "image of 0x0 pixels: expected at least one patch of 16x16");
  EXPECT_EQ(text({{-32, 32}}), "image of -32x32 pixels: expected at least one patch of 16x16");
  EXPECT_EQ(text({{16, 1048577}}), "image of 16x1048577 pixels: expected sides of at most 1048576");
}

}  // namespace
}  // namespace cpvt
