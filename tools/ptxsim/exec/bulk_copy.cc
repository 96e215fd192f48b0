#include "tools/ptxsim/exec/bulk_copy.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>

#include "tools/ptxsim/exec/cta.h"
#include "tools/ptxsim/exec/formats.h"
#include "tools/ptxsim/exec/lanewise.h"
#include "tools/ptxsim/exec/matrix.h"
#include "tools/ptxsim/exec/mbarrier.h"
#include "tools/ptxsim/exec/memory_access.h"
#include "tools/ptxsim/machine/tensor_map.h"
#include "tools/ptxsim/program/lowering.h"

/// cp.async.bulk and cp.reduce.async.bulk, of rows of bytes and of boxes of tensors.
///
/// To shared memory: data are read when the copy is issued; they land, and their mbarrier learns of it, when somebody
/// next looks at that mbarrier (Cta::bulk_copies). From shared to global memory: done at once, which is one of the
/// times at which it may be done; groups of such copies and the waits for them are for those who watch.
namespace ptxsim {

namespace {

constexpr uint32_t kLine = 128;  // what observers see of a copy at a time
constexpr uint32_t kChunk = 16;  // what swizzling moves as a whole

/// As locate(), for one lane and any number of bytes one after the other; null after a fault.
std::byte* locate_range(Warp& w, const Instruction& in, int lane, uint64_t address, Space space, uint64_t bytes,
                        uint32_t alignment, Access::Kind kind, const std::byte* value, bool synchronising = false) {
  alignas(64) uint64_t addresses[kLanes] = {};
  std::byte* first = nullptr;
  for (uint64_t done = 0; done < bytes;) {
    const auto part = static_cast<uint32_t>(std::min<uint64_t>(kLine, bytes - done));
    addresses[lane] = address + done;
    // Values are looked up by lane.
    const std::byte* const of_lane_0 =
        value != nullptr ? value + done - uint64_t{part} * static_cast<uint64_t>(lane) : nullptr;
    Located at;
    if (!locate(w, in, Mask{1} << lane, addresses, space, part, std::min(alignment, part), kind, synchronising,
                of_lane_0, at)) {
      return nullptr;
    }
    if (first == nullptr) first = at.pointer[lane];
    done += part;
  }
  return first;
}

// --- landing --------------------------------------------------------------------------------------------------------

bool land(Warp& w, int lane, const Cta::BulkCopy& copy) {
  for (const Cta::BulkCopy::Piece& piece : copy.pieces) {
    const std::byte* data = copy.image.data() + (piece.offset - copy.first);
    std::byte* to = locate_range(w, *copy.instruction, lane, piece.offset, Space::kShared, piece.bytes, kChunk,
                                 Access::Kind::kAsyncLand, data);
    if (to == nullptr) return false;
    std::memcpy(to, data, piece.bytes);
  }
  std::byte* const object = w.cta->shared + copy.mbarrier;
  Mbarrier b = Mbarrier::load(object);
  b.bytes -= static_cast<int32_t>(copy.bytes);
  b.complete_if_done();
  b.store(object);
  w.changed_memory = true;
  return true;
}

}  // namespace

bool land_bulk_copies(Warp& w, int lane, uint32_t mbarrier) {
  auto& copies = w.cta->bulk_copies;
  if (copies.empty()) return true;
  std::vector<std::unique_ptr<Cta::BulkCopy>> due;
  for (auto& copy : copies) {
    if (copy->mbarrier == mbarrier) due.push_back(std::move(copy));
  }
  if (due.empty()) return true;
  std::erase(copies, nullptr);
  for (const auto& copy : due) {
    if (!land(w, lane, *copy)) return false;
  }
  tell_release(w, lane, mbarrier);
  return true;
}

namespace {

// --- operands -------------------------------------------------------------------------------------------------------

/// An instruction's address operands: two slots each, the base and a constant offset; which bases have 32 bits is in
/// flags[kBases32].
constexpr int kBases32 = 0;
constexpr int kForm = 1;  // bits below
constexpr uint8_t kMulticast = 1, kToShared = 2, kToGlobal = 4, kTensorSide = 8;
constexpr int kRank = 2;    // of a tensor
constexpr int kSpaces = 3;  // of the source, and of the destination << 4
constexpr int kReduction = 4;
constexpr int kType = 5;  // of a reduction: DataType

uint64_t address_at(const Warp& w, const Instruction& in, uint32_t slot, int lane) {
  const uint64_t offset = w.lanes<uint64_t>(in.slots[slot + 1])[lane];
  if ((in.flags[kBases32] >> slot & 1) != 0) {
    return static_cast<uint32_t>(w.lanes<uint32_t>(in.slots[slot])[lane] + static_cast<uint32_t>(offset));
  }
  return w.lanes<uint64_t>(in.slots[slot])[lane] + offset;
}

/// Collects the slots of an instruction.
struct Operands {
  Lowering& l;
  std::vector<Slot> slots;
  uint8_t bases32 = 0;

