#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "tests/ptxsim/exec/ptx_fixture.h"

namespace ptxsim::testing {

using Values = std::array<uint64_t, 4>;

/// An instruction that computes each lane by itself. Its text names $d, the destination, $a, $b, $c and $e, the
/// sources; $q is a second destination and a predicate, $s a predicate source (the lowest bit of $a's value).
struct LaneCase {
  std::string text;
  uint32_t to;                 // bits of the destination, 1 for a predicate
  std::vector<uint32_t> from;  // of the sources
  std::function<uint64_t(const Values&)> expected;
  std::vector<uint64_t> edges = {};  // values to try beside the usual ones
};

inline void PrintTo(const LaneCase& c, std::ostream* out) { *out << c.text; }

inline std::string register_name(uint32_t bits, size_t index) {
  return (bits == 1 ? "%p" : bits == 16 ? "%h" : bits == 32 ? "%r" : "%rd") + std::to_string(index);
}

inline uint64_t low_bits(uint64_t value, uint32_t bits) {
  return bits >= 64 ? value : value & ((uint64_t{1} << bits) - 1);
}

inline void replace_all(std::string& text, const std::string& what, const std::string& by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
}

/// Runs the case on edge values and random ones, in full warps, in a partial last one, and under a guard that leaves
/// lanes out, which must keep what they had.
inline void check_lanes(const LaneCase& c, bool guarded) {
  constexpr uint32_t kThreads = 32 * 61 + 7;
  constexpr uint64_t kUntouched = 0xa5a5'5a5a'a5a5'5a5a;
  std::vector<uint64_t> edges = {0,          1,          2,          3,          7,        15,         16,
                                 17,         31,         32,         33,         63,       64,         65,
                                 127,        128,        255,        256,        0x7fff,   0x8000,     0x8001,
                                 0xffff,     0x10000,    0x7fffff,   0x800000,   0xffffff, 0x7fffffff, 0x80000000,
                                 0x80000001, 0xfffffffe, 0xffffffff, 0x100000000};
  for (uint64_t v : {uint64_t{1}, uint64_t{2}, uint64_t{0x80}, uint64_t{0x8000}, uint64_t{0x80000000}})
    edges.push_back(-v);
  edges.insert(edges.end(), {0x7fffffffffffffff, 0x8000000000000000, 0x8000000000000001, 0x5555555555555555});
  std::mt19937_64 random(7);
  std::vector<std::vector<uint64_t>> sources(4, std::vector<uint64_t>(kThreads));
  for (size_t s = 0; s < 4; ++s) {
    for (uint64_t& v : sources[s]) {
      const uint64_t kind = random() % 8;
      if (kind < 4 && !c.edges.empty()) {
        v = c.edges[random() % c.edges.size()];
      } else {
        v = kind < 6 ? edges[random() % edges.size()] : random() >> (random() % 64);
      }
    }
  }
  std::vector<uint32_t> wanted(kThreads, 1);
  if (guarded) {
    for (uint32_t& w : wanted) w = random() % 3 == 0 ? 0 : 1;
  }

  std::string text = c.text;
  const bool predicate = c.to == 1;
  replace_all(text, "$d", register_name(c.to, 10));
  replace_all(text, "$q", "%p11");
  replace_all(text, "$s", "%p12");
  std::string body =
      "mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %tid.x;\nmad.lo.u32 %r1, %r1, %r2, %r3;\n"
      "mul.wide.u32 %rd1, %r1, 8;\nmul.wide.u32 %rd2, %r1, 4;\n"
      "ld.param.u64 %rd3, [p0];\nadd.u64 %rd3, %rd3, %rd1;\nld.param.u64 %rd4, [p1];\nadd.u64 %rd4, %rd4, %rd2;\n"
      "ld.global.u32 %r4, [%rd4];\nsetp.ne.u32 %p1, %r4, 0;\n";
  for (size_t s = 0; s < c.from.size(); ++s) {
    const uint32_t bits = c.from[s];
    const std::string address = "%rd" + std::to_string(30 + s), value = register_name(bits, 20 + s);
    body += "ld.param.u64 " + address + ", [p" + std::to_string(2 + s) + "];\nadd.u64 " + address + ", " + address +
            ", %rd1;\nld.global.b" + std::to_string(bits) + " " + value + ", [" + address + "];\n";
    replace_all(text, std::string("$") + "abce"[s], value);
  }
  body +=
      "ld.param.u64 %rd5, [p2];\nadd.u64 %rd5, %rd5, %rd1;\nld.global.u32 %r5, [%rd5];\nand.b32 %r5, %r5, 1;\n"
      "setp.ne.u32 %p12, %r5, 0;\nsetp.ne.u32 %p11, %r5, %r5;\n";
  if (predicate) {
    body += "setp.ne.u32 %p10, %r4, %r4;\n";
  } else {
    body += "ld.global.b" + std::to_string(c.to) + " " + register_name(c.to, 10) + ", [%rd3];\n";
  }
  // Lines that begin with a letter are instructions.
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    if (guarded && text[at] >= 'a' && text[at] <= 'z') text.insert(at, "@%p1 ");
    if (text.find('\n', at) == std::string::npos) break;
  }
  body += text + "\n";
  const bool pair = c.text.find("$q") != std::string::npos;
  if (predicate || pair) {
    // Bit 0 of the result: $d when it is a predicate; bit 32: $q.
    body += predicate ? "selp.u64 %rd10, 1, 0, %p10;\n" : c.to == 32 ? "cvt.u64.u32 %rd10, %r10;\n" : "";
    if (pair) body += "selp.u64 %rd11, 0x100000000, 0, %p11;\nor.b64 %rd10, %rd10, %rd11;\n";
    body += "st.global.u64 [%rd3], %rd10;\n";
  } else {
    body += "st.global.b" + std::to_string(c.to) + " [%rd3], " + register_name(c.to, 10) + ";\n";
  }

