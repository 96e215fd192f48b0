#include "tools/ptxsim/binary/fatbin.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <tuple>

#include "tools/ptxsim/binary/bytes.h"
#include "tools/ptxsim/error.h"

namespace ptxsim {
namespace {

// The layout is documented nowhere; this is what nvcc 13.0 writes.

struct Wrapper {
  static constexpr uint32_t kMagic = 0x466243b1;
  uint32_t magic;
  uint32_t version;  // 2: made by nvlink, `units` is a list of the linked units' containers that ends with null
  const std::byte* container;
  const std::byte* const* units;
};

struct ContainerHeader {
  static constexpr uint32_t kMagic = 0xba55ed50;
  uint32_t magic;
  uint16_t version;
  uint16_t header_size;
  uint64_t size;  // of the entries
};

struct EntryHeader {
  uint16_t kind;
  uint16_t version;
  uint32_t header_size;
  uint64_t size;             // with padding
  uint32_t compressed_size;  // without padding; 0 when not compressed
  uint32_t options_offset;
  uint16_t minor, major;  // of the PTX or of the cubin's ABI
  uint32_t architecture;
  uint32_t name_offset, name_size;
  uint64_t flags;
  uint64_t reserved;
  uint64_t uncompressed_size;  // 0 when not compressed
};
static_assert(sizeof(ContainerHeader) == 16 && sizeof(EntryHeader) == 64);

constexpr uint16_t kKindPtx = 1, kKindElf = 2;
constexpr uint64_t kFlagLz4 = 0x2000, kFlagZstd = 0x8000, kFlagArchitectureSpecific = 0x100000,
                   kFlagFamilySpecific = 0x200000;

constexpr uint64_t kMaxContainer = uint64_t{1} << 32, kMaxImage = uint64_t{1} << 30;

std::vector<std::byte> unzstd(std::span<const std::byte> from, uint64_t size) {
  // Asked before memory is allocated for what a damaged header claims.
  if (ZSTD_getFrameContentSize(from.data(), from.size()) != size) {
    throw Error("fat binary: an image's zstd data do not have the {} bytes that are stated", size);
  }
  std::vector<std::byte> to(size);
  const size_t written = ZSTD_decompress(to.data(), to.size(), from.data(), from.size());
  if (ZSTD_isError(written) != 0U) throw Error("fat binary: zstd: {}", ZSTD_getErrorName(written));
  if (written != size) throw Error("fat binary: an image of {} bytes decompresses to {}", size, written);
  return to;
}

/// One LZ4 block, which is what --compress-mode=speed writes: literals and copies from before, in turns.
std::vector<std::byte> unlz4(std::span<const std::byte> from, uint64_t size) {
  constexpr const char* kWhat = "fat binary, LZ4 data";
  std::vector<std::byte> to;
  if (size > from.size() * 256) throw Error("{}: {} bytes cannot hold {}", kWhat, from.size(), size);
  to.reserve(size);
  uint64_t at = 0;
  const auto next = [&] { return number_at<uint8_t>(from, at++, kWhat); };
  const auto length = [&](uint32_t nibble) {
    uint64_t result = nibble;
    if (nibble == 15) {
      uint8_t more = 0;
      do result += more = next();
      while (more == 255);
    }
    return result;
  };
  while (at < from.size()) {
    const uint8_t token = next();
    const std::span<const std::byte> literals = part_of(from, at, length(token >> 4), kWhat);
    to.insert(to.end(), literals.begin(), literals.end());
    at = static_cast<uint64_t>(literals.data() - from.data()) + literals.size();
    if (at == from.size()) break;  // the last turn copies nothing
    const auto distance = number_at<uint16_t>(from, at, kWhat);
    at += sizeof(distance);
    const uint64_t copied = length(token & 15) + 4;
    if (distance == 0 || distance > to.size()) throw Error("{}: a copy from before the beginning", kWhat);
    if (copied > size - std::min<uint64_t>(size, to.size())) throw Error("{}: more than {} bytes", kWhat, size);
    for (uint64_t i = 0; i < copied; i++) to.push_back(to[to.size() - distance]);
  }
  if (to.size() != size) throw Error("{}: {} bytes instead of {}", kWhat, to.size(), size);
  return to;
}

std::vector<std::byte> decompress(const EntryHeader& entry, std::span<const std::byte> data) {
  const bool zstd = (entry.flags & kFlagZstd) != 0;
  if (!zstd && (entry.flags & kFlagLz4) == 0) return {data.begin(), data.end()};
  const std::span<const std::byte> from = part_of(data, 0, entry.compressed_size, "fat binary, compressed image");
  if (entry.uncompressed_size > kMaxImage) {
    throw Error("fat binary: an image of {} bytes is too large", entry.uncompressed_size);
  }
  return zstd ? unzstd(from, entry.uncompressed_size) : unlz4(from, entry.uncompressed_size);
}

void read_container(const std::byte* container, uint32_t unit, std::vector<Image>* images) {
  ContainerHeader header;
  std::memcpy(&header, container, sizeof(header));
  if (header.magic != ContainerHeader::kMagic) {
    throw Error("fat binary: expected the container magic {:#x}, found {:#x}", ContainerHeader::kMagic, header.magic);
  }
  if (header.version != 1) throw Error("fat binary: expected container version 1, found {}", header.version);
  if (header.header_size < sizeof(header) || header.size > kMaxContainer) {
    throw Error("fat binary: a container with a header of {} and contents of {} bytes", header.header_size,
                header.size);
  }
  std::span<const std::byte> rest(container + header.header_size, header.size);
  while (!rest.empty()) {
    const auto entry = number_at<EntryHeader>(rest, 0, "fat binary, entry header");
    if (entry.header_size < sizeof(entry)) {
      throw Error("fat binary: an entry header of {} bytes, {} are the least", entry.header_size, sizeof(entry));
    }
    const std::span<const std::byte> data = part_of(rest, entry.header_size, entry.size, "fat binary, entry");
    if (entry.kind == kKindPtx || entry.kind == kKindElf) {  // others are for the linker: -dlto's code
      Image image{.kind = entry.kind == kKindPtx ? Image::Kind::kPtx : Image::Kind::kCubin,
                  .architecture = entry.architecture,
                  .data = decompress(entry, data),
                  .unit = unit};
      if ((entry.flags & kFlagArchitectureSpecific) != 0) image.feature = 'a';
      if ((entry.flags & kFlagFamilySpecific) != 0) image.feature = 'f';
      if (image.kind == Image::Kind::kPtx) {
        while (!image.data.empty() && image.data.back() == std::byte{0}) image.data.pop_back();
      }
      images->push_back(std::move(image));
    }
    rest = rest.subspan(entry.header_size + entry.size);
  }
}

std::string name(const Image& image) {
  return fmt::format("{}_{}{}", image.kind == Image::Kind::kPtx ? "compute" : "sm", image.architecture,
                     image.feature == ' ' ? "" : std::string(1, image.feature));
}

}  // namespace

std::vector<Image> read_fatbin(const void* wrapper) {
  if (wrapper == nullptr) throw Error("fat binary: the pointer is null");
  std::vector<Image> images;
  uint32_t magic = 0;
  std::memcpy(&magic, wrapper, sizeof(magic));
  if (magic == ContainerHeader::kMagic) {
    read_container(static_cast<const std::byte*>(wrapper), 0, &images);
    return images;
  }
  if (magic != Wrapper::kMagic) {
    throw Error("fat binary: expected the magic {:#x} or {:#x}, found {:#x}", Wrapper::kMagic, ContainerHeader::kMagic,
                magic);
  }
  Wrapper header;
  std::memcpy(&header, wrapper, sizeof(header));
  if (header.version != 1 && header.version != 2) {
    throw Error("fat binary: expected wrapper version 1 or 2, found {}", header.version);
  }
  if (header.container == nullptr) throw Error("fat binary: the wrapper has no container");
  read_container(header.container, 0, &images);
  if (header.version == 2 && header.units != nullptr) {
    for (uint32_t i = 0; header.units[i] != nullptr; i++) read_container(header.units[i], i + 1, &images);
  }
  return images;
}

const Image& choose_ptx(std::span<const Image> images, uint32_t architecture, char feature) {
  const auto runs = [&](const Image& image) {
    if (image.kind != Image::Kind::kPtx || image.architecture > architecture) return false;
    if (image.feature == 'a') return image.architecture == architecture && feature == 'a';
    if (image.feature == 'f') return image.architecture / 10 == architecture / 10;
    return true;
  };
  const Image* best = nullptr;
  std::string found;
  for (const Image& image : images) {
    if (!found.empty()) found += ", ";
    found += name(image);
    if (!runs(image)) continue;
    const auto rank = [](const Image& of) { return std::tuple(of.architecture, of.feature != ' '); };
    if (best == nullptr || rank(image) > rank(*best)) best = &image;
  }
  if (best != nullptr) return *best;
  throw Error(
      "fat binary: no PTX that runs on sm_{}{}; it has {}. Build with -gencode arch=compute_{},code=compute_{}, or "
      "less",
      architecture, feature == ' ' ? "" : std::string(1, feature), found.empty() ? "no images" : found, architecture,
      architecture);
}

const Image* choose_cubin(std::span<const Image> images, uint32_t architecture) {
  const auto runs = [&](const Image& image) {  // within a major version, unless it is tied to one architecture
    return image.kind == Image::Kind::kCubin && image.architecture <= architecture &&
           image.architecture / 10 == architecture / 10 && (image.feature != 'a' || image.architecture == architecture);
  };
  const Image* best = nullptr;
  for (const Image& image : images) {
    if (!runs(image)) continue;
    const auto rank = [](const Image& of) { return std::tuple(of.architecture, of.feature != ' '); };
    if (best == nullptr || rank(image) > rank(*best)) best = &image;
  }
  return best;
}

}  // namespace ptxsim
