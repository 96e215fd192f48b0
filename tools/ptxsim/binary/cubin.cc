#include "tools/ptxsim/binary/cubin.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>
#include <vector>

#include "tools/ptxsim/binary/bytes.h"
#include "tools/ptxsim/error.h"

namespace ptxsim {
namespace {

constexpr const char* kWhat = "cubin";
constexpr uint16_t kMachineCuda = 190;
constexpr uint16_t kTypeExecutable = 2;      // of the file
constexpr uint32_t kTypeSymbols = 2;         // of a section
constexpr unsigned char kOtherEntry = 0x10;  // in a symbol's `other`: .entry

struct ElfHeader {
  unsigned char identity[16];
  uint16_t type, machine;
  uint32_t version;
  uint64_t entry, programs, sections;
  uint32_t flags;  // bits 8 to 15: the architecture
  uint16_t header_size, program_size, program_count, section_size, section_count, names;
};

struct ElfSection {
  uint32_t name, type;
  uint64_t flags, address, offset, size;
  uint32_t link, info;
  uint64_t align, entry_size;
};

struct ElfSymbol {
  uint32_t name;
  unsigned char info, other;
  uint16_t section;
  uint64_t value, size;
};
static_assert(sizeof(ElfHeader) == 64 && sizeof(ElfSection) == 64 && sizeof(ElfSymbol) == 24);

/// Attributes in .nv.info (of all functions, by symbol) and .nv.info.KERNEL (of one kernel), as CUDA 13 numbers them.
enum class Attribute : uint8_t {
  kMaxThreads = 0x05,       // three extents: .maxntid
  kRequiredThreads = 0x10,  // three extents: .reqntid
  kFrameSize = 0x11,        // symbol, bytes: the function's own stack frame
  kMinStackSize = 0x12,     // symbol, bytes: with the functions that it calls
  kRegisters = 0x2f,        // symbol, count
  kBarriers = 0x4c,
};

enum class Format : uint8_t { kNone = 1, kByte = 2, kHalf = 3, kSized = 4 };

/// From compute capability 9.0 on, linking adds to a kernel's static shared memory what the system keeps for itself of
/// every block. `ptxas -v` does not count it.
constexpr uint32_t kReservedShared = 1024;

class Elf {
 public:
  explicit Elf(std::span<const std::byte> bytes) : bytes_(bytes), header_(number_at<ElfHeader>(bytes, 0, kWhat)) {
    constexpr unsigned char kMagic[] = {0x7f, 'E', 'L', 'F', 2 /* 64 bits */, 1 /* little-endian */};
    if (!std::ranges::equal(kMagic, std::span(header_.identity).first(sizeof(kMagic)))) {
      throw Error("{}: no 64-bit ELF file", kWhat);
    }
    if (header_.machine != kMachineCuda) {
      throw Error("{}: expected ELF machine {}, found {}", kWhat, kMachineCuda, header_.machine);
    }
    if (header_.section_size != sizeof(ElfSection)) {
      throw Error("{}: section headers of {} bytes", kWhat, header_.section_size);
    }
    const std::span<const std::byte> table =
        part_of(bytes_, header_.sections, uint64_t{header_.section_count} * sizeof(ElfSection), kWhat);
    sections_.resize(header_.section_count);
    std::memcpy(sections_.data(), table.data(), table.size());
  }

  const std::vector<ElfSection>& sections() const { return sections_; }
  bool linked() const { return header_.type == kTypeExecutable; }
  uint32_t architecture() const { return header_.flags >> 8 & 0xFF; }
  std::string_view name(const ElfSection& section) const { return string(header_.names, section.name); }

  std::span<const std::byte> contents(const ElfSection& section) const {
    return part_of(bytes_, section.offset, section.size, kWhat);
  }

  std::string_view string(uint32_t table, uint32_t offset) const {
    if (table >= sections_.size()) throw Error("{}: there is no section {}", kWhat, table);
    const std::span<const std::byte> strings = contents(sections_[table]);
    if (offset > strings.size()) throw Error("{}: a name outside of the names", kWhat);
    const std::string_view from(reinterpret_cast<const char*>(strings.data()) + offset, strings.size() - offset);
    const size_t end = from.find('\0');
    if (end == std::string_view::npos) throw Error("{}: a name has no end", kWhat);
    return from.substr(0, end);
  }

  struct Symbol {
    std::string_view name;
    bool kernel = false;
  };