  Device device;
  auto* out = device.upload(std::vector<uint64_t>(kThreads + 128, kUntouched));
  std::vector<uint32_t> padded_wanted = wanted;
  padded_wanted.resize(kThreads + 128);
  auto* mask = device.upload(padded_wanted);
  std::array<Allocation*, 4> in{};
  for (size_t s = 0; s < 4; ++s) {
    std::vector<uint64_t> padded = sources[s];
    padded.resize(kThreads + 128);
    in[s] = device.upload(padded);
  }
  const std::string ptx = kernel(6, body);
  // Blocks of 71 threads: each ends in a partial warp.
  const uint32_t blocks = kThreads / 71;
  const Outcome outcome = device.run(ptx, {blocks, 1, 1}, {71, 1, 1}, out, mask, in[0], in[1], in[2], in[3]);
  ASSERT_EQ(outcome.status, Status::kOk) << outcome.message << "\n" << ptx;
  const auto got = device.download<uint64_t>(out);
  const uint32_t width = predicate || pair ? 64 : c.to;
  int failures = 0;
  for (uint32_t i = 0; i < blocks * 71 && failures < 5; ++i) {
    Values v{};
    for (size_t s = 0; s < c.from.size(); ++s) v[s] = low_bits(sources[s][i], c.from[s]);
    uint64_t expected = wanted[i] != 0 ? low_bits(c.expected(v), width) : low_bits(kUntouched, c.to);
    if (wanted[i] == 0 && (predicate || pair)) expected = predicate ? 0 : low_bits(kUntouched, c.to);
    if (low_bits(got[i], width) == expected) continue;
    ++failures;
    ADD_FAILURE() << c.text << " thread " << i << std::hex << ": a = " << v[0] << ", b = " << v[1] << ", c = " << v[2]
                  << ", d = " << v[3] << ": got " << low_bits(got[i], width) << ", expected " << expected;
  }
}

}  // namespace ptxsim::testing
