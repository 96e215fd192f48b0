#include "weights/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>
#include <set>

#include "base/error.h"
#include "weights/json.h"

namespace cpvt {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian; conversions are not written");

namespace {

constexpr uint64_t kPrefixBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr const char* kMetadataName = "__metadata__";

/// Bytes of one tensor; nothing where the product of its extents, or their size, overflows.
struct ByteCount {
  bool overflow = false;
  uint64_t bits = 0;
};

ByteCount byte_count(const std::vector<int64_t>& shape, DType dtype) {
  uint64_t bits = 1;
  bool overflow = false;
  for (const int64_t extent : shape) overflow |= __builtin_mul_overflow(bits, static_cast<uint64_t>(extent), &bits);
  // Counts are int64_t everywhere else.
  overflow |= bits > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  overflow |= __builtin_mul_overflow(bits, static_cast<uint64_t>(dtype_bits(dtype)), &bits);
  return {overflow, bits};
}

/// The checks of one tensor's description that need no other tensor.
SafetensorsFile::Entry read_entry(const json& description, const std::string& where) {
  if (!description.is_object()) throw Error("{}: expected an object, found {}", where, found_text(description));
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!description.contains(key)) throw Error("{}: expected the key '{}', found none", where, key);
  }
  for (const auto& [key, value] : description.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      throw Error("{}: expected only dtype, shape and data_offsets, found the key {}", where, in_quotes(key));
    }
  }
  const json& dtype = description["dtype"];
  const json& shape = description["shape"];
  const json& offsets = description["data_offsets"];

  SafetensorsFile::Entry entry{};
  const auto parsed = dtype.is_string() ? parse_dtype(dtype.get_ref<const std::string&>()) : std::nullopt;
  if (!parsed) throw Error("{}: expected a dtype of the safetensors format, found {}", where, found_text(dtype));
  entry.dtype = *parsed;

  constexpr auto kMaxExtent = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!shape.is_array()) throw Error("{}: shape: expected an array, found {}", where, found_text(shape));
  for (const json& extent : shape) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() > kMaxExtent) {
      throw Error("{}: shape: expected integers from 0 to {}, found {}", where, kMaxExtent, found_text(extent));
    }
    entry.shape.push_back(extent.get<int64_t>());
  }

  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    throw Error("{}: data_offsets: expected two non-negative integers, found {}", where, found_text(offsets));
  }
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  if (entry.begin > entry.end) {
    throw Error("{}: data_offsets: expected begin <= end, found {}", where, found_text(offsets));
  }

  const auto [overflow, bits] = byte_count(entry.shape, entry.dtype);
  const auto dtype_text = dtype_name(entry.dtype);
  if (overflow) throw Error("{}: the size of {} {} overflows", where, dtype_text, shape_text(entry.shape));
  if (bits % 8 != 0) {
    throw Error("{}: {} {} takes {} bits, no whole number of bytes", where, dtype_text, shape_text(entry.shape), bits);
  }
  if (bits / 8 != entry.end - entry.begin) {
    throw Error("{}: {} {} takes {} bytes, but data_offsets [{}, {}] hold {}", where, dtype_text,
                shape_text(entry.shape), bits / 8, entry.begin, entry.end, entry.end - entry.begin);
  }
  return entry;
}

