#pragma once

#include <cstdint>
#include <span>

#include "engine/image/image.h"

namespace cpvt {

/// The orientation (tag 0x0112 of the first directory) of an EXIF block, which is a small TIFF file; a leading
/// "Exif\0\0" is skipped. 1, upright, when there is none or the block is malformed.
int exif_orientation(std::span<const uint8_t> exif);

/// The picture as it should be seen: what PIL.ImageOps.exif_transpose does for that orientation.
Image upright(Image image, int orientation);

}  // namespace cpvt