  void address(const ptx::Operand& operand, Space space) {
    const Lowering::Address a = l.address(operand, space);
    if (a.base_bits == 32) bases32 |= static_cast<uint8_t>(1U << slots.size());
    slots.push_back(a.base);
    slots.push_back(l.constant(static_cast<uint64_t>(a.offset), 64));
  }
  void none() {
    slots.push_back(l.constant(0, 64));
    slots.push_back(l.constant(0, 64));
  }
};

// slots of every copy: destination 0, source 2 (or the tensor map), mbarrier 4, bytes or multicast's mask below.
constexpr uint32_t kDestination = 0, kSource = 2, kBarrier = 4, kBytes = 6, kBlocks = 7, kCoordinates = 8;

// --- reductions -----------------------------------------------------------------------------------------------------

enum class Reduction : uint8_t { kNone, kAdd, kMin, kMax, kInc, kDec, kAnd, kOr, kXor };

template <class T>
T reduced(Reduction op, T old, T b) {
  switch (op) {
    case Reduction::kMin:
      return std::min(old, b);
    case Reduction::kMax:
      return std::max(old, b);
    case Reduction::kInc:
      return old >= b ? T{0} : static_cast<T>(old + 1);
    case Reduction::kDec:
      return old == 0 || old > b ? b : static_cast<T>(old - 1);
    case Reduction::kAnd:
      return old & b;
    case Reduction::kOr:
      return old | b;
    case Reduction::kXor:
      return old ^ b;
    default:
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(old) + static_cast<std::make_unsigned_t<T>>(b));
  }
}

/// Of floating-point elements: sums, and minima and maxima that take the number where the other is none.
template <class T>
T reduced_float(Reduction op, T old, T b) {
  switch (op) {
    case Reduction::kMin:
      return std::fmin(old, b);
    case Reduction::kMax:
      return std::fmax(old, b);
    default:
      return old + b;
  }
}

template <class U, class F>
void reduce_elements(std::byte* to, const std::byte* from, uint64_t bytes, F f) {
  for (uint64_t at = 0; at < bytes; at += sizeof(U)) {
    U b = 0;
    std::memcpy(&b, from + at, sizeof(U));
    const std::atomic_ref<U> element(*reinterpret_cast<U*>(to + at));
    U old = element.load();
    while (!element.compare_exchange_weak(old, f(old, b))) {
    }
  }
}

template <class T>
void reduce_integers(Reduction op, std::byte* to, const std::byte* from, uint64_t bytes) {
  using U = std::make_unsigned_t<T>;
  reduce_elements<U>(to, from, bytes, [op](U old, U b) {
    return static_cast<U>(reduced<T>(op, static_cast<T>(old), static_cast<T>(b)));
  });
}

template <class U, class T>
void reduce_numbers(Reduction op, std::byte* to, const std::byte* from, uint64_t bytes) {
  reduce_elements<U>(to, from, bytes, [op](U old, U b) {
    return std::bit_cast<U>(reduced_float<T>(op, std::bit_cast<T>(old), std::bit_cast<T>(b)));
  });
}

void reduce(Reduction op, DataType type, std::byte* to, const std::byte* from, uint64_t bytes) {
  switch (type) {
    case DataType::kF16:
      return reduce_elements<uint16_t>(to, from, bytes, [op](uint16_t old, uint16_t b) {
        return f32_to_f16(reduced_float(op, f16_to_f32(old), f16_to_f32(b)));
      });
    case DataType::kBf16:
      return reduce_elements<uint16_t>(to, from, bytes, [op](uint16_t old, uint16_t b) {
        return f32_to_bf16(reduced_float(op, bf16_to_f32(old), bf16_to_f32(b)));
      });
    case DataType::kF32:
      return reduce_numbers<uint32_t, float>(op, to, from, bytes);
    case DataType::kF64:
      return reduce_numbers<uint64_t, double>(op, to, from, bytes);
    case DataType::kS32:
      return reduce_integers<int32_t>(op, to, from, bytes);
    case DataType::kS64:
      return reduce_integers<int64_t>(op, to, from, bytes);
    case DataType::kU64:
    case DataType::kB64:
      return reduce_integers<uint64_t>(op, to, from, bytes);
    default:
      return reduce_integers<uint32_t>(op, to, from, bytes);
  }
}

// --- to shared memory -----------------------------------------------------------------------------------------------

/// Which blocks a copy goes to, by rank: that of the address, or all of multicast's mask.
std::optional<uint32_t> blocks_of(Warp& w, const Instruction& in, int lane, uint64_t destination) {
  const auto size = static_cast<uint32_t>(w.cta->cluster->blocks.size());
  if ((in.flags[kForm] & kMulticast) == 0) {
    const uint64_t upper = (destination & ~kWindowMask) >> kClusterRankShift;
    if (upper > size) {
      w.fault(Status::kIllegalAddress, in, lane,
              fmt::format("the address {:#x} is in no block of the cluster", destination));
      return {};
    }
    return uint32_t{1} << (upper == 0 ? w.cta->cluster_rank : upper - 1);
  }
  const uint32_t mask = w.lanes<uint16_t>(in.slots[kBlocks])[lane];
  if (mask == 0 || (size < 16 && mask >> size != 0)) {
    w.fault(Status::kIllegalInstruction, in, lane,
            fmt::format("multicast to blocks {:#x} of a cluster of {}", mask, size));
    return {};
  }
  return mask;
}

uint64_t cluster_address(uint32_t rank, uint32_t offset) { return uint64_t{rank + 1} << kClusterRankShift | offset; }

/// Sends an image on its way to the blocks. False after a fault.
bool send(Warp& w, const Instruction& in, int lane, const Cta::BulkCopy& copy, uint32_t blocks) {
  for (uint32_t left = blocks; left != 0; left &= left - 1) {
    const auto rank = static_cast<uint32_t>(std::countr_zero(left));
    Cta& block = *w.cta->cluster->blocks[rank];
    for (const Cta::BulkCopy::Piece& piece : copy.pieces) {
      if (locate_range(w, in, lane, cluster_address(rank, piece.offset), Space::kSharedCluster, piece.bytes, kChunk,
                       Access::Kind::kAsyncIssue, nullptr) == nullptr) {
        return false;
      }
    }
    if (copy.mbarrier % 8 != 0 || copy.mbarrier + uint64_t{8} > w.cta->grid.shared_extent) {
      w.fault(Status::kIllegalAddress, in, lane, fmt::format("no mbarrier can be at {:#x}", copy.mbarrier));
      return false;
    }
    block.bulk_copies.push_back(std::make_unique<Cta::BulkCopy>(copy));
  }
  return true;
}

/// The mbarrier's offset, checked to be in the block that the copy goes to.
std::optional<uint32_t> mbarrier_of(Warp& w, const Instruction& in, int lane, uint64_t destination) {
  const uint64_t address = address_at(w, in, kBarrier, lane);
  const uint64_t rank = (address & ~kWindowMask) >> kClusterRankShift;
  if (rank > w.cta->cluster->blocks.size() ||
      ((in.flags[kForm] & kMulticast) == 0 && shared_place(w, address).block != shared_place(w, destination).block)) {
    w.fault(Status::kIllegalAddress, in, lane, "the mbarrier is not in the block that the copy goes to");
    return {};
  }
  return shared_place(w, address).offset;
}

bool divides(Warp& w, const Instruction& in, int lane, uint64_t value, uint64_t by, const char* what) {
  if (value % by == 0) return true;
  w.fault(Status::kMisalignedAddress, in, lane, fmt::format("{} {:#x}: expected a multiple of {}", what, value, by));
  return false;
}

/// Bytes from global memory, or from the block's own shared memory, to a block's shared memory.
bool copy_to_shared(Warp& w, const Instruction& in, int lane) {
  const uint64_t to = address_at(w, in, kDestination, lane), from = address_at(w, in, kSource, lane);
  const uint32_t bytes = w.lanes<uint32_t>(in.slots[kBytes])[lane];
  if (!divides(w, in, lane, bytes, kChunk, "size") || !divides(w, in, lane, to, kChunk, "destination")) return false;
  const auto blocks = blocks_of(w, in, lane, to);
  if (!blocks) return false;
  const auto mbarrier = mbarrier_of(w, in, lane, to);
  if (!mbarrier) return false;
  const std::byte* data = bytes == 0 ? w.cta->shared
                                     : locate_range(w, in, lane, from, static_cast<Space>(in.flags[kSpaces] & 15),
                                                    bytes, kChunk, Access::Kind::kAsyncRead, nullptr);
  if (data == nullptr) return false;
  const uint32_t offset = shared_place(w, to).offset;
  const auto reduction = static_cast<Reduction>(in.flags[kReduction]);
  if (reduction != Reduction::kNone && bytes != 0) {
    // What is there changes at once; only the mbarrier learns of it later.
    std::byte* there =
        locate_range(w, in, lane, to, Space::kSharedCluster, bytes, kChunk, Access::Kind::kAtomic, nullptr, true);
    if (there == nullptr) return false;
    reduce(reduction, static_cast<DataType>(in.flags[kType]), there, data, bytes);
    return send(w, in, lane, {*mbarrier, bytes, &in, offset, {}, {}}, *blocks);
  }
  return send(w, in, lane, {*mbarrier, bytes, &in, offset, {data, data + bytes}, {{offset, bytes}}}, *blocks);
}

// --- to global memory -----------------------------------------------------------------------------------------------

/// Writes, or adds, bytes to global memory.
bool put(Warp& w, const Instruction& in, int lane, uint64_t address, const std::byte* data, uint64_t bytes,
         uint32_t alignment, Reduction reduction, DataType type) {
  if (reduction != Reduction::kNone) {
    std::byte* to =
        locate_range(w, in, lane, address, Space::kGlobal, bytes, alignment, Access::Kind::kAtomic, nullptr, true);
    if (to == nullptr) return false;
    reduce(reduction, type, to, data, bytes);
    return true;
  }
  // Counters see the copy when it is issued, the checker what it writes.
  for (const auto kind : {Access::Kind::kAsyncIssue, Access::Kind::kAsyncLand}) {
    const bool lands = kind == Access::Kind::kAsyncLand;
    std::byte* to = locate_range(w, in, lane, address, Space::kGlobal, bytes, alignment, kind, lands ? data : nullptr);
    if (to == nullptr) return false;
    if (lands) std::memcpy(to, data, bytes);
  }
  return true;
}

bool copy_to_global(Warp& w, const Instruction& in, int lane) {
  const uint64_t to = address_at(w, in, kDestination, lane), from = address_at(w, in, kSource, lane);
  const uint32_t bytes = w.lanes<uint32_t>(in.slots[kBytes])[lane];
  if (!divides(w, in, lane, bytes, kChunk, "size")) return false;
  if (bytes == 0) return true;
  const std::byte* data =
      locate_range(w, in, lane, from, Space::kShared, bytes, kChunk, Access::Kind::kAsyncRead, nullptr);
  return data != nullptr && put(w, in, lane, to, data, bytes, kChunk, static_cast<Reduction>(in.flags[kReduction]),
                                static_cast<DataType>(in.flags[kType]));
}

void bulk(Warp& w, const Instruction& in, Mask m) {
  const bool to_shared = (in.flags[kForm] & kToShared) != 0;
  for (Mask left = m; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    if (!(to_shared ? copy_to_shared(w, in, lane) : copy_to_global(w, in, lane))) return;
  }
}

// --- tensors --------------------------------------------------------------------------------------------------------

/// Where a byte of a box lies in shared memory: bits of the address within a line of 128 bytes are exclusive-or'ed with
/// bits of the line's number.
uint32_t swizzled(TensorMap::Swizzle swizzle, uint32_t offset) {
  const uint32_t lines = swizzle == TensorMap::Swizzle::k128Bytes  ? 7
                         : swizzle == TensorMap::Swizzle::k64Bytes ? 3
                         : swizzle == TensorMap::Swizzle::k32Bytes ? 1
                                                                   : 0;
  return offset ^ ((offset >> 7 & lines) << 4);
}

DataType element_type(TensorMap::Type type) {
  using T = TensorMap::Type;
  switch (type) {
    case T::kInt32:
      return DataType::kS32;
    case T::kUint64:
      return DataType::kU64;
    case T::kInt64:
      return DataType::kS64;
    case T::kFloat16:
      return DataType::kF16;
    case T::kBfloat16:
      return DataType::kBf16;
    case T::kFloat64:
      return DataType::kF64;
    case T::kUint32:
      return DataType::kU32;
    case T::kUint8:
    case T::kUint16:
      return DataType::kB8;
    default:
      return DataType::kF32;
  }
}

/// What lies outside of the tensor, when it is not zero: a NaN of the element's type.
void fill_nan(TensorMap::Type type, std::byte* to, uint32_t element_bytes) {
  const uint64_t nan = type == TensorMap::Type::kFloat64 ? F64::kNan
                       : element_bytes == 2              ? uint64_t{F16::kNan}
                                                         : uint64_t{F32::kNan};
  std::memcpy(to, &nan, element_bytes);
}

struct Box {
  TensorMap map;
  int64_t start[TensorMap::kMaxRank] = {};
  uint32_t taken[TensorMap::kMaxRank] = {1, 1, 1, 1, 1};
  uint32_t element = 0, row_bytes = 0, bytes = 0;

