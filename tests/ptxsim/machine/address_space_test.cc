#include "tools/ptxsim/machine/address_space.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace ptxsim {
namespace {

constexpr uint64_t kDevice = uint64_t{1} << 30;

// NOLINTBEGIN(clang-analyzer-unix.Malloc): the record of an allocation outlives its memory
// NOLINTNEXTLINE(performance-no-int-to-ptr)
std::byte* host_pointer(uint64_t address) { return reinterpret_cast<std::byte*>(address); }

TEST(AddressSpace, FindsAnAllocationByEveryAddressWithinIt) {
  AddressSpace memory(kDevice);
  Allocation* a = memory.allocate(MemoryKind::kDevice, 100);
  Allocation* b = memory.allocate(MemoryKind::kDevice, 200000);
  ASSERT_TRUE(a != nullptr && b != nullptr);
  for (const uint64_t offset : {0, 1, 99}) EXPECT_EQ(memory.find(a->base + offset), a);
  for (const uint64_t offset : {0, 65535, 65536, 131072, 199999}) EXPECT_EQ(memory.find(b->base + offset), b);
  // Just past the end the allocation is still the one to name.
  EXPECT_EQ(memory.find(a->base + 100), a);
  EXPECT_EQ(memory.find(b->base + 200000), b);
  EXPECT_EQ(memory.find_live(a->base, 100), a);
  EXPECT_EQ(memory.find_live(a->base + 99, 1), a);
  EXPECT_EQ(memory.find_live(a->base, 101), nullptr);
  EXPECT_EQ(memory.find_live(a->base + 100, 1), nullptr);
  EXPECT_EQ(memory.find_live(a->base + 50, ~uint64_t{0}), nullptr);
  EXPECT_EQ(a->base % 512, 0U);
  EXPECT_TRUE(memory.covers(a->base));
}

TEST(AddressSpace, NeverGivesAnAddressTwice) {
  AddressSpace memory(kDevice);
  std::set<uint64_t> bases;
  for (int i = 0; i < 1000; ++i) {
    Allocation* a = memory.allocate(MemoryKind::kDevice, 1 << 20);
    ASSERT_NE(a, nullptr);
    EXPECT_TRUE(bases.insert(a->base).second);
    memory.free(a);
    EXPECT_FALSE(a->live);
    EXPECT_EQ(memory.find(a->base), a);  // so that a use after free can name it
    EXPECT_EQ(memory.find_live(a->base, 1), nullptr);
  }
  EXPECT_EQ(memory.used_bytes(), 0U);
}

TEST(AddressSpace, KeepsToTheDevicesMemory) {
  AddressSpace memory(kDevice);
  EXPECT_EQ(memory.allocate(MemoryKind::kDevice, kDevice + 1), nullptr);
  Allocation* most = memory.allocate(MemoryKind::kDevice, kDevice - 1024);
  ASSERT_NE(most, nullptr);
  EXPECT_EQ(memory.used_bytes(), kDevice - 1024);
  EXPECT_EQ(memory.allocate(MemoryKind::kPool, 1025), nullptr);
  Allocation* rest = memory.allocate(MemoryKind::kPool, 1024);
  ASSERT_NE(rest, nullptr);
  EXPECT_EQ(memory.allocate(MemoryKind::kDevice, 1), nullptr);
  EXPECT_NE(memory.allocate(MemoryKind::kHost, 4096), nullptr);  // not the device's
  memory.free(most);
  EXPECT_EQ(memory.used_bytes(), 1024U);
  memory.free(most);  // twice changes nothing
  EXPECT_EQ(memory.used_bytes(), 1024U);
  EXPECT_EQ(memory.allocate(MemoryKind::kHost, ~uint64_t{0}), nullptr);
}

TEST(AddressSpace, TheHostSeesWhatTheDeviceWroteInManagedMemory) {
  AddressSpace memory(kDevice);
  for (const MemoryKind kind : {MemoryKind::kManaged, MemoryKind::kHost}) {
    Allocation* a = memory.allocate(kind, 100000);
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(host_pointer(a->base)[99999], std::byte{0});
    a->host[5] = std::byte{7};
    EXPECT_EQ(host_pointer(a->base)[5], std::byte{7});
    host_pointer(a->base)[6] = std::byte{8};
    EXPECT_EQ(a->host[6], std::byte{8});
    memory.free(a);
  }
}

TEST(AddressSpaceDeathTest, DeviceMemoryFaultsUnderTheHost) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  AddressSpace memory(kDevice);
  Allocation* device = memory.allocate(MemoryKind::kDevice, 4096);
  device->host[0] = std::byte{1};
  EXPECT_DEATH(*const_cast<volatile std::byte*>(host_pointer(device->base)) = std::byte{2}, "");
  Allocation* freed = memory.allocate(MemoryKind::kManaged, 4096);
  memory.free(freed);
  EXPECT_DEATH(*const_cast<volatile std::byte*>(host_pointer(freed->base)) = std::byte{2}, "");
}

