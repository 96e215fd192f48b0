#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "tests/ptxsim/exec/ptx_fixture.h"
#include "tools/ptxsim/machine/tensor_map.h"

/// cp.async.bulk, cp.async.bulk.tensor and cp.reduce.async.bulk.
namespace ptxsim::testing {
namespace {

using Words = std::vector<uint32_t>;

Words counted(uint32_t n, uint32_t from = 1000) {
  Words w(n);
  for (uint32_t i = 0; i < n; ++i) w[i] = from + i;
  return w;
}

template <class... Args>
Outcome run_cluster(Device& d, const std::string& body, uint32_t blocks, uint32_t threads, Args... args) {
  LoadedModule module(d.machine(), kernel(sizeof...(args), body), {});
  Launch l;
  l.kernel = module.kernel("k");
  l.grid = l.cluster = {blocks, 1, 1};
  l.block = {threads, 1, 1};
  for (const Allocation* a : {static_cast<const Allocation*>(args)...}) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&a->base);
    l.parameters.insert(l.parameters.end(), bytes, bytes + 8);
  }
  return d.machine().run(l);
}

/// Shared memory: s[4096], then two mbarriers for one arrival each, made by thread 0 before a barrier. %r0 = tid, %r2 =
/// s, %r3 = the first mbarrier, %p0: tid != 0. %rd0, %rd1… = p0, p1….
std::string prologue(int parameters, const std::string& cluster_sync = "") {
  std::string text =
      ".shared .align 1024 .b8 s[4096];\n.shared .align 8 .b64 mb[2];\nmov.u32 %r0, %tid.x;\nmov.u32 %r2, s;\n"
      "mov.u32 %r3, mb;\nsetp.ne.u32 %p0, %r0, 0;\n";
  for (int i = 0; i < parameters; ++i) {
    text += "ld.param.u64 %rd" + std::to_string(i) + ", [p" + std::to_string(i) + "];\n";
  }
  return text +
         "@%p0 bra READY;\nmbarrier.init.shared.b64 [%r3], 1;\nmbarrier.init.shared.b64 [%r3+8], 1;\n"
         "fence.mbarrier_init.release.cluster;\nREADY:\nbar.sync 0;\n" +
         cluster_sync;
}

const char* const kClusterSync = "barrier.cluster.arrive;\nbarrier.cluster.wait;\n";

/// Waits for phase 0 of the mbarrier %r3.
const char* const kWait = "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p9, [%r3], 0;\n@!%p9 bra WAIT;\n";

/// Shared words [0, 4 · threads) to `%rd`, four for each thread (%r0 of each block).
std::string dump(const std::string& rd, const std::string& first = "0") {
  return "mul.wide.u32 %rd50, %r0, 16;\nadd.s64 %rd50, %rd50, " + rd +
         ";\nshl.b32 %r50, %r0, 4;\nadd.u32 %r50, %r50, %r2;\nld.shared.v4.u32 {%r51, %r52, %r53, %r54}, [%r50+" +
         first + "];\nst.global.v4.u32 [%rd50], {%r51, %r52, %r53, %r54};\n";
}

TEST(BulkCopy, ToSharedMemoryLandsWhenTheBarrierIsAsked) {
  Device device;
  Allocation* const to = device.upload(Words(256));
  const Outcome o = device.run(
      kernel(2, prologue(2) +
                    "mov.u32 %r9, 5;\nshl.b32 %r10, %r0, 4;\nadd.u32 %r10, %r10, %r2;\n"
                    "st.shared.v4.u32 [%r10], {%r9, %r9, %r9, %r9};\nbar.sync 0;\n@%p0 bra ISSUED;\n"
                    "mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 512;\n"
                    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0+16], 512, [%r3];\n"
                    "ISSUED:\nbar.sync 0;\n" +
                    dump("%rd1") + "bar.sync 0;\n" + kWait + "add.s64 %rd1, %rd1, 512;\n" + dump("%rd1")),
      {1, 1, 1}, {32, 1, 1}, device.upload(counted(256)), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t i = 0; i < 128; ++i) {
    ASSERT_EQ(w[i], 5U);
    ASSERT_EQ(w[128 + i], 1004 + i);
  }
}

