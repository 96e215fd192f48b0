#include "tools/ptxsim/count/traffic.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "tools/ptxsim/count/unique_bytes.h"

namespace ptxsim {
namespace {

std::array<uint64_t, kLanes> addresses(const std::function<uint64_t(uint64_t)>& of_lane) {
  std::array<uint64_t, kLanes> a;
  for (uint64_t l = 0; l < kLanes; ++l) a[l] = of_lane(l);
  return a;
}

TEST(Sectors, OfConsecutiveLanes) {
  for (const uint32_t bytes : {1U, 2U, 4U, 8U, 16U}) {
    const auto a = addresses([&](uint64_t l) { return 4096 + l * bytes; });
    EXPECT_EQ(global_sectors(kAllLanes, a.data(), bytes), bytes) << bytes;
  }
}

TEST(Sectors, OfConsecutiveLanesOffTheSector) {
  const auto a = addresses([](uint64_t l) { return 4096 + 4 + l * 4; });
  EXPECT_EQ(global_sectors(kAllLanes, a.data(), 4), 5U);
}

TEST(Sectors, OfStridesBroadcastsAndMasks) {
  const auto strided = addresses([](uint64_t l) { return l * 128; });
  EXPECT_EQ(global_sectors(kAllLanes, strided.data(), 4), 32U);
  EXPECT_EQ(global_sectors(0x0000000f, strided.data(), 4), 4U);
  const auto same = addresses([](uint64_t) { return uint64_t{512}; });
  EXPECT_EQ(global_sectors(kAllLanes, same.data(), 4), 1U);
  EXPECT_EQ(global_sectors(kAllLanes, same.data(), 16), 4U) << "each quarter warp asks again";
  const auto reversed = addresses([](uint64_t l) { return 4096 + (31 - l) * 4; });
  EXPECT_EQ(global_sectors(kAllLanes, reversed.data(), 4), 4U);
}

TEST(Sectors, OfLocalMemoryLieInterleaved) {
  const auto same_offset = addresses([](uint64_t) { return uint64_t{8}; });
  EXPECT_EQ(local_sectors(kAllLanes, same_offset.data(), 4), 4U);
  const auto own_offsets = addresses([](uint64_t l) { return l * 4; });
  EXPECT_EQ(local_sectors(kAllLanes, own_offsets.data(), 4), 32U);
}

TEST(Wavefronts, OfConsecutiveLanesHaveNoConflict) {
  for (const uint32_t bytes : {1U, 2U, 4U, 8U, 16U}) {
    const auto a = addresses([&](uint64_t l) { return l * bytes; });
    const Wavefronts w = shared_wavefronts(kAllLanes, a.data(), bytes);
    EXPECT_EQ(w.count, w.ideal) << bytes;
    EXPECT_EQ(w.ideal, bytes <= 4 ? 1U : bytes == 8 ? 2U : 4U) << bytes;
  }
}

TEST(Wavefronts, OfColumnsConflictByTheStride) {
  for (const auto& [stride, ways] : {std::pair(33U, 1U), {32U, 32U}, {16U, 16U}, {2U, 2U}, {3U, 1U}}) {
    const auto a = addresses([stride = stride](uint64_t l) { return l * stride * 4; });
    EXPECT_EQ(shared_wavefronts(kAllLanes, a.data(), 4).count, ways) << stride;
  }
}

TEST(Wavefronts, OfOneWordAreABroadcast) {
  const auto a = addresses([](uint64_t l) { return 64 + l % 4; });
  EXPECT_EQ(shared_wavefronts(kAllLanes, a.data(), 1).count, 1U);
}

TEST(Wavefronts, OfMatrixRowsDependOnTheSwizzle) {
  // Eight rows of 128 bytes: the same column of all conflicts eightfold, swizzled not at all.
  const auto plain = addresses([](uint64_t l) { return l % 8 * 128; });
  EXPECT_EQ(shared_wavefronts(kAllLanes, plain.data(), 16).count, 32U);
  const auto swizzled = addresses([](uint64_t l) { return l % 8 * 128 + (l % 8 ^ l / 8) * 16; });
  EXPECT_EQ(shared_wavefronts(kAllLanes, swizzled.data(), 16).count, 4U);
}

TEST(Wavefronts, OfSeveralBlocksOfAClusterPassThroughTheBanksOfEach) {
  const auto in_block = [](uint64_t block, uint64_t offset) { return (block + 1) << kClusterRankShift | offset; };
  // A barrier of each of four blocks, at the same place.
  const auto barriers = addresses([&](uint64_t l) { return in_block(l, 1024); });
  EXPECT_EQ(cluster_wavefronts(0xf, barriers.data(), 8), (Wavefronts{4, 4}));
  // Columns of a matrix conflict with those of the same block, and only with them.
  const auto columns = addresses([&](uint64_t l) { return in_block(l / 8, l % 8 * 128); });
  EXPECT_EQ(cluster_wavefronts(kAllLanes, columns.data(), 4), (Wavefronts{32, 4}));
  const auto one_block = addresses([&](uint64_t l) { return in_block(1, l * 4); });
  EXPECT_EQ(cluster_wavefronts(kAllLanes, one_block.data(), 4), (Wavefronts{1, 1}));
}

TEST(UniqueBytes, CountEachByteOnce) {
  UniqueBytes a, b;
  a.add(4090, 12);  // over the end of a page
  a.add(4095, 2);
  EXPECT_EQ(a.count(), 12U);
  b.add(4100, 100);
  b.add(1, 63);
  b.add(0, 65);
  EXPECT_EQ(b.count(), 165U);
  a.merge(b);
  EXPECT_EQ(a.count(), 12U + 165U - 2U);
}

}  // namespace
}  // namespace ptxsim