  /// f(offset in the dense box, address of the row's first element, elements inside from…to) for each row along
  /// dimension 0; rows wholly outside have none inside. False when f says so.
  template <class F>
  bool each_row(F f) const {
    std::array<uint32_t, TensorMap::kMaxRank> at{};
    const uint32_t rows = bytes / row_bytes;
    for (uint32_t row = 0; row < rows; ++row) {
      bool inside = true;
      uint64_t address = map.address;
      for (size_t d = 1; d < map.rank; ++d) {
        const int64_t index = start[d] + int64_t{at[d]} * map.element_strides[d];
        inside = inside && index >= 0 && index <= int64_t{map.last[d]};
        address += static_cast<uint64_t>(index) * map.strides[d - 1];
      }
      const int64_t stride = map.element_strides[0];
      uint32_t first = 0, last = 0;
      if (inside) {
        const int64_t extent = int64_t{map.last[0]} + 1;
        first = static_cast<uint32_t>(std::clamp<int64_t>((-start[0] + stride - 1) / stride, 0, taken[0]));
        if (start[0] >= 0) first = 0;
        last = static_cast<uint32_t>(std::clamp<int64_t>((extent - start[0] + stride - 1) / stride, first, taken[0]));
        if (start[0] >= extent) last = first;
      }
      address += static_cast<uint64_t>(start[0]) * element;
      if (!f(row * row_bytes, address, first, last)) return false;
      for (size_t d = 1; d < map.rank && ++at[d] == taken[d]; ++d) at[d] = 0;
    }
    return true;
  }
};

/// Reads the map that the instruction names, and the coordinates.
std::optional<Box> box_of(Warp& w, const Instruction& in, int lane, uint32_t map_slot) {
  alignas(64) uint64_t address[kLanes] = {};
  address[lane] = address_at(w, in, map_slot, lane);
  Located at;
  if (!locate(w, in, Mask{1} << lane, address, Space::kGeneric, sizeof(TensorMap), 64, Access::Kind::kLoad, false,
              nullptr, at)) {
    return {};
  }
  Box box;
  box.map = TensorMap::read(at.pointer[lane]);
  const auto wrong = [&](const std::string& what) {
    w.fault(Status::kIllegalInstruction, in, lane, what);
    return std::nullopt;
  };
  if (!box.map.valid()) return wrong(fmt::format("there is no tensor map at {:#x}", address[lane]));
  if (box.map.rank != in.flags[kRank]) {
    return wrong(fmt::format("the tensor map has {} dimensions, the instruction {}", box.map.rank, in.flags[kRank]));
  }
  if (box.map.interleave != TensorMap::Interleave::kNone) return wrong("interleaved tensors are not supported");
  box.element = box.map.element_bytes();
  uint32_t elements = 1;
  for (size_t d = 0; d < box.map.rank; ++d) {
    box.start[d] = w.lanes<int32_t>(in.slots[kCoordinates + d])[lane];
    box.taken[d] = box.map.taken(d);
    elements *= box.taken[d];
  }
  box.row_bytes = box.taken[0] * box.element;
  box.bytes = elements * box.element;
  if (box.bytes % kChunk != 0 || box.row_bytes % kChunk != 0) {
    return wrong(fmt::format("a box whose rows have {} bytes, expected a multiple of {}", box.row_bytes, kChunk));
  }
  return box;
}

bool misplaced(Warp& w, const Instruction& in, int lane, uint32_t offset) {
  if (offset % kLine == 0) return false;
  w.fault(Status::kMisalignedAddress, in, lane,
          fmt::format("a tensor's box at {:#x} of shared memory: expected a multiple of {}", offset, kLine));
  return true;
}

bool tensor_to_shared(Warp& w, const Instruction& in, int lane) {
  const uint64_t to = address_at(w, in, kDestination, lane);
  const auto box = box_of(w, in, lane, kSource);
  if (!box) return false;
  const auto blocks = blocks_of(w, in, lane, to);
  if (!blocks) return false;
  const auto mbarrier = mbarrier_of(w, in, lane, to);
  if (!mbarrier) return false;
  const uint32_t offset = shared_place(w, to).offset;
  if (misplaced(w, in, lane, offset)) return false;
  const TensorMap& map = box->map;
  std::vector<std::byte> dense(box->bytes);
  if (map.fill == TensorMap::Fill::kNan) {
    for (uint32_t at = 0; at < box->bytes; at += box->element) fill_nan(map.type, dense.data() + at, box->element);
  }
  const bool fine = box->each_row([&](uint32_t at, uint64_t address, uint32_t first, uint32_t last) {
    const uint32_t stride = map.element_strides[0];
    if (first == last) return true;
    const uint32_t step = stride == 1 ? last - first : 1;
    for (uint32_t e = first; e < last; e += step) {
      const std::byte* from =
          locate_range(w, in, lane, address + uint64_t{e} * stride * box->element, Space::kGlobal,
                       uint64_t{step} * box->element, box->element, Access::Kind::kAsyncRead, nullptr);
      if (from == nullptr) return false;
      std::memcpy(dense.data() + at + size_t{e} * box->element, from, size_t{step} * box->element);
    }
    return true;
  });
  if (!fine) return false;
  Cta::BulkCopy copy{*mbarrier, box->bytes, &in, offset, std::move(dense), {}};
  if (map.swizzle == TensorMap::Swizzle::kNone) {
    copy.pieces = {{offset, box->bytes}};
  } else {
    std::vector<std::byte> image(size_t{(box->bytes + kLine - 1) / kLine} * kLine);
    for (uint32_t at = 0; at < box->bytes; at += kChunk) {
      const uint32_t place = swizzled(map.swizzle, offset + at);
      std::memcpy(image.data() + (place - offset), copy.image.data() + at, kChunk);
      if (box->bytes % kLine != 0) copy.pieces.push_back({place, kChunk});
    }
    if (copy.pieces.empty()) copy.pieces = {{offset, box->bytes}};  // whole lines, each in an order of its own
    copy.image = std::move(image);
  }
  return send(w, in, lane, copy, *blocks);
}

bool tensor_to_global(Warp& w, const Instruction& in, int lane) {
  const auto box = box_of(w, in, lane, kDestination);
  if (!box) return false;
  const uint64_t from = address_at(w, in, kSource, lane);
  if (misplaced(w, in, lane, static_cast<uint32_t>(from))) return false;
  const TensorMap& map = box->map;
  const auto reduction = static_cast<Reduction>(in.flags[kReduction]);
  const DataType type = element_type(map.type);
  if (reduction != Reduction::kNone && type == DataType::kB8) {
    w.fault(Status::kIllegalInstruction, in, lane, "a reduction of elements of this size is not known");
    return false;
  }
  std::vector<std::byte> dense(box->bytes);
  for (uint32_t at = 0; at < box->bytes; at += kChunk) {
    const uint32_t place = swizzled(map.swizzle, static_cast<uint32_t>(from) + at);
    const std::byte* chunk =
        locate_range(w, in, lane, place, Space::kShared, kChunk, kChunk, Access::Kind::kAsyncRead, nullptr);
    if (chunk == nullptr) return false;
    std::memcpy(dense.data() + at, chunk, kChunk);
  }
  return box->each_row([&](uint32_t at, uint64_t address, uint32_t first, uint32_t last) {
    const uint32_t stride = map.element_strides[0];
    if (first == last) return true;
    const uint32_t step = stride == 1 ? last - first : 1;
    for (uint32_t e = first; e < last; e += step) {
      if (!put(w, in, lane, address + uint64_t{e} * stride * box->element, dense.data() + at + size_t{e} * box->element,
               uint64_t{step} * box->element, box->element, reduction, type)) {
        return false;
      }
    }
    return true;
  });
}

void tensor(Warp& w, const Instruction& in, Mask m) {
  const bool to_shared = (in.flags[kForm] & kToShared) != 0;
  for (Mask left = m; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    if (!(to_shared ? tensor_to_shared(w, in, lane) : tensor_to_global(w, in, lane))) return;
  }
}

// --- values from registers ------------------------------------------------------------------------------------------

/// st.async and red.async: as a copy whose source are registers, from slot kCoordinates on.
void store_async(Warp& w, const Instruction& in, Mask m) {
  const uint32_t bytes = in.memory.total();
  const auto reduction = static_cast<Reduction>(in.flags[kReduction]);
  for (Mask left = m; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    const uint64_t to = address_at(w, in, kDestination, lane);
    if (!divides(w, in, lane, to, bytes, "destination")) return;
    const auto blocks = blocks_of(w, in, lane, to);
    if (!blocks) return;
    const auto mbarrier = mbarrier_of(w, in, lane, to);
    if (!mbarrier) return;
    std::vector<std::byte> image(bytes);
    for (uint32_t e = 0; e < in.memory.elements; ++e) {
      const std::byte* lanes = w.lanes<std::byte>(in.slots[kCoordinates + e]);
      std::memcpy(&image[size_t{e} * in.memory.bytes], lanes + static_cast<size_t>(lane) * in.memory.bytes,
                  in.memory.bytes);
    }
    const uint32_t offset = shared_place(w, to).offset;
    Cta::BulkCopy copy{*mbarrier, bytes, &in, offset, std::move(image), {{offset, bytes}}};
    if (reduction != Reduction::kNone) {
      std::byte* there =
          locate_range(w, in, lane, to, Space::kSharedCluster, bytes, bytes, Access::Kind::kAtomic, nullptr, true);
      if (there == nullptr) return;
      reduce(reduction, static_cast<DataType>(in.flags[kType]), there, copy.image.data(), bytes);
      copy.pieces.clear();
    }
    if (!send(w, in, lane, copy, *blocks)) return;
  }
}

// --- lowering -------------------------------------------------------------------------------------------------------

void nothing(Warp&, const Instruction&, Mask) {}

Reduction reduction_of(const Lowering& l) {
  static constexpr std::pair<std::string_view, Reduction> kNames[] = {
      {"add", Reduction::kAdd}, {"min", Reduction::kMin}, {"max", Reduction::kMax}, {"inc", Reduction::kInc},
      {"dec", Reduction::kDec}, {"and", Reduction::kAnd}, {"or", Reduction::kOr},   {"xor", Reduction::kXor}};
  Reduction found = Reduction::kNone;
  for (const auto& [name, reduction] : kNames) {
    if (!l.has(name)) continue;
    if (found != Reduction::kNone) l.unknown();
    found = reduction;
  }
  const bool reduces = l.text().opcode == "red" || l.text().modifiers.front() == "reduce";
  if ((found != Reduction::kNone) != reduces) l.unknown();
  return found;
}

/// Whether PTX has the reduction for elements of the type.
bool known(Reduction r, DataType t, bool to_global) {
  const bool half = t == DataType::kF16 || t == DataType::kBf16, real = t == DataType::kF32 || t == DataType::kF64;
  const bool integer = t == DataType::kU32 || t == DataType::kS32 || t == DataType::kU64 || t == DataType::kS64;
  switch (r) {
    case Reduction::kAdd:
      return (integer && t != DataType::kS64) || (to_global && (half || real));
    case Reduction::kMin:
    case Reduction::kMax:
      return t == DataType::kU32 || t == DataType::kS32 || (to_global && (integer || half));
    case Reduction::kInc:
    case Reduction::kDec:
      return t == DataType::kU32;
    default:
      return t == DataType::kB32 || (to_global && t == DataType::kB64);
  }
}

/// The spaces named, destination first.
std::vector<Space> spaces_of(const Lowering& l) {
  std::vector<Space> spaces;
  for (const std::string& m : l.text().modifiers) {
    if (m == "global") spaces.push_back(Space::kGlobal);
    if (m == "shared" || m == "shared::cta") spaces.push_back(Space::kShared);
    if (m == "shared::cluster") spaces.push_back(Space::kSharedCluster);
  }
  return spaces;
}

constexpr std::string_view kTransaction = "mbarrier::complete_tx::bytes", kMulticastName = "multicast::cluster",
                           kHint = "L2::cache_hint";

std::optional<uint8_t> rank_of(const Lowering& l) {
  for (const std::string& m : l.text().modifiers) {
    if (m.size() == 2 && m[1] == 'd' && m[0] >= '1' && m[0] <= '5') return static_cast<uint8_t>(m[0] - '0');
  }
  return {};
}

/// What may follow the operands of a copy: multicast's mask and a cache policy.
Slot rest(Lowering& l, size_t next) {
  Slot blocks = l.constant(0, 16);
  if (l.has(kMulticastName)) blocks = l.read(next++, 16);
  if (l.has(kHint)) static_cast<void>(l.read(next++, 64));
  if (next != l.operand_count()) l.unknown();
  return blocks;
}

Instruction& finish(Lowering& l, Handler handler, Operands& operands, Space from, uint8_t form, uint8_t rank) {
  const Reduction reduction = reduction_of(l);
  Instruction& in = l.emit(handler, operands.slots);
  in.memory.space = (form & kToShared) != 0 ? Space::kShared : Space::kGlobal;
  in.memory.bytes = kChunk;
  in.flags[kBases32] = operands.bases32;
  in.flags[kForm] = form;
  in.flags[kRank] = rank;
  in.flags[kSpaces] = static_cast<uint8_t>(from);
  in.flags[kReduction] = static_cast<uint8_t>(reduction);
  if (reduction != Reduction::kNone && (form & kTensorSide) == 0) in.flags[kType] = static_cast<uint8_t>(l.type());
  return in;
}

void lower_rows(Lowering& l) {
  allow_modifiers(l, {"async",      "reduce",     "bulk",         "global", "shared", "shared::cta", "shared::cluster",
                      kTransaction, "bulk_group", kMulticastName, kHint,    "add",    "min",         "max",
                      "inc",        "dec",        "and",          "or",     "xor",    "noftz"});
  const std::vector<Space> spaces = spaces_of(l);
  if (spaces.size() != 2) l.unknown();
  const bool to_global = spaces[0] == Space::kGlobal, from_global = spaces[1] == Space::kGlobal;
  if ((to_global && from_global) || spaces[1] == Space::kSharedCluster) l.unknown();
  if (to_global != l.has("bulk_group") || to_global == l.has(kTransaction)) l.unknown();
  if (l.has(kMulticastName) && !from_global) l.unknown();
  const Reduction reduction = reduction_of(l);
  if (reduction == Reduction::kNone) {
    if (l.type_count() != 0 || l.has("noftz")) l.unknown();
  } else if (l.type_count() != 1 || from_global || !known(reduction, l.type(), to_global)) {
    l.unknown();
  }
  Operands o{l, {}, 0};
  o.address(l.operand(0), spaces[0]);
  o.address(l.operand(1), spaces[1]);
  size_t next = 3;
  if (to_global) {
    o.none();
  } else {
    o.address(l.operand(next++), Space::kSharedCluster);
  }
  o.slots.push_back(l.read(2, 32));
  o.slots.push_back(rest(l, next));
  finish(l, bulk, o, spaces[1],
         static_cast<uint8_t>((to_global ? kToGlobal : kToShared) | (l.has(kMulticastName) ? kMulticast : 0)), 0);
}

void lower_tensor(Lowering& l, uint8_t rank) {
  for (const std::string& m : l.text().modifiers) {
    if (m.starts_with("im2col") || m.starts_with("tile::") || m.starts_with("cta_group")) {
      l.fail("tensor copies of this form are not supported");
    }
  }
  const std::string rank_text = fmt::format("{}d", rank);
  allow_modifiers(l, {"async",      "reduce",     "bulk",         "tensor",      rank_text,
                      "tile",       "global",     "shared",       "shared::cta", "shared::cluster",
                      kTransaction, "bulk_group", kMulticastName, kHint,         "add",
                      "min",        "max",        "inc",          "dec",         "and",
                      "or",         "xor"});
  const std::vector<Space> spaces = spaces_of(l);
  if (spaces.size() != 2 || l.type_count() != 0) l.unknown();
  const bool to_global = spaces[0] == Space::kGlobal;
  if (to_global == (spaces[1] == Space::kGlobal) || (to_global && spaces[1] != Space::kShared)) l.unknown();
  if (to_global != l.has("bulk_group") || to_global == l.has(kTransaction)) l.unknown();
  if (!to_global && reduction_of(l) != Reduction::kNone) l.unknown();
  if (to_global && l.has(kMulticastName)) l.unknown();
  const ptx::Operand& tensor_operand = l.operand(to_global ? 0 : 1);
  if (tensor_operand.kind != ptx::Operand::Kind::kTensor || tensor_operand.parts.size() != 2) {
    l.fail("expected a tensor map and coordinates");
  }
  const auto& coordinates = tensor_operand.parts[1].parts;
  if (coordinates.size() != rank) l.fail("expected {} coordinates, found {}", rank, coordinates.size());
  Operands o{l, {}, 0};
  if (to_global) {
    o.address(tensor_operand.parts[0], Space::kGeneric);
    o.address(l.operand(1), Space::kShared);
    o.none();
  } else {
    o.address(l.operand(0), spaces[0]);
    o.address(tensor_operand.parts[0], Space::kGeneric);
    o.address(l.operand(2), Space::kSharedCluster);
  }
  o.slots.push_back(l.constant(0, 32));
  o.slots.push_back(rest(l, to_global ? 2 : 3));
  for (const ptx::Operand& c : coordinates) o.slots.push_back(l.read(c, 32));
  finish(l, tensor, o, spaces[1],
         static_cast<uint8_t>((to_global ? kToGlobal : kToShared) | (l.has(kMulticastName) ? kMulticast : 0) |
                              kTensorSide),
         rank);
}

void lower_prefetch(Lowering& l) {
  const auto rank = rank_of(l);
  const std::string rank_text = rank ? fmt::format("{}d", *rank) : "L2";
  allow_modifiers(l, {"async", "bulk", "prefetch", "tensor", "tile", "L2", "global", kHint, rank_text});
  if (rank.has_value() != l.has("tensor")) l.unknown();
  l.emit(nothing, {});
}

}  // namespace

