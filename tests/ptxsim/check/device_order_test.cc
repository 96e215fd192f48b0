#include "tools/ptxsim/check/device_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tools/ptxsim/machine/address_space.h"

namespace ptxsim {
namespace {

using Kind = DeviceWork::Kind;

/// Works of the device without a device: what they access is said here.
class Works : public ::testing::Test {
 protected:
  void SetUp() override {
    findings.emplace();
    order.emplace(*findings);
  }
  WorkPointer submit(std::vector<WorkPointer> after, Kind kind = Kind::kCopy) {
    const std::string& name = names.emplace_back("work " + std::to_string(names.size()));
    return order->submitted({kind, {}, name.c_str(), 0}, std::move(after));
  }
  void access(DeviceWork& work, Touch touch, uint64_t offset, uint64_t bytes) {
    work.accesses.of(*memory).add(touch, offset, bytes);
  }
  /// Begins, accesses, and ends.
  WorkPointer run(std::vector<WorkPointer> after, Touch touch, uint64_t offset, uint64_t bytes,
                  Kind kind = Kind::kCopy) {
    WorkPointer work = submit(std::move(after), kind);
    order->begins(*work);
    access(*work, touch, offset, bytes);
    order->ends(work, true);
    return work;
  }

  AddressSpace space{uint64_t{1} << 30};
  Allocation* memory = space.allocate(MemoryKind::kDevice, 100000);
  std::optional<Findings> findings;
  std::optional<DeviceOrder> order;
  std::deque<std::string> names;
};

TEST_F(Works, OrderIsWhatWasSaid) {
  const WorkPointer first = run({}, Touch::kWrite, 0, 4), second = run({first}, Touch::kWrite, 0, 4);
  const WorkPointer third = run({second}, Touch::kWrite, 0, 4);
  EXPECT_EQ(findings->count(), 0);
  EXPECT_TRUE(first->before(*third));
  EXPECT_FALSE(third->before(*first));
  run({first}, Touch::kRead, 0, 4);  // after the first, but neither before nor after the two others
  EXPECT_EQ(findings->count(), 1);   // the last of the others stands for what came before it
}

/// A read does not stand for the write that it comes after.
TEST_F(Works, WritesStayBehindReads) {
  const WorkPointer writes = run({}, Touch::kWrite, 0, 4);
  run({writes}, Touch::kRead, 0, 4);
  EXPECT_EQ(findings->count(), 0);
  run({}, Touch::kRead, 0, 4);
  EXPECT_EQ(findings->count(), 1);
}

TEST_F(Works, BytesDecide) {
  for (const uint64_t seam : {1, 2, 63, 64, 65, 128, 4095, 16383, 16384, 16385, 32768, 50001, 99999}) {
    for (const uint64_t read : {seam - 1, seam}) {
      SetUp();
      run({}, Touch::kWrite, 0, seam);
      run({}, Touch::kWrite, seam, memory->bytes - seam);
      EXPECT_EQ(findings->count(), 0) << seam;
      run({}, Touch::kRead, read, 1);
      EXPECT_EQ(findings->count(), 1) << seam;
    }
  }
}

TEST_F(Works, WaitsOfTheHostOrder) {
  const WorkPointer first = run({}, Touch::kWrite, 0, 4);
  const WorkPointer too_early = submit({});
  order->host_knows(*first);
  EXPECT_TRUE(order->known_to_host(*first));
  run({}, Touch::kWrite, 0, 4);
  EXPECT_EQ(findings->count(), 0);
  order->begins(*too_early);
  access(*too_early, Touch::kRead, 0, 4);
  order->ends(too_early, true);
  EXPECT_EQ(findings->count(), 1);  // the host had asked for it before it waited
}

/// Kernels' accesses that exclude each other.
TEST_F(Works, AtomicsAndVolatileAccessesGoTogether) {
  const std::set<std::pair<Touch, Touch>> races = {
      {Touch::kRead, Touch::kWrite},     {Touch::kRead, Touch::kSyncWrite},  {Touch::kWrite, Touch::kWrite},
      {Touch::kWrite, Touch::kSyncRead}, {Touch::kWrite, Touch::kSyncWrite},
  };
  const Touch all[] = {Touch::kRead, Touch::kWrite, Touch::kSyncRead, Touch::kSyncWrite};
  for (const Touch one : all) {
    for (const Touch other : all) {
      SetUp();
      run({}, one, 8, 8, Kind::kOther);
      run({}, other, 12, 8, Kind::kOther);
      const bool expected = races.contains({std::min(one, other), std::max(one, other)});
      EXPECT_EQ(findings->count() != 0, expected) << static_cast<int>(one) << " and " << static_cast<int>(other);
    }
  }
}

/// Who has seen another's flag comes after it, and so does what comes after him.
TEST_F(Works, FlagsOrder) {
  for (const bool sender_ends_first : {true, false}) {
    SetUp();
    const WorkPointer sender = submit({}, Kind::kOther), receiver = submit({}, Kind::kOther);
    order->begins(*sender);
    order->begins(*receiver);
    access(*sender, Touch::kWrite, 0, 64);
    access(*sender, Touch::kSyncWrite, 64, 4);
    access(*receiver, Touch::kSyncRead, 64, 4);
    access(*receiver, Touch::kRead, 0, 64);
    if (sender_ends_first) order->ends(sender, true);
    order->ends(receiver, true);
    run({receiver}, Touch::kWrite, 0, 64);
    if (!sender_ends_first) order->ends(sender, true);
    EXPECT_EQ(findings->count(), 0) << sender_ends_first;
  }
}

TEST_F(Works, MemoryIsForgottenWhenAllIsKnown) {
  WorkPointer last;
  for (uint64_t i = 0; i < 5000; ++i) {
    last = run({last}, Touch::kWrite, i % 1000 * 8, 4);
    ASSERT_LE(order->remembered(), 2001);
  }
  order->host_knows(*last);
  EXPECT_EQ(order->remembered(), 0);
}

/// Random works in a random order, against a table with an entry for each byte and work.
TEST_F(Works, FindsWhatATableOfBytesFinds) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SetUp();
    std::mt19937 random(seed);
    const auto below = [&random](uint64_t n) { return random() % n; };
    constexpr size_t kWorks = 24;
    struct Entry {
      WorkPointer work;
      std::vector<bool> before;
      std::vector<bool> reads, writes;
    };
    std::vector<Entry> table;
    std::set<std::pair<size_t, size_t>> pairs;
    uint64_t found_first = 0;
    std::vector<bool> host(kWorks);
    for (size_t w = 0; w < kWorks; ++w) {
      Entry e;
      e.before = host;
      std::vector<WorkPointer> after;
      for (size_t k = below(3); k-- > 0 && w > 0;) {
        const size_t b = below(w);
        after.push_back(table[b].work);
        e.before[b] = true;
        for (size_t i = 0; i < kWorks; ++i) e.before[i] = e.before[i] || table[b].before[i];
      }
      e.reads.assign(memory->bytes, false);
      e.writes.assign(memory->bytes, false);
      e.work = submit(std::move(after), Kind::kOther);
      order->begins(*e.work);
      for (size_t a = 1 + below(4); a-- > 0;) {
        const uint64_t bytes = below(8) == 0 ? 1 + below(60000) : 1 + below(40), offset = below(memory->bytes - bytes);
        const bool write = below(3) == 0;
        access(*e.work, write ? Touch::kWrite : Touch::kRead, offset, bytes);
        auto& table_of = write ? e.writes : e.reads;
        for (uint64_t i = offset; i < offset + bytes; ++i) table_of[i] = true;
      }
      order->ends(e.work, true);
      bool expected = false;
      for (size_t v = 0; v < w; ++v) {
        if (e.before[v]) continue;
        const Entry& o = table[v];
        for (uint64_t i = 0; i < memory->bytes && !pairs.contains({v, w}); ++i) {
          if ((e.writes[i] && (o.writes[i] || o.reads[i])) || (e.reads[i] && o.writes[i])) pairs.insert({v, w});
        }
        expected = expected || pairs.contains({v, w});
      }
      // A work with whom another race hides is found at the latest with the next one.
      if (pairs.empty()) {
        ASSERT_EQ(findings->count(), 0) << "seed " << seed << ", work " << w;
      } else if (found_first == 0) {
        ASSERT_GT(findings->count(), 0) << "seed " << seed << ", work " << w;
        found_first = findings->count();
      }
      ASSERT_LE(findings->count(), pairs.size()) << "seed " << seed << ", work " << w;
      table.push_back(std::move(e));
      if (below(10) == 0) {
        const size_t seen = below(w + 1);
        order->host_knows(*table[seen].work);
        host[seen] = true;
        for (size_t i = 0; i < kWorks; ++i) host[i] = host[i] || table[seen].before[i];
      }
    }
  }
}

}  // namespace
}  // namespace ptxsim
