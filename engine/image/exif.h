#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "engine/image/image.h"

namespace cpvt {

/// The orientation (tag 0x0112 of the first directory) of an EXIF block, which is a small TIFF file; one leading
/// "Exif\0\0" is skipped, or two. 1, upright, for a value that is no orientation; nothing where there is no such tag,
/// or the block is malformed.
std::optional<int> exif_orientation(std::span<const uint8_t> exif);

/// What XMP, a text, says of it: tiff:Orientation, as an attribute or an element.
std::optional<int> xmp_orientation(std::string_view xmp);

/// A picture's: EXIF's where it has the tag, else XMP's, else 1. As Pillow has it (PIL.Image.Image.getexif).
int told_orientation(std::span<const uint8_t> exif, std::string_view xmp);

/// The picture as it should be seen: what PIL.ImageOps.exif_transpose does for that orientation.
Image upright(Image image, int orientation);

}  // namespace cpvt