TEST(BulkCopy, ToGlobalMemory) {
  Device device;
  Allocation* const to = device.upload(Words(128));
  const Outcome o = device.run(
      kernel(2,
             prologue(2) +
                 "mul.wide.u32 %rd5, %r0, 16;\nadd.s64 %rd5, %rd5, %rd0;\nld.global.v4.u32 {%r5,%r6,%r7,%r8}, [%rd5];\n"
                 "shl.b32 %r10, %r0, 4;\nadd.u32 %r10, %r10, %r2;\nst.shared.v4.u32 [%r10], {%r5,%r6,%r7,%r8};\n"
                 "fence.proxy.async.shared::cta;\nbar.sync 0;\n@%p0 bra END;\n"
                 "cp.async.bulk.global.shared::cta.bulk_group [%rd1+32], [%r2], 256;\ncp.async.bulk.commit_group;\n"
                 "cp.async.bulk.wait_group.read 0;\ncp.async.bulk.wait_group 0;\nEND:\n"),
      {1, 1, 1}, {32, 1, 1}, device.upload(counted(256)), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t i = 0; i < 128; ++i) ASSERT_EQ(w[i], i >= 8 && i < 72 ? 1000 + i - 8 : 0);
}

TEST(BulkCopy, MulticastReachesTheBlocksOfItsMask) {
  // Block 1 sends to blocks 0 and 2; each waits at its own mbarrier.
  Device device;
  Allocation* const to = device.upload(Words(3 * 128));
  const Outcome o = run_cluster(
      device,
      prologue(2, kClusterSync) +
          "mov.u32 %r20, %cluster_ctarank;\nsetp.eq.u32 %p1, %r20, 1;\nmov.u32 %r9, 5;\nshl.b32 %r10, %r0, 4;\n"
          "add.u32 %r10, %r10, %r2;\nst.shared.v4.u32 [%r10], {%r9, %r9, %r9, %r9};\n"
          "@%p0 bra EXPECTED;\n@%p1 bra EXPECTED;\nmbarrier.arrive.expect_tx.shared.b64 _, [%r3], 512;\nEXPECTED:\n" +
          std::string(kClusterSync) +
          "@%p0 bra SENT;\n@!%p1 bra SENT;\nmov.u16 %h1, 5;\n"
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r2], [%rd0], 512, "
          "[%r3], %h1;\nSENT:\n@%p1 bra GOT;\n" +
          kWait + "GOT:\nmul.wide.u32 %rd7, %r20, 512;\nadd.s64 %rd1, %rd1, %rd7;\n" + dump("%rd1") + kClusterSync,
      3, 32, device.upload(counted(256)), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t block = 0; block < 3; ++block) {
    for (uint32_t i = 0; i < 128; ++i) ASSERT_EQ(w[128 * block + i], block == 1 ? 5 : 1000 + i) << block << " " << i;
  }
}

TEST(BulkCopy, BetweenTheBlocksOfACluster) {
  // Each block sends its words to the next one.
  Device device;
  Allocation* const to = device.upload(Words(2 * 128));
  const Outcome o = run_cluster(
      device,
      prologue(1, kClusterSync) +
          "mov.u32 %r20, %cluster_ctarank;\nmad.lo.u32 %r9, %r20, 100, %r0;\nshl.b32 %r10, %r0, 4;\n"
          "add.u32 %r10, %r10, %r2;\nst.shared.v4.u32 [%r10], {%r9, %r9, %r9, %r9};\nbar.sync 0;\n"
          "@%p0 bra SENT;\nmbarrier.arrive.expect_tx.shared.b64 _, [%r3], 512;\nxor.b32 %r21, %r20, 1;\n"
          "mapa.shared::cluster.u32 %r22, %r2, %r21;\nmapa.shared::cluster.u32 %r23, %r3, %r21;\n"
          "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r22+2048], [%r2], 512, [%r23];\n"
          "SENT:\n" +
          kWait + "mul.wide.u32 %rd7, %r20, 512;\nadd.s64 %rd0, %rd0, %rd7;\n" + dump("%rd0", "2048") + kClusterSync,
      2, 32, to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t block = 0; block < 2; ++block) {
    for (uint32_t i = 0; i < 128; ++i) ASSERT_EQ(w[128 * block + i], (1 - block) * 100 + i / 4);
  }
}