void lower_store_async(Lowering& l) {
  const bool reduces = l.text().opcode == "red";
  allow_modifiers(l,
                  {"async", reduces ? "relaxed" : "weak", reduces ? "cluster" : "weak", "shared::cluster", kTransaction,
                   reduces ? "add" : "v2", reduces ? "min" : "v4", "max", "inc", "dec", "and", "or", "xor"});
  if (!l.has("shared::cluster") || !l.has(kTransaction)) l.unknown();
  expect_shape(l, 1, 3);
  const DataType type = l.type();
  const uint32_t bits = bits_of(type);
  const Reduction reduction = reduction_of(l);
  if ((bits != 32 && bits != 64) || (reduces && !known(reduction, type, false))) l.unknown();
  const auto values = registers_of(l.operand(1));
  if (values.size() != (l.has("v4") ? 4U : l.has("v2") ? 2U : 1U) || values.size() * bits > 128) l.unknown();
  Operands o{l, {}, 0};
  o.address(l.operand(0), Space::kSharedCluster);
  o.none();
  o.address(l.operand(2), Space::kSharedCluster);
  o.slots.push_back(l.constant(0, 32));
  o.slots.push_back(l.constant(0, 16));
  for (const ptx::Operand* v : values) o.slots.push_back(l.read(*v, bits));
  Instruction& in = finish(l, store_async, o, Space::kShared, kToShared, 0);
  in.memory.bytes = static_cast<uint8_t>(bits / 8);
  in.memory.elements = static_cast<uint8_t>(values.size());
}