TEST(AddressSpace, RegistersMemoryOfTheProgram) {
  AddressSpace memory(kDevice);
  std::vector<std::byte> own(1 << 20);
  Allocation* a = memory.register_host(own.data() + 1000, 5000);
  ASSERT_NE(a, nullptr);
  const uint64_t base = reinterpret_cast<uint64_t>(own.data()) + 1000;
  EXPECT_EQ(a->base, base);
  EXPECT_EQ(memory.find_live(base + 4999, 1), a);
  EXPECT_EQ(memory.find_live(base + 5000, 1), nullptr);
  EXPECT_EQ(memory.find_live(base - 1, 1), nullptr);
  EXPECT_FALSE(memory.covers(base));
  // Overlaps from below, from above, within and around.
  EXPECT_EQ(memory.register_host(own.data(), 1001), nullptr);
  EXPECT_EQ(memory.register_host(own.data() + 5999, 10), nullptr);
  EXPECT_EQ(memory.register_host(own.data() + 2000, 10), nullptr);
  EXPECT_EQ(memory.register_host(own.data(), 10000), nullptr);
  Allocation* next = memory.register_host(own.data() + 6000, 10);
  EXPECT_NE(next, nullptr);
  memory.free(a);
  EXPECT_EQ(memory.find_live(base, 1), nullptr);
  EXPECT_NE(memory.register_host(own.data() + 1000, 5000), nullptr);
}

TEST(AddressSpace, ReservedPlacesComeAndGo) {
  AddressSpace memory(kDevice);
  Allocation* a = memory.reserve(MemoryKind::kPool, kDevice / 2);
  ASSERT_NE(a, nullptr);
  EXPECT_TRUE(a->recurring);
  EXPECT_FALSE(a->live);
  EXPECT_EQ(memory.used_bytes(), 0U);
  const uint64_t base = a->base;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(memory.revive(a));
    EXPECT_FALSE(memory.revive(a));  // it is live
    EXPECT_EQ(a->base, base);
    EXPECT_EQ(memory.used_bytes(), kDevice / 2);
    EXPECT_EQ(a->host[0], std::byte{0});  // nothing is left of the last time
    a->host[0] = std::byte{1};
    memory.free(a);
  }
  Allocation* other = memory.allocate(MemoryKind::kDevice, kDevice);
  ASSERT_NE(other, nullptr);
  EXPECT_FALSE(memory.revive(a));
}

TEST(AddressSpace, DescribesAllocations) {
  AddressSpace memory(kDevice);
  Allocation* first = memory.allocate(MemoryKind::kDevice, 1024);
  EXPECT_NE(first->describe().find("allocation 1 (1024 bytes of device memory at 0x"), std::string::npos);
  Allocation* named = memory.allocate(MemoryKind::kModule, 4, "counter");
  EXPECT_NE(named->describe().find("__device__ variable 'counter' (4 bytes at 0x"), std::string::npos);
  memory.free(first);
  EXPECT_NE(first->describe().find("freed"), std::string::npos);
  EXPECT_EQ(memory.live_allocations(), std::vector<Allocation*>{named});
}

TEST(AddressSpace, ServesManyThreads) {
  AddressSpace memory(kDevice);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&memory, t] {
      for (int i = 0; i < 200; ++i) {
        const auto kind = static_cast<MemoryKind>(i % 4);
        Allocation* a = memory.allocate(kind, 1000 + static_cast<uint64_t>(i));
        ASSERT_NE(a, nullptr);
        std::memset(a->host, t, a->bytes);
        EXPECT_EQ(memory.find_live(a->base, a->bytes), a);
        EXPECT_EQ(a->host[a->bytes - 1], static_cast<std::byte>(t));
        memory.free(a);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory.used_bytes(), 0U);
  EXPECT_TRUE(memory.live_allocations().empty());
}

// NOLINTEND(clang-analyzer-unix.Malloc)
}  // namespace
}  // namespace ptxsim