TEST(BulkCopy, ArrivalsFromOtherBlocksCount) {
  // Block 0 waits until block 1 has arrived at its mbarrier.
  Device device;
  Allocation* const flag = device.upload(Words(4));
  const Outcome o = run_cluster(
      device,
      prologue(1, kClusterSync) +
          "mov.u32 %r20, %cluster_ctarank;\nsetp.eq.u32 %p1, %r20, 0;\nmov.u32 %r9, 77;\n@%p1 bra WAIT;\n"
          "@%p0 bra DONE;\nst.global.u32 [%rd0], %r9;\nmov.u32 %r21, 0;\nmapa.shared::cluster.u32 %r22, %r3, %r21;\n"
          "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r22];\nbra DONE;\n" +
          std::string(kWait) + "ld.global.u32 %r10, [%rd0];\n@%p0 bra DONE;\nst.global.u32 [%rd0+4], %r10;\nDONE:\n" +
          kClusterSync,
      2, 32, flag);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(device.download<uint32_t>(flag)[1], 77U);
}

TEST(StoreAsync, ToAnotherBlock) {
  // Block 1's lanes store two words each in block 0, and add 3 to a third one.
  Device device;
  Allocation* const to = device.upload(Words(128));
  const Outcome o = run_cluster(
      device,
      prologue(1,
               "shl.b32 %r10, %r0, 4;\nadd.u32 %r10, %r10, %r2;\nmov.u32 %r9, 5;\n"
               "st.shared.v4.u32 [%r10], {%r9, %r9, %r9, %r9};\n@%p0 bra EXPECTED;\n"
               "mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 384;\nEXPECTED:\n") +
          kClusterSync +
          "mov.u32 %r20, %cluster_ctarank;\nsetp.eq.u32 %p1, %r20, 0;\n@%p1 bra WAIT;\nmov.u32 %r21, 0;\n"
          "mapa.shared::cluster.u32 %r22, %r10, %r21;\nmapa.shared::cluster.u32 %r23, %r3, %r21;\nmov.u32 %r11, 3;\n"
          "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%r22], {%r0, %r11}, [%r23];\n"
          "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r22+8], %r11, [%r23];\n"
          "bra DONE;\n" +
          kWait + dump("%rd0") + "DONE:\n" + kClusterSync,
      2, 32, to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t l = 0; l < 32; ++l) {
    EXPECT_EQ((Words{w[4 * l], w[4 * l + 1], w[4 * l + 2], w[4 * l + 3]}), (Words{l, 3, 8, 5}));
  }
}

struct ReductionCase {
  std::string op, type;
  uint64_t old, with, expected;
  uint32_t bytes;
};

void PrintTo(const ReductionCase& c, std::ostream* out) { *out << c.op << "." << c.type; }

class BulkReduction : public ::testing::TestWithParam<ReductionCase> {};

