#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>

#include "base/error.h"

namespace cpvt::cpu {
namespace {

TEST(ThreadPool, RunsEveryItemOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t items : {0, 1, 2, 3, 7, 100, 1000}) {
      std::vector<int> seen(static_cast<size_t>(items), 0);
      std::atomic<int> strangers = 0;
      pool.run(items, [&](int64_t item, int thread) {
        ++seen[static_cast<size_t>(item)];
        if (thread < 0 || thread >= threads) ++strangers;
      });
      EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(items), 1));
      EXPECT_EQ(strangers, 0);
    }
  }
}

TEST(ThreadPool, ManyShortLoopsInARow) {
  ThreadPool pool(3);
  int64_t sum = 0;
  std::vector<int64_t> part(48, 0);  // each thread its cache line
  for (int loop = 0; loop < 20000; ++loop) {
    pool.run(4, [&](int64_t item, int thread) { part[16 * static_cast<size_t>(thread)] += item + loop; });
  }
  for (const int64_t p : part) sum += p;
  EXPECT_EQ(sum, 4LL * 20000 * 19999 / 2 + 6LL * 20000);
}

TEST(ThreadPool, AThreadNumberIsUsedByOneThreadAtATime) {
  ThreadPool pool(4);
  std::vector<int> plain(64, 0);  // a race here is what the thread sanitizer would see
  for (int loop = 0; loop < 200; ++loop) {
    pool.run(50, [&](int64_t, int thread) { ++plain[16 * static_cast<size_t>(thread)]; });
  }
  EXPECT_EQ(plain[0] + plain[16] + plain[32] + plain[48], 200 * 50);
}

TEST(ThreadPool, SleepersWakeUp) {
  ThreadPool pool(2);
  for (int loop = 0; loop < 3; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    // Both items wait for each other: only two threads can finish this.
    std::atomic<int> arrived = 0;
    pool.run(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

TEST(ThreadPool, SeveralPoolsSideBySide) {
  std::vector<std::thread> owners;
  owners.reserve(3);
  std::atomic<int> sum = 0;
  for (int i = 0; i < 3; ++i) {
    owners.emplace_back([&] {
      ThreadPool pool(2);
      for (int loop = 0; loop < 100; ++loop) pool.run(10, [&](int64_t, int) { ++sum; });
    });
  }
  for (auto& owner : owners) owner.join();
  EXPECT_EQ(sum, 3000);
}

/// Lets this process start but one or two more threads: each wants 8 GiB of the 20 GiB of addresses that are left.
void leave_room_for_two_threads() {
  constexpr size_t kStack = size_t{8} << 30;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStack);
  pthread_setattr_default_np(&attributes);
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t limit = pages * static_cast<size_t>(getpagesize()) + kStack * 5 / 2;
  const rlimit all{limit, limit};
  setrlimit(RLIMIT_AS, &all);
}

// Neither waits for ever for the threads that did start, nor ends the program.
TEST(ThreadPool, AThreadThatTheSystemHasNotIsAnError) {
  EXPECT_EXIT(
      {
        leave_room_for_two_threads();
        try {
          const ThreadPool pool(9);
        } catch (const Error& error) {
          std::fputs(error.what(), stderr);
          std::_Exit(7);
        }
        std::_Exit(0);
      },
      testing::ExitedWithCode(7), "cannot start thread [2-4] of 9: Resource temporarily unavailable");
}

TEST(ThreadPool, WhatABodyThrowsComesOutAndThePoolGoesOn) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      const auto body = [&](int64_t item, int /*thread*/) {
        if (item % 7 == round % 7) throw std::bad_alloc();
      };
      EXPECT_THROW(pool.run(64, body), std::bad_alloc);
      std::atomic<int> done{0};
      pool.run(64, [&](int64_t, int) { ++done; });
      EXPECT_EQ(done, 64);
    }
  }
}

}  // namespace
}  // namespace cpvt::cpu