namespace {

void commit_group(Warp& w, const Instruction&, Mask m) {
  w.each_observer([&](Observer& o) { o.async_commit(w, m, AsyncReader::kBulkCopy); });
}

/// immediate: how many of the latest groups may be under way.
void wait_group(Warp& w, const Instruction& in, Mask m) {
  w.each_observer([&](Observer& o) { o.async_wait(w, m, AsyncReader::kBulkCopy, in.immediate); });
}

}  // namespace

void lower_bulk_copy(Lowering& l) {
  const auto& modifiers = l.text().modifiers;
  if (modifiers.front() != "async" && !(modifiers.front() == "reduce" && l.has("async"))) l.unknown();
  if (l.has("commit_group")) {
    allow_modifiers(l, {"async", "bulk", "commit_group"});
    expect_shape(l, 0, 0);
    l.emit(commit_group, {});
  } else if (l.has("wait_group")) {
    allow_modifiers(l, {"async", "bulk", "wait_group", "read"});
    expect_shape(l, 0, 1);
    const uint64_t pending = l.literal(0);
    l.emit(wait_group, {}).immediate = pending;
  } else if (l.has("prefetch")) {
    lower_prefetch(l);
  } else if (l.has("tensor")) {
    const auto rank = rank_of(l);
    if (!rank) l.fail("expected a number of dimensions, 1d to 5d");
    lower_tensor(l, *rank);
  } else {
    lower_rows(l);
  }
}

}  // namespace ptxsim