TEST_P(BulkReduction, ToGlobalMemory) {
  const ReductionCase& c = GetParam();
  const auto repeated = [&](uint64_t v) {
    std::vector<std::byte> b(32);
    for (size_t at = 0; at < b.size(); at += c.bytes) std::memcpy(&b[at], &v, c.bytes);
    return b;
  };
  Device device;
  Allocation* const to = device.upload(repeated(c.old));
  const Outcome o = device.run(
      kernel(2, prologue(2) +
                    "ld.global.v4.u32 {%r5,%r6,%r7,%r8}, [%rd0];\nst.shared.v4.u32 [%r2], {%r5,%r6,%r7,%r8};\n"
                    "cp.reduce.async.bulk.global.shared::cta.bulk_group." +
                    c.op + "." + c.type +
                    " [%rd1], [%r2], 16;\ncp.async.bulk.commit_group;\n"
                    "cp.async.bulk.wait_group 0;\n"),
      {1, 1, 1}, {1, 1, 1}, device.upload(repeated(c.with)), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const auto got = device.download<std::byte>(to);
  const auto expected = repeated(c.expected), old = repeated(c.old);
  EXPECT_TRUE(std::equal(got.begin(), got.begin() + 16, expected.begin()));
  EXPECT_TRUE(std::equal(got.begin() + 16, got.end(), old.begin() + 16));
}

INSTANTIATE_TEST_SUITE_P(
    All, BulkReduction,
    ::testing::Values(
        ReductionCase{"add", "u32", 0xfffffffe, 5, 3, 4}, ReductionCase{"add", "s32", 7, 0xfffffff0, 0xfffffff7, 4},
        ReductionCase{"add", "u64", 0xffffffff, 1, 0x100000000, 8},
        ReductionCase{"min", "s32", 5, 0xffffffff, 0xffffffff, 4}, ReductionCase{"min", "u32", 5, 0xffffffff, 5, 4},
        ReductionCase{"max", "s64", 5, 0xffffffffffffffff, 5, 8},
        ReductionCase{"max", "u64", 5, 0xffffffffffffffff, 0xffffffffffffffff, 8},
        ReductionCase{"inc", "u32", 9, 9, 0, 4}, ReductionCase{"inc", "u32", 8, 9, 9, 4},
        ReductionCase{"dec", "u32", 0, 9, 9, 4}, ReductionCase{"dec", "u32", 10, 9, 9, 4},
        ReductionCase{"dec", "u32", 4, 9, 3, 4}, ReductionCase{"and", "b32", 0xff00ff00, 0x0ff00ff0, 0x0f000f00, 4},
        ReductionCase{"or", "b64", 0xff00ff0000000000, 1, 0xff00ff0000000001, 8},
        ReductionCase{"xor", "b32", 0xff, 0x0f, 0xf0, 4},
        ReductionCase{"add", "f32", 0x3f800000, 0x40000000, 0x40400000, 4},
        ReductionCase{"add", "f64", 0x3ff0000000000000, 0x4000000000000000, 0x4008000000000000, 8},
        ReductionCase{"add.noftz", "f16", 0x3c00, 0x4000, 0x4200, 2},
        ReductionCase{"add.noftz", "bf16", 0x3f80, 0x4000, 0x4040, 2},
        ReductionCase{"max", "f16", 0x3c00, 0xc000, 0x3c00, 2}));

// --- tensors --------------------------------------------------------------------------------------------------------

/// A tensor of 32-bit elements whose value says where they are: 10000 z + 100 y + x.
struct Tensor {
  uint32_t width, height, depth;
  Words words() const {
    Words w;
    for (uint32_t z = 0; z < depth; ++z) {
      for (uint32_t y = 0; y < height; ++y) {
        for (uint32_t x = 0; x < width; ++x) w.push_back(value(x, y, z));
      }
    }
    return w;
  }
  static uint32_t value(uint32_t x, uint32_t y, uint32_t z = 0) { return 10000 * z + 100 * y + x; }

  TensorMap map(const Allocation* a, uint32_t box_x, uint32_t box_y, TensorMap::Swizzle swizzle) const {
    TensorMap m;
    m.type = TensorMap::Type::kUint32;
    m.rank = depth == 1 ? 2 : 3;
    m.swizzle = swizzle;
    m.address = a->base;
    m.strides[0] = width * 4;
    m.strides[1] = uint64_t{width} * height * 4;
    const uint32_t extents[] = {width, height, depth};
    const uint32_t boxes[] = {box_x, box_y, depth == 1 ? 1 : 2U};
    for (size_t d = 0; d < 3; ++d) {
      m.last[d] = extents[d] - 1;
      m.box[d] = static_cast<uint16_t>(boxes[d]);
      m.element_strides[d] = 1;
    }
    return m;
  }
};

std::vector<std::byte> bytes_of(const TensorMap& m) {
  const auto* p = reinterpret_cast<const std::byte*>(&m);
  return {p, p + sizeof m};
}

struct TensorCase {
  TensorMap::Swizzle swizzle;
  int x, y;  // coordinates
};

void PrintTo(const TensorCase& c, std::ostream* out) {
  *out << "swizzle " << static_cast<int>(c.swizzle) << " at " << c.x << ", " << c.y;
}

class TensorCopy : public ::testing::TestWithParam<TensorCase> {
 protected:
  static constexpr uint32_t kWidth = 40, kHeight = 20, kRows = 16;
  TensorCase c = GetParam();
  uint32_t columns = c.swizzle == TensorMap::Swizzle::k32Bytes   ? 8
                     : c.swizzle == TensorMap::Swizzle::k64Bytes ? 16
                                                                 : 32;
  /// The word of shared memory that holds element (x, y) of the box.
  uint32_t place(uint32_t x, uint32_t y) const {
    const uint32_t chunk = x / 4, moved = c.swizzle == TensorMap::Swizzle::k128Bytes  ? chunk ^ (y % 8)
                                          : c.swizzle == TensorMap::Swizzle::k64Bytes ? chunk ^ (y / 2 % 4)
                                          : c.swizzle == TensorMap::Swizzle::k32Bytes ? chunk ^ (y / 4 % 2)
                                                                                      : chunk;
    return y * columns + moved * 4 + x % 4;
  }
  bool inside(uint32_t x, uint32_t y) const {
    const int64_t i = c.x + int64_t{x}, j = c.y + int64_t{y};
    return i >= 0 && i < kWidth && j >= 0 && j < kHeight;
  }
  std::string coordinates() const { return "{%r30, %r31}"; }
  std::string set_coordinates() const {
    return "mov.u32 %r30, " + std::to_string(c.x) + ";\nmov.u32 %r31, " + std::to_string(c.y) + ";\n";
  }
};

TEST_P(TensorCopy, ToSharedMemory) {
  Device device;
  const Tensor tensor{kWidth, kHeight, 1};
  const Allocation* from = device.upload(tensor.words());
  Allocation* const to = device.upload(Words(512));
  const uint32_t bytes = columns * kRows * 4;
  const Outcome o = device.run(
      kernel(2,
             prologue(2) + set_coordinates() + "@%p0 bra ISSUED;\nmbarrier.arrive.expect_tx.shared.b64 _, [%r3], " +
                 std::to_string(bytes) +
                 ";\ncp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r2], [%rd0, " +
                 coordinates() + "], [%r3];\nISSUED:\n" + kWait + dump("%rd1")),
      {1, 1, 1}, {bytes / 16, 1, 1}, device.upload(bytes_of(tensor.map(from, columns, kRows, c.swizzle))), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t y = 0; y < kRows; ++y) {
    for (uint32_t x = 0; x < columns; ++x) {
      const uint32_t expected =
          inside(x, y) ? Tensor::value(static_cast<uint32_t>(c.x) + x, static_cast<uint32_t>(c.y) + y) : 0;
      ASSERT_EQ(w[place(x, y)], expected) << x << ", " << y;
    }
  }
}

TEST_P(TensorCopy, ToGlobalMemory) {
  // Shared memory: at each place its own number; then adds once more.
  for (const bool add : {false, true}) {
    Device device;
    const Tensor tensor{kWidth, kHeight, 1};
    Allocation* const to = device.upload(tensor.words());
    const uint32_t words = columns * kRows;
    const Outcome o = device.run(
        kernel(1, prologue(1) + set_coordinates() +
                      "shl.b32 %r10, %r0, 2;\nadd.u32 %r10, %r10, %r2;\nadd.u32 %r11, %r0, 5000;\n"
                      "st.shared.u32 [%r10], %r11;\nfence.proxy.async.shared::cta;\nbar.sync 0;\n@%p0 bra END;\n" +
                      (add ? "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group"
                           : "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group") +
                      " [%rd0, " + coordinates() +
                      "], [%r2];\ncp.async.bulk.commit_group;\n"
                      "cp.async.bulk.wait_group.read 0;\nEND:\n"),
        {1, 1, 1}, {words, 1, 1}, device.upload(bytes_of(tensor.map(to, columns, kRows, c.swizzle))));
    ASSERT_EQ(o.status, Status::kOk) << o.message;
    const Words w = device.download<uint32_t>(to);
    Words expected = tensor.words();
    for (uint32_t y = 0; y < kRows; ++y) {
      for (uint32_t x = 0; x < columns; ++x) {
        if (!inside(x, y)) continue;
        uint32_t& e = expected[(static_cast<uint32_t>(c.y) + y) * kWidth + static_cast<uint32_t>(c.x) + x];
        e = (add ? e : 0) + 5000 + place(x, y);
      }
    }
    ASSERT_EQ(w, expected);
  }
}

std::vector<TensorCase> tensor_cases() {
  std::vector<TensorCase> all;
  using S = TensorMap::Swizzle;
  for (const S s : {S::kNone, S::k32Bytes, S::k64Bytes, S::k128Bytes}) {
    for (const auto& [x, y] :
         {std::pair(0, 0), std::pair(4, 2), std::pair(-3, -5), std::pair(30, 12), std::pair(0, 100)}) {
      all.push_back({s, x, y});
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, TensorCopy, ::testing::ValuesIn(tensor_cases()));

TEST(TensorMaps, ThreeDimensionsAndStridesOfElements) {
  Device device;
  const Tensor tensor{16, 6, 4};
  const Allocation* from = device.upload(tensor.words());
  Allocation* const to = device.upload(Words(64));
  TensorMap map = tensor.map(from, 8, 4, TensorMap::Swizzle::kNone);
  map.element_strides[1] = 2;  // of four rows, two
  const Outcome o = device.run(
      kernel(2,
             prologue(2) +
                 "mov.u32 %r30, 2;\nmov.u32 %r31, 1;\nmov.u32 %r32, 3;\n@%p0 bra ISSUED;\n"
                 "mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 128;\n"
                 "cp.async.bulk.tensor.3d.shared::cta.global.mbarrier::complete_tx::bytes [%r2], [%rd0, {%r30, %r31, "
                 "%r32}], [%r3];\nISSUED:\n" +
                 kWait + dump("%rd1")),
      {1, 1, 1}, {8, 1, 1}, device.upload(bytes_of(map)), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t z = 0; z < 2; ++z) {
    for (uint32_t y = 0; y < 2; ++y) {
      for (uint32_t x = 0; x < 8; ++x) {
        ASSERT_EQ(w[z * 16 + y * 8 + x], z == 1 ? 0 : Tensor::value(2 + x, 1 + 2 * y, 3)) << x << y << z;
      }
    }
  }
}

TEST(TensorMaps, WhatLiesOutsideMayBeNan) {
  Device device;
  const Tensor tensor{16, 4, 1};
  Allocation* const to = device.upload(Words(64));
  TensorMap map = tensor.map(device.upload(tensor.words()), 8, 2, TensorMap::Swizzle::kNone);
  map.type = TensorMap::Type::kFloat32;
  map.fill = TensorMap::Fill::kNan;
  const Outcome o = device.run(
      kernel(2, prologue(2) +
                    "mov.u32 %r30, 12;\nmov.u32 %r31, 0;\n@%p0 bra ISSUED;\n"
                    "mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 64;\n"
                    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0, {%r30, "
                    "%r31}], [%r3];\nISSUED:\n" +
                    kWait + dump("%rd1")),
      {1, 1, 1}, {4, 1, 1}, device.upload(bytes_of(map)), to);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  const Words w = device.download<uint32_t>(to);
  for (uint32_t x = 0; x < 8; ++x) {
    const float f = std::bit_cast<float>(w[x]);
    if (x < 4) {
      ASSERT_EQ(w[x], Tensor::value(12 + x, 0));
    } else {
      ASSERT_TRUE(f != f);
    }
  }
}

// --- faults ---------------------------------------------------------------------------------------------------------

class BulkFault : public ::testing::TestWithParam<std::pair<std::string, Status>> {};

TEST_P(BulkFault, IsTold) {
  Device device;
  const Outcome o =
      device.run(kernel(1, prologue(1) + GetParam().first), {1, 1, 1}, {1, 1, 1}, device.upload(counted(64)));
  EXPECT_EQ(o.status, GetParam().second) << o.message;
}

INSTANTIATE_TEST_SUITE_P(
    All, BulkFault,
    ::testing::Values(
        std::pair("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 24, [%r3];",
                  Status::kMisalignedAddress),
        std::pair("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0+4], 16, [%r3];",
                  Status::kMisalignedAddress),
        std::pair("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0], 272, [%r3];",
                  Status::kIllegalAddress),
        std::pair("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2+4096], [%rd0], 256, [%r3];",
                  Status::kIllegalAddress),
        std::pair("cp.async.bulk.global.shared::cta.bulk_group [%rd0+16], [%r2], 256;", Status::kIllegalAddress),
        std::pair("cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd0, {%r0}], "
                  "[%r3];",
                  Status::kIllegalInstruction),  // no map there
        std::pair("cp.async.bulk.shared::cluster.global.bulk_group [%r2], [%rd0], 16;", Status::kIllegalInstruction),
        std::pair("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.s64 [%rd0], [%r2], 16;",
                  Status::kIllegalInstruction),
        std::pair(
            "mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 16;\nmbarrier.expect_tx.relaxed.cta.shared.b64 [%r3], "
            "1048575;",
            Status::kIllegalInstruction)));

}  // namespace
}  // namespace ptxsim::testing