std::map<std::string, std::string> read_metadata(const json& description, const std::string& origin) {
  if (!description.is_object()) {
    throw Error("{}: {}: expected an object, found {}", origin, kMetadataName, found_text(description));
  }
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : description.items()) {
    if (!value.is_string()) {
      throw Error("{}: {}: {}: expected a string, found {}", origin, kMetadataName, in_quotes(key), found_text(value));
    }
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

/// Sorted by place, the ranges must follow each other from the first byte of the data to the last.
void check_coverage(const std::map<std::string, SafetensorsFile::Entry>& entries, uint64_t data_bytes,
                    const std::string& origin) {
  using Item = std::map<std::string, SafetensorsFile::Entry>::const_pointer;
  std::vector<Item> in_order;
  in_order.reserve(entries.size());
  for (const auto& item : entries) in_order.push_back(&item);
  std::sort(in_order.begin(), in_order.end(), [](Item a, Item b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t covered = 0;
  const std::string* previous = nullptr;
  for (const Item item : in_order) {
    const auto& [name, entry] = *item;
    if (entry.begin != covered) {
      throw Error("{}: tensor {}: expected its data to begin at {}, where {}, found {}: {}", origin, in_quotes(name),
                  covered, previous == nullptr ? "the data begin" : fmt::format("tensor {} ends", in_quotes(*previous)),
                  entry.begin, entry.begin > covered ? "a hole" : "an overlap");
    }
    if (entry.end > data_bytes) {
      throw Error("{}: tensor {}: its data end at {}, but the file holds only {} bytes of data", origin,
                  in_quotes(name), entry.end, data_bytes);
    }
    covered = entry.end;
    previous = &name;
  }
  if (covered != data_bytes) {
    throw Error("{}: {} bytes of data belong to no tensor: the last one ends at {}, the file at {}", origin,
                data_bytes - covered, covered, data_bytes);
  }
}

/// Exact. Exponent and mantissa are moved into place, and the difference of the biases is made up by a multiplication,
/// which normalises the subnormal numbers on the way.
float float_of_half(uint16_t half) {
  const uint32_t magnitude = half & 0x7FFFU;
  auto bits = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13U) * 0x1p112F);
  bits |= magnitude >= 0x7C00U ? 0x7F800000U : 0U;  // infinity and NaN
  return std::bit_cast<float>(bits | (half & 0x8000U) << 16U);
}

float float_of_bfloat(uint16_t bfloat) { return std::bit_cast<float>(static_cast<uint32_t>(bfloat) << 16U); }

/// Elements may lie at any address.
template <class Source, class Convert>
void convert(const std::byte* from, std::span<float> to, Convert&& one) {
  for (size_t i = 0; i < to.size(); ++i) {
    Source element;
    std::memcpy(&element, from + i * sizeof(Source), sizeof(Source));
    to[i] = one(element);
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(std::make_shared<MappedFile>(path)) {
  const std::string origin = path.string();
  const auto bytes = file_->bytes();
  if (bytes.size() < kPrefixBytes) {
    throw Error("{}: expected a safetensors file of at least {} bytes, found {}", origin, kPrefixBytes, bytes.size());
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    throw Error("{}: expected a safetensors header of at most {} bytes, found a length of {} (is it another format?)",
                origin, kMaxHeaderBytes, header_bytes);
  }
  if (header_bytes > bytes.size() - kPrefixBytes) {
    throw Error("{}: the header should have {} bytes, but only {} follow its length: the file is cut short", origin,
                header_bytes, bytes.size() - kPrefixBytes);
  }
  data_start_ = kPrefixBytes + header_bytes;

  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes, header_bytes);
  if (!text.starts_with('{')) {
    throw Error("{}: expected a header that starts with '{{', found {}", origin,
                text.empty() ? "an empty one" : fmt::format("the byte {:#04x}", static_cast<unsigned char>(text[0])));
  }
  const json header = parse_strict_json(text, origin + ": header");
  for (const auto& [name, description] : header.items()) {
    if (name == kMetadataName) {
      metadata_ = read_metadata(description, origin);
    } else {
      entries_.emplace(name, read_entry(description, fmt::format("{}: tensor {}", origin, in_quotes(name))));
    }
  }
  check_coverage(entries_, bytes.size() - data_start_, origin);
}

bool SafetensorsFile::is_loadable(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64;
}

Tensor SafetensorsFile::load(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw Error("{}: tensor {}: the file has no such tensor", path().string(), in_quotes(name));
  const Entry& entry = found->second;
  if (!is_loadable(entry.dtype)) {
    throw Error("{}: tensor {}: expected F32, F16, BF16 or F64, found {}", path().string(), in_quotes(name),
                dtype_name(entry.dtype));
  }
  Tensor tensor{entry.shape, nullptr};
  const auto count = static_cast<size_t>(tensor.size());
  if (count == 0) return tensor;

  const std::byte* from = file_->bytes().data() + data_start_ + entry.begin;
  if (entry.dtype == DType::kF32 && reinterpret_cast<uintptr_t>(from) % alignof(float) == 0) {
    tensor.data = std::shared_ptr<const float[]>(file_, reinterpret_cast<const float*>(from));
    return tensor;
  }
  const auto owned = std::make_shared_for_overwrite<float[]>(count);
  const std::span<float> to(owned.get(), count);
  switch (entry.dtype) {
    case DType::kF16:
      convert<uint16_t>(from, to, float_of_half);
      break;
    case DType::kBF16:
      convert<uint16_t>(from, to, float_of_bfloat);
      break;
    case DType::kF64:
      convert<double>(from, to, [&](double value) {
        const auto rounded = static_cast<float>(value);
        if (std::isinf(rounded) && !std::isinf(value)) {
          throw Error("{}: tensor {}: {} is out of float32's range", path().string(), in_quotes(name), value);
        }
        return rounded;
      });
      break;
    default:
      std::memcpy(to.data(), from, to.size_bytes());
  }
  tensor.data = owned;
  return tensor;
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataName] = metadata;
  uint64_t end = 0;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name == kMetadataName || header.contains(tensor.name)) {
      throw Error("{}: tensor {}: the name is {}", path.string(), in_quotes(tensor.name),
                  tensor.name == kMetadataName ? "reserved by the format" : "used twice");
    }
    const uint64_t begin = end;
    end += static_cast<uint64_t>(element_count(tensor.shape)) * sizeof(float);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::ordered_json::exception&) {
    throw Error("{}: expected names and metadata in UTF-8, found other bytes", path.string());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();

  write_file(path, [&](std::ostream& out) {
    out.write(reinterpret_cast<const char*>(&length), sizeof(length));
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const NamedTensor& tensor : tensors) {
      out.write(reinterpret_cast<const char*>(tensor.data),
                static_cast<std::streamsize>(static_cast<size_t>(element_count(tensor.shape)) * sizeof(float)));
    }
  });
}

}  // namespace cpvt