  std::vector<Symbol> symbols() const {
    std::vector<Symbol> result;
    for (const ElfSection& section : sections_) {
      if (section.type != kTypeSymbols) continue;
      const std::span<const std::byte> table = contents(section);
      for (uint64_t at = 0; at + sizeof(ElfSymbol) <= table.size(); at += sizeof(ElfSymbol)) {
        const auto symbol = number_at<ElfSymbol>(table, at, kWhat);
        result.push_back({.name = string(section.link, symbol.name), .kernel = (symbol.other & kOtherEntry) != 0});
      }
      break;
    }
    return result;
  }

 private:
  std::span<const std::byte> bytes_;
  ElfHeader header_;
  std::vector<ElfSection> sections_;
};

/// Calls visit(attribute, data) for every attribute of a .nv.info section.
template <class Visit>
void for_attributes(std::span<const std::byte> section, const Visit& visit) {
  for (uint64_t at = 0; at < section.size();) {
    const auto format = number_at<Format>(section, at, kWhat);
    const auto attribute = number_at<Attribute>(section, at + 1, kWhat);
    std::span<const std::byte> data = part_of(section, at + 2, 2, kWhat);
    at += 4;
    if (format == Format::kSized) {
      const auto size = number_at<uint16_t>(data, 0, kWhat);
      data = part_of(section, at, size, kWhat);
      at += size;
    } else if (format != Format::kNone && format != Format::kByte && format != Format::kHalf) {
      throw Error("{}: an attribute of the unknown format {}", kWhat, static_cast<int>(format));
    }
    visit(attribute, data);
  }
}

bool remove_prefix(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

}  // namespace

std::map<std::string, KernelResources> read_cubin(std::span<const std::byte> cubin) {
  const Elf elf(cubin);
  const std::vector<Elf::Symbol> symbols = elf.symbols();
  std::map<std::string, KernelResources, std::less<>> kernels;
  for (const Elf::Symbol& symbol : symbols) {
    if (symbol.kernel) kernels.emplace(symbol.name, KernelResources{});
  }
  const uint32_t reserved_shared = elf.linked() && elf.architecture() >= 90 ? kReservedShared : 0;
  for (const ElfSection& section : elf.sections()) {
    std::string_view name = elf.name(section);
    if (name == ".nv.info") {
      for_attributes(elf.contents(section), [&](Attribute attribute, std::span<const std::byte> data) {
        if (attribute != Attribute::kRegisters && attribute != Attribute::kFrameSize &&
            attribute != Attribute::kMinStackSize) {
          return;
        }
        const auto symbol = number_at<uint32_t>(data, 0, kWhat);
        const auto value = number_at<uint32_t>(data, 4, kWhat);
        if (symbol >= symbols.size()) throw Error("{}: there is no symbol {}", kWhat, symbol);
        const auto kernel = kernels.find(symbols[symbol].name);
        if (kernel == kernels.end()) return;
        if (attribute == Attribute::kRegisters) {
          kernel->second.registers = value;
        } else {
          kernel->second.local_bytes = std::max(kernel->second.local_bytes, value);
        }
      });
    } else if (remove_prefix(&name, ".nv.info.")) {
      const auto kernel = kernels.find(name);
      if (kernel == kernels.end()) continue;  // a device function
      for_attributes(elf.contents(section), [&](Attribute attribute, std::span<const std::byte> data) {
        if (attribute == Attribute::kBarriers) {
          kernel->second.barriers = number_at<uint8_t>(data, 0, kWhat);
        } else if (attribute == Attribute::kMaxThreads || attribute == Attribute::kRequiredThreads) {
          uint64_t threads = 1;
          for (uint64_t i = 0; i < 3; i++) {
            threads = std::min<uint64_t>(threads * number_at<uint32_t>(data, i * 4, kWhat), UINT32_MAX);
          }
          kernel->second.max_threads = static_cast<uint32_t>(threads);
        }
      });
    } else if (remove_prefix(&name, ".nv.shared.")) {
      const auto kernel = kernels.find(name);
      if (kernel == kernels.end()) continue;  // .nv.shared.reserved.0
      if (section.size < reserved_shared || section.size > UINT32_MAX) {
        throw Error("{}: '{}' has {} bytes of shared memory", kWhat, name, section.size);
      }
      kernel->second.shared_bytes = static_cast<uint32_t>(section.size) - reserved_shared;
    }
  }
  return {std::make_move_iterator(kernels.begin()), std::make_move_iterator(kernels.end())};
}

}  // namespace ptxsim
