#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "engine/image/image.h"

namespace cpvt {

struct DecodeOptions {
  /// Turn and flip as the EXIF orientation says (PIL.ImageOps.exif_transpose). Without, the pixels as PIL.Image.open.
  bool exif_orientation = true;
  /// More pixels than this are an error, found before anything is allocated. The default is Pillow's.
  int64_t max_pixels = 178'956'970;
};

/// Reads a JPEG, PNG or WebP picture, told apart by its bytes, into RGB. The pixels are those of Pillow's
/// `Image.open(file).convert("RGB")`: alpha and transparency are dropped, not blended; 16-bit grey is clamped at 255,
/// other 16-bit samples keep their high byte; CMYK is taken as Adobe's inverted one; of an animation the first frame.
/// `name` stands for the picture in messages. Throws Error for anything else, truncated, corrupt or over the limit.
Image decode(std::span<const std::byte> bytes, const DecodeOptions& options = {}, std::string_view name = "image");

/// The same for a file, which is named in every message.
Image decode_file(const std::filesystem::path& path, const DecodeOptions& options = {});

}  // namespace cpvt
