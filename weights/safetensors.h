#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "weights/tensor.h"

namespace cpvt {

/// A safetensors file: mapped, its header checked against every rule of the format, its data untouched until asked for.
///
/// The rules, each an Error naming the file, the tensor, what was expected and what was found:
/// at least 8 bytes; a header of at most 100,000,000 bytes that lies inside the file; strict UTF-8 JSON, one object,
/// starting with '{', nothing but whitespace after it; no name twice, neither of a tensor nor inside one's description;
/// `__metadata__` maps strings to strings; a tensor has exactly `dtype`, `shape` and `data_offsets`; a dtype of the
/// format; extents that are non-negative integers (rank 0 and zero extents are allowed) whose product does not
/// overflow; ranges that hold exactly the elements and together cover the data, without hole, overlap or trailing
/// bytes.
class SafetensorsFile {
 public:
  struct Entry {
    DType dtype;
    std::vector<int64_t> shape;
    uint64_t begin;  // bytes from the start of the data
    uint64_t end;
  };

  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  uint64_t file_size() const { return file_->bytes().size(); }

  /// The dtypes that `load` takes: F32, F16, BF16, F64.
  static bool is_loadable(DType dtype);

  /// The tensor as float32: a view of the mapped file for aligned F32; a converted copy for F16 and BF16 (exact) and
  /// F64 (rounded to nearest even; a finite value that rounds to infinity is an Error, since it would not be what was
  /// trained). Every other dtype, and a name that the file does not hold, is an Error. NaN and infinities pass: see
  /// Checkpoint for the one place that judges values.
  Tensor load(const std::string& name) const;

  /// Lets the kernel take back the pages of everything read so far; views stay valid and are read again when touched.
  void drop_pages() const { file_->drop_pages(); }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  size_t data_start_ = 0;
};

/// One tensor to be written: float32, C-contiguous, `data` holds the product of `shape` elements and is not owned.
struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  const float* data;
};

/// Writes F32 tensors in the order given, atomically (see write_file); the header is padded so that the data start at a
/// multiple of 8. Throws Error for a name that is used twice, reserved (`__metadata__`) or not UTF-8, and for what
/// write_file throws.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace cpvt
